//! Users of the Web API and their keys.
//!
//! A key is 256 random bits that its owner alone has; here is only its SHA-256, which is enough to
//! know it again and of no use to whoever reads the catalog. A user may have several keys, so that one
//! can be replaced without a gap.

use super::Actor;
use crate::{StorageError, StorageResult};
use async_trait::async_trait;
use model::{ErrorKind, OrgId, Timestamp};

/// What somebody may do. Each one includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Also changes rules, hosts and teams, and replays dead letters.
    Operator,
    /// Also changes live settings, users and keys.
    Admin,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Reads a role, any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str().eq_ignore_ascii_case(text.trim()))
    }
}

/// Number of a key; never given twice.
pub type KeyId = i64;
/// SHA-256 of a key.
pub type Fingerprint = [u8; 32];

/// Users of one organisation at most.
pub const USERS_MAX: u64 = 10_000;
/// Keys of one user that are not revoked, at most.
pub const KEYS_MAX: u64 = 20;
/// Revoked keys of one user that are still listed; older ones are only in the audit log.
pub const REVOKED_KEYS_KEPT: u64 = 20;
const NAME_CHARS_MAX: usize = 64;
const LABEL_CHARS_MAX: usize = 100;

/// Somebody with keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// 1 to 64 ASCII letters, digits, `.`, `_`, `-` and `@`, the first a letter or digit.
    pub name: String,
    pub role: Role,
    pub created_at: Timestamp,
    /// By id.
    pub keys: Vec<UserKey>,
}

/// A key without what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserKey {
    pub id: KeyId,
    /// What it is for; may be empty.
    pub label: String,
    pub created_at: Timestamp,
    /// About when it was used last, within a minute.
    pub last_used_at: Option<Timestamp>,
    /// From then on it does not count.
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

/// A key that is to be.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub fingerprint: Fingerprint,
    pub label: String,
    pub expires_at: Option<Timestamp>,
}

/// What a request's key is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLogin {
    pub org: OrgId,
    pub user: String,
    pub role: Role,
    pub key: KeyId,
    pub fingerprint: Fingerprint,
    pub expires_at: Option<Timestamp>,
}

/// Users and keys. Every change writes its audit row (`users`, `user_keys`; never a fingerprint) in
/// the same transaction, and leaves [`super::RuleStore::revision`] alone.
#[async_trait]
pub trait UserStore: Send + Sync {
    /// All users by name, with their keys.
    async fn users(&self, org: &OrgId) -> StorageResult<Vec<User>>;
    async fn user(&self, org: &OrgId, name: &str) -> StorageResult<User>;
    /// `Conflict` when the name is taken; `Invalid` for a bad name or one user too many.
    async fn create_user(&self, org: &OrgId, name: &str, role: Role, by: &Actor) -> StorageResult<()>;
    async fn set_role(&self, org: &OrgId, name: &str, role: Role, by: &Actor) -> StorageResult<()>;
    /// With all keys.
    async fn remove_user(&self, org: &OrgId, name: &str, by: &Actor) -> StorageResult<()>;
    /// `Conflict` when the fingerprint is known already; `Invalid` for one key too many.
    async fn add_key(&self, org: &OrgId, name: &str, key: NewKey, by: &Actor) -> StorageResult<KeyId>;
    /// Revoking again changes nothing.
    async fn revoke_key(&self, org: &OrgId, name: &str, key: KeyId, by: &Actor) -> StorageResult<()>;
    /// The keys of every organisation that is not disabled that are not revoked, expired ones included.
    async fn key_logins(&self) -> StorageResult<Vec<KeyLogin>>;
    /// When keys were used; only moves forward, unknown keys are passed over. No audit row.
    async fn keys_used(&self, uses: &[(KeyId, Timestamp)]) -> StorageResult<()>;
}

/// Whether a name can be one.
pub fn check_user_name(name: &str) -> StorageResult<()> {
    let good = name.len() <= NAME_CHARS_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@'));
    if good {
        return Ok(());
    }
    Err(invalid(format!(
        "name: 1 to {NAME_CHARS_MAX} letters, digits, `.`, `_`, `-` and `@`, the first a letter or digit"
    )))
}

/// Whether a label can be one.
pub(crate) fn check_label(label: &str) -> StorageResult<()> {
    if label.chars().count() > LABEL_CHARS_MAX || label.contains(char::is_control) {
        return Err(invalid(format!("label: at most {LABEL_CHARS_MAX} characters, none of them a control character")));
    }
    Ok(())
}

pub(crate) fn too_many_users() -> StorageError {
    invalid(format!("there are {USERS_MAX} users already, which is the bound"))
}

pub(crate) fn too_many_keys() -> StorageError {
    invalid(format!("the user has {KEYS_MAX} keys, which is the bound; revoke one first"))
}

fn invalid(text: String) -> StorageError {
    StorageError::new(ErrorKind::Invalid, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_include_those_before_them() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        for role in Role::ALL {
            assert_eq!(Role::parse(&role.as_str().to_uppercase()), Some(role));
        }
        assert_eq!(Role::parse("root"), None);
    }

    #[test]
    fn a_name_fits_a_path_and_a_log() {
        for good in ["a", "alice", "bob.smith@example.org", "svc-2_x", &"a".repeat(64)] {
            assert!(check_user_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a b", "a/b", "jürgen", "a\n", &"a".repeat(65)] {
            assert!(check_user_name(bad).is_err(), "{bad}");
        }
    }
}
