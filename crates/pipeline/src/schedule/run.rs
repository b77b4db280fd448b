//! One run of one rule: from its place to as far as events are stored.

use super::gaps::{Why, stand_in};
use super::{CLAIM, Key, Scheduler};
use crate::codec;
use crate::detections::{About, ScheduledRule};
use crate::history::{Bounds, Fired, Found, History, Questions, Slices, flattened};
use crate::metrics::labels;
use fields::Aliases;
use model::{Alert, AlertId, ErrorKind, Event, EventId, Timestamp};
use rules::correlate::Firing;
use rules::sigma::correlation::Target;
use rules::sql::correlation::Between;
use runtime::Stop;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use storage::catalog::schedules::{Advance, Schedule, ScheduleRun};
use storage::events::StoredEvent;
use storage::{StorageError, StorageResult};

/// How late an event may be and be judged still.
const LATE_MICROS: i64 = 3_600_000_000;
/// How far in the future of its acceptance an event may be dated: one forged time would decide about others.
const AHEAD_MICROS: i64 = 300_000_000;
/// Events that one correlation keeps, some 300 bytes each on disk.
const MEMBERS_MAX: u64 = 2_000_000;
/// Longest text of a group in an alert, in characters.
const KEY_CHARS_MAX: usize = 256;

/// What a correlation needs of earlier slices.
pub(super) struct Kept {
    /// Never locked: a connection may change its thread, and not be looked at by two.
    history: Mutex<History>,
    /// What it was asked, and how far it came.
    fingerprint: u64,
    aliases: Arc<Aliases>,
    through: Timestamp,
}

/// A run that is going on.
struct Going<'r> {
    key: &'r Key,
    one: &'r ScheduledRule,
    place: Schedule,
    run: ScheduleRun,
    began: tokio::time::Instant,
}

impl Scheduler {
    /// Runs a rule that nobody else runs now; how far it came.
    pub(super) async fn claimed(
        &mut self,
        key: &Key,
        one: &ScheduledRule,
        upto: Timestamp,
        name: &str,
        stop: &Stop,
    ) -> StorageResult<Timestamp> {
        let place = self.detector.catalog.schedule(&key.0, &key.1).await?;
        let place = place.ok_or_else(|| StorageError::new(ErrorKind::NotFound, "the rule's place is gone"))?;
        let started_at = self.detector.clock.now();
        let run = ScheduleRun {
            started_at,
            first: place.through,
            through: place.through,
            took: Duration::ZERO,
            events: 0,
            matches: 0,
            late: 0,
        };
        let mut going = Going { key, one, place, run, began: tokio::time::Instant::now() };
        self.pass_over(&mut going, upto).await?;
        if going.place.through >= upto {
            return Ok(going.place.through);
        }
        let questions = one.questions().map_err(|why| StorageError::new(ErrorKind::Invalid, why.to_string()))?;
        let aliases = self.detector.detections.aliases();
        let fingerprint = questions.fingerprint();
        let kept = self.kept.remove(key);
        let kept = kept.filter(|kept| {
            kept.fingerprint == fingerprint
                && kept.through == going.place.through
                && Arc::ptr_eq(&kept.aliases, &aliases)
        });
        let mut history = match kept {
            Some(kept) => kept.history.into_inner().unwrap_or_else(PoisonError::into_inner),
            None => self.remembered(&going, &questions, &aliases, name, stop).await?,
        };
        let mut slices = Slices::new(key.0.clone(), going.place.through, upto, self.slice_events);
        while !stop.is_requested()
            && let Some(slice) = slices.next(&*self.detector.events).await?
        {
            self.renew(name).await?;
            history = self.slice(&mut going, history, slice.events, slice.through).await?;
        }
        history.rest();
        if matches!(one.target(), Target::Correlation(_)) {
            let history = Mutex::new(history);
            self.kept.insert(key.clone(), Kept { history, fingerprint, aliases, through: going.place.through });
        }
        self.detector.metrics.schedule_runs.get_or_create(&labels([("outcome", "done")])).inc();
        self.detector.metrics.schedule_took.observe(going.began.elapsed().as_secs_f64());
        Ok(going.place.through)
    }

    async fn renew(&self, name: &str) -> StorageResult<()> {
        match self.detector.coordination.claim(name, CLAIM).await? {
            true => Ok(()),
            false => Err(StorageError::new(ErrorKind::Conflict, "another process runs this rule now")),
        }
    }

    /// Passes over what is not there, or not wanted.
    async fn pass_over(&self, going: &mut Going<'_>, upto: Timestamp) -> StorageResult<()> {
        let through = going.place.through;
        let was_off = going.place.off_since.is_some() && !self.in_force.contains(going.key);
        let (first_kept, why) = match self.dropped_through(&going.key.0, through).await? {
            _ if was_off => (upto.max(through), Why::Off),
            Some(first_kept) => (first_kept.min(upto), Why::Retention),
            None => return Ok(()),
        };
        let mut step = Advance {
            expected: through,
            through: first_kept,
            judged: going.place.judged.max(first_kept),
            begun: was_off.then_some(first_kept),
            run: None,
            gaps: Vec::new(),
        };
        if through < first_kept {
            let gap = self.gap(going.key, through, first_kept, why);
            if why == Why::Retention {
                self.tell(going, vec![self.told_of(&going.key.0, going.one, &gap)]).await?;
            }
            step.gaps.push(gap);
        }
        going.run.first = first_kept;
        self.advance(going, step).await
    }

