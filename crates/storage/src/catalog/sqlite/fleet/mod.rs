//! Organisations, tokens for agents, and the agents.

mod agents;
mod enrol;
mod tokens;

use super::{Change, SqliteCatalog};
use crate::StorageResult;
use crate::catalog::fields::not_found;
use crate::catalog::fleet::{
    Agent, AgentFilter, AgentState, AgentToken, Enrolled, Enrolment, FleetStore, NewToken, ORGS_MAX, Org, Sighting,
    TokenId, TokenLogin,
};
use crate::catalog::fleet_changes::{
    check_disabled, check_org, check_title, check_token, count32, merged, org_exists, org_values, too_many_orgs,
};
use crate::catalog::users::Fingerprint;
use crate::catalog::{Actor, Page, PageRequest, org_of};
use async_trait::async_trait;
use model::{OrgId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

#[async_trait]
impl FleetStore for SqliteCatalog {
    async fn orgs(&self) -> StorageResult<Vec<Org>> {
        self.database
            .read(|c| {
                let mut statement = c.prepare_cached(&format!("SELECT {ORG_COLUMNS} FROM orgs ORDER BY id"))?;
                let mut rows = statement.query([])?;
                let mut orgs = Vec::new();
                while let Some(row) = rows.next()? {
                    orgs.push(org_row(row)?.0);
                }
                Ok(orgs)
            })
            .await
    }

    async fn org(&self, id: &OrgId) -> StorageResult<Org> {
        let id = id.clone();
        self.database.read(move |c| Ok(find_org(c, &id)?.0)).await
    }

    async fn create_org(&self, id: &OrgId, title: &str, agents_max: Option<u32>, by: &Actor) -> StorageResult<()> {
        check_org(id, title)?;
        let by = by.clone();
        let org = Org { id: id.clone(), title: title.to_owned(), created_at: by.at, agents_max, disabled: false };
        self.database
            .transact(move |t| {
                let count: i64 = t.query_row("SELECT count(*) FROM orgs", [], |row| row.get(0))?;
                let added = t.execute(
                    "INSERT INTO orgs (id, title, created_at, agents_max) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    params![org.id.as_str(), org.title, org.created_at.micros(), org.agents_max],
                )?;
                if added == 0 {
                    return Err(org_exists());
                }
                if count.unsigned_abs() >= ORGS_MAX {
                    return Err(too_many_orgs());
                }
                move_fleet_revision(t)?;
                let new = Some(org_values(&org)?);
                Change { table: ORGS, record_id: 0, old: None, new, org: &org.id, by: &by }.write(t)
            })
            .await
    }

    async fn change_org(
        &self,
        id: &OrgId,
        title: &str,
        agents_max: Option<u32>,
        disabled: bool,
        by: &Actor,
    ) -> StorageResult<()> {
        check_title(title)?;
        check_disabled(id, disabled)?;
        let (id, title, by) = (id.clone(), title.to_owned(), by.clone());
        self.database
            .transact(move |t| {
                let (old, _) = find_org(t, &id)?;
                let new = Org { title, agents_max, disabled, ..old.clone() };
                t.execute(
                    "UPDATE orgs SET title = ?, agents_max = ?, disabled = ? WHERE id = ?",
                    params![new.title, new.agents_max, new.disabled, id.as_str()],
                )?;
                move_fleet_revision(t)?;
                let (old, new) = (Some(org_values(&old)?), Some(org_values(&new)?));
                Change { table: ORGS, record_id: 0, old, new, org: &id, by: &by }.write(t)
            })
            .await
    }

    async fn tokens(&self, org: &OrgId) -> StorageResult<Vec<AgentToken>> {
        let org = org.clone();
        self.database.read(move |c| tokens::all(c, &org)).await
    }

    async fn add_token(&self, org: &OrgId, token: NewToken, by: &Actor) -> StorageResult<TokenId> {
        check_token(&token)?;
        let (org, by) = (org.clone(), by.clone());
        self.database.transact(move |t| tokens::add(t, &org, &token, &by)).await
    }

    async fn revoke_token(&self, org: &OrgId, id: TokenId, by: &Actor) -> StorageResult<()> {
        let (org, by) = (org.clone(), by.clone());
        self.database.transact(move |t| tokens::revoke(t, &org, id, &by)).await
    }

    async fn rotate_token(
        &self,
        org: &OrgId,
        id: TokenId,
        fingerprint: Fingerprint,
        expires_at: Timestamp,
        old_until: Timestamp,
        by: &Actor,
    ) -> StorageResult<TokenId> {
        let (org, by) = (org.clone(), by.clone());
        self.database.transact(move |t| tokens::rotate(t, &org, id, (fingerprint, expires_at), old_until, &by)).await
    }

    async fn token_login(&self, fingerprint: &Fingerprint) -> StorageResult<Option<TokenLogin>> {
        let fingerprint = *fingerprint;
        self.database.read(move |c| tokens::login(c, fingerprint)).await
    }

    async fn token_used(&self, id: TokenId, at: Timestamp) -> StorageResult<()> {
        self.database.transact(move |t| tokens::used(t, id, at)).await
    }

    async fn enrol(&self, enrolment: Enrolment) -> StorageResult<Enrolled> {
        self.database.transact(move |t| enrol::enrol(t, &enrolment)).await
    }

    async fn renewed(&self, org: &OrgId, id: &str, ends_at: Timestamp) -> StorageResult<()> {
        let (org, id) = (org.clone(), id.to_owned());
        self.database.transact(move |t| enrol::renewed(t, &org, &id, ends_at)).await
    }

    async fn agent(&self, org: &OrgId, id: &str) -> StorageResult<Agent> {
        let (org, id) = (org.clone(), id.to_owned());
        self.database.read(move |c| agents::find(c, &org, &id)).await
    }

    async fn agents(&self, org: &OrgId, filter: &AgentFilter, page: PageRequest) -> StorageResult<Page<Agent>> {
        let (org, filter) = (org.clone(), filter.clone());
        self.database.read(move |c| agents::page(c, &org, &filter, page)).await
    }

    async fn agent_counts(&self, org: &OrgId) -> StorageResult<Vec<(AgentState, u64)>> {
        let org = org.clone();
        self.database.read(move |c| agents::counts(c, &org)).await
    }

    async fn revoke_agent(&self, org: &OrgId, id: &str, why: &str, by: &Actor) -> StorageResult<()> {
        let (org, id, why, by) = (org.clone(), id.to_owned(), why.to_owned(), by.clone());
        self.database.transact(move |t| agents::revoke(t, &org, &id, &why, &by)).await
    }

    async fn remove_agent(&self, org: &OrgId, id: &str, by: &Actor) -> StorageResult<()> {
        let (org, id, by) = (org.clone(), id.to_owned(), by.clone());
        self.database.transact(move |t| agents::remove(t, &org, &id, &by)).await
    }

    async fn sighted(&self, sightings: Vec<Sighting>) -> StorageResult<Vec<Agent>> {
        let sightings = merged(sightings);
        self.database.transact(move |t| agents::sighted(t, &sightings)).await
    }

    async fn fell_silent(&self, before: Timestamp, limit: u32) -> StorageResult<Vec<Agent>> {
        self.database.transact(move |t| agents::fell_silent(t, before, limit)).await
    }

    async fn barred_agents(&self, now: Timestamp) -> StorageResult<Vec<(OrgId, String)>> {
        self.database.read(move |c| agents::barred(c, now)).await
    }

    async fn fleet_revision(&self) -> StorageResult<u64> {
        self.database
            .read(|c| {
                let mut statement = c.prepare_cached("SELECT value FROM meta WHERE name = 'fleet_revision'")?;
                let revision: i64 = statement.query_row([], |row| row.get(0))?;
                Ok(revision.unsigned_abs())
            })
            .await
    }
}

const ORGS: &str = "orgs";
const ORG_COLUMNS: &str = "id, title, created_at, agents_max, disabled, agents";

fn move_fleet_revision(t: &Transaction<'_>) -> StorageResult<()> {
    t.execute("UPDATE meta SET value = value + 1 WHERE name = 'fleet_revision'", [])?;
    Ok(())
}

/// An organisation, and how many of its agents are not revoked.
fn org_row(row: &Row<'_>) -> StorageResult<(Org, u64)> {
    let org = Org {
        id: org_of(&row.get::<_, String>(0)?)?,
        title: row.get(1)?,
        created_at: Timestamp::from_micros(row.get(2)?),
        agents_max: row.get::<_, Option<i64>>(3)?.map(count32),
        disabled: row.get(4)?,
    };
    Ok((org, row.get::<_, i64>(5)?.unsigned_abs()))
}

fn find_org(c: &Connection, id: &OrgId) -> StorageResult<(Org, u64)> {
    let mut statement = c.prepare_cached(&format!("SELECT {ORG_COLUMNS} FROM orgs WHERE id = ?"))?;
    let found = statement.query_row([id.as_str()], |row| Ok(org_row(row))).optional()?;
    found.ok_or_else(|| not_found("organisation"))?
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_micros))
}
