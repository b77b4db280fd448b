//! A login that Vault has refused, and when it may be repeated.
//!
//! Vault and OpenBao count refused logins by role id, whoever sends them: five within a quarter of an
//! hour lock the role for as long, for every host that uses it. So one host with a stale secret id
//! must not try again and again. A login that was refused is repeated with another secret id at once,
//! and with the same one after a wait in which that count is forgotten.

use super::{Failure, VaultError};
use crate::Secret;
use std::time::Duration;
use tokio::time::Instant;

/// After HTTP 403: a locked role is open again within a quarter of an hour, and a try while it is
/// locked is not counted.
const DENIED_WAIT: Duration = Duration::from_secs(300);
/// After HTTP 400: longer than Vault counts (`lockout_counter_reset`, a quarter of an hour), twice as
/// long each time.
const REFUSED_WAIT_FIRST: Duration = Duration::from_secs(1_200);
const REFUSED_WAIT_MAX: Duration = Duration::from_secs(6 * 3_600);

#[derive(Debug)]
pub(super) struct RefusedLogin {
    secret_id: Secret,
    error: VaultError,
    /// Refusals of this secret id, one after the other.
    times: u32,
    again_at: Instant,
}

impl RefusedLogin {
    /// What becomes of `error`, where it is a refusal; `before` is the last one.
    pub fn of(error: VaultError, secret_id: &Secret, before: Option<&Self>, now: Instant) -> Result<Self, VaultError> {
        let times = before.filter(|b| b.secret_id == *secret_id).map_or(0, |b| b.times).saturating_add(1);
        let Some(wait) = wait(error.failure, times, fastrand::f64()) else { return Err(error) };
        let mut error = error;
        error.reason.push_str(&format!(
            "; tried again when the file of the secret id changes, or in {} min, because Vault locks the role of all \
             hosts after a few refused logins",
            wait.as_secs() / 60
        ));
        Ok(Self { secret_id: secret_id.clone(), error, times, again_at: now + wait })
    }

    /// Why a login with `secret_id` is not even tried now.
    pub fn forbids(&self, secret_id: &Secret, now: Instant) -> Option<VaultError> {
        (self.secret_id == *secret_id && now < self.again_at).then(|| self.error.clone())
    }

    pub fn error(&self) -> VaultError {
        self.error.clone()
    }

    pub fn times(&self) -> u32 {
        self.times
    }
}

/// Up to a half more than the least, by the random number in 0..1; `None`: it was no refusal.
fn wait(failure: Failure, times: u32, random: f64) -> Option<Duration> {
    let least = match failure {
        Failure::Denied => DENIED_WAIT,
        Failure::Refused => REFUSED_WAIT_FIRST
            .saturating_mul(1u32.checked_shl(times.saturating_sub(1)).unwrap_or(u32::MAX))
            .min(REFUSED_WAIT_MAX),
        Failure::Unreachable
        | Failure::Tls
        | Failure::Timeout
        | Failure::File
        | Failure::NotFound
        | Failure::Sealed
        | Failure::Status(_)
        | Failure::BadAnswer
        | Failure::MissingKey => return None,
    };
    Some(least.mul_f64(1.0 + random.clamp(0.0, 1.0) / 2.0))
}

#[cfg(test)]
mod tests {
    use super::super::Step;
    use super::*;

    fn refused(failure: Failure, id: &str, before: Option<&RefusedLogin>) -> RefusedLogin {
        let error = VaultError::new(Step::Login, failure, "no");
        RefusedLogin::of(error, &Secret::new(id), before, Instant::now()).unwrap()
    }

    #[test]
    fn waits_outlast_vaults_count_and_grow_up_to_six_hours() {
        let minutes = |failure, times| {
            let of = |random| wait(failure, times, random).unwrap().as_secs() / 60;
            (of(0.0), of(1.0))
        };
        let refused: Vec<_> = [1, 2, 3, 6, u32::MAX].map(|times| minutes(Failure::Refused, times)).into();
        assert_eq!(refused, [(20, 30), (40, 60), (80, 120), (360, 540), (360, 540)]);
        assert_eq!((minutes(Failure::Denied, 1), minutes(Failure::Denied, 9)), ((5, 7), (5, 7)));
        assert_eq!(wait(Failure::Unreachable, 1, 0.0), None, "nobody has counted it");
    }

    #[test]
    fn another_secret_id_may_be_tried_at_once_and_begins_anew() {
        let (now, old) = (Instant::now(), Secret::new("old"));
        let first = refused(Failure::Refused, "old", None);
        assert!(first.forbids(&old, now).unwrap().reason.contains("when the file of the secret id changes"));
        assert!(first.forbids(&Secret::new("new"), now).is_none());
        assert!(first.forbids(&old, now + REFUSED_WAIT_MAX).is_none(), "some day");
        let second = refused(Failure::Refused, "old", Some(&first));
        assert_eq!((second.times(), refused(Failure::Refused, "new", Some(&second)).times()), (2, 1));
    }
}
