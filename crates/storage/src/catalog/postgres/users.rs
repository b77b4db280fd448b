//! Users of the Web API and their keys.

use super::pool::Access;
use super::values::Time;
use super::{Change, PostgresCatalog};
use crate::catalog::Actor;
use crate::catalog::fields::{key_values, not_found, org_of, role_of, user_values};
use crate::catalog::users::{
    KEYS_MAX, KeyId, KeyLogin, NewKey, REVOKED_KEYS_KEPT, Role, USERS_MAX, User, UserKey, UserStore, check_label,
    check_user_name, too_many_keys, too_many_users,
};
use crate::{StorageError, StorageResult};
use async_trait::async_trait;
use model::{ErrorKind, OrgId, Timestamp};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};

const USERS: &str = "users";
const KEYS: &str = "user_keys";
const KEY_COLUMNS: &str = "id, label, created_at, last_used_at, expires_at, revoked_at";

#[async_trait]
impl UserStore for PostgresCatalog {
    async fn users(&self, org: &OrgId) -> StorageResult<Vec<User>> {
        let org = org.clone();
        self.pool
            .run(Access::Read, |c| {
                Box::pin(async move {
                    let sql = "SELECT name, role, created_at FROM muttd_users WHERE org = $1 ORDER BY name";
                    let rows = sqlx::query(sql).bind(org.as_str()).fetch_all(&mut *c).await?;
                    let mut users = rows.iter().map(user_of).collect::<StorageResult<Vec<_>>>()?;
                    let sql = format!(
                        "SELECT {KEY_COLUMNS}, user_name FROM muttd_user_keys WHERE org = $1 ORDER BY user_name, id"
                    );
                    for row in sqlx::query(AssertSqlSafe(sql)).bind(org.as_str()).fetch_all(c).await? {
                        let owner: &str = row.try_get(6)?;
                        if let Ok(at) = users.binary_search_by(|user| user.name.as_str().cmp(owner)) {
                            users[at].keys.push(key_of(&row)?);
                        }
                    }
                    Ok(users)
                })
            })
            .await
    }

    async fn user(&self, org: &OrgId, name: &str) -> StorageResult<User> {
        let (org, name) = (org.clone(), name.to_owned());
        self.pool
            .run(Access::Read, |c| {
                Box::pin(async move {
                    let mut user = find(c, &org, &name, "").await?;
                    let sql = format!(
                        "SELECT {KEY_COLUMNS} FROM muttd_user_keys WHERE org = $1 AND user_name = $2 ORDER BY id"
                    );
                    let rows = sqlx::query(AssertSqlSafe(sql)).bind(org.as_str()).bind(&name).fetch_all(c).await?;
                    user.keys = rows.iter().map(key_of).collect::<StorageResult<_>>()?;
                    Ok(user)
                })
            })
            .await
    }

    async fn create_user(&self, org: &OrgId, name: &str, role: Role, by: &Actor) -> StorageResult<()> {
        check_user_name(name)?;
        let (org, name, by) = (org.clone(), name.to_owned(), by.clone());
        self.pool
            .run(Access::Write, |c| {
                Box::pin(async move {
                    let sql = "SELECT count(*) FROM muttd_users WHERE org = $1";
                    let count: i64 = sqlx::query_scalar(sql).bind(org.as_str()).fetch_one(&mut *c).await?;
                    if count.unsigned_abs() >= USERS_MAX {
                        return Err(too_many_users());
                    }
                    let added = sqlx::query(
                        "INSERT INTO muttd_users (org, name, role, created_at) VALUES ($1, $2, $3, $4) \
                         ON CONFLICT DO NOTHING",
                    )
                    .bind(org.as_str())
                    .bind(&name)
                    .bind(role.as_str())
                    .bind(Time(by.at))
                    .execute(&mut *c)
                    .await?;
                    if added.rows_affected() == 0 {
                        return Err(StorageError::new(ErrorKind::Conflict, "a user of this name exists already"));
                    }
                    let new = Some(user_values(&name, role)?);
                    Change { table: USERS, record_id: 0, old: None, new, org: &org, by: &by }.write(c).await
                })
            })
            .await
    }

