//! Logins for a store, which may change while we run.
//!
//! A rotation goes: write NEXT → make the store accept both → promote NEXT to CURRENT → retire the
//! old one (contract mutt §8.4). So a driver tries every login in order, newest list first, and a
//! password that stops working is no error as long as another works.

use crate::Secret;
use tokio::sync::watch;

/// A name and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// `None`: the store's default user.
    pub user: Option<String>,
    /// May be empty: none is sent then.
    pub password: Secret,
}

/// The logins to try, in order. Cheap to clone; clones see every change.
#[derive(Debug, Clone)]
pub struct Credentials {
    logins: watch::Receiver<Vec<Login>>,
    /// Counts the times that newer ones were asked for, where somebody can give them.
    asked: Option<watch::Sender<u64>>,
}

/// Changes what its [`Credentials`] say.
#[derive(Debug)]
pub struct CredentialsWriter(watch::Sender<Vec<Login>>);

impl Credentials {
    /// Logins that can be changed by the writer.
    pub fn new(logins: Vec<Login>) -> (CredentialsWriter, Self) {
        let (writer, reader) = watch::channel(logins);
        (CredentialsWriter(writer), Self { logins: reader, asked: None })
    }

    /// The same; `asked` counts the calls of [`Self::refused`].
    #[must_use]
    pub fn asking(self, asked: watch::Sender<u64>) -> Self {
        Self { asked: Some(asked), ..self }
    }

    /// The store takes none of these logins: whoever reads them from their source should look now and
    /// not at the next turn. Returns at once.
    pub fn refused(&self) {
        if let Some(asked) = &self.asked {
            asked.send_modify(|times| *times += 1);
        }
    }

    /// One login that never changes.
    pub fn fixed(user: Option<String>, password: Secret) -> Self {
        Self::new(vec![Login { user, password }]).1
    }

    /// The logins of now, best first.
    pub fn logins(&self) -> Vec<Login> {
        self.logins.borrow().clone()
    }

    /// Waits for the next change; never returns where nobody can change them any more.
    pub async fn changed(&mut self) {
        if self.logins.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl CredentialsWriter {
    /// Replaces the logins; readers are woken only when something is different.
    pub fn set(&self, logins: Vec<Login>) {
        self.0.send_if_modified(|old| {
            let differs = *old != logins;
            if differs {
                *old = logins;
            }
            differs
        });
    }
}

/// Keys that are valid side by side, the preferred one first. Cheap to clone; clones see every
/// change.
#[derive(Debug, Clone)]
pub struct KeyRing(watch::Receiver<Vec<Secret>>);

impl KeyRing {
    /// One key that never changes. An empty one is no key.
    pub fn fixed(key: Secret) -> Self {
        Self::from(if key.is_empty() { Vec::new() } else { vec![key] })
    }

    /// The keys of now.
    pub fn keys(&self) -> Vec<Secret> {
        self.0.borrow().clone()
    }

    /// Compares with every key, each in constant time. No key matches nothing.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        self.has_fingerprint(&Secret::fingerprint_of(candidate))
    }

    /// Whether one of the keys has this SHA-256; every key is compared, each in constant time.
    pub fn has_fingerprint(&self, fingerprint: &[u8; 32]) -> bool {
        self.0.borrow().iter().fold(false, |found, key| found | (key.has_fingerprint(fingerprint) & !key.is_empty()))
    }
}

/// Keys that never change.
impl From<Vec<Secret>> for KeyRing {
    fn from(keys: Vec<Secret>) -> Self {
        Self(watch::channel(keys).1)
    }
}

impl From<watch::Receiver<Vec<Secret>>> for KeyRing {
    fn from(keys: watch::Receiver<Vec<Secret>>) -> Self {
        Self(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn readers_see_a_change_once_and_only_a_real_one() {
        let login = |password: &str| Login { user: None, password: Secret::new(password) };
        let (writer, mut reader) = Credentials::new(vec![login("a")]);
        let second = reader.clone();
        writer.set(vec![login("a")]);
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, reader.changed()).await.is_err(), "nothing is different");
        writer.set(vec![login("a"), login("b")]);
        tokio::time::timeout(soon, reader.changed()).await.expect("a change");
        assert_eq!(second.logins().len(), 2);
        drop(writer);
        assert!(tokio::time::timeout(soon, reader.changed()).await.is_err(), "nobody can change it");
        assert_eq!(reader.logins()[1].password.expose(), "b");
    }

    #[test]
    fn every_key_of_the_ring_opens_and_none_opens_nothing() {
        let (writer, reader) = watch::channel(vec![Secret::new("a"), Secret::new("b")]);
        let ring = KeyRing::from(reader);
        assert!(ring.matches(b"a") && ring.matches(b"b") && !ring.matches(b"c") && !ring.matches(b""));
        writer.send(vec![Secret::new("b")]).unwrap();
        assert!(!ring.matches(b"a"));
        assert!(!KeyRing::fixed(Secret::new("")).matches(b""));
    }
}
