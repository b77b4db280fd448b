//! Agents, as they are seen and as people change them.

use super::{Change, move_fleet_revision, time};
use crate::StorageResult;
use crate::catalog::fields::{PAGE_ROWS_MAX, like_substring, no_nul, not_found};
use crate::catalog::fleet::{Agent, AgentFilter, AgentState, REVOKED_AGENTS_KEPT, Sighting};
use crate::catalog::fleet_changes::{agent_values, facts_json, facts_of, is_online, kept_why, why_of};
use crate::catalog::sqlite::Conditions;
use crate::catalog::{Actor, Page, PageRequest, org_of};
use model::{OrgId, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

const AGENTS: &str = "agents";
const COLUMNS: &str = "id, org, host, facts, key, token, enrolled_at, certificate_ends_at, last_seen_at, connected, \
                       silent, revoked_at, revoked_why, replaced_by, epoch, acked_seq, status";
/// [`Agent::state`] as its place in [`AgentState::ALL`].
const STATE: &str =
    "CASE WHEN revoked_at IS NOT NULL THEN 3 WHEN last_seen_at IS NULL THEN 2 WHEN silent THEN 1 ELSE 0 END";

pub fn find(c: &Connection, org: &OrgId, id: &str) -> StorageResult<Agent> {
    first(c, "org = ? AND id = ?", [org.as_str(), id])?.ok_or_else(|| not_found("agent"))
}

/// The first agent of which that holds.
pub fn first(c: &Connection, holds: &str, values: impl rusqlite::Params) -> StorageResult<Option<Agent>> {
    let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM agents WHERE {holds} LIMIT 1"))?;
    statement.query_row(values, |row| Ok(of_row(row))).optional()?.transpose()
}

/// Those that have one of the names and are not revoked.
pub fn called(c: &Connection, org: &OrgId, one: &str, other: &str) -> StorageResult<Vec<Agent>> {
    all(c, "org = ? AND host IN (?, ?) AND revoked_at IS NULL", [org.as_str(), one, other])
}

fn all(c: &Connection, holds: &str, values: impl rusqlite::Params) -> StorageResult<Vec<Agent>> {
    let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM agents WHERE {holds}"))?;
    let mut rows = statement.query(values)?;
    let mut agents = Vec::new();
    while let Some(row) = rows.next()? {
        agents.push(of_row(row)?);
    }
    Ok(agents)
}

pub fn page(c: &Connection, org: &OrgId, filter: &AgentFilter, page: PageRequest) -> StorageResult<Page<Agent>> {
    let mut conditions = Conditions::of(org);
    conditions.add(r"host LIKE ? ESCAPE '\'", filter.host.as_deref().map(|host| like_substring(&no_nul(host))));
    let place = |state: AgentState| AgentState::ALL.iter().position(|one| *one == state).unwrap_or(0) as i64;
    conditions.add(&format!("{STATE} = ?"), filter.state.map(place));
    let total = conditions.count(c, AGENTS)?;
    let limit = page.limit.min(PAGE_ROWS_MAX);
    let skip = page.page.saturating_sub(1).saturating_mul(limit);
    let mut values = conditions.values;
    values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
    values.push(Value::Integer(i64::try_from(skip).unwrap_or(i64::MAX)));
    let holds = format!(
        "rowid IN (SELECT rowid FROM agents WHERE {} ORDER BY host, id LIMIT ? OFFSET ?) ORDER BY host, id",
        conditions.sql
    );
    Ok(Page { rows: all(c, &holds, rusqlite::params_from_iter(values))?, total, next: None })
}

pub fn counts(c: &Connection, org: &OrgId) -> StorageResult<Vec<(AgentState, u64)>> {
    let sql = format!("SELECT {STATE} AS state, count(*) FROM agents WHERE org = ? GROUP BY state");
    let mut statement = c.prepare_cached(&sql)?;
    let mut counts = AgentState::ALL.map(|state| (state, 0));
    let mut rows = statement.query([org.as_str()])?;
    while let Some(row) = rows.next()? {
        if let Some(count) = usize::try_from(row.get::<_, i64>(0)?).ok().and_then(|place| counts.get_mut(place)) {
            count.1 = row.get::<_, i64>(1)?.unsigned_abs();
        }
    }
    Ok(counts.to_vec())
}

pub fn revoke(t: &Transaction<'_>, org: &OrgId, id: &str, why: &str, by: &Actor) -> StorageResult<()> {
    let old = find(t, org, id)?;
    if old.revoked_at.is_some() {
        return Ok(());
    }
    t.execute(
        "UPDATE agents SET revoked_at = ?, revoked_why = ?, connected = 0 WHERE id = ?",
        params![by.at.micros(), kept_why(why), id],
    )?;
    t.execute("UPDATE orgs SET agents = agents - 1 WHERE id = ?", [org.as_str()])?;
    forget_oldest_revoked(t, org, by.at)?;
    move_fleet_revision(t)?;
    let (before, after) = (Some(agent_values(&old)?), Some(agent_values(&find(t, org, id)?)?));
    Change { table: AGENTS, record_id: 0, old: before, new: after, org, by }.write(t)
}

/// Revokes an agent whose name another one takes.
pub fn replace(t: &Transaction<'_>, old: &Agent, by: &str, at: Timestamp) -> StorageResult<()> {
    t.execute(
        "UPDATE agents SET revoked_at = ?, replaced_by = ?, connected = 0 WHERE id = ?",
        params![at.micros(), by, old.id],
    )?;
    t.execute("UPDATE orgs SET agents = agents - 1 WHERE id = ?", [old.org.as_str()])?;
    forget_oldest_revoked(t, &old.org, at)?;
    move_fleet_revision(t)
}

pub fn remove(t: &Transaction<'_>, org: &OrgId, id: &str, by: &Actor) -> StorageResult<()> {
    let old = find(t, org, id)?;
    if old.state() == AgentState::Online {
        return Err(is_online());
    }
    if old.revoked_at.is_none() {
        t.execute("UPDATE orgs SET agents = agents - 1 WHERE id = ?", [org.as_str()])?;
    }
    forget(t, by.at, "SELECT id FROM agents WHERE org = ?1 AND id = ?2", params![org.as_str(), id])?;
    t.execute("DELETE FROM agent_bars WHERE until <= ?", [by.at.micros()])?;
    move_fleet_revision(t)?;
    Change { table: AGENTS, record_id: 0, old: Some(agent_values(&old)?), new: None, org, by }.write(t)
}

fn forget_oldest_revoked(t: &Transaction<'_>, org: &OrgId, now: Timestamp) -> StorageResult<()> {
    forget(
        t,
        now,
        "SELECT id FROM agents WHERE org = ?1 AND revoked_at IS NOT NULL ORDER BY revoked_at DESC, id LIMIT -1 OFFSET ?2",
        params![org.as_str(), REVOKED_AGENTS_KEPT as i64],
    )
}

/// Forgets agents; their certificates stay barred.
fn forget(t: &Transaction<'_>, now: Timestamp, ids: &str, values: &[&dyn rusqlite::ToSql]) -> StorageResult<()> {
    let ids: Vec<String> =
        t.prepare_cached(ids)?.query_map(values, |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    for id in ids {
        t.prepare_cached(
            "INSERT INTO agent_bars (org, id, until) SELECT org, id, certificate_ends_at FROM agents \
             WHERE id = ? AND certificate_ends_at > ? ON CONFLICT DO NOTHING",
        )?
        .execute(params![id, now.micros()])?;
        t.prepare_cached("DELETE FROM agents WHERE id = ?")?.execute([id])?;
    }
    Ok(())
}

pub fn sighted(t: &Transaction<'_>, sightings: &[Sighting]) -> StorageResult<Vec<Agent>> {
    let mut select = t.prepare_cached(
        "SELECT silent, last_seen_at, epoch, acked_seq FROM agents \
         WHERE org = ? AND id = ? AND revoked_at IS NULL AND (last_seen_at IS NULL OR last_seen_at <= ?)",
    )?;
    let mut update = t.prepare_cached(
        "UPDATE agents SET connected = ?2, last_seen_at = ?3, silent = ?4, epoch = ?5, acked_seq = ?6, \
         facts = coalesce(?7, facts), status = coalesce(?8, status) WHERE id = ?1",
    )?;
    let mut back = Vec::new();
    for one in sightings {
        let known = select
            .query_row(params![one.org.as_str(), one.id, one.at.micros()], |row| {
                Ok((row.get::<_, bool>(0)?, time(row, 1)?, row.get::<_, i64>(2)? as u64, row.get::<_, i64>(3)? as u64))
            })
            .optional()?;
        let Some((was_silent, seen, epoch, acked)) = known else { continue };
        let is_silent = was_silent && seen.is_some_and(|seen| one.at <= seen);
        let acked = if epoch == one.epoch { acked.max(one.acked_seq) } else { one.acked_seq };
        let facts = one.facts.as_ref().map(facts_json).transpose()?;
        update.execute(params![
            one.id,
            one.connected && !is_silent,
            one.at.micros(),
            is_silent,
            one.epoch as i64,
            acked as i64,
            facts,
            one.status
        ])?;
        if was_silent && !is_silent {
            back.push(find(t, &one.org, &one.id)?);
        }
    }
    Ok(back)
}

pub fn fell_silent(t: &Transaction<'_>, before: Timestamp, limit: u32) -> StorageResult<Vec<Agent>> {
    let mut silent = all(
        t,
        "revoked_at IS NULL AND silent = 0 AND last_seen_at < ? ORDER BY last_seen_at LIMIT ?",
        params![before.micros(), limit],
    )?;
    let mut update = t.prepare_cached("UPDATE agents SET silent = 1, connected = 0 WHERE id = ?")?;
    for agent in &mut silent {
        update.execute([&agent.id])?;
        (agent.silent, agent.connected) = (true, false);
    }
    Ok(silent)
}

pub fn barred(c: &Connection, now: Timestamp) -> StorageResult<Vec<(OrgId, String)>> {
    let mut statement = c.prepare_cached(
        "SELECT org, id FROM agents WHERE revoked_at IS NOT NULL \
           AND (certificate_ends_at IS NULL OR certificate_ends_at > ?1) \
         UNION SELECT a.org, a.id FROM orgs o JOIN agents a ON a.org = o.id WHERE o.disabled = 1 \
         UNION SELECT org, id FROM agent_bars WHERE until > ?1 ORDER BY 1, 2",
    )?;
    let mut rows = statement.query([now.micros()])?;
    let mut barred = Vec::new();
    while let Some(row) = rows.next()? {
        barred.push((org_of(&row.get::<_, String>(0)?)?, row.get(1)?));
    }
    Ok(barred)
}

fn of_row(row: &Row<'_>) -> StorageResult<Agent> {
    Ok(Agent {
        id: row.get(0)?,
        org: org_of(&row.get::<_, String>(1)?)?,
        host: row.get(2)?,
        facts: facts_of(&row.get::<_, String>(3)?)?,
        key: row.get(4)?,
        token: row.get(5)?,
        enrolled_at: Timestamp::from_micros(row.get(6)?),
        certificate_ends_at: time(row, 7)?,
        last_seen_at: time(row, 8)?,
        connected: row.get(9)?,
        silent: row.get(10)?,
        revoked_at: time(row, 11)?,
        revoked_why: why_of(row.get(12)?, row.get(13)?),
        epoch: row.get::<_, i64>(14)? as u64,
        acked_seq: row.get::<_, i64>(15)? as u64,
        status: row.get(16)?,
    })
}
