//! A token's life: log in, look whether it is still good, renew it, log in anew.

use super::api::{Api, Lease};
use super::local::read_secret_in_background;
use super::refused::RefusedLogin;
use super::{Failure, KvPath, SecretSet, Step, VaultConfig, VaultError};
use crate::Secret;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// What has been done since the start; for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Logins that gave a token.
    pub logins: u64,
    pub renewals: u64,
    /// Secrets read from Vault.
    pub reads: u64,
    /// Rounds that failed, of Vault.
    pub failures: u64,
    /// Times that readers were given something new.
    pub changes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub logins: AtomicU64,
    pub renewals: AtomicU64,
    pub reads: AtomicU64,
    pub failures: AtomicU64,
    pub changes: AtomicU64,
}

impl Counters {
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            logins: get(&self.logins),
            renewals: get(&self.renewals),
            reads: get(&self.reads),
            failures: get(&self.failures),
            changes: get(&self.changes),
        }
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A token is never let run below this, or a tenth of its life if that is shorter.
const RENEW_BELOW_MIN: Duration = Duration::from_secs(30);

/// Secrets remembered to be kept out of errors.
const HIDDEN_MAX: usize = 8;

#[derive(Debug)]
struct Token {
    secret: Secret,
    /// `None`: never.
    ends: Option<Instant>,
    renewable: bool,
    /// Time left at which it is renewed.
    renew_below: Duration,
    /// When Vault last told us about it.
    checked: Instant,
}

impl Token {
    fn new(lease: Lease, threshold: Duration, now: Instant) -> Self {
        let renew_below = lease.ttl.map_or(Duration::ZERO, |ttl| {
            // Not so late that one failed try is the end.
            let least = (ttl / 10).min(RENEW_BELOW_MIN);
            threshold.max(least).min(ttl * 2 / 3)
        });
        let ends = lease.ttl.map(|ttl| now + ttl);
        Self { secret: lease.token, ends, renewable: lease.renewable, renew_below, checked: now }
    }

    fn learn(&mut self, lease: &Lease, now: Instant) {
        self.checked = now;
        self.ends = lease.ttl.map(|ttl| now + ttl);
        self.renewable = lease.renewable;
    }

    /// When it should be renewed.
    fn due(&self) -> Option<Instant> {
        self.ends.map(|ends| ends.checked_sub(self.renew_below).unwrap_or(ends))
    }

    fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    fn has_ended(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }
}

/// What one reading gave.
#[derive(Debug)]
pub(super) struct Reading {
    pub set: SecretSet,
    /// The secrets are good, and yet something needs attention: the token cannot be renewed.
    pub trouble: Option<VaultError>,
}

/// Talks to one Vault.
#[derive(Debug)]
pub(super) struct Session {
    config: VaultConfig,
    /// Made at the login, so that a new CA file is taken up.
    api: Option<Api>,
    token: Option<Token>,
    /// The reading that worked first; from then on there is no other.
    path: Option<KvPath>,
    /// The last login, where it was refused.
    refused: Option<RefusedLogin>,
    /// The last that we sent or were given: a server may repeat them in what it says later.
    hidden: VecDeque<Secret>,
    counters: Arc<Counters>,
}

impl Session {
    pub fn new(config: VaultConfig, counters: Arc<Counters>) -> Self {
        Self { config, api: None, token: None, path: None, refused: None, hidden: VecDeque::new(), counters }
    }

    /// Where the secrets are read, for messages.
    pub fn place(&self) -> String {
        match &self.path {
            Some(path) => path.to_string(),
            None => format!("{} below {}", self.config.path, self.config.mount),
        }
    }

    /// When the token wants attention; `None`: not before the next reading.
    pub fn due(&self) -> Option<Instant> {
        self.token.as_ref().and_then(Token::due)
    }

    /// How often the login was refused that is not repeated for now, if there is one.
    pub fn refused(&self) -> Option<u32> {
        self.refused.as_ref().map(RefusedLogin::times)
    }

    /// Sees to the token, then reads the secrets.
    pub async fn read(&mut self) -> Result<Reading, VaultError> {
        let kept = self.keep_token().await;
        if let Err(error) = &kept {
            if error.failure == Failure::Tls {
                // Perhaps there is a new CA file by the next time.
                self.api = None;
            }
            let away = matches!(error.failure, Failure::Unreachable | Failure::Timeout | Failure::Tls);
            if away || self.token.is_none() {
                return Err(error.clone());
            }
        }
        let set = match self.read_kv().await {
            Err(error) if error.failure == Failure::Denied => self.read_with_a_good_token(error).await?,
            Err(error) => {
                if error.failure == Failure::Tls {
                    self.api = None;
                }
                return Err(error);
            }
            Ok(set) => set,
        };
        count(&self.counters.reads);
        Ok(Reading { set, trouble: kept.err() })
    }