    async fn set_role(&self, org: &OrgId, name: &str, role: Role, by: &Actor) -> StorageResult<()> {
        let (org, name, by) = (org.clone(), name.to_owned(), by.clone());
        self.pool
            .run(Access::Write, |c| {
                Box::pin(async move {
                    let old = find(c, &org, &name, " FOR UPDATE").await?.role;
                    sqlx::query("UPDATE muttd_users SET role = $1 WHERE org = $2 AND name = $3")
                        .bind(role.as_str())
                        .bind(org.as_str())
                        .bind(&name)
                        .execute(&mut *c)
                        .await?;
                    let (old, new) = (Some(user_values(&name, old)?), Some(user_values(&name, role)?));
                    Change { table: USERS, record_id: 0, old, new, org: &org, by: &by }.write(c).await
                })
            })
            .await
    }

    async fn remove_user(&self, org: &OrgId, name: &str, by: &Actor) -> StorageResult<()> {
        let (org, name, by) = (org.clone(), name.to_owned(), by.clone());
        self.pool
            .run(Access::Write, |c| {
                Box::pin(async move {
                    let old = find(c, &org, &name, " FOR UPDATE").await?.role;
                    sqlx::query("DELETE FROM muttd_users WHERE org = $1 AND name = $2")
                        .bind(org.as_str())
                        .bind(&name)
                        .execute(&mut *c)
                        .await?;
                    let old = Some(user_values(&name, old)?);
                    Change { table: USERS, record_id: 0, old, new: None, org: &org, by: &by }.write(c).await
                })
            })
            .await
    }

    async fn add_key(&self, org: &OrgId, name: &str, key: NewKey, by: &Actor) -> StorageResult<KeyId> {
        check_label(&key.label)?;
        let (org, name, by) = (org.clone(), name.to_owned(), by.clone());
        self.pool
            .run(Access::Write, |c| {
                Box::pin(async move {
                    // Locked, so that two callers cannot both add the last key that is allowed.
                    find(c, &org, &name, " FOR UPDATE").await?;
                    let valid: i64 = sqlx::query_scalar(
                        "SELECT count(*) FROM muttd_user_keys WHERE org = $1 AND user_name = $2 AND revoked_at IS NULL",
                    )
                    .bind(org.as_str())
                    .bind(&name)
                    .fetch_one(&mut *c)
                    .await?;
                    if valid.unsigned_abs() >= KEYS_MAX {
                        return Err(too_many_keys());
                    }
                    let id: Option<i64> = sqlx::query_scalar(
                        "INSERT INTO muttd_user_keys (org, user_name, fingerprint, label, created_at, expires_at) \
                         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING id",
                    )
                    .bind(org.as_str())
                    .bind(&name)
                    .bind(&key.fingerprint[..])
                    .bind(&key.label)
                    .bind(Time(by.at))
                    .bind(key.expires_at.map(Time))
                    .fetch_optional(&mut *c)
                    .await?;
                    let id = id.ok_or_else(|| StorageError::new(ErrorKind::Conflict, "this key exists already"))?;
                    sqlx::query(
                        "DELETE FROM muttd_user_keys WHERE org = $1 AND user_name = $2 AND revoked_at IS NOT NULL \
                         AND id NOT IN (SELECT id FROM muttd_user_keys WHERE org = $1 AND user_name = $2 \
                         AND revoked_at IS NOT NULL ORDER BY revoked_at DESC, id DESC LIMIT $3)",
                    )
                    .bind(org.as_str())
                    .bind(&name)
                    .bind(i64::try_from(REVOKED_KEYS_KEPT).unwrap_or(i64::MAX))
                    .execute(&mut *c)
                    .await?;
                    let new = Some(key_values(id, &name, &key.label, key.expires_at, false)?);
                    Change { table: KEYS, record_id: id, old: None, new, org: &org, by: &by }.write(c).await?;
                    Ok(id)
                })
            })
            .await
    }

    async fn revoke_key(&self, org: &OrgId, name: &str, key: KeyId, by: &Actor) -> StorageResult<()> {
        let (org, name, by) = (org.clone(), name.to_owned(), by.clone());
        self.pool
            .run(Access::Write, |c| {
                Box::pin(async move {
                    let sql = format!(
                        "SELECT {KEY_COLUMNS} FROM muttd_user_keys WHERE org = $1 AND user_name = $2 AND id = $3 \
                         FOR UPDATE"
                    );
                    let row = sqlx::query(AssertSqlSafe(sql))
                        .bind(org.as_str())
                        .bind(&name)
                        .bind(key)
                        .fetch_optional(&mut *c)
                        .await?;
                    let found = key_of(&row.ok_or_else(|| not_found("key"))?)?;
                    if found.revoked_at.is_some() {
                        return Ok(());
                    }
                    sqlx::query("UPDATE muttd_user_keys SET revoked_at = $1 WHERE id = $2")
                        .bind(Time(by.at))
                        .bind(key)
                        .execute(&mut *c)
                        .await?;
                    let values = |revoked| key_values(key, &name, &found.label, found.expires_at, revoked);
                    let (old, new) = (Some(values(false)?), Some(values(true)?));
                    Change { table: KEYS, record_id: key, old, new, org: &org, by: &by }.write(c).await
                })
            })
            .await
    }

