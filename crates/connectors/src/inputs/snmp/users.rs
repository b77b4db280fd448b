//! SNMPv3 users, their keys, and what is remembered of the engines that they speak from.

use super::crypto::{self, AuthProtocol, Key, PrivProtocol};
use super::engine::{BOOTS_MAX, ID_OCTETS};
use super::{BindError, SnmpUser};
use std::collections::HashMap;
use std::time::Duration;

/// Senders whose clocks are remembered. Only authentic messages get one in, so strangers cannot
/// push anybody out.
const SENDERS_MAX: usize = 16_384;
/// RFC 3414 §2.2.3.
const WINDOW_S: u64 = 150;
/// RFC 3414 §11.2.
const PASSPHRASE_MIN: usize = 8;
const NAME_MAX: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// noAuthNoPriv
    Open,
    /// authNoPriv
    Authentic,
    /// authPriv
    Encrypted,
}

/// A user at one engine.
#[derive(Debug, Clone)]
pub(super) struct LocalKeys {
    pub auth: Option<(AuthProtocol, Key)>,
    pub privacy: Option<(PrivProtocol, Key)>,
}

#[derive(Debug)]
pub(super) struct User {
    pub name: String,
    pub level: Level,
    /// Known at this engine only.
    engine_id: Option<Vec<u8>>,
    auth: Option<(AuthProtocol, Key)>,
    privacy: Option<(PrivProtocol, Key)>,
    /// The keys at our own engine.
    pub own: LocalKeys,
}

impl User {
    fn new(config: &SnmpUser, own_engine: &[u8]) -> Result<Self, BindError> {
        let bad = |what| BindError::User { user: config.name.clone(), what };
        if config.name.is_empty() || config.name.len() > NAME_MAX {
            return Err(bad("a user name has 1 to 32 bytes"));
        }
        if config.engine_id.as_ref().is_some_and(|id| !ID_OCTETS.contains(&id.len())) {
            return Err(bad("an engine id has 5 to 32 octets"));
        }
        let short = |secret: &runtime::Secret| secret.expose().len() < PASSPHRASE_MIN;
        if config.auth.iter().any(|(_, s)| short(s)) || config.privacy.iter().any(|(_, s)| short(s)) {
            return Err(bad("a passphrase has at least 8 bytes (RFC 3414 §11.2)"));
        }
        let key = |protocol, secret: &runtime::Secret| crypto::passphrase_key(protocol, secret.expose().as_bytes());
        let auth = config.auth.as_ref().map(|(protocol, secret)| (*protocol, key(*protocol, secret)));
        let (level, privacy) = match (&auth, &config.privacy) {
            (None, None) => (Level::Open, None),
            (Some(_), None) => (Level::Authentic, None),
            (Some((digest, _)), Some((protocol, secret))) => {
                (Level::Encrypted, Some((*protocol, key(*digest, secret))))
            }
            (None, Some(_)) => return Err(bad("privacy needs authentication")),
        };
        let mut user = Self {
            name: config.name.clone(),
            level,
            engine_id: config.engine_id.clone(),
            auth,
            privacy,
            own: LocalKeys { auth: None, privacy: None },
        };
        user.own = user.local_keys(user.local_auth(own_engine), own_engine);
        Ok(user)
    }

    /// One digest of some fifty bytes: cheap enough to do for every stranger.
    pub(super) fn local_auth(&self, engine_id: &[u8]) -> Option<(AuthProtocol, Key)> {
        self.auth.as_ref().map(|(protocol, key)| (*protocol, crypto::localise(*protocol, key, engine_id)))
    }

    /// Cisco's way of stretching takes milliseconds: only for senders that are authentic.
    pub(super) fn local_keys(&self, auth: Option<(AuthProtocol, Key)>, engine_id: &[u8]) -> LocalKeys {
        let privacy = match (&auth, &self.privacy) {
            (Some((digest, _)), Some((protocol, key))) => {
                Some((*protocol, crypto::localise_priv(*digest, *protocol, key, engine_id)))
            }
            _ => None,
        };
        LocalKeys { auth, privacy }
    }
}

/// All users.
#[derive(Debug, Default)]
pub(super) struct Users(Vec<User>);

impl Users {
    pub(super) fn new(config: &[SnmpUser], own_engine: &[u8]) -> Result<Self, BindError> {
        let mut users: Vec<User> = Vec::with_capacity(config.len());
        for user in config {
            if users.iter().any(|u| u.name == user.name && u.engine_id == user.engine_id) {
                return Err(BindError::User { user: user.name.clone(), what: "the user is configured twice" });
            }
            users.push(User::new(user, own_engine)?);
        }
        Ok(Self(users))
    }

    /// The user of this name at this engine; one that is known there only goes first.
    pub(super) fn find(&self, name: &[u8], engine_id: &[u8]) -> Option<(usize, &User)> {
        let named = || self.0.iter().enumerate().filter(|(_, user)| user.name.as_bytes() == name);
        let here = named().find(|(_, user)| user.engine_id.as_deref() == Some(engine_id));
        here.or_else(|| named().find(|(_, user)| user.engine_id.is_none()))
    }
}