    /// What windows need of the time before, read from the stored events.
    async fn remembered(
        &self,
        going: &Going<'_>,
        questions: &Arc<Questions>,
        aliases: &Arc<Aliases>,
        name: &str,
        stop: &Stop,
    ) -> StorageResult<History> {
        let mut history = History::new(Arc::clone(questions), Arc::clone(aliases))?;
        let Target::Correlation(correlation) = going.one.target() else { return Ok(history) };
        let bounds = bounds(&history, correlation, &going.place);
        let from = Timestamp::from_micros(bounds.from_micros.saturating_sub(AHEAD_MICROS)).max(going.place.begun);
        let mut slices = Slices::new(going.key.0.clone(), from, going.place.through, self.slice_events);
        while let Some(slice) = slices.next(&*self.detector.events).await? {
            if stop.is_requested() {
                return Err(StorageError::new(ErrorKind::Unavailable, "the server stops"));
            }
            self.renew(name).await?;
            history = blocking(move || {
                history.slice(&slice.events, bounds)?;
                Ok(history)
            })
            .await?;
            bounded(&history)?;
        }
        Ok(history)
    }

    /// Works a slice to its end: its alerts are written, and the rule's place is behind it.
    async fn slice(
        &self,
        going: &mut Going<'_>,
        mut history: History,
        events: Vec<StoredEvent>,
        through: Timestamp,
    ) -> StorageResult<History> {
        let place = &going.place;
        let bounds = match going.one.target() {
            Target::Correlation(correlation) => bounds(&history, correlation, place),
            Target::Rule(_) => Bounds::NONE,
        };
        let (events, found, worked) = blocking(move || {
            let found = history.slice(&events, bounds)?;
            Ok((events, found, history))
        })
        .await?;
        history = worked;
        let mut judged = place.judged;
        let alerts = match going.one.target() {
            Target::Rule(_) => {
                going.run.matches += found.matches.len() as u64;
                self.matched(going, &events, &found)
            }
            Target::Correlation(correlation) => {
                bounded(&history)?;
                let reach = history.reach(correlation);
                let delay = i64::from(going.one.schedule().delay_secs) * 1_000_000;
                let upto = through.micros().saturating_sub(delay).saturating_sub(reach.ahead_micros);
                judged = judged.max(Timestamp::from_micros(upto));
                let from = anew_from(place, &found);
                let mut fired = Vec::new();
                if from < judged.micros() {
                    let between = Between { from_micros: from, to_micros: judged.micros() - 1 };
                    (history, fired) = blocking(move || {
                        let fired = history.firings(correlation, Some(between))?;
                        Ok((history, fired))
                    })
                    .await?;
                }
                let alerts = self.fired(going, correlation, fired, &events).await?;
                let needed = judged.micros().saturating_sub(LATE_MICROS).saturating_sub(reach.back_micros);
                history.forget_before(needed)?;
                alerts
            }
        };
        going.run.events += events.len() as u64;
        going.run.late += found.out_of_time;
        self.detector.metrics.schedule_late.inc_by(found.out_of_time);
        let mut step =
            Advance { expected: going.place.through, through, judged, begun: None, run: None, gaps: Vec::new() };
        let mut told = alerts;
        for damage in self.detector.events.damages(&going.key.0, going.place.through, through).await? {
            let gap = self.gap(going.key, damage.from, damage.to, Why::Damage);
            told.push(self.told_of(&going.key.0, going.one, &gap));
            step.gaps.push(gap);
        }
        self.tell(going, told).await?;
        going.run.through = through;
        going.run.took = going.began.elapsed();
        step.run = Some(going.run.clone());
        self.advance(going, step).await?;
        Ok(history)
    }

    /// Writes alerts, and publishes those of which somebody is to be told.
    async fn tell(&self, going: &Going<'_>, alerts: Vec<Alert>) -> StorageResult<()> {
        if !alerts.is_empty() {
            let told = self.detector.record(&going.key.0, Vec::new(), alerts).await?;
            self.detector.outbox.publish(told).await;
        }
        Ok(())
    }

    async fn advance(&self, going: &mut Going<'_>, step: Advance) -> StorageResult<()> {
        let (through, judged, begun) = (step.through, step.judged, step.begun);
        self.detector.catalog.advance_schedule(&going.key.0, &going.key.1, step).await?;
        going.place.through = through;
        going.place.judged = judged;
        going.place.begun = begun.unwrap_or(going.place.begun);
        Ok(())
    }

