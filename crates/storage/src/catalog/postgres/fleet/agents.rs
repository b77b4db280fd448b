//! Agents, as they are seen and as people change them.

use super::{LOCK, find_org, time};
use crate::catalog::fields::{PAGE_ROWS_MAX, like_substring, not_found};
use crate::catalog::fleet::{Agent, AgentFilter, AgentState, REVOKED_AGENTS_KEPT, Sighting};
use crate::catalog::fleet_changes::{agent_values, facts_json, facts_of, is_online, kept_why, why_of};
use crate::catalog::postgres::values::{Time, no_nul};
use crate::catalog::postgres::{Change, Conditions};
use crate::catalog::users::Fingerprint;
use crate::catalog::{Actor, Page, PageRequest, org_of};
use crate::{StorageError, StorageResult};
use model::{ErrorKind, OrgId, Timestamp};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};

const AGENTS: &str = "agents";
const COLUMNS: &str = "id, org, host, facts::text, key, token, enrolled_at, certificate_ends_at, last_seen_at, connected, \
                       silent, revoked_at, revoked_why, replaced_by, epoch, acked_seq, status";
/// [`Agent::state`] as its place in [`AgentState::ALL`].
const STATE: &str =
    "CASE WHEN revoked_at IS NOT NULL THEN 3 WHEN last_seen_at IS NULL THEN 2 WHEN silent THEN 1 ELSE 0 END";

/// Another organisation's agent is not found; nor is one whose name PostgreSQL takes not.
pub async fn find(c: &mut PgConnection, org: &OrgId, id: &str, lock: &'static str) -> StorageResult<Agent> {
    let sql = format!("SELECT {COLUMNS} FROM muttd_agents WHERE org = $1 AND id = $2{lock}");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(org.as_str()).bind(no_nul(id)).fetch_optional(c).await?;
    of_row(&row.ok_or_else(|| not_found("agent"))?)
}

pub async fn of_key(c: &mut PgConnection, org: &OrgId, key: &Fingerprint) -> StorageResult<Option<Agent>> {
    let sql = format!("SELECT {COLUMNS} FROM muttd_agents WHERE org = $1 AND key = $2{LOCK}");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(org.as_str()).bind(&key[..]).fetch_optional(c).await?;
    row.as_ref().map(of_row).transpose()
}

/// The old agent that calls itself so: one that was replaced may come back as another.
pub async fn of_old_name(c: &mut PgConnection, org: &OrgId, name: &str) -> StorageResult<Option<Agent>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM muttd_agents WHERE org = $1 AND old_name = $2 AND replaced_by IS NULL \
         ORDER BY revoked_at IS NOT NULL, enrolled_at DESC LIMIT 1"
    );
    let row = sqlx::query(AssertSqlSafe(sql)).bind(org.as_str()).bind(name).fetch_optional(c).await?;
    row.as_ref().map(of_row).transpose()
}

/// Those that have one of the names and are not revoked.
pub async fn called(c: &mut PgConnection, org: &OrgId, one: &str, other: &str) -> StorageResult<Vec<Agent>> {
    let sql =
        format!("SELECT {COLUMNS} FROM muttd_agents WHERE org = $1 AND host IN ($2, $3) AND revoked_at IS NULL{LOCK}");
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(org.as_str()).bind(one).bind(other).fetch_all(c).await?;
    rows.iter().map(of_row).collect()
}

pub async fn page(
    c: &mut PgConnection,
    org: &OrgId,
    filter: &AgentFilter,
    page: PageRequest,
) -> StorageResult<Page<Agent>> {
    let mut conditions = Conditions::of(org)?;
    let host = filter.host.as_deref().map(|host| like_substring(&no_nul(host)));
    conditions.add(r"host ILIKE $$ ESCAPE '\'", host)?;
    let place = |state: AgentState| AgentState::ALL.iter().position(|one| *one == state).unwrap_or(0) as i32;
    conditions.add(&format!("{STATE} = $$"), filter.state.map(place))?;
    let total = conditions.count(c, "muttd_agents").await?;
    let limit = page.limit.min(PAGE_ROWS_MAX);
    let skip = page.page.saturating_sub(1).saturating_mul(limit);
    let limit = conditions.push(i64::try_from(limit).unwrap_or(i64::MAX))?;
    let skip = conditions.push(i64::try_from(skip).unwrap_or(i64::MAX))?;
    let sql = format!(
        "SELECT {COLUMNS} FROM muttd_agents WHERE {} ORDER BY host, id LIMIT ${limit} OFFSET ${skip}",
        conditions.sql
    );
    let rows = sqlx::query_with(AssertSqlSafe(sql), conditions.values).fetch_all(c).await?;
    Ok(Page { rows: rows.iter().map(of_row).collect::<StorageResult<_>>()?, total, next: None })
}