    /// Renews the token or logs in where it is time to.
    async fn keep_token(&mut self) -> Result<(), VaultError> {
        if self.token.as_ref().is_none_or(|token| token.has_ended(Instant::now())) {
            self.token = None;
            return self.login().await;
        }
        let api = open(&mut self.api, &self.config, &self.hidden)?;
        let Some(token) = &mut self.token else { return self.login().await };
        if token.checked.elapsed() >= self.config.renew_check_interval {
            match api.lookup_self(&token.secret).await {
                Ok(lease) => token.learn(&lease, Instant::now()),
                Err(error) if error.failure == Failure::Denied => return self.log_in_anew(&error).await,
                Err(error) => return Err(error),
            }
        }
        if !token.is_due(Instant::now()) {
            return Ok(());
        }
        let mut why = VaultError::new(Step::RenewToken, Failure::Refused, "it is not renewable");
        if token.renewable {
            match api.renew_self(&token.secret).await {
                Ok(lease) => {
                    token.learn(&lease, Instant::now());
                    count(&self.counters.renewals);
                    if !token.is_due(Instant::now()) {
                        tracing::debug!(ttl_secs = lease.ttl.map(|t| t.as_secs()), "renewed the token of Vault");
                        return Ok(());
                    }
                    why.reason = "it has reached its longest life (max_ttl)".to_owned();
                }
                Err(error) if matches!(error.failure, Failure::Denied | Failure::Refused) => why = error,
                Err(error) => return Err(error),
            }
        }
        self.log_in_anew(&why).await
    }

    /// `why` it is not enough to keep the token we have.
    async fn log_in_anew(&mut self, why: &VaultError) -> Result<(), VaultError> {
        tracing::info!(reason = %why, "the token of Vault is at its end; logging in anew");
        // A renewal may be denied by the policy alone; the token is good until a look-up says no.
        if why.step == Step::LookupToken {
            self.token = None;
        }
        self.login().await
    }

    /// Gets a new token; the one that is there stays until then.
    async fn login(&mut self) -> Result<(), VaultError> {
        let secret_id = self.secret_id().await?;
        // A client of its own for each token, so that a new CA file is taken up.
        let mut api = Api::open(&self.config, self.hidden.iter().cloned().collect())?;
        let lease = match (&secret_id, &self.config.token) {
            (Some(secret_id), _) => {
                let before = self.refused.take();
                if let Some(error) = before.as_ref().and_then(|b| b.forbids(secret_id, Instant::now())) {
                    self.refused = before;
                    return Err(error);
                }
                match api.login(&self.config.role_id, secret_id).await {
                    Ok(lease) => lease,
                    Err(error) => {
                        let refused = RefusedLogin::of(error, secret_id, before.as_ref(), Instant::now())?;
                        return Err(self.refused.insert(refused).error());
                    }
                }
            }
            (None, Some(token)) => api.lookup_self(token).await.map_err(|mut error| {
                if error.failure == Failure::Denied {
                    error.reason.push_str("; the token of VAULT_TOKEN is not valid (any more): give a new one");
                }
                error
            })?,
            (None, None) => return Err(VaultError::new(Step::Login, Failure::File, "there is nothing to log in with")),
        };
        count(&self.counters.logins);
        let (ttl_secs, renewable) = (lease.ttl.map(|t| t.as_secs()), lease.renewable);
        tracing::info!(ttl_secs, renewable, "logged in to Vault");
        api.hide(lease.token.clone());
        self.hide(lease.token.clone());
        self.token = Some(Token::new(lease, self.config.renew_threshold, Instant::now()));
        self.api = Some(api);
        Ok(())
    }

    /// What goes with the role id; `None` where there is none.
    async fn secret_id(&mut self) -> Result<Option<Secret>, VaultError> {
        if self.config.role_id.is_empty() {
            self.config.token.clone().into_iter().for_each(|token| self.hide(token));
            return Ok(None);
        }
        let secret_id = read_secret_in_background(&self.config.secret_id_file)
            .await
            .map_err(|reason| VaultError::new(Step::Files, Failure::File, format!("VAULT_SECRET_ID_FILE: {reason}")))?;
        self.hide(self.config.role_id.clone());
        self.hide(secret_id.clone());
        Ok(Some(secret_id))
    }

