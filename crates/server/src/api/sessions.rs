//! Logged-in browsers. A session is a random 256-bit token in a cookie and, here, whose key opened it:
//! a key that is revoked or expires ends its sessions with it. Sessions are in memory: a restart logs
//! everybody out, and several Web UIs behind one address need sticky connections.

use runtime::Secret;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use storage::catalog::users::Fingerprint;
use tokio::time::Instant;

/// Name of the cookie.
pub const COOKIE: &str = "mutt_session";
/// How long a session lasts.
pub const LIFETIME: Duration = Duration::from_secs(12 * 3_600);
/// Sessions at a time; the oldest ends for one more.
const SESSIONS_MAX: usize = 10_000;

/// The sessions, by the fingerprint of their token.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<Fingerprint, Session>>);

struct Session {
    key: Fingerprint,
    since: Instant,
}

impl Session {
    fn lasts(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < LIFETIME
    }
}

impl Sessions {
    /// Opens a session for whoever has this key; returns the token for the cookie.
    pub fn open(&self, key: Fingerprint, now: Instant) -> Result<Secret, getrandom::Error> {
        let token = Secret::generate("")?;
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= SESSIONS_MAX {
            sessions.retain(|_, session| session.lasts(now));
        }
        if sessions.len() >= SESSIONS_MAX
            && let Some(oldest) = sessions.iter().min_by_key(|(_, session)| session.since).map(|(token, _)| *token)
        {
            sessions.remove(&oldest);
        }
        sessions.insert(token.fingerprint(), Session { key, since: now });
        Ok(token)
    }

    /// The key that opened the session of this token, while it lasts.
    pub fn key(&self, token: &str, now: Instant) -> Option<Fingerprint> {
        let token = Secret::fingerprint_of(token.as_bytes());
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get(&token)?;
        if session.lasts(now) {
            return Some(session.key);
        }
        sessions.remove(&token);
        None
    }

    pub fn close(&self, token: &str) {
        let token = Secret::fingerprint_of(token.as_bytes());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_by_logout_and_by_age() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let (one, two) = (sessions.open([1; 32], now).unwrap(), sessions.open([2; 32], now).unwrap());
        assert_eq!((sessions.key(one.expose(), now), sessions.key(two.expose(), now)), (Some([1; 32]), Some([2; 32])));
        assert_eq!(sessions.key("guess", now), None);
        sessions.close(one.expose());
        assert_eq!(sessions.key(one.expose(), now), None);
        assert_eq!(sessions.key(two.expose(), now + LIFETIME), None);
        assert!(sessions.0.lock().unwrap().is_empty(), "what is over is forgotten");
    }

    #[test]
    fn sessions_are_bounded_and_the_oldest_goes() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let first = sessions.open([1; 32], now).unwrap();
        for n in 1..=SESSIONS_MAX as u64 {
            sessions.open([2; 32], now + Duration::from_micros(n)).unwrap();
        }
        assert_eq!(sessions.key(first.expose(), now), None);
        assert_eq!(sessions.0.lock().unwrap().len(), SESSIONS_MAX);
    }
}