pub async fn counts(c: &mut PgConnection, org: &OrgId) -> StorageResult<Vec<(AgentState, u64)>> {
    let sql = format!("SELECT {STATE} AS state, count(*) FROM muttd_agents WHERE org = $1 GROUP BY state");
    let mut counts = AgentState::ALL.map(|state| (state, 0));
    for row in sqlx::query(AssertSqlSafe(sql)).bind(org.as_str()).fetch_all(c).await? {
        let place: i32 = row.try_get(0)?;
        if let Some(count) = usize::try_from(place).ok().and_then(|place| counts.get_mut(place)) {
            count.1 = row.try_get::<i64, _>(1)?.unsigned_abs();
        }
    }
    Ok(counts.to_vec())
}

pub async fn revoke(c: &mut PgConnection, org: &OrgId, id: &str, why: &str, by: &Actor) -> StorageResult<()> {
    hold(c, org).await?;
    let old = find(c, org, id, LOCK).await?;
    if old.revoked_at.is_some() {
        return Ok(());
    }
    let sql = "UPDATE muttd_agents SET revoked_at = $1, revoked_why = $2, connected = false WHERE id = $3";
    sqlx::query(sql).bind(Time(by.at)).bind(kept_why(why)).bind(id).execute(&mut *c).await?;
    count_one_less(c, org).await?;
    forget_oldest_revoked(c, org, by.at).await?;
    let (before, after) = (Some(agent_values(&old)?), Some(agent_values(&find(c, org, id, "").await?)?));
    Change { table: AGENTS, record_id: 0, old: before, new: after, org, by }.write(c).await
}

/// Revokes an agent whose name another one takes.
pub async fn replace(c: &mut PgConnection, old: &Agent, by: &str, at: Timestamp) -> StorageResult<()> {
    let sql = "UPDATE muttd_agents SET revoked_at = $1, replaced_by = $2, connected = false WHERE id = $3";
    sqlx::query(sql).bind(Time(at)).bind(by).bind(&old.id).execute(&mut *c).await?;
    count_one_less(c, &old.org).await?;
    forget_oldest_revoked(c, &old.org, at).await
}

pub async fn remove(c: &mut PgConnection, org: &OrgId, id: &str, by: &Actor) -> StorageResult<()> {
    hold(c, org).await?;
    let old = find(c, org, id, LOCK).await?;
    if old.state() == AgentState::Online {
        return Err(is_online());
    }
    if old.revoked_at.is_none() {
        count_one_less(c, org).await?;
    }
    forget(c, &[id.to_owned()], by.at).await?;
    sqlx::query("DELETE FROM muttd_agent_bars WHERE until <= $1").bind(Time(by.at)).execute(&mut *c).await?;
    Change { table: AGENTS, record_id: 0, old: Some(agent_values(&old)?), new: None, org, by }.write(c).await
}

/// An organisation that does not exist has no agents.
async fn hold(c: &mut PgConnection, org: &OrgId) -> StorageResult<()> {
    match find_org(c, org, LOCK).await {
        Err(e) if e.kind() == ErrorKind::NotFound => Err(not_found("agent")),
        found => found.map(drop),
    }
}

async fn count_one_less(c: &mut PgConnection, org: &OrgId) -> StorageResult<()> {
    let sql = "UPDATE muttd_orgs SET agents = agents - 1 WHERE id = $1";
    sqlx::query(sql).bind(org.as_str()).execute(c).await?;
    Ok(())
}

async fn forget_oldest_revoked(c: &mut PgConnection, org: &OrgId, now: Timestamp) -> StorageResult<()> {
    let sql =
        "SELECT id FROM muttd_agents WHERE org = $1 AND revoked_at IS NOT NULL ORDER BY revoked_at DESC, id OFFSET $2";
    let kept = i64::try_from(REVOKED_AGENTS_KEPT).unwrap_or(i64::MAX);
    let ids: Vec<String> = sqlx::query_scalar(sql).bind(org.as_str()).bind(kept).fetch_all(&mut *c).await?;
    if ids.is_empty() { Ok(()) } else { forget(c, &ids, now).await }
}

/// Forgets agents; their certificates stay barred.
async fn forget(c: &mut PgConnection, ids: &[String], now: Timestamp) -> StorageResult<()> {
    let sql = "INSERT INTO muttd_agent_bars (org, id, until) SELECT org, id, certificate_ends_at FROM muttd_agents \
               WHERE id = ANY($1) AND certificate_ends_at > $2 ON CONFLICT DO NOTHING";
    sqlx::query(sql).bind(ids).bind(Time(now)).execute(&mut *c).await?;
    sqlx::query("DELETE FROM muttd_agents WHERE id = ANY($1)").bind(ids).execute(c).await?;
    Ok(())
}

