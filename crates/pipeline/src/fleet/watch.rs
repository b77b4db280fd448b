//! What the fleet does without being asked: it writes down who was seen, tells who is silent or back, and looks who
//! must not speak any more.

use super::Fleet;
use super::desk::counts;
use super::events::{About, DEMO_ORG};
use model::{ErrorKind, OrgId, Timestamp};
use runtime::Stop;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use storage::StorageResult;
use storage::catalog::Actor;
use storage::catalog::fleet::{FleetStore, NewToken};

/// How often who must not speak is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often sightings are written, in looks.
const WRITE_EVERY: u32 = 5;
/// Agents written or told to be silent in one transaction.
const BATCH: usize = 1_000;
/// The token that everybody knows (contract security-manager §2.2).
pub const DEMO_TOKEN: &str = "sm_tok_demo123";

impl Fleet {
    /// Runs until the stop, and writes what is left then.
    pub async fn watch(self, stop: Stop) {
        let began = self.0.clock.now();
        let mut revision = None;
        let mut looks = 0u32;
        while stop.sleep(LOOK_EVERY).await {
            let Some(store) = self.0.store.get().cloned() else { continue };
            let now = self.0.clock.now();
            if let Err(error) = self.look(&*store, &mut revision, now).await {
                tracing::debug!(%error, "who must not speak could not be looked at");
            }
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(WRITE_EVERY) && self.write(&*store).await.is_ok() {
                // Whoever was there before the start has time to come back.
                if now.since(began) > self.0.config.silence {
                    self.tell_silent(&*store, now).await;
                }
                self.0.registry().forget(now.minus(self.0.config.silence * 2));
            }
        }
        if let Some(store) = self.0.store.get().cloned() {
            let _ = self.write(&*store).await;
        }
    }

    /// Reads who is barred, when something changed.
    async fn look(&self, store: &dyn FleetStore, known: &mut Option<u64>, now: Timestamp) -> StorageResult<()> {
        let revision = store.fleet_revision().await?;
        if *known == Some(revision) {
            // Tokens end by themselves, too.
            return self.look_at_logins(store, now).await;
        }
        let barred: HashSet<_> =
            store.barred_agents(now).await?.into_iter().map(|(org, id)| (org, Arc::from(id))).collect();
        *self.0.barred.write().unwrap_or_else(PoisonError::into_inner) = barred;
        self.look_at_logins(store, now).await?;
        *known = Some(revision);
        Ok(())
    }

    async fn look_at_logins(&self, store: &dyn FleetStore, now: Timestamp) -> StorageResult<()> {
        let logins = self.0.registry().token_logins();
        let mut good = HashSet::new();
        for (org, agent, token) in logins {
            let is_good =
                good.contains(&token) || store.token_login(&token).await?.is_some_and(|login| counts(&login, now));
            if is_good {
                good.insert(token);
            } else {
                self.0.bar(&org, &agent);
            }
        }
        Ok(())
    }

    /// Writes what was seen, and tells who is back.
    async fn write(&self, store: &dyn FleetStore) -> StorageResult<()> {
        let mut changes = self.0.registry().changes();
        while !changes.is_empty() {
            let rest = changes.split_off(changes.len().min(BATCH));
            match store.sighted(changes.clone()).await {
                Ok(back) => {
                    for agent in back {
                        self.0.tell(&agent, About::Back).await;
                    }
                }
                Err(error) => {
                    let mut registry = self.0.registry();
                    registry.put_back(changes);
                    registry.put_back(rest);
                    tracing::warn!(%error, "who was seen could not be written; trying again");
                    return Err(error);
                }
            }
            changes = rest;
        }
        Ok(())
    }

    async fn tell_silent(&self, store: &dyn FleetStore, now: Timestamp) {
        let before = now.minus(self.0.config.silence);
        loop {
            let silent = match store.fell_silent(before, BATCH as u32).await {
                Ok(silent) => silent,
                Err(error) => {
                    tracing::warn!(%error, "who is silent could not be looked at");
                    return;
                }
            };
            self.0.metrics.agents_silent.inc_by(silent.len() as u64);
            for agent in &silent {
                self.0.tell(agent, About::Silent).await;
            }
            if silent.len() < BATCH {
                return;
            }
        }
    }

    /// Lets the demonstration in, or keeps it out: its token counts in demonstrations only.
    pub async fn set_demo(&self, store: &dyn FleetStore) -> StorageResult<()> {
        let now = self.0.clock.now();
        let fingerprint = Sha256::digest(DEMO_TOKEN.as_bytes()).into();
        let by = Actor {
            name: "muttd".to_owned(),
            reason: Some("MUTT_DEMO".to_owned()),
            correlation_id: String::new(),
            at: now,
        };
        let known = store.token_login(&fingerprint).await?;
        let is_good = known.as_ref().is_some_and(|login| counts(login, now));
        if !self.0.config.demo {
            if let Some(login) = known.filter(|_| is_good) {
                store.revoke_token(&login.token.org, login.token.id, &by).await?;
            }
            return Ok(());
        }
        if is_good {
            return Ok(());
        }
        let org: OrgId = DEMO_ORG.parse().unwrap_or_default();
        match store.create_org(&org, "Demonstration", None, &by).await {
            Err(error) if error.kind() != ErrorKind::Conflict => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let token = NewToken {
            fingerprint,
            label: "published token of demonstrations".to_owned(),
            host: None,
            legacy: true,
            expires_at: now.plus(Duration::from_secs(10 * 365 * 86_400)),
            uses_max: None,
        };
        store.add_token(&org, token, &by).await.map(drop)
    }
}
