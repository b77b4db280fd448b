//! Users of the Web API and their keys.

use super::{Change, SqliteCatalog};
use crate::catalog::Actor;
use crate::catalog::fields::{key_values, not_found, org_of, role_of, user_values};
use crate::catalog::users::{
    KEYS_MAX, KeyId, KeyLogin, NewKey, REVOKED_KEYS_KEPT, Role, USERS_MAX, User, UserKey, UserStore, check_label,
    check_user_name, too_many_keys, too_many_users,
};
use crate::{StorageError, StorageResult};
use async_trait::async_trait;
use model::{ErrorKind, OrgId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

const USERS: &str = "users";
const KEYS: &str = "user_keys";

#[async_trait]
impl UserStore for SqliteCatalog {
    async fn users(&self, org: &OrgId) -> StorageResult<Vec<User>> {
        let org = org.clone();
        self.database
            .read(move |c| {
                let mut statement =
                    c.prepare_cached("SELECT name, role, created_at FROM users WHERE org = ? ORDER BY name")?;
                let mut users = statement
                    .query_map([org.as_str()], user_of)?
                    .map(|user| user.map_err(StorageError::from).flatten())
                    .collect::<StorageResult<Vec<_>>>()?;
                let mut statement = c.prepare_cached(&format!(
                    "SELECT {KEY_COLUMNS}, user_name FROM user_keys WHERE org = ? ORDER BY user_name, id"
                ))?;
                let mut rows = statement.query([org.as_str()])?;
                let mut at = 0;
                while let Some(row) = rows.next()? {
                    let owner: String = row.get(6)?;
                    while users.get(at).is_some_and(|user| user.name < owner) {
                        at += 1;
                    }
                    if let Some(user) = users.get_mut(at).filter(|user| user.name == owner) {
                        user.keys.push(key_of(row)?);
                    }
                }
                Ok(users)
            })
            .await
    }

    async fn user(&self, org: &OrgId, name: &str) -> StorageResult<User> {
        let (org, name) = (org.clone(), name.to_owned());
        self.database
            .read(move |c| {
                let mut user = find(c, &org, &name)?;
                let mut statement = c.prepare_cached(&format!(
                    "SELECT {KEY_COLUMNS} FROM user_keys WHERE org = ? AND user_name = ? ORDER BY id"
                ))?;
                let keys = statement.query_map([org.as_str(), &name], key_of)?;
                user.keys = keys.collect::<rusqlite::Result<_>>()?;
                Ok(user)
            })
            .await
    }

    async fn create_user(&self, org: &OrgId, name: &str, role: Role, by: &Actor) -> StorageResult<()> {
        check_user_name(name)?;
        let (org, name, by) = (org.clone(), name.to_owned(), by.clone());
        self.database
            .transact(move |t| {
                if count(t, "SELECT count(*) FROM users WHERE org = ?", [org.as_str()])? >= USERS_MAX {
                    return Err(too_many_users());
                }
                let added = t.execute(
                    "INSERT INTO users (org, name, role, created_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    params![org.as_str(), name, role.as_str(), by.at.micros()],
                )?;
                if added == 0 {
                    return Err(StorageError::new(ErrorKind::Conflict, "a user of this name exists already"));
                }
                let new = Some(user_values(&name, role)?);
                Change { table: USERS, record_id: 0, old: None, new, org: &org, by: &by }.write(t)
            })
            .await
    }

    async fn set_role(&self, org: &OrgId, name: &str, role: Role, by: &Actor) -> StorageResult<()> {
        let (org, name, by) = (org.clone(), name.to_owned(), by.clone());
        self.database
            .transact(move |t| {
                let old = find(t, &org, &name)?.role;
                t.execute(
                    "UPDATE users SET role = ? WHERE org = ? AND name = ?",
                    params![role.as_str(), org.as_str(), name],
                )?;
                let (old, new) = (Some(user_values(&name, old)?), Some(user_values(&name, role)?));
                Change { table: USERS, record_id: 0, old, new, org: &org, by: &by }.write(t)
            })
            .await
    }

    async fn remove_user(&self, org: &OrgId, name: &str, by: &Actor) -> StorageResult<()> {
        let (org, name, by) = (org.clone(), name.to_owned(), by.clone());
        self.database
            .transact(move |t| {
                let old = find(t, &org, &name)?.role;
                t.execute("DELETE FROM users WHERE org = ? AND name = ?", params![org.as_str(), name])?;
                let old = Some(user_values(&name, old)?);
                Change { table: USERS, record_id: 0, old, new: None, org: &org, by: &by }.write(t)
            })
            .await
    }

    async fn add_key(&self, org: &OrgId, name: &str, key: NewKey, by: &Actor) -> StorageResult<KeyId> {
        check_label(&key.label)?;
        let (org, name, by) = (org.clone(), name.to_owned(), by.clone());
        self.database
            .transact(move |t| {
                find(t, &org, &name)?;
                let valid = "SELECT count(*) FROM user_keys WHERE org = ? AND user_name = ? AND revoked_at IS NULL";
                if count(t, valid, [org.as_str(), &name])? >= KEYS_MAX {
                    return Err(too_many_keys());
                }
                let added = t.execute(
                    "INSERT INTO user_keys (org, user_name, fingerprint, label, created_at, expires_at) \
                     VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    params![
                        org.as_str(),
                        name,
                        key.fingerprint,
                        key.label,
                        by.at.micros(),
                        key.expires_at.map(Timestamp::micros)
                    ],
                )?;
                if added == 0 {
                    return Err(StorageError::new(ErrorKind::Conflict, "this key exists already"));
                }
                let id = t.last_insert_rowid();
                t.execute(
                    "DELETE FROM user_keys WHERE org = ?1 AND user_name = ?2 AND revoked_at IS NOT NULL AND id NOT IN \
                     (SELECT id FROM user_keys WHERE org = ?1 AND user_name = ?2 AND revoked_at IS NOT NULL \
                      ORDER BY revoked_at DESC, id DESC LIMIT ?3)",
                    params![org.as_str(), name, REVOKED_KEYS_KEPT as i64],
                )?;
                let new = Some(key_values(id, &name, &key.label, key.expires_at, false)?);
                Change { table: KEYS, record_id: id, old: None, new, org: &org, by: &by }.write(t)?;
                Ok(id)
            })
            .await
    }

    async fn revoke_key(&self, org: &OrgId, name: &str, key: KeyId, by: &Actor) -> StorageResult<()> {
        let (org, name, by) = (org.clone(), name.to_owned(), by.clone());
        self.database
            .transact(move |t| {
                let found = t
                    .query_row(
                        &format!("SELECT {KEY_COLUMNS} FROM user_keys WHERE org = ? AND user_name = ? AND id = ?"),
                        params![org.as_str(), name, key],
                        key_of,
                    )
                    .optional()?
                    .ok_or_else(|| not_found("key"))?;
                if found.revoked_at.is_some() {
                    return Ok(());
                }
                t.execute("UPDATE user_keys SET revoked_at = ? WHERE id = ?", params![by.at.micros(), key])?;
                let values = |revoked| key_values(key, &name, &found.label, found.expires_at, revoked);
                let (old, new) = (Some(values(false)?), Some(values(true)?));
                Change { table: KEYS, record_id: key, old, new, org: &org, by: &by }.write(t)
            })
            .await
    }

    async fn key_logins(&self) -> StorageResult<Vec<KeyLogin>> {
        self.database
            .read(|c| {
                let mut statement = c.prepare_cached(
                    "SELECT k.org, k.user_name, u.role, k.id, k.fingerprint, k.expires_at FROM user_keys k \
                     JOIN users u ON u.org = k.org AND u.name = k.user_name \
                     WHERE k.revoked_at IS NULL AND k.org NOT IN (SELECT id FROM orgs WHERE disabled) ORDER BY k.id",
                )?;
                let mut rows = statement.query([])?;
                let mut logins = Vec::new();
                while let Some(row) = rows.next()? {
                    logins.push(KeyLogin {
                        org: org_of(&row.get::<_, String>(0)?)?,
                        user: row.get(1)?,
                        role: role_of(&row.get::<_, String>(2)?)?,
                        key: row.get(3)?,
                        fingerprint: row.get(4)?,
                        expires_at: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_micros),
                    });
                }
                Ok(logins)
            })
            .await
    }

    async fn keys_used(&self, uses: &[(KeyId, Timestamp)]) -> StorageResult<()> {
        let uses = uses.to_vec();
        self.database
            .transact(move |t| {
                let mut update = t.prepare_cached(
                    "UPDATE user_keys SET last_used_at = ?2 WHERE id = ?1 \
                     AND (last_used_at IS NULL OR last_used_at < ?2)",
                )?;
                for (key, at) in uses {
                    update.execute(params![key, at.micros()])?;
                }
                Ok(())
            })
            .await
    }
}

