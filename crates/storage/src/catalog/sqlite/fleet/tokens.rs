//! Tokens for agents.

use super::{Change, find_org, move_fleet_revision, time};
use crate::StorageResult;
use crate::catalog::fields::not_found;
use crate::catalog::fleet::{AgentToken, NewToken, TOKENS_MAX, TokenId, TokenLogin};
use crate::catalog::fleet_changes::{ENDED_KEPT, count32, following, token_exists, token_values, too_many_tokens};
use crate::catalog::users::Fingerprint;
use crate::catalog::{Actor, org_of};
use model::{OrgId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

const TOKENS: &str = "agent_tokens";
const COLUMNS: &str = "id, org, label, host, legacy, created_at, created_by, expires_at, uses_max, uses, last_used_at, \
                       revoked_at, followed_by";

pub fn all(c: &Connection, org: &OrgId) -> StorageResult<Vec<AgentToken>> {
    find_org(c, org)?;
    let sql = format!("SELECT {COLUMNS} FROM agent_tokens WHERE org = ? ORDER BY id DESC");
    let mut statement = c.prepare_cached(&sql)?;
    let mut rows = statement.query([org.as_str()])?;
    let mut tokens = Vec::new();
    while let Some(row) = rows.next()? {
        tokens.push(of_row(row)?);
    }
    Ok(tokens)
}

pub fn find(c: &Connection, org: &OrgId, id: TokenId) -> StorageResult<AgentToken> {
    let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM agent_tokens WHERE org = ? AND id = ?"))?;
    let found = statement.query_row(params![org.as_str(), id], |row| Ok(of_row(row))).optional()?;
    found.ok_or_else(|| not_found("token"))?
}

pub fn add(t: &Transaction<'_>, org: &OrgId, token: &NewToken, by: &Actor) -> StorageResult<TokenId> {
    find_org(t, org)?;
    let count: i64 = t.query_row(
        "SELECT count(*) FROM agent_tokens WHERE org = ? AND revoked_at IS NULL AND expires_at > ?",
        params![org.as_str(), by.at.micros()],
        |row| row.get(0),
    )?;
    if count.unsigned_abs() >= TOKENS_MAX {
        return Err(too_many_tokens());
    }
    let added = t.execute(
        "INSERT INTO agent_tokens (org, fingerprint, label, host, legacy, created_at, created_by, expires_at, uses_max) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        params![
            org.as_str(),
            token.fingerprint,
            token.label,
            token.host,
            token.legacy,
            by.at.micros(),
            by.name,
            token.expires_at.micros(),
            token.uses_max
        ],
    )?;
    if added == 0 {
        return Err(token_exists());
    }
    let id = t.last_insert_rowid();
    let ended = "SELECT id FROM agent_tokens WHERE org = ?1 AND (revoked_at IS NOT NULL OR expires_at <= ?2) AND id <> ?4 \
                 ORDER BY min(coalesce(revoked_at, expires_at), expires_at) DESC, id DESC LIMIT -1 OFFSET ?3";
    t.execute(
        &format!("DELETE FROM agent_tokens WHERE id IN ({ended})"),
        params![org.as_str(), by.at.micros(), ENDED_KEPT, id],
    )?;
    move_fleet_revision(t)?;
    let new = Some(token_values(&find(t, org, id)?)?);
    Change { table: TOKENS, record_id: id, old: None, new, org, by }.write(t)?;
    Ok(id)
}

pub fn revoke(t: &Transaction<'_>, org: &OrgId, id: TokenId, by: &Actor) -> StorageResult<()> {
    let old = find(t, org, id)?;
    if old.revoked_at.is_some() {
        return Ok(());
    }
    t.execute("UPDATE agent_tokens SET revoked_at = ? WHERE id = ?", params![by.at.micros(), id])?;
    write_change(t, &old, by)
}

pub fn rotate(
    t: &Transaction<'_>,
    org: &OrgId,
    id: TokenId,
    (fingerprint, expires_at): (Fingerprint, Timestamp),
    old_until: Timestamp,
    by: &Actor,
) -> StorageResult<TokenId> {
    let old = find(t, org, id)?;
    let next = add(t, org, &following(&old, fingerprint, expires_at)?, by)?;
    t.execute(
        "UPDATE agent_tokens SET followed_by = ?2, expires_at = min(expires_at, ?3) WHERE id = ?1",
        params![id, next, old_until.micros()],
    )?;
    write_change(t, &old, by)?;
    Ok(next)
}

/// Writes what became of a token.
fn write_change(t: &Transaction<'_>, old: &AgentToken, by: &Actor) -> StorageResult<()> {
    move_fleet_revision(t)?;
    let new = find(t, &old.org, old.id)?;
    let (before, after) = (Some(token_values(old)?), Some(token_values(&new)?));
    Change { table: TOKENS, record_id: old.id, old: before, new: after, org: &old.org, by }.write(t)
}

pub fn login(c: &Connection, fingerprint: Fingerprint) -> StorageResult<Option<TokenLogin>> {
    let mut statement = c.prepare_cached(&format!(
        "SELECT {COLUMNS}, (SELECT disabled FROM orgs o WHERE o.id = agent_tokens.org) FROM agent_tokens \
         WHERE fingerprint = ?"
    ))?;
    let found = statement
        .query_row([fingerprint], |row| Ok(of_row(row).and_then(|token| Ok((token, row.get::<_, bool>(13)?)))))
        .optional()?;
    found.transpose().map(|found| found.map(|(token, org_disabled)| TokenLogin { token, fingerprint, org_disabled }))
}

pub fn used(t: &Transaction<'_>, id: TokenId, at: Timestamp) -> StorageResult<()> {
    t.execute(
        "UPDATE agent_tokens SET last_used_at = ?2 WHERE id = ?1 AND (last_used_at IS NULL OR last_used_at < ?2)",
        params![id, at.micros()],
    )?;
    Ok(())
}

fn of_row(row: &Row<'_>) -> StorageResult<AgentToken> {
    Ok(AgentToken {
        id: row.get(0)?,
        org: org_of(&row.get::<_, String>(1)?)?,
        label: row.get(2)?,
        host: row.get(3)?,
        legacy: row.get(4)?,
        created_at: Timestamp::from_micros(row.get(5)?),
        created_by: row.get(6)?,
        expires_at: Timestamp::from_micros(row.get(7)?),
        uses_max: row.get::<_, Option<i64>>(8)?.map(count32),
        uses: count32(row.get(9)?),
        last_used_at: time(row, 10)?,
        revoked_at: time(row, 11)?,
        followed_by: row.get(12)?,
    })
}
