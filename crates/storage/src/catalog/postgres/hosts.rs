//! Development hosts and the teams of devices.

use super::pool::Access;
use super::{Change, PostgresCatalog};
use crate::catalog::fields::{check_host, check_team, host_values, not_found, org_of, team_values};
use crate::catalog::{Actor, HostStore, OrgHosts};
use crate::{StorageError, StorageResult};
use async_trait::async_trait;
use model::{ErrorKind, OrgId};
use sqlx::Row;
use sqlx::postgres::PgConnection;
use std::collections::BTreeMap;

const HOSTS: &str = "development_hosts";
const TEAMS: &str = "device_teams";

#[async_trait]
impl HostStore for PostgresCatalog {
    async fn dev_hosts(&self, org: &OrgId) -> StorageResult<Vec<String>> {
        let org = org.clone();
        self.pool
            .run(Access::Read, |c| {
                Box::pin(async move {
                    let sql = "SELECT hostname FROM development_hosts WHERE org = $1 ORDER BY hostname COLLATE \"C\"";
                    Ok(sqlx::query_scalar(sql).bind(org.as_str()).fetch_all(c).await?)
                })
            })
            .await
    }

    async fn add_dev_host(&self, org: &OrgId, host: &str, by: &Actor) -> StorageResult<()> {
        check_host(host)?;
        let (org, host, by) = (org.clone(), host.to_owned(), by.clone());
        self.pool
            .run(Access::Write, |c| {
                Box::pin(async move {
                    let sql = "INSERT INTO development_hosts (org, hostname) VALUES ($1, $2) ON CONFLICT DO NOTHING";
                    let added = sqlx::query(sql).bind(org.as_str()).bind(&host).execute(&mut *c).await?;
                    if added.rows_affected() == 0 {
                        return Err(StorageError::new(ErrorKind::Conflict, "hostname already exists"));
                    }
                    let new = Some(host_values(&host)?);
                    Change { table: HOSTS, record_id: 0, old: None, new, org: &org, by: &by }.write(c).await
                })
            })
            .await
    }

    async fn remove_dev_host(&self, org: &OrgId, host: &str, by: &Actor) -> StorageResult<()> {
        let (org, host, by) = (org.clone(), host.to_owned(), by.clone());
        self.pool
            .run(Access::Write, |c| {
                Box::pin(async move {
                    let sql = "DELETE FROM development_hosts WHERE org = $1 AND hostname = $2";
                    let removed = sqlx::query(sql).bind(org.as_str()).bind(searched(&host)?).execute(&mut *c).await?;
                    if removed.rows_affected() == 0 {
                        return Err(not_found("hostname"));
                    }
                    let old = Some(host_values(&host)?);
                    Change { table: HOSTS, record_id: 0, old, new: None, org: &org, by: &by }.write(c).await
                })
            })
            .await
    }

    async fn teams(&self, org: &OrgId) -> StorageResult<Vec<(String, String)>> {
        let org = org.clone();
        self.pool
            .run(Access::Read, |c| {
                Box::pin(async move {
                    let sql = "SELECT hostname, team_assignment FROM device_teams WHERE org = $1 \
                               ORDER BY hostname COLLATE \"C\"";
                    Ok(sqlx::query_as(sql).bind(org.as_str()).fetch_all(c).await?)
                })
            })
            .await
    }

    async fn add_team(&self, org: &OrgId, host: &str, team: &str, by: &Actor) -> StorageResult<()> {
        check_host(host)?;
        check_team(team)?;
        let (org, host, team, by) = (org.clone(), host.to_owned(), team.to_owned(), by.clone());
        self.pool
            .run(Access::Write, |c| {
                Box::pin(async move {
                    let added = sqlx::query(
                        "INSERT INTO device_teams (org, hostname, team_assignment) VALUES ($1, $2, $3) \
                         ON CONFLICT DO NOTHING",
                    )
                    .bind(org.as_str())
                    .bind(&host)
                    .bind(&team)
                    .execute(&mut *c)
                    .await?;
                    if added.rows_affected() == 0 {
                        return Err(StorageError::new(ErrorKind::Conflict, "hostname already has a team assignment"));
                    }
                    let new = Some(team_values(&host, &team)?);
                    Change { table: TEAMS, record_id: 0, old: None, new, org: &org, by: &by }.write(c).await
                })
            })
            .await
    }

    async fn update_team(&self, org: &OrgId, host: &str, team: &str, by: &Actor) -> StorageResult<()> {
        check_team(team)?;
        let (org, host, team, by) = (org.clone(), host.to_owned(), team.to_owned(), by.clone());
        self.pool
            .run(Access::Write, |c| {
                Box::pin(async move {
                    let old = team_of(c, &org, &host).await?;
                    sqlx::query("UPDATE device_teams SET team_assignment = $1 WHERE org = $2 AND hostname = $3")
                        .bind(&team)
                        .bind(org.as_str())
                        .bind(&host)
                        .execute(&mut *c)
                        .await?;
                    let (old, new) = (Some(team_values(&host, &old)?), Some(team_values(&host, &team)?));
                    Change { table: TEAMS, record_id: 0, old, new, org: &org, by: &by }.write(c).await
                })
            })
            .await
    }

    async fn remove_team(&self, org: &OrgId, host: &str, by: &Actor) -> StorageResult<()> {
        let (org, host, by) = (org.clone(), host.to_owned(), by.clone());
        self.pool
            .run(Access::Write, |c| {
                Box::pin(async move {
                    let old = team_of(c, &org, &host).await?;
                    sqlx::query("DELETE FROM device_teams WHERE org = $1 AND hostname = $2")
                        .bind(org.as_str())
                        .bind(&host)
                        .execute(&mut *c)
                        .await?;
                    let old = Some(team_values(&host, &old)?);
                    Change { table: TEAMS, record_id: 0, old, new: None, org: &org, by: &by }.write(c).await
                })
            })
            .await
    }

    async fn all_hosts(&self) -> StorageResult<Vec<OrgHosts>> {
        self.pool
            .run(Access::Read, |c| {
                Box::pin(async move {
                    let mut all: BTreeMap<String, OrgHosts> = BTreeMap::new();
                    let sql = "SELECT org, hostname FROM development_hosts ORDER BY org, hostname COLLATE \"C\"";
                    for row in sqlx::query(sql).fetch_all(&mut *c).await? {
                        all.entry(row.try_get(0)?).or_default().dev_hosts.push(row.try_get(1)?);
                    }
                    let sql = "SELECT org, hostname, team_assignment FROM device_teams \
                               ORDER BY org, hostname COLLATE \"C\"";
                    for row in sqlx::query(sql).fetch_all(&mut *c).await? {
                        all.entry(row.try_get(0)?).or_default().teams.push((row.try_get(1)?, row.try_get(2)?));
                    }
                    all.into_iter().map(|(org, hosts)| Ok(OrgHosts { org: org_of(&org)?, ..hosts })).collect()
                })
            })
            .await
    }
}

/// A name with a NUL is the name of nothing, and no text of PostgreSQL's either.
fn searched(host: &str) -> StorageResult<&str> {
    if host.contains('\0') { Err(not_found("hostname")) } else { Ok(host) }
}

async fn team_of(c: &mut PgConnection, org: &OrgId, host: &str) -> StorageResult<String> {
    let team =
        sqlx::query_scalar("SELECT team_assignment FROM device_teams WHERE org = $1 AND hostname = $2 FOR UPDATE")
            .bind(org.as_str())
            .bind(searched(host)?)
            .fetch_optional(c)
            .await?;
    team.ok_or_else(|| not_found("hostname"))
}
