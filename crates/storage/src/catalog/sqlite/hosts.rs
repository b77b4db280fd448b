//! Development hosts and the teams of devices.

use super::{Change, SqliteCatalog, move_revision};
use crate::StorageResult;
use crate::catalog::fields::{check_host, check_team, host_values, not_found, org_of, team_values};
use crate::catalog::{Actor, HostStore, OrgHosts};
use crate::error::StorageError;
use async_trait::async_trait;
use model::{ErrorKind, OrgId};
use rusqlite::{OptionalExtension, Transaction, params};
use std::collections::BTreeMap;

const HOSTS: &str = "development_hosts";
const TEAMS: &str = "device_teams";

#[async_trait]
impl HostStore for SqliteCatalog {
    async fn dev_hosts(&self, org: &OrgId) -> StorageResult<Vec<String>> {
        let org = org.clone();
        self.database
            .read(move |c| {
                let mut statement =
                    c.prepare_cached("SELECT hostname FROM development_hosts WHERE org = ? ORDER BY hostname")?;
                let hosts = statement.query_map([org.as_str()], |row| row.get(0))?;
                Ok(hosts.collect::<rusqlite::Result<_>>()?)
            })
            .await
    }

    async fn add_dev_host(&self, org: &OrgId, host: &str, by: &Actor) -> StorageResult<()> {
        check_host(host)?;
        let (org, host, by) = (org.clone(), host.to_owned(), by.clone());
        self.database
            .transact(move |t| {
                let added = t.execute(
                    "INSERT INTO development_hosts (org, hostname) VALUES (?, ?) ON CONFLICT DO NOTHING",
                    params![org.as_str(), host],
                )?;
                if added == 0 {
                    return Err(StorageError::new(ErrorKind::Conflict, "hostname already exists"));
                }
                let new = Some(host_values(&host)?);
                Change { table: HOSTS, record_id: 0, old: None, new, org: &org, by: &by }.write(t)?;
                move_revision(t)
            })
            .await
    }

    async fn remove_dev_host(&self, org: &OrgId, host: &str, by: &Actor) -> StorageResult<()> {
        let (org, host, by) = (org.clone(), host.to_owned(), by.clone());
        self.database
            .transact(move |t| {
                let removed = t.execute(
                    "DELETE FROM development_hosts WHERE org = ? AND hostname = ?",
                    params![org.as_str(), host],
                )?;
                if removed == 0 {
                    return Err(not_found("hostname"));
                }
                let old = Some(host_values(&host)?);
                Change { table: HOSTS, record_id: 0, old, new: None, org: &org, by: &by }.write(t)?;
                move_revision(t)
            })
            .await
    }

    async fn teams(&self, org: &OrgId) -> StorageResult<Vec<(String, String)>> {
        let org = org.clone();
        self.database
            .read(move |c| {
                let mut statement = c.prepare_cached(
                    "SELECT hostname, team_assignment FROM device_teams WHERE org = ? ORDER BY hostname",
                )?;
                let teams = statement.query_map([org.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(teams.collect::<rusqlite::Result<_>>()?)
            })
            .await
    }

    async fn add_team(&self, org: &OrgId, host: &str, team: &str, by: &Actor) -> StorageResult<()> {
        check_host(host)?;
        check_team(team)?;
        let (org, host, team, by) = (org.clone(), host.to_owned(), team.to_owned(), by.clone());
        self.database
            .transact(move |t| {
                let added = t.execute(
                    "INSERT INTO device_teams (org, hostname, team_assignment) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    params![org.as_str(), host, team],
                )?;
                if added == 0 {
                    return Err(StorageError::new(ErrorKind::Conflict, "hostname already has a team assignment"));
                }
                let new = Some(team_values(&host, &team)?);
                Change { table: TEAMS, record_id: 0, old: None, new, org: &org, by: &by }.write(t)?;
                move_revision(t)
            })
            .await
    }

    async fn update_team(&self, org: &OrgId, host: &str, team: &str, by: &Actor) -> StorageResult<()> {
        check_team(team)?;
        let (org, host, team, by) = (org.clone(), host.to_owned(), team.to_owned(), by.clone());
        self.database
            .transact(move |t| {
                let old = team_of(t, &org, &host)?;
                t.execute(
                    "UPDATE device_teams SET team_assignment = ? WHERE org = ? AND hostname = ?",
                    params![team, org.as_str(), host],
                )?;
                let (old, new) = (Some(team_values(&host, &old)?), Some(team_values(&host, &team)?));
                Change { table: TEAMS, record_id: 0, old, new, org: &org, by: &by }.write(t)?;
                move_revision(t)
            })
            .await
    }

    async fn remove_team(&self, org: &OrgId, host: &str, by: &Actor) -> StorageResult<()> {
        let (org, host, by) = (org.clone(), host.to_owned(), by.clone());
        self.database
            .transact(move |t| {
                let old = team_of(t, &org, &host)?;
                t.execute("DELETE FROM device_teams WHERE org = ? AND hostname = ?", params![org.as_str(), host])?;
                let old = Some(team_values(&host, &old)?);
                Change { table: TEAMS, record_id: 0, old, new: None, org: &org, by: &by }.write(t)?;
                move_revision(t)
            })
            .await
    }

    async fn all_hosts(&self) -> StorageResult<Vec<OrgHosts>> {
        self.database
            .read(|c| {
                let mut all: BTreeMap<String, OrgHosts> = BTreeMap::new();
                let mut statement =
                    c.prepare_cached("SELECT org, hostname FROM development_hosts ORDER BY org, hostname")?;
                let mut rows = statement.query([])?;
                while let Some(row) = rows.next()? {
                    all.entry(row.get(0)?).or_default().dev_hosts.push(row.get(1)?);
                }
                let mut statement =
                    c.prepare_cached("SELECT org, hostname, team_assignment FROM device_teams ORDER BY org, hostname")?;
                let mut rows = statement.query([])?;
                while let Some(row) = rows.next()? {
                    all.entry(row.get(0)?).or_default().teams.push((row.get(1)?, row.get(2)?));
                }
                all.into_iter().map(|(org, hosts)| Ok(OrgHosts { org: org_of(&org)?, ..hosts })).collect()
            })
            .await
    }
}

fn team_of(t: &Transaction<'_>, org: &OrgId, host: &str) -> StorageResult<String> {
    let team = t
        .query_row(
            "SELECT team_assignment FROM device_teams WHERE org = ? AND hostname = ?",
            params![org.as_str(), host],
            |row| row.get(0),
        )
        .optional()?;
    team.ok_or_else(|| not_found("hostname"))
}