const KEY_COLUMNS: &str = "id, label, created_at, last_used_at, expires_at, revoked_at";

fn key_of(row: &Row<'_>) -> rusqlite::Result<UserKey> {
    let time = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_micros));
    Ok(UserKey {
        id: row.get(0)?,
        label: row.get(1)?,
        created_at: Timestamp::from_micros(row.get(2)?),
        last_used_at: time(3)?,
        expires_at: time(4)?,
        revoked_at: time(5)?,
    })
}

fn user_of(row: &Row<'_>) -> rusqlite::Result<StorageResult<User>> {
    let (name, role, created_at): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
    Ok(role_of(&role).map(|role| User { name, role, created_at: Timestamp::from_micros(created_at), keys: Vec::new() }))
}

fn find(connection: &Connection, org: &OrgId, name: &str) -> StorageResult<User> {
    connection
        .query_row("SELECT name, role, created_at FROM users WHERE org = ? AND name = ?", [org.as_str(), name], user_of)
        .optional()?
        .ok_or_else(|| not_found("user"))?
}

fn count(t: &Transaction<'_>, sql: &str, values: impl rusqlite::Params) -> StorageResult<u64> {
    let n: i64 = t.query_row(sql, values, |row| row.get(0))?;
    Ok(u64::try_from(n).unwrap_or(0))
}