/// What is known of a user at another engine.
#[derive(Debug)]
pub(super) struct Sender {
    pub keys: LocalKeys,
    boots: u32,
    /// The highest engine time seen, and when.
    time: u32,
    heard: Duration,
}

/// Clocks and keys by engine and user. By both, because who has one user's key can sign for any
/// engine, and must not be able to move the clocks of other users.
#[derive(Debug, Default)]
pub(super) struct Senders(HashMap<(Vec<u8>, usize), Sender>);

impl Senders {
    pub(super) fn get(&self, engine_id: &[u8], user: usize) -> Option<&Sender> {
        self.0.get(&(engine_id.to_vec(), user))
    }

    /// Whether an authentic message of this time is of now, as far as we know (RFC 3414 §3.2 7b);
    /// if so, that clock is remembered. The first message of a sender sets it.
    pub(super) fn timely(
        &mut self,
        engine_id: &[u8],
        user: usize,
        (boots, time): (u32, u32),
        now: Duration,
        keys: impl FnOnce() -> LocalKeys,
    ) -> bool {
        if boots >= BOOTS_MAX {
            return false;
        }
        let key = (engine_id.to_vec(), user);
        if let Some(known) = self.0.get_mut(&key) {
            let expected = u64::from(known.time) + now.saturating_sub(known.heard).as_secs();
            let old = boots < known.boots || (boots == known.boots && u64::from(time) + WINDOW_S < expected);
            if old {
                return false;
            }
            if boots > known.boots || time > known.time {
                (known.boots, known.time, known.heard) = (boots, time, now);
            }
            return true;
        }
        if self.0.len() >= SENDERS_MAX {
            self.forget_the_quiet();
        }
        self.0.insert(key, Sender { keys: keys(), boots, time, heard: now });
        true
    }

    /// Makes room: an eighth goes at once, so that this is rare.
    fn forget_the_quiet(&mut self) {
        let mut heard: Vec<Duration> = self.0.values().map(|sender| sender.heard).collect();
        let (_, limit, _) = heard.select_nth_unstable(SENDERS_MAX / 8);
        let limit = *limit;
        self.0.retain(|_, sender| sender.heard > limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::Secret;

    fn config(name: &str) -> SnmpUser {
        SnmpUser { name: name.to_owned(), engine_id: None, auth: None, privacy: None }
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text)
    }

    #[test]
    fn users_that_cannot_work_are_refused_by_name() {
        let md5 = |text| Some((AuthProtocol::Md5, secret(text)));
        for (user, why) in [
            (config(""), "1 to 32"),
            (config(&"x".repeat(33)), "1 to 32"),
            (SnmpUser { auth: md5("seven77"), ..config("a") }, "at least 8"),
            (
                SnmpUser { privacy: Some((PrivProtocol::Des, secret("12345678"))), ..config("a") },
                "needs authentication",
            ),
            (SnmpUser { engine_id: Some(vec![1]), ..config("a") }, "5 to 32"),
        ] {
            let error = Users::new(&[user], b"our engine").unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(!error.contains("seven77"));
        }
        assert!(Users::new(&[config("a"), config("a")], b"our engine").is_err());
    }

    #[test]
    fn a_user_of_one_engine_goes_before_the_one_of_all() {
        let here = SnmpUser { engine_id: Some(b"router".to_vec()), ..config("a") };
        let users = Users::new(&[config("a"), here], b"our engine").unwrap();
        assert_eq!(users.find(b"a", b"router").unwrap().0, 1);
        assert_eq!(users.find(b"a", b"switch").unwrap().0, 0);
        assert!(users.find(b"b", b"router").is_none());
    }

    fn timely(senders: &mut Senders, engine: &[u8], boots: u32, time: u32, now: u64) -> bool {
        let keys = || LocalKeys { auth: None, privacy: None };
        senders.timely(engine, 0, (boots, time), Duration::from_secs(now), keys)
    }

    #[test]
    fn a_clock_that_ran_backwards_is_a_replay() {
        let mut senders = Senders::default();
        for (boots, time, now, expected, why) in [
            (5, 1_000, 0, true, "the first sets the clock"),
            (5, 1_000, 150, true, "150 s late is in the window"),
            (5, 1_000, 151, false, "151 s late is not"),
            (5, 1_151, 151, true, "the device's own time went on"),
            (4, 9_000, 152, false, "an earlier boot"),
            (6, 0, 153, true, "it started again"),
            (5, 1_160, 154, false, "the boot before"),
            (BOOTS_MAX, 0, 155, false, "no engine boots so often"),
            (6, 900, 156, true, "a clock may be fast"),
        ] {
            assert_eq!(timely(&mut senders, b"one", boots, time, now), expected, "{why}");
        }
        assert!(timely(&mut senders, b"two", 1, 1, 200), "each engine has its own");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_quiet_go_first() {
        let mut senders = Senders::default();
        for i in 0..SENDERS_MAX as u32 + 10 {
            assert!(timely(&mut senders, &i.to_be_bytes(), 9, 1, u64::from(i)));
        }
        assert!(senders.0.len() <= SENDERS_MAX);
        assert!(senders.get(&0u32.to_be_bytes(), 0).is_none());
        assert!(senders.get(&(SENDERS_MAX as u32).to_be_bytes(), 0).is_some());
    }
}