    fn hide(&mut self, secret: Secret) {
        if self.hidden.contains(&secret) {
            return;
        }
        self.hidden.push_back(secret);
        if self.hidden.len() > HIDDEN_MAX {
            self.hidden.pop_front();
        }
    }

    /// A denial means a policy, or a token that was revoked: Vault says the same to both.
    async fn read_with_a_good_token(&mut self, mut denied: VaultError) -> Result<SecretSet, VaultError> {
        let api = open(&mut self.api, &self.config, &self.hidden)?;
        let Some(token) = &mut self.token else { return Err(denied) };
        match api.lookup_self(&token.secret).await {
            Ok(lease) => {
                token.learn(&lease, Instant::now());
                denied.reason.push_str("; our token is good, so its policy must allow `read` there");
                Err(denied)
            }
            Err(error) if error.failure == Failure::Denied => {
                self.log_in_anew(&error).await?;
                self.read_kv().await
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the path that worked before, or else the first that works.
    async fn read_kv(&mut self) -> Result<SecretSet, VaultError> {
        let paths = match &self.path {
            Some(path) => vec![path.clone()],
            None => KvPath::readings(&self.config.mount, &self.config.path),
        };
        let api = open(&mut self.api, &self.config, &self.hidden)?;
        let Some(token) = &self.token else {
            return Err(VaultError::new(Step::Login, Failure::Denied, "there is no token"));
        };
        let mut refused: Option<VaultError> = None;
        for path in paths {
            match api.read(&token.secret, &path).await {
                Ok(set) => {
                    if self.path.is_none() {
                        let setting = &self.config.path;
                        tracing::info!("the secrets are at `{path}` of Vault (`{setting}` by the configuration)");
                    }
                    self.path = Some(path);
                    return Ok(set);
                }
                Err(error) if matches!(error.failure, Failure::NotFound | Failure::Denied) => {
                    refused = Some(match refused {
                        None => error,
                        Some(first) => both(first, &error),
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or_else(|| VaultError::new(Step::Read, Failure::NotFound, "no path is configured")))
    }
}

/// The client of this session; where TLS failed, a new one.
fn open<'a>(api: &'a mut Option<Api>, config: &VaultConfig, hidden: &VecDeque<Secret>) -> Result<&'a Api, VaultError> {
    match api {
        Some(api) => Ok(api),
        None => Ok(api.insert(Api::open(config, hidden.iter().cloned().collect())?)),
    }
}

fn both(first: VaultError, second: &VaultError) -> VaultError {
    // A denial may be a dead token, which a "not found" cannot.
    let failure = if second.failure == Failure::Denied { Failure::Denied } else { first.failure };
    VaultError::new(Step::Read, failure, format!("{}; and {}", first.reason, second.reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(ttl: u64) -> Lease {
        let ttl = (ttl > 0).then(|| Duration::from_secs(ttl));
        Lease { token: Secret::new("t"), ttl, renewable: true }
    }

    #[test]
    fn tokens_are_renewed_below_the_threshold_and_short_ones_after_a_third() {
        let now = Instant::now();
        for (ttl, threshold, due_after) in [(86_400, 3_600, 82_800), (6, 3_600, 2), (7_200, 0, 7_170), (100, 0, 90)] {
            let token = Token::new(lease(ttl), Duration::from_secs(threshold), now);
            assert_eq!(token.due().unwrap() - now, Duration::from_secs(due_after), "{ttl} {threshold}");
            assert!(!token.is_due(now) && !token.has_ended(now));
            assert!(token.has_ended(now + Duration::from_secs(ttl)));
        }
        let root = Token::new(lease(0), Duration::from_secs(3_600), now);
        assert!(root.due().is_none() && !root.has_ended(now + Duration::from_secs(1_000_000)), "it does not end");
    }

    #[test]
    fn a_renewal_that_gives_less_than_the_threshold_leaves_it_due() {
        let start = Instant::now();
        let mut token = Token::new(lease(9), Duration::from_secs(3_600), start);
        let later = start + Duration::from_secs(8);
        assert!(token.is_due(later));
        token.learn(&lease(9), later);
        assert!(!token.is_due(later), "a whole life more");
        token.learn(&lease(6), later);
        assert!(token.is_due(later), "6 s of a token of 9 s: near its longest life");
    }
}