    async fn key_logins(&self) -> StorageResult<Vec<KeyLogin>> {
        self.pool
            .run(Access::Read, |c| {
                Box::pin(async move {
                    let rows = sqlx::query(
                        "SELECT k.org, k.user_name, u.role, k.id, k.fingerprint, k.expires_at FROM muttd_user_keys k \
                         JOIN muttd_users u ON u.org = k.org AND u.name = k.user_name \
                         WHERE k.revoked_at IS NULL \
                         AND k.org NOT IN (SELECT id FROM muttd_orgs WHERE disabled) ORDER BY k.id",
                    )
                    .fetch_all(c)
                    .await?;
                    rows.iter().map(login_of).collect()
                })
            })
            .await
    }

    async fn keys_used(&self, uses: &[(KeyId, Timestamp)]) -> StorageResult<()> {
        // Of several uses of a key the last; in the order of the keys, so that two callers never wait
        // in a circle.
        let mut last = std::collections::BTreeMap::new();
        for (key, at) in uses {
            let known = last.entry(*key).or_insert(*at);
            *known = (*known).max(*at);
        }
        let (keys, times): (Vec<i64>, Vec<Time>) = last.into_iter().map(|(key, at)| (key, Time(at))).unzip();
        self.pool
            .run(Access::Write, |c| {
                Box::pin(async move {
                    sqlx::query(
                        "WITH used AS MATERIALIZED (SELECT k.id, u.at FROM muttd_user_keys k \
                             JOIN UNNEST($1::bigint[], $2) u (id, at) ON u.id = k.id \
                             WHERE k.last_used_at IS NULL OR k.last_used_at < u.at ORDER BY k.id FOR UPDATE OF k) \
                         UPDATE muttd_user_keys k SET last_used_at = used.at FROM used WHERE k.id = used.id",
                    )
                    .bind(keys)
                    .bind(times)
                    .execute(c)
                    .await?;
                    Ok(())
                })
            })
            .await
    }
}

async fn find(c: &mut PgConnection, org: &OrgId, name: &str, lock: &'static str) -> StorageResult<User> {
    // A name with a zero byte is nobody's, and PostgreSQL takes none.
    check_user_name(name).map_err(|_| not_found("user"))?;
    let sql = format!("SELECT name, role, created_at FROM muttd_users WHERE org = $1 AND name = $2{lock}");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(org.as_str()).bind(name).fetch_optional(c).await?;
    user_of(&row.ok_or_else(|| not_found("user"))?)
}

fn user_of(row: &PgRow) -> StorageResult<User> {
    Ok(User {
        name: row.try_get(0)?,
        role: role_of(row.try_get(1)?)?,
        created_at: row.try_get::<Time, _>(2)?.0,
        keys: Vec::new(),
    })
}

fn key_of(row: &PgRow) -> StorageResult<UserKey> {
    let time = |column: usize| Ok::<_, sqlx::Error>(row.try_get::<Option<Time>, _>(column)?.map(|time| time.0));
    Ok(UserKey {
        id: row.try_get(0)?,
        label: row.try_get(1)?,
        created_at: row.try_get::<Time, _>(2)?.0,
        last_used_at: time(3)?,
        expires_at: time(4)?,
        revoked_at: time(5)?,
    })
}

fn login_of(row: &PgRow) -> StorageResult<KeyLogin> {
    let fingerprint: &[u8] = row.try_get(4)?;
    let fingerprint = fingerprint
        .try_into()
        .map_err(|_| StorageError::new(ErrorKind::Internal, "a fingerprint in the catalog has not 32 bytes"))?;
    Ok(KeyLogin {
        org: org_of(row.try_get(0)?)?,
        user: row.try_get(1)?,
        role: role_of(row.try_get(2)?)?,
        key: row.try_get(3)?,
        fingerprint,
        expires_at: row.try_get::<Option<Time>, _>(5)?.map(|time| time.0),
    })
}