    /// The alerts of the events that a rule matches.
    fn matched(&self, going: &Going<'_>, events: &[StoredEvent], found: &Found) -> Vec<Alert> {
        let rule = going.one.rule();
        let aliases = self.detector.detections.aliases();
        let mut alerts = Vec::new();
        for stored in found.matches.iter().filter_map(|(_, number)| events.get(*number)) {
            let event = self.event(stored);
            let object = codec::public_object(&stored.raw);
            let shown = flattened(&object, &aliases).map(|fields| rule.shown(&fields)).unwrap_or_default();
            let team = self.detector.rulebook.snapshot().team(&event.org, &event.host);
            let about = About { event: &event, team: team.as_deref(), now: self.detector.clock.now() };
            alerts.extend(self.detector.detections.matched_by(going.one.in_force(), &about, &shown));
        }
        alerts
    }

    /// The alerts of a correlation that fires. What was told before is not told again.
    async fn fired(
        &self,
        going: &mut Going<'_>,
        correlation: usize,
        fired: Vec<Fired>,
        events: &[StoredEvent],
    ) -> StorageResult<Vec<Alert>> {
        let judged_before = going.place.judged.micros();
        let mut alerts = Vec::new();
        for fired in fired {
            let firing = firing(&going.key.1, correlation, &fired);
            // Judged again, as an event was late.
            if fired.at < judged_before && self.is_told(&firing).await? {
                continue;
            }
            going.run.matches += 1;
            let event = self.newest(going, &fired, events).await?;
            let team = self.detector.rulebook.snapshot().team(&event.org, &event.host);
            let about = About { event: &event, team: team.as_deref(), now: self.detector.clock.now() };
            alerts.extend(self.detector.detections.fired_by(going.one.in_force(), &firing, &about));
        }
        Ok(alerts)
    }

    async fn is_told(&self, firing: &Firing) -> StorageResult<bool> {
        let id = crate::detections::firing_alert(firing);
        Ok(!self.detector.catalog.alert_states(&[id]).await?.is_empty())
    }

    async fn newest(&self, going: &Going<'_>, fired: &Fired, events: &[StoredEvent]) -> StorageResult<Event> {
        if let Some(stored) = events.iter().find(|event| event.id == fired.event) {
            return Ok(self.event(stored));
        }
        let stored = self.detector.events.get(&going.key.0, fired.event).await?;
        let now = self.detector.clock.now();
        Ok(stored.map_or_else(|| stand_in(&going.key.0, fired.event, &fired.host, now), |stored| self.event(&stored)))
    }

    /// The event as it was accepted.
    fn event(&self, stored: &StoredEvent) -> Event {
        let stand_in = || stand_in(&stored.org, stored.id, &stored.host, self.detector.clock.now());
        let event = codec::decode_event(&stored.raw).ok().filter(|event| event.id == stored.id);
        event.map_or_else(stand_in, |event| Event { org: stored.org.clone(), ..event })
    }
}

/// The events that a correlation looks at.
fn bounds(history: &History, correlation: usize, place: &Schedule) -> Bounds {
    let back = history.reach(correlation).back_micros.saturating_add(LATE_MICROS);
    Bounds { from_micros: place.judged.micros().saturating_sub(back), ahead_micros_max: AHEAD_MICROS }
}

/// The first anchor that is judged with a slice: where the slice before ended, or earlier, where events came
/// late.
fn anew_from(place: &Schedule, found: &Found) -> i64 {
    let judged = place.judged.micros();
    let oldest = found.oldest_member.map_or(judged, |oldest| oldest.min(judged));
    oldest.max(judged.saturating_sub(LATE_MICROS)).max(place.begun.micros()).min(judged)
}

fn bounded(history: &History) -> StorageResult<()> {
    match history.kept()? {
        kept if kept > MEMBERS_MAX => Err(StorageError::new(
            ErrorKind::Full,
            format!("more than {MEMBERS_MAX} events match the rules of this correlation within its timespan"),
        )),
        _ => Ok(()),
    }
}

/// The firing, named by what makes it: the same in every run.
fn firing(uid: &str, correlation: usize, fired: &Fired) -> Firing {
    let mut cause = format!("schedule:{uid}");
    for text in &fired.key {
        cause.push_str(&format!(":{}:{text}", text.len()));
    }
    let at = EventId::new(Timestamp::from_micros(fired.at), (fired.at % 1_000) as u32, 0);
    let cut = |text: &String| match text.char_indices().nth(KEY_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.as_str().into(),
    };
    Firing {
        id: AlertId::derive(at, &cause).to_u128(),
        correlation,
        key: fired.key.iter().map(cut).collect(),
        anchor: fired.at,
        last: fired.at,
        metric: None,
        events: vec![fired.event.to_u128()],
    }
}

/// Off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> StorageResult<T> + Send + 'static) -> StorageResult<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StorageError::with_source(ErrorKind::Internal, "asking the stored events", error))?
}
