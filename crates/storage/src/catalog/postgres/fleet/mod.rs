//! Organisations, tokens for agents, and the agents.
//!
//! Whoever enrols, revokes or removes agents, or adds a token, holds the row of the organisation first: so uses, names
//! and numbers of agents are counted one after another. Sightings hold agents only, in the order of their ids.

mod agents;
mod enrol;
mod tokens;

use super::pool::Access;
use super::values::Time;
use super::{Change, PostgresCatalog};
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
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};

#[async_trait]
impl FleetStore for PostgresCatalog {
    async fn orgs(&self) -> StorageResult<Vec<Org>> {
        self.pool
            .run(Access::Read, |c| {
                Box::pin(async move {
                    let sql = format!("SELECT {ORG_COLUMNS} FROM muttd_orgs ORDER BY id");
                    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(c).await?;
                    rows.iter().map(|row| Ok(org_row(row)?.0)).collect()
                })
            })
            .await
    }

    async fn org(&self, id: &OrgId) -> StorageResult<Org> {
        let id = id.clone();
        self.pool.run(Access::Read, |c| Box::pin(async move { Ok(find_org(c, &id, "").await?.0) })).await
    }

    async fn create_org(&self, id: &OrgId, title: &str, agents_max: Option<u32>, by: &Actor) -> StorageResult<()> {
        check_org(id, title)?;
        let by = by.clone();
        let org = Org { id: id.clone(), title: title.to_owned(), created_at: by.at, agents_max, disabled: false };
        self.pool
            .run(Access::Write, |c| {
                Box::pin(async move {
                    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM muttd_orgs").fetch_one(&mut *c).await?;
                    let sql = "INSERT INTO muttd_orgs (id, title, created_at, agents_max) VALUES ($1, $2, $3, $4) \
                               ON CONFLICT DO NOTHING";
                    let query = sqlx::query(sql).bind(org.id.as_str()).bind(&org.title).bind(Time(org.created_at));
                    let added = query.bind(org.agents_max.map(i64::from)).execute(&mut *c).await?;
                    if added.rows_affected() == 0 {
                        return Err(org_exists());
                    }
                    if count.unsigned_abs() >= ORGS_MAX {
                        return Err(too_many_orgs());
                    }
                    let new = Some(org_values(&org)?);
                    Change { table: ORGS, record_id: 0, old: None, new, org: &org.id, by: &by }.write(c).await
                })
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
        self.pool
            .run(Access::Write, |c| {
                Box::pin(async move {
                    let (old, _) = find_org(c, &id, LOCK).await?;
                    let new = Org { title, agents_max, disabled, ..old.clone() };
                    sqlx::query("UPDATE muttd_orgs SET title = $1, agents_max = $2, disabled = $3 WHERE id = $4")
                        .bind(&new.title)
                        .bind(new.agents_max.map(i64::from))
                        .bind(new.disabled)
                        .bind(id.as_str())
                        .execute(&mut *c)
                        .await?;
                    let (old, new) = (Some(org_values(&old)?), Some(org_values(&new)?));
                    Change { table: ORGS, record_id: 0, old, new, org: &id, by: &by }.write(c).await
                })
            })
            .await
    }

    async fn tokens(&self, org: &OrgId) -> StorageResult<Vec<AgentToken>> {
        let org = org.clone();
        self.pool.run_list(|c| Box::pin(async move { tokens::all(c, &org).await })).await
    }

    async fn add_token(&self, org: &OrgId, token: NewToken, by: &Actor) -> StorageResult<TokenId> {
        check_token(&token)?;
        let (org, by) = (org.clone(), by.clone());
        self.pool.run(Access::Write, |c| Box::pin(async move { tokens::add(c, &org, &token, &by).await })).await
    }

    async fn revoke_token(&self, org: &OrgId, id: TokenId, by: &Actor) -> StorageResult<()> {
        let (org, by) = (org.clone(), by.clone());
        self.pool.run(Access::Write, |c| Box::pin(async move { tokens::revoke(c, &org, id, &by).await })).await
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
        self.pool
            .run(Access::Write, |c| {
                Box::pin(async move { tokens::rotate(c, &org, id, (fingerprint, expires_at), old_until, &by).await })
            })
            .await
    }

    async fn token_login(&self, fingerprint: &Fingerprint) -> StorageResult<Option<TokenLogin>> {
        let fingerprint = *fingerprint;
        self.pool.run(Access::Read, |c| Box::pin(async move { tokens::login(c, fingerprint).await })).await
    }

    async fn token_used(&self, id: TokenId, at: Timestamp) -> StorageResult<()> {
        self.pool.run(Access::Write, |c| Box::pin(async move { tokens::used(c, id, at).await })).await
    }

    async fn enrol(&self, enrolment: Enrolment) -> StorageResult<Enrolled> {
        self.pool.run(Access::Write, |c| Box::pin(async move { enrol::enrol(c, &enrolment).await })).await
    }

    async fn renewed(&self, org: &OrgId, id: &str, ends_at: Timestamp) -> StorageResult<()> {
        let (org, id) = (org.clone(), id.to_owned());
        self.pool.run(Access::Write, |c| Box::pin(async move { enrol::renewed(c, &org, &id, ends_at).await })).await
    }

    async fn agent(&self, org: &OrgId, id: &str) -> StorageResult<Agent> {
        let (org, id) = (org.clone(), id.to_owned());
        self.pool.run(Access::Read, |c| Box::pin(async move { agents::find(c, &org, &id, "").await })).await
    }

    async fn agents(&self, org: &OrgId, filter: &AgentFilter, page: PageRequest) -> StorageResult<Page<Agent>> {
        let (org, filter) = (org.clone(), filter.clone());
        self.pool.run_list(|c| Box::pin(async move { agents::page(c, &org, &filter, page).await })).await
    }

    async fn agent_counts(&self, org: &OrgId) -> StorageResult<Vec<(AgentState, u64)>> {
        let org = org.clone();
        self.pool.run_list(|c| Box::pin(async move { agents::counts(c, &org).await })).await
    }

    async fn revoke_agent(&self, org: &OrgId, id: &str, why: &str, by: &Actor) -> StorageResult<()> {
        let (org, id, why, by) = (org.clone(), id.to_owned(), why.to_owned(), by.clone());
        self.pool.run(Access::Write, |c| Box::pin(async move { agents::revoke(c, &org, &id, &why, &by).await })).await
    }

    async fn remove_agent(&self, org: &OrgId, id: &str, by: &Actor) -> StorageResult<()> {
        let (org, id, by) = (org.clone(), id.to_owned(), by.clone());
        self.pool.run(Access::Write, |c| Box::pin(async move { agents::remove(c, &org, &id, &by).await })).await
    }

    async fn sighted(&self, sightings: Vec<Sighting>) -> StorageResult<Vec<Agent>> {
        let sightings = merged(sightings);
        self.pool.run(Access::Write, |c| Box::pin(async move { agents::sighted(c, &sightings).await })).await
    }

    async fn fell_silent(&self, before: Timestamp, limit: u32) -> StorageResult<Vec<Agent>> {
        self.pool.run(Access::Write, |c| Box::pin(async move { agents::fell_silent(c, before, limit).await })).await
    }

    async fn barred_agents(&self, now: Timestamp) -> StorageResult<Vec<(OrgId, String)>> {
        self.pool.run(Access::Read, |c| Box::pin(async move { agents::barred(c, now).await })).await
    }

    async fn fleet_revision(&self) -> StorageResult<u64> {
        self.pool
            .run(Access::Read, |c| {
                Box::pin(async move {
                    let sql = "SELECT value FROM muttd_meta WHERE name = 'fleet_revision'";
                    let revision: i64 = sqlx::query_scalar(sql).fetch_one(c).await?;
                    Ok(revision.unsigned_abs())
                })
            })
            .await
    }
}

const ORGS: &str = "orgs";
const ORG_COLUMNS: &str = "id, title, created_at, agents_max, disabled, agents";
/// Leaves room for foreign keys that point to the row.
const LOCK: &str = " FOR NO KEY UPDATE";

/// An organisation, and how many of its agents are not revoked.
fn org_row(row: &PgRow) -> StorageResult<(Org, u64)> {
    let org = Org {
        id: org_of(row.try_get(0)?)?,
        title: row.try_get(1)?,
        created_at: row.try_get::<Time, _>(2)?.0,
        agents_max: row.try_get::<Option<i64>, _>(3)?.map(count32),
        disabled: row.try_get(4)?,
    };
    Ok((org, row.try_get::<i64, _>(5)?.unsigned_abs()))
}

async fn find_org(c: &mut PgConnection, id: &OrgId, lock: &'static str) -> StorageResult<(Org, u64)> {
    let sql = format!("SELECT {ORG_COLUMNS} FROM muttd_orgs WHERE id = $1{lock}");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(id.as_str()).fetch_optional(c).await?;
    org_row(&row.ok_or_else(|| not_found("organisation"))?)
}

fn time(row: &PgRow, column: usize) -> sqlx::Result<Option<Timestamp>> {
    Ok(row.try_get::<Option<Time>, _>(column)?.map(|time| time.0))
}
