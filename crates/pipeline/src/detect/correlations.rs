//! Detection's correlations: with the batch where this process has all groups, otherwise by whoever holds
//! the shard.
//!
//! In the shared form a batch hands its hits over before it is settled; known hits are no new ones. Each
//! alerter takes what waits for its shards, works it, stores the names of what fires, writes the alerts, and
//! commits that the hits are taken together with the new state, under its fence: of two that believe they
//! hold a shard only one can commit. What was written and not committed is written again, with the same ids.

use super::{Detector, Item, META_ALERT_HOST};
use crate::codec;
use crate::detections::{About, Sets, Turn};
use bytes::Bytes;
use model::{Alert, Event, EventId, InputKind, OrgId, Timestamp};
use rules::correlate::{Firing, Hit};
use runtime::Stop;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use storage::StorageResult;
use storage::correlations::{HOLD_EVERY, HitKey, Waiting};
use tokio::time::Instant;

/// How often time passes for correlations.
const PASS: Duration = Duration::from_secs(5);
/// How often a shared store is asked for hits: part of the time from an event to its alert.
const POLL: Duration = Duration::from_millis(100);
const AGAIN: Duration = Duration::from_secs(1);
/// Hits that are worked at once.
const WAITING_MAX: usize = 4_096;
/// How long a hit waits for its correlation to appear: other alerters may have newer rules for a moment.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// Longer events are told to others in short.
const ABOUT_BYTES_MAX: usize = 16 << 10;
const ABOUT_CHARS_MAX: usize = 1_000;

/// Hits whose correlation is not here, since when.
type Unknown = HashMap<HitKey, Instant>;

impl Detector {
    /// What the batch means to correlations, where this process works them all; the turn is to be kept
    /// when the alerts are written.
    pub(super) async fn correlated(
        &self,
        items: &[Item],
        sets: &Arc<Sets>,
    ) -> StorageResult<Option<(Turn, Vec<Alert>)>> {
        if self.detections.shares_correlations() || items.iter().all(|item| item.detected.correlated.is_empty()) {
            return Ok(None);
        }
        let turn = self.detections.turn(sets).await;
        self.report("correlations", &turn);
        let mut turn = turn?;
        let mut by_org: BTreeMap<&OrgId, Vec<&Item>> = BTreeMap::new();
        for item in items.iter().filter(|item| !item.detected.correlated.is_empty()) {
            by_org.entry(&item.event.org).or_default().push(item);
        }
        let now = self.clock.now();
        let mut alerts = Vec::new();
        for (org, items) in by_org {
            let hits = items.iter().flat_map(|item| item.detected.correlated.iter().cloned()).collect();
            let (set, firings) = turn.apply(org, now, hits);
            if firings.is_empty() {
                continue;
            }
            let told: Vec<Told<'_>> =
                items.iter().flat_map(|item| item.detected.correlated.iter().map(Told::of)).collect();
            for firing in firings {
                let event = newest(&told, &firing).and_then(|id| items.iter().find(|item| item.event.id == id));
                let Some(item) = event.or(items.last()) else { continue };
                let team = self.rulebook.snapshot().team(org, &item.event.host);
                let about = About { event: &item.event, team: team.as_deref(), now };
                alerts.extend(self.detections.fired(&set, &firing, &about));
            }
        }
        let named = turn.name().await;
        self.report("correlations", &named);
        named?;
        Ok(Some((turn, alerts)))
    }

    /// Gives what the batch means to correlations to those who work them, where they are shared.
    pub(super) async fn hand_over(&self, items: &[Item], sets: &Sets) -> StorageResult<()> {
        if !self.detections.shares_correlations() {
            return Ok(());
        }
        let mut by_org: BTreeMap<&OrgId, Vec<(&Event, &[Hit])>> = BTreeMap::new();
        for item in items.iter().filter(|item| !item.detected.correlated.is_empty()) {
            by_org.entry(&item.event.org).or_default().push((&item.event, &item.detected.correlated));
        }
        for (org, events) in by_org {
            let added = self.detections.hand_over(sets, org, &events, about).await;
            self.report("correlations", &added);
            added?;
        }
        Ok(())
    }