pub async fn sighted(c: &mut PgConnection, sightings: &[Sighting]) -> StorageResult<Vec<Agent>> {
    let mut facts = Vec::with_capacity(sightings.len());
    for one in sightings {
        facts.push(one.facts.as_ref().map(facts_json).transpose()?);
    }
    // `#` with the highest bit makes unsigned numbers comparable.
    let sql = format!(
        "WITH s AS MATERIALIZED (SELECT * FROM UNNEST($1::text[], $2::text[], $3::timestamptz[], $4::boolean[], \
             $5::bigint[], $6::bigint[], $7::text[], $8::text[]) u (org, id, at, connected, epoch, acked, facts, status)), \
         held AS MATERIALIZED (SELECT a.id, a.silent FROM muttd_agents a JOIN s ON s.id = a.id AND s.org = a.org \
             WHERE a.revoked_at IS NULL AND (a.last_seen_at IS NULL OR a.last_seen_at <= s.at) \
             ORDER BY a.id FOR NO KEY UPDATE OF a), \
         moved AS (UPDATE muttd_agents a SET connected = s.connected AND NOT (a.silent AND s.at <= a.last_seen_at), \
             last_seen_at = s.at, silent = a.silent AND s.at <= a.last_seen_at, epoch = s.epoch, \
             acked_seq = CASE WHEN a.epoch = s.epoch AND (a.acked_seq # {HIGH}) > (s.acked # {HIGH}) \
                              THEN a.acked_seq ELSE s.acked END, \
             facts = coalesce(s.facts::jsonb, a.facts), status = coalesce(s.status, a.status) \
             FROM s JOIN held ON held.id = s.id WHERE a.id = s.id RETURNING held.silent AND NOT a.silent AS back, a.*) \
         SELECT {COLUMNS} FROM moved WHERE back ORDER BY org, id"
    );
    let all = |of: fn(&Sighting) -> &str| sightings.iter().map(|one| no_nul(of(one)).into_owned()).collect::<Vec<_>>();
    let query = sqlx::query(AssertSqlSafe(sql)).bind(all(|one| one.org.as_str())).bind(all(|one| &one.id));
    let query = query.bind(sightings.iter().map(|one| Time(one.at)).collect::<Vec<_>>());
    let query = query.bind(sightings.iter().map(|one| one.connected).collect::<Vec<_>>());
    let query = query.bind(sightings.iter().map(|one| one.epoch as i64).collect::<Vec<_>>());
    let query = query.bind(sightings.iter().map(|one| one.acked_seq as i64).collect::<Vec<_>>());
    let status = sightings.iter().map(|one| one.status.as_deref().map(|text| no_nul(text).into_owned()));
    let rows = query.bind(facts).bind(status.collect::<Vec<_>>()).fetch_all(c).await?;
    rows.iter().map(of_row).collect()
}

const HIGH: &str = "(-9223372036854775808)";

pub async fn fell_silent(c: &mut PgConnection, before: Timestamp, limit: u32) -> StorageResult<Vec<Agent>> {
    // What another asker holds is his.
    let sql = format!(
        "WITH late AS MATERIALIZED (SELECT id FROM muttd_agents WHERE revoked_at IS NULL AND NOT silent \
             AND last_seen_at < $1 ORDER BY last_seen_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED), \
         told AS (UPDATE muttd_agents a SET silent = true, connected = false FROM late WHERE a.id = late.id RETURNING a.*) \
         SELECT {COLUMNS} FROM told ORDER BY last_seen_at, id"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(Time(before)).bind(i64::from(limit)).fetch_all(c).await?;
    rows.iter().map(of_row).collect()
}

pub async fn barred(c: &mut PgConnection, now: Timestamp) -> StorageResult<Vec<(OrgId, String)>> {
    let sql = "SELECT org, id FROM muttd_agents WHERE revoked_at IS NOT NULL \
                 AND (certificate_ends_at IS NULL OR certificate_ends_at > $1) \
               UNION SELECT a.org, a.id FROM muttd_orgs o JOIN muttd_agents a ON a.org = o.id WHERE o.disabled \
               UNION SELECT org, id FROM muttd_agent_bars WHERE until > $1 ORDER BY 1, 2";
    let rows = sqlx::query(sql).bind(Time(now)).fetch_all(c).await?;
    rows.iter().map(|row| Ok((org_of(row.try_get(0)?)?, row.try_get(1)?))).collect()
}

fn of_row(row: &PgRow) -> StorageResult<Agent> {
    let key: Option<&[u8]> = row.try_get(4)?;
    let key = key.map(Fingerprint::try_from).transpose();
    Ok(Agent {
        id: row.try_get(0)?,
        org: org_of(row.try_get(1)?)?,
        host: row.try_get(2)?,
        facts: facts_of(row.try_get(3)?)?,
        key: key.map_err(|_| StorageError::new(ErrorKind::Internal, "a key in the catalog has not 32 bytes"))?,
        token: row.try_get(5)?,
        enrolled_at: row.try_get::<Time, _>(6)?.0,
        certificate_ends_at: time(row, 7)?,
        last_seen_at: time(row, 8)?,
        connected: row.try_get(9)?,
        silent: row.try_get(10)?,
        revoked_at: time(row, 11)?,
        revoked_why: why_of(row.try_get(12)?, row.try_get(13)?),
        epoch: row.try_get::<i64, _>(14)? as u64,
        acked_seq: row.try_get::<i64, _>(15)? as u64,
        status: row.try_get(16)?,
    })
}
