//! Tokens for agents.

use super::{LOCK, find_org, time};
use crate::StorageResult;
use crate::catalog::fields::not_found;
use crate::catalog::fleet::{AgentToken, NewToken, TOKENS_MAX, TokenId, TokenLogin};
use crate::catalog::fleet_changes::{ENDED_KEPT, count32, following, token_exists, token_values, too_many_tokens};
use crate::catalog::postgres::Change;
use crate::catalog::postgres::values::{Time, fit};
use crate::catalog::users::Fingerprint;
use crate::catalog::{Actor, org_of};
use model::{OrgId, Timestamp};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};

const TOKENS: &str = "agent_tokens";
const COLUMNS: &str = "id, org, label, host, legacy, created_at, created_by, expires_at, uses_max, uses, last_used_at, \
                       revoked_at, followed_by";

pub async fn all(c: &mut PgConnection, org: &OrgId) -> StorageResult<Vec<AgentToken>> {
    find_org(c, org, "").await?;
    let sql = format!("SELECT {COLUMNS} FROM muttd_agent_tokens WHERE org = $1 ORDER BY id DESC");
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(org.as_str()).fetch_all(c).await?;
    rows.iter().map(of_row).collect()
}

pub async fn find(c: &mut PgConnection, org: &OrgId, id: TokenId, lock: &'static str) -> StorageResult<AgentToken> {
    let sql = format!("SELECT {COLUMNS} FROM muttd_agent_tokens WHERE org = $1 AND id = $2{lock}");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(org.as_str()).bind(id).fetch_optional(c).await?;
    of_row(&row.ok_or_else(|| not_found("token"))?)
}

pub async fn add(c: &mut PgConnection, org: &OrgId, token: &NewToken, by: &Actor) -> StorageResult<TokenId> {
    find_org(c, org, LOCK).await?;
    let sql = "SELECT count(*) FROM muttd_agent_tokens WHERE org = $1 AND revoked_at IS NULL AND expires_at > $2";
    let count: i64 = sqlx::query_scalar(sql).bind(org.as_str()).bind(Time(by.at)).fetch_one(&mut *c).await?;
    if count.unsigned_abs() >= TOKENS_MAX {
        return Err(too_many_tokens());
    }
    let sql = "INSERT INTO muttd_agent_tokens (org, fingerprint, label, host, legacy, created_at, created_by, expires_at, \
               uses_max) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING RETURNING id";
    let query = sqlx::query_scalar(sql).bind(org.as_str()).bind(&token.fingerprint[..]).bind(&token.label);
    let query = query.bind(&token.host).bind(token.legacy).bind(Time(by.at)).bind(fit(&by.name, 100));
    let query = query.bind(Time(token.expires_at)).bind(token.uses_max.map(i64::from));
    let id: TokenId = query.fetch_optional(&mut *c).await?.ok_or_else(token_exists)?;
    let sql = "DELETE FROM muttd_agent_tokens WHERE id IN (SELECT id FROM muttd_agent_tokens WHERE org = $1 \
               AND (revoked_at IS NOT NULL OR expires_at <= $2) AND id <> $4 \
               ORDER BY least(revoked_at, expires_at) DESC, id DESC OFFSET $3)";
    let query = sqlx::query(sql).bind(org.as_str()).bind(Time(by.at)).bind(ENDED_KEPT).bind(id);
    query.execute(&mut *c).await?;
    let new = Some(token_values(&find(c, org, id, "").await?)?);
    Change { table: TOKENS, record_id: id, old: None, new, org, by }.write(c).await?;
    Ok(id)
}

pub async fn revoke(c: &mut PgConnection, org: &OrgId, id: TokenId, by: &Actor) -> StorageResult<()> {
    let old = find(c, org, id, LOCK).await?;
    if old.revoked_at.is_some() {
        return Ok(());
    }
    let sql = "UPDATE muttd_agent_tokens SET revoked_at = $1 WHERE id = $2";
    sqlx::query(sql).bind(Time(by.at)).bind(id).execute(&mut *c).await?;
    write_change(c, &old, by).await
}

pub async fn rotate(
    c: &mut PgConnection,
    org: &OrgId,
    id: TokenId,
    (fingerprint, expires_at): (Fingerprint, Timestamp),
    old_until: Timestamp,
    by: &Actor,
) -> StorageResult<TokenId> {
    find_org(c, org, LOCK).await?;
    let old = find(c, org, id, LOCK).await?;
    let next = add(c, org, &following(&old, fingerprint, expires_at)?, by).await?;
    let sql = "UPDATE muttd_agent_tokens SET followed_by = $2, expires_at = least(expires_at, $3) WHERE id = $1";
    sqlx::query(sql).bind(id).bind(next).bind(Time(old_until)).execute(&mut *c).await?;
    write_change(c, &old, by).await?;
    Ok(next)
}

/// Writes what became of a token.
async fn write_change(c: &mut PgConnection, old: &AgentToken, by: &Actor) -> StorageResult<()> {
    let new = find(c, &old.org, old.id, "").await?;
    let (before, after) = (Some(token_values(old)?), Some(token_values(&new)?));
    Change { table: TOKENS, record_id: old.id, old: before, new: after, org: &old.org, by }.write(c).await
}

pub async fn login(c: &mut PgConnection, fingerprint: Fingerprint) -> StorageResult<Option<TokenLogin>> {
    let sql = format!(
        "SELECT {COLUMNS}, (SELECT disabled FROM muttd_orgs o WHERE o.id = t.org) FROM muttd_agent_tokens t \
         WHERE fingerprint = $1"
    );
    let row = sqlx::query(AssertSqlSafe(sql)).bind(&fingerprint[..]).fetch_optional(c).await?;
    let login = |row: PgRow| Ok(TokenLogin { token: of_row(&row)?, fingerprint, org_disabled: row.try_get(13)? });
    row.map(login).transpose()
}

pub async fn used(c: &mut PgConnection, id: TokenId, at: Timestamp) -> StorageResult<()> {
    let sql = "UPDATE muttd_agent_tokens SET last_used_at = $2 \
               WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)";
    sqlx::query(sql).bind(id).bind(Time(at)).execute(c).await?;
    Ok(())
}

fn of_row(row: &PgRow) -> StorageResult<AgentToken> {
    Ok(AgentToken {
        id: row.try_get(0)?,
        org: org_of(row.try_get(1)?)?,
        label: row.try_get(2)?,
        host: row.try_get(3)?,
        legacy: row.try_get(4)?,
        created_at: row.try_get::<Time, _>(5)?.0,
        created_by: row.try_get(6)?,
        expires_at: row.try_get::<Time, _>(7)?.0,
        uses_max: row.try_get::<Option<i64>, _>(8)?.map(count32),
        uses: count32(row.try_get(9)?),
        last_used_at: time(row, 10)?,
        revoked_at: time(row, 11)?,
        followed_by: row.try_get(12)?,
    })
}