    /// Works correlations beside the batches until stopped: lets time pass, so that what fires because
    /// nothing more came fires, and what nobody needs any more is forgotten; and works hits of shared ones.
    /// One of these runs in a process.
    pub async fn correlate(self, stop: Stop) {
        if !self.detections.shares_correlations() {
            while stop.sleep(PASS).await {
                let passed = self.pass().await;
                self.told(&passed, "time could not pass for the correlations; it is tried again");
            }
            return;
        }
        let mut unknown = Unknown::new();
        let (mut held_at, mut passed_at) = (None::<Instant>, Instant::now());
        while !stop.is_requested() {
            let mut worked = Ok(0);
            if held_at.is_none_or(|at| at.elapsed() >= HOLD_EVERY) {
                worked = self.detections.hold().await.map(|()| 0);
                held_at = Some(Instant::now());
            }
            if worked.is_ok() {
                worked = self.work_waiting(&mut unknown).await;
            }
            if let Ok(count) = worked
                && passed_at.elapsed() >= PASS
            {
                worked = self.pass().await.map(|()| count);
                passed_at = Instant::now();
            }
            self.told(&worked, "shared correlations could not be worked; it is tried again");
            let rest = match worked {
                Ok(count) if count >= WAITING_MAX => continue,
                Ok(_) => POLL,
                Err(_) => AGAIN,
            };
            tokio::select! {
                () = self.detections.handed_over(), if worked.is_ok() => {}
                slept = stop.sleep(rest) => if !slept { break },
            }
        }
        // Others need not wait until it is known that this one is gone.
        if let Err(error) = self.detections.release().await {
            tracing::warn!(%error, "shared correlations could not be given up; others take them over in a while");
        }
    }

    fn told<T>(&self, result: &StorageResult<T>, what: &str) {
        let before = self.health.public("correlations").is_none_or(|state| state.is_ok());
        self.report("correlations", result);
        if let (Err(error), true) = (result, before) {
            tracing::warn!(%error, "{what}");
        }
    }

    async fn pass(&self) -> StorageResult<()> {
        let sets = self.detections.sets();
        if !sets.correlate() {
            return Ok(());
        }
        let now = self.clock.now();
        let mut turn = self.detections.turn(&sets).await?;
        let mut told = Vec::new();
        let passed = turn.pass(now);
        turn.name().await?;
        for (org, set, firings) in passed {
            let alert = |firing: &Firing| {
                let event = nobodys(&org, firing, now);
                self.detections.fired(&set, firing, &About { event: &event, team: None, now })
            };
            let alerts: Vec<Alert> = firings.iter().filter_map(alert).collect();
            if !alerts.is_empty() {
                told.extend(self.record(&org, Vec::new(), alerts).await?);
            }
        }
        self.outbox.publish(told).await;
        turn.keep().await
    }

    /// Works hits that wait for the shards of this process; how many there were.
    async fn work_waiting(&self, unknown: &mut Unknown) -> StorageResult<usize> {
        let sets = self.detections.sets();
        let mut turn = self.detections.turn(&sets).await?;
        let holds = turn.holds();
        if holds.is_empty() {
            return turn.keep().await.map(|()| 0);
        }
        let waiting = self.detections.waiting(&holds, WAITING_MAX).await?;
        let count = waiting.len();
        let known: HashSet<&HitKey> = waiting.iter().map(|hit| &hit.key).collect();
        unknown.retain(|key, _| known.contains(key));
        let mut by_shard: BTreeMap<(usize, OrgId), Vec<&Waiting>> = BTreeMap::new();
        for hit in &waiting {
            by_shard.entry((hit.key.shard(), hit.key.org().clone())).or_default().push(hit);
        }
        let now = self.clock.now();
        let (mut keys, mut by_org) = (Vec::new(), BTreeMap::<OrgId, Vec<Alert>>::new());
        for ((shard, org), waiting) in by_shard {
            let (taken, alerts) = self.work_shard(&mut turn, shard, &org, &waiting, unknown, now);
            keys.extend(taken);
            if !alerts.is_empty() {
                by_org.entry(org).or_default().extend(alerts);
            }
        }
        turn.name().await?;
        turn.taken(keys);
        let mut told = Vec::new();
        for (org, alerts) in by_org {
            told.extend(self.record(&org, Vec::new(), alerts).await?);
        }
        self.outbox.publish(told).await;
        turn.keep().await?;
        Ok(count)
    }

    /// What is worked of what waits for one shard of one organisation, and the alerts of it.
    fn work_shard(
        &self,
        turn: &mut Turn,
        shard: usize,
        org: &OrgId,
        waiting: &[&Waiting],
        unknown: &mut Unknown,
        now: Timestamp,
    ) -> (Vec<HitKey>, Vec<Alert>) {
        let (mut hits, mut taken) = (Vec::with_capacity(waiting.len()), Vec::with_capacity(waiting.len()));
        for one in waiting {
            match turn.read(shard, org, &one.hit) {
                Ok(Some(hit)) => hits.push(hit),
                Ok(None) => {
                    let since = unknown.entry(one.key.clone()).or_insert_with(Instant::now);
                    if since.elapsed() < UNKNOWN_FOR {
                        continue;
                    }
                    unknown.remove(&one.key);
                    tracing::debug!(%org, event.id = %one.key.event(), "a hit has no correlation here");
                }
                Err(error) => tracing::error!(%org, %error, "a hit of a correlation cannot be read and is left out"),
            }
            taken.push(one.key.clone());
        }
        if hits.is_empty() {
            return (taken, Vec::new());
        }
        let said: HashMap<EventId, &Waiting> = waiting.iter().map(|one| (one.key.event(), *one)).collect();
        let whose: Vec<(u128, Box<[Box<str>]>)> = hits.iter().map(|hit| (hit.event, hit.key.clone())).collect();
        let about = |event: EventId| said.get(&event).map(|one| one.about.clone()).unwrap_or_default();
        let (set, firings) = turn.work(shard, org, now, hits, &about);
        let Some(set) = set else { return (taken, Vec::new()) };
        let told: Vec<Told<'_>> =
            whose.iter().map(|(event, key)| Told { event: EventId::from_u128(*event), key }).collect();
        let mut alerts = Vec::new();
        for firing in firings {
            let newest = newest(&told, &firing).and_then(|id| said.get(&id));
            let event = newest.and_then(|one| codec::decode_event(&Bytes::from(one.about.clone())).ok());
            let event = event.unwrap_or_else(|| nobodys(org, &firing, now));
            let team = self.rulebook.snapshot().team(org, &event.host);
            let about = About { event: &event, team: team.as_deref(), now };
            alerts.extend(self.detections.fired(&set, &firing, &about));
        }
        (taken, alerts)
    }
}

/// A hit, as far as it says which event belongs to which group.
struct Told<'h> {
    event: EventId,
    key: &'h [Box<str>],
}

impl<'h> Told<'h> {
    fn of(hit: &'h Hit) -> Self {
        Self { event: EventId::from_u128(hit.event), key: &hit.key }
    }
}

/// The newest event of the firing that is here, else one that belongs to its group.
fn newest(told: &[Told<'_>], firing: &Firing) -> Option<EventId> {
    let of_firing = told.iter().filter(|told| firing.events.contains(&told.event.to_u128()));
    let newest = of_firing.map(|told| told.event).max();
    newest.or_else(|| told.iter().rev().find(|told| *told.key == *firing.key).map(|told| told.event))
}

/// What those who work a hit elsewhere are told of its event: the event, or one like it that is short.
fn about(event: &Event) -> Vec<u8> {
    if event.raw.len() <= ABOUT_BYTES_MAX {
        return event.raw.to_vec();
    }
    let cut = |text: &str| text.chars().take(ABOUT_CHARS_MAX).collect::<String>();
    let short = serde_json::json!({
        "hostname": cut(&event.host),
        "message": cut(&event.message),
        "timestamp": cut(&event.timestamp_text),
        "_correlation_id": cut(&event.correlation_id),
        "_event_id": event.id.to_string(),
        "_input": event.input.as_str(),
        "_org": event.org.as_str(),
    });
    short.to_string().into_bytes()
}

/// Stands for the events of a firing that none of them brought about.
fn nobodys(org: &OrgId, firing: &Firing, now: Timestamp) -> Event {
    let id =
        firing.events.iter().max().map_or_else(|| EventId::new(now, 0, firing.id as u64), |id| EventId::from_u128(*id));
    Event {
        id,
        org: org.clone(),
        input: InputKind::Internal,
        correlation_id: id.to_string(),
        host: META_ALERT_HOST.to_owned(),
        message: String::new(),
        timestamp_text: String::new(),
        timestamp: now,
        severity: None,
        trap_oid: None,
        raw: Bytes::from_static(b"{}"),
    }
}
