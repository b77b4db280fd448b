//! Incidents: alerts of one cause, gathered, with people's word on them; and silences.
//!
//! What becomes of an alert and of its incident is decided here, once for all drivers, by functions
//! without IO (`join`, `act`); a driver reads a row, asks them and writes the row, in the
//! transaction that writes the alert. Always true:
//! * An alert counts once in its incident, however often its batch is repeated.
//! * At most one incident of a key is open.
//! * Every change by people, and every one that time makes, has its row in the audit of changes.

use super::fields::{check_text, fit, invalid, json_of};
use super::{Actor, AuditEntry, Page, PageRequest};
use crate::{StorageError, StorageResult};
use async_trait::async_trait;
use model::{Alert, AlertId, AlertSeverity, AlertState, ErrorKind, EventId, OrgId, RuleId, Timestamp};
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;

/// Numbers of incidents and silences, each from 1 within a catalog.
pub type IncidentId = i64;
pub type SilenceId = i64;

/// Silences of one organisation that are not over, at most.
pub const SILENCES_MAX: u64 = 1_000;
/// Characters of a key; a longer one is cut to something that is as different.
pub(super) const KEY_CHARS: usize = 400;
/// Name in audit rows of what time does.
pub const BY_TIME: &str = "muttd";

/// Where an incident stands (contract security-manager §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IncidentStatus {
    Active,
    Acknowledged,
    Resolved,
    Dismissed,
}

impl IncidentStatus {
    pub const ALL: [Self; 4] = [Self::Active, Self::Acknowledged, Self::Resolved, Self::Dismissed];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Acknowledged => "ACKNOWLEDGED",
            Self::Resolved => "RESOLVED",
            Self::Dismissed => "DISMISSED",
        }
    }

    /// Any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str().eq_ignore_ascii_case(text))
    }

    /// Whether somebody may still have to do something.
    pub const fn is_open(self) -> bool {
        match self {
            Self::Active | Self::Acknowledged => true,
            Self::Resolved | Self::Dismissed => false,
        }
    }
}

/// Alerts of one cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    pub id: IncidentId,
    pub org: OrgId,
    /// What its alerts have in common.
    pub key: String,
    pub status: IncidentStatus,
    pub rule_uid: String,
    pub title: String,
    /// The worst of its alerts.
    pub severity: AlertSeverity,
    /// Of the last alert, like the host.
    pub team: String,
    pub host: String,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    pub last_alert: AlertId,
    /// Alerts in it: told, gathered and silenced ones together.
    pub alerts: u64,
    pub told: u64,
    pub silenced: u64,
    pub assignee: Option<String>,
    pub acknowledged: Option<(String, Timestamp)>,
    /// Who resolved or dismissed it, and when.
    pub closed: Option<(String, Timestamp)>,
    /// The last word of whoever changed it.
    pub comment: Option<String>,
    /// When somebody was told of its key last, in this incident or the one before.
    pub last_told: Option<Timestamp>,
    /// How bad it was when somebody was told of it.
    pub told_severity: Option<AlertSeverity>,
    /// When it is resolved by itself.
    pub resolve_at: Option<Timestamp>,
    /// When it is escalated, unless somebody acknowledges it.
    pub escalate_at: Option<Timestamp>,
    pub escalations: u32,
    /// Nobody was told of it yet: more alerts are waited for.
    pub waiting: Option<Waiting>,
}

/// What waits until somebody is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub until: Timestamp,
    /// The alert that will be told, the first of the worst, and how bad it is.
    pub alert: AlertId,
    pub severity: AlertSeverity,
    /// How many alerts came so far, silenced ones not counted.
    pub alerts: u64,
}

/// What is to become of a new alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Somebody is told.
    Tell,
    /// Nobody is told, because of this silence.
    Silence(SilenceId),
    /// It joins an incident, which decides.
    Gather(Box<Gathering>),
}

/// Into which incident an alert goes, and how that behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gathering {
    pub key: String,
    pub rule_uid: String,
    pub title: String,
    /// How long the first alert waits for others; zero: it is told at once.
    pub group_wait: Duration,
    /// Zero: never.
    pub repeat_interval: Duration,
    pub suppress_for: Duration,
    /// Zero: never.
    pub resolve_after: Duration,
    pub reopen_within: Duration,
    pub escalate_after: Option<Duration>,
    pub silenced_by: Option<SilenceId>,
}

/// An alert that is to be recorded.
#[derive(Debug, Clone)]
pub struct NewAlert {
    pub alert: Alert,
    pub plan: Plan,
}

impl From<Alert> for NewAlert {
    fn from(alert: Alert) -> Self {
        Self { alert, plan: Plan::Tell }
    }
}

/// The state that a plan without an incident means, and what is said of it.
pub(super) fn planned(plan: &Plan) -> (AlertState, Option<String>) {
    match plan {
        Plan::Tell | Plan::Gather(_) => (AlertState::Pending, None),
        Plan::Silence(id) => (AlertState::Silenced, Some(by_silence(*id))),
    }
}

fn by_silence(id: SilenceId) -> String {
    format!("silence {id}")
}

/// A key as it is kept: bounded, and without what a database cannot hold.
pub(super) fn kept_key(key: &str) -> String {
    fit(key, KEY_CHARS).into_owned()
}

/// What an alert does to the newest incident of its key: the incident after it (with id 0, if it is a
/// new one), the alert's state, and why.
pub(super) fn join(
    newest: Option<&Incident>,
    alert: &Alert,
    plan: &Gathering,
    key: &str,
) -> (Incident, AlertState, Option<String>) {
    let now = alert.created_at;
    let mut incident = match newest {
        Some(old) if old.status.is_open() => old.clone(),
        Some(old) if is_reopened(old, now, plan.reopen_within) => Incident {
            status: IncidentStatus::Active,
            acknowledged: None,
            closed: None,
            told_severity: None,
            escalate_at: None,
            escalations: 0,
            waiting: None,
            ..old.clone()
        },
        old => begun(alert, plan, key, old.and_then(|old| old.last_told)),
    };
    incident.severity = incident.severity.max(alert.severity);
    incident.title.clone_from(&plan.title);
    incident.team.clone_from(&alert.team);
    incident.host.clone_from(&alert.host);
    incident.last_seen = incident.last_seen.max(now);
    incident.last_alert = alert.id;
    incident.alerts += 1;
    incident.resolve_at = (!plan.resolve_after.is_zero()).then(|| incident.last_seen.plus(plan.resolve_after));
    if let Some(silence) = plan.silenced_by {
        incident.silenced += 1;
        return (incident, AlertState::Silenced, Some(by_silence(silence)));
    }
    match untold(&incident, alert, plan) {
        Some(why) => (incident, AlertState::Grouped, Some(why)),
        None if incident.told_severity.is_none() && !plan.group_wait.is_zero() => {
            wait(&mut incident, alert, plan);
            (incident, AlertState::Grouped, Some("waits for others of its group, for group_wait".to_owned()))
        }
        None => {
            incident.waiting = None;
            incident.told += 1;
            incident.last_told = Some(now);
            incident.told_severity =
                Some(incident.told_severity.map_or(alert.severity, |told| told.max(alert.severity)));
            if incident.status == IncidentStatus::Active && incident.escalations == 0 && incident.escalate_at.is_none()
            {
                incident.escalate_at = plan.escalate_after.map(|after| now.plus(after));
            }
            (incident, AlertState::Pending, None)
        }
    }
}

/// Nobody is told yet, but later of all that came until then.
fn wait(incident: &mut Incident, alert: &Alert, plan: &Gathering) {
    let first = || Waiting {
        until: alert.created_at.plus(plan.group_wait),
        alert: alert.id,
        severity: alert.severity,
        alerts: 0,
    };
    let waiting = incident.waiting.get_or_insert_with(first);
    waiting.alerts += 1;
    if alert.severity > waiting.severity {
        (waiting.alert, waiting.severity) = (alert.id, alert.severity);
    }
    let until = waiting.until;
    incident.resolve_at = incident.resolve_at.map(|at| at.max(until));
    if incident.escalations == 0 && incident.escalate_at.is_none() {
        incident.escalate_at = plan.escalate_after.map(|after| until.plus(after));
    }
}

/// The incident once somebody is told of what waited, with what that was; `None` where nothing waits
/// any more, or something else than was seen.
pub(super) fn told_late(incident: &Incident, seen: &Incident, now: Timestamp) -> Option<(Incident, Waiting)> {
    let waiting = incident.waiting.clone()?;
    // Alerts that came since belong to it.
    if seen.waiting.as_ref().is_none_or(|seen| seen.until != waiting.until) || !incident.status.is_open() {
        return None;
    }
    // Told later than it should have been (a silence held): nobody could look before.
    let late = now.since(waiting.until);
    let after = Incident {
        waiting: None,
        told: incident.told + 1,
        last_told: Some(now),
        told_severity: Some(waiting.severity),
        escalate_at: incident.escalate_at.map(|at| at.plus(late)),
        ..incident.clone()
    };
    Some((after, waiting))
}

/// What is said of several alerts that are told as one.
pub(super) fn gathered_message(message: &str, alerts: u64) -> String {
    if alerts > 1 { format!("[{alerts} alerts] {message}") } else { message.to_owned() }
}

/// Audit rows as they are true: an alert of which nobody was told was not forwarded.
pub(super) fn truly_forwarded(
    mut audits: Vec<AuditEntry>,
    alerts: &[NewAlert],
    states: &[AlertState],
) -> Vec<AuditEntry> {
    let untold: BTreeSet<(EventId, RuleId)> = alerts
        .iter()
        .zip(states)
        .filter(|(_, state)| matches!(state, AlertState::Grouped | AlertState::Silenced))
        .filter_map(|(new, _)| Some((new.alert.event_id, new.alert.rule_id?)))
        .collect();
    for audit in audits.iter_mut().filter(|audit| audit.forwarded) {
        audit.forwarded = !untold.contains(&(audit.event_id, audit.matched_rule_id));
    }
    audits
}

/// Whether this closed incident goes on with an alert of now. What was dismissed does not: the next
/// alert is judged anew.
fn is_reopened(incident: &Incident, now: Timestamp, within: Duration) -> bool {
    let closed_at = incident.closed.as_ref().map_or(incident.last_seen, |(_, at)| *at);
    incident.status == IncidentStatus::Resolved && now.since(closed_at) <= within && !within.is_zero()
}

fn begun(alert: &Alert, plan: &Gathering, key: &str, last_told: Option<Timestamp>) -> Incident {
    Incident {
        id: 0,
        org: alert.org.clone(),
        key: key.to_owned(),
        status: IncidentStatus::Active,
        rule_uid: plan.rule_uid.clone(),
        title: plan.title.clone(),
        severity: alert.severity,
        team: alert.team.clone(),
        host: alert.host.clone(),
        first_seen: alert.created_at,
        last_seen: alert.created_at,
        last_alert: alert.id,
        alerts: 0,
        told: 0,
        silenced: 0,
        assignee: None,
        acknowledged: None,
        closed: None,
        comment: None,
        last_told,
        told_severity: None,
        resolve_at: None,
        escalate_at: None,
        escalations: 0,
        waiting: None,
    }
}

/// Why nobody is told of an alert that has just joined; `None`: somebody is.
fn untold(incident: &Incident, alert: &Alert, plan: &Gathering) -> Option<String> {
    let since = incident.last_told.map(|at| alert.created_at.since(at));
    if since.is_some_and(|since| since < plan.suppress_for) {
        return Some("told less than suppress_for ago".to_owned());
    }
    // The first of the incident (or since it was opened again), or a worse one.
    if incident.told_severity.is_none_or(|told| alert.severity > told) {
        return None;
    }
    if incident.status == IncidentStatus::Acknowledged {
        return Some("the incident is acknowledged".to_owned());
    }
    let repeats = !plan.repeat_interval.is_zero() && since.is_none_or(|since| since >= plan.repeat_interval);
    (!repeats).then(|| "told less than repeat_interval ago".to_owned())
}

/// What a person does with an incident; the actor's reason is the comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IncidentAction {
    /// Somebody looks at it: no repeats, no escalation.
    Acknowledge,
    /// `None`: nobody's.
    Assign(Option<String>),
    /// It is over.
    Resolve,
    /// It was nothing.
    Dismiss,
    /// It is not over.
    Reopen,
    /// Only a word.
    Comment,
}

/// The incident after the action; the same when there is nothing to do.
pub(super) fn act(incident: &Incident, action: &IncidentAction, by: &Actor) -> StorageResult<Incident> {
    use IncidentStatus::{Acknowledged, Active, Dismissed, Resolved};
    if let Some(comment) = &by.reason {
        check_text("comment", comment, 1_000)?;
    }
    let who = Some((by.name.clone(), by.at));
    let mut after = incident.clone();
    let moved = match (action, incident.status) {
        (IncidentAction::Acknowledge, Active) => {
            (after.status, after.acknowledged, after.escalate_at) = (Acknowledged, who, None);
            // Somebody knows of what waited.
            after.told_severity = after.told_severity.max(after.waiting.take().map(|waiting| waiting.severity));
            true
        }
        (IncidentAction::Resolve, Active | Acknowledged) => {
            (after.status, after.closed, after.escalate_at, after.waiting) = (Resolved, who, None, None);
            true
        }
        (IncidentAction::Dismiss, Active | Acknowledged) => {
            (after.status, after.closed, after.escalate_at, after.waiting) = (Dismissed, who, None, None);
            true
        }
        (IncidentAction::Reopen, Resolved | Dismissed) => {
            (after.status, after.acknowledged, after.closed) = (Active, None, None);
            after.resolve_at = incident.resolve_at.map(|at| by.at.plus(at.since(incident.last_seen)));
            true
        }
        (IncidentAction::Assign(to), Active | Acknowledged) => {
            if let Some(name) = to {
                check_text("assignee", name, 100)?;
                if name.trim().is_empty() {
                    return Err(invalid("assignee is empty"));
                }
            }
            after.assignee.clone_from(to);
            after.assignee != incident.assignee
        }
        (IncidentAction::Comment, _) => {
            if by.reason.as_deref().is_none_or(|reason| reason.trim().is_empty()) {
                return Err(invalid("comment is empty"));
            }
            true
        }
        (IncidentAction::Acknowledge, Acknowledged)
        | (IncidentAction::Resolve, Resolved)
        | (IncidentAction::Dismiss, Dismissed)
        | (IncidentAction::Reopen, Active | Acknowledged) => false,
        (IncidentAction::Acknowledge | IncidentAction::Assign(_), status @ (Resolved | Dismissed))
        | (IncidentAction::Resolve, status @ Dismissed)
        | (IncidentAction::Dismiss, status @ Resolved) => {
            let status = status.as_str();
            return Err(StorageError::new(ErrorKind::Conflict, format!("the incident is {status}; reopen it first")));
        }
    };
    if moved && by.reason.is_some() {
        after.comment.clone_from(&by.reason);
    }
    Ok(after)
}

/// Whether the incident is still as somebody saw it who wants to escalate it.
pub(super) fn is_due(now: &Incident, seen: &Incident) -> bool {
    now.status == IncidentStatus::Active
        && now.escalations == seen.escalations
        && now.escalate_at.is_some()
        && now.escalate_at == seen.escalate_at
}

/// What people see of an incident, in an audit row.
pub(super) fn incident_values(incident: &Incident) -> StorageResult<String> {
    #[derive(Serialize)]
    struct Values<'a> {
        id: IncidentId,
        status: &'static str,
        assignee: Option<&'a str>,
        comment: Option<&'a str>,
        escalations: u32,
        alerts: u64,
    }
    json_of(&Values {
        id: incident.id,
        status: incident.status.as_str(),
        assignee: incident.assignee.as_deref(),
        comment: incident.comment.as_deref(),
        escalations: incident.escalations,
        alerts: incident.alerts,
    })
}

pub(super) fn newer_incident() -> StorageError {
    StorageError::new(ErrorKind::Conflict, "a newer incident of the same cause is there")
}

/// Who acts when time does.
pub(super) fn by_time(at: Timestamp, reason: String) -> Actor {
    Actor { name: BY_TIME.to_owned(), reason: Some(reason), correlation_id: String::new(), at }
}

#[derive(Debug, Clone, Default)]
pub struct IncidentFilter {
    /// Empty: any.
    pub status: Vec<IncidentStatus>,
    pub rule_uid: Option<String>,
    pub host: Option<String>,
    pub team: Option<String>,
    pub assignee: Option<String>,
    /// Last seen.
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
}

/// A time in which nobody is told of some alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    pub id: SilenceId,
    pub org: OrgId,
    /// Which alerts, as JSON; the catalog does not look into it.
    pub matcher: String,
    pub from: Timestamp,
    pub until: Timestamp,
    pub author: String,
    pub reason: String,
    pub created_at: Timestamp,
    /// When somebody ended it before its time.
    pub ended_at: Option<Timestamp>,
}

impl Silence {
    /// Whether it holds at this time.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.from <= now && now < self.until && self.ended_at.is_none_or(|ended| now < ended)
    }
}

/// A silence before it has a number; author and reason are the actor's.
#[derive(Debug, Clone)]
pub struct SilenceDraft {
    pub matcher: String,
    pub from: Timestamp,
    pub until: Timestamp,
}

/// What a silence needs to be one.
pub(super) fn check_silence(draft: &SilenceDraft, by: &Actor) -> StorageResult<()> {
    check_text("matcher", &draft.matcher, 10_000)?;
    let reason = by.reason.as_deref().unwrap_or_default();
    check_text("reason", reason, 1_000)?;
    if reason.trim().is_empty() {
        return Err(invalid("reason is required: those who miss an alert will ask"));
    }
    if draft.until <= draft.from || draft.until <= by.at {
        return Err(invalid("until must be in the future, and after from"));
    }
    Ok(())
}

pub(super) fn silence_values(silence: &Silence) -> StorageResult<String> {
    #[derive(Serialize)]
    struct Values<'a> {
        id: SilenceId,
        matcher: &'a str,
        from: String,
        until: String,
        ended_at: Option<String>,
    }
    json_of(&Values {
        id: silence.id,
        matcher: &silence.matcher,
        from: silence.from.rfc3339(),
        until: silence.until.rfc3339(),
        ended_at: silence.ended_at.map(Timestamp::rfc3339),
    })
}

pub(super) fn silence_is_over() -> StorageError {
    StorageError::new(ErrorKind::Conflict, "the silence is over already")
}

pub(super) fn too_many_silences() -> StorageError {
    StorageError::new(ErrorKind::Full, format!("there are {SILENCES_MAX} silences that are not over; end some"))
}

/// An incident whose time has come, with an alert of it: the last one, or the one that waited.
#[derive(Debug, Clone)]
pub struct Due {
    pub incident: Incident,
    pub alert: Alert,
}

#[async_trait]
pub trait IncidentStore: Send + Sync {
    async fn incident(&self, org: &OrgId, id: IncidentId) -> StorageResult<Incident>;
    /// By the time of their last alert, the newest first.
    async fn incidents(&self, org: &OrgId, filter: &IncidentFilter, page: PageRequest)
    -> StorageResult<Page<Incident>>;
    /// Does what a person wants, with its audit row; `Conflict` where that makes no sense now.
    async fn change_incident(
        &self,
        org: &OrgId,
        id: IncidentId,
        action: &IncidentAction,
        by: &Actor,
    ) -> StorageResult<Incident>;
    /// Incidents of all organisations that are open.
    async fn open_incidents(&self) -> StorageResult<u64>;
    /// Resolves open incidents whose time has come, at most `limit`; returns how many. What waits is
    /// told before.
    async fn resolve_quiet(&self, now: Timestamp, limit: usize) -> StorageResult<u64>;
    /// Incidents whose first alerts have waited long enough, those that wait longest first.
    async fn due_waiting(&self, now: Timestamp, limit: usize) -> StorageResult<Vec<Due>>;
    /// Makes the alert that waited `Pending`, with a message that says how many there are, and gives it
    /// back. `None`, and nothing is done, where the incident is not as it was seen: somebody
    /// acknowledged it, or another process was first.
    async fn tell_waiting(&self, seen: &Incident, now: Timestamp) -> StorageResult<Option<Alert>>;
    /// Incidents that nobody acknowledged in time, those that wait longest first.
    async fn due_escalations(&self, now: Timestamp, limit: usize) -> StorageResult<Vec<Due>>;
    /// Records this alert as the incident's escalation, `Pending`. False, and nothing is done, where the
    /// incident is not as it was seen: somebody acknowledged it, or another process was first.
    async fn escalate(&self, seen: &Incident, alert: Alert) -> StorageResult<bool>;

    async fn create_silence(&self, org: &OrgId, draft: SilenceDraft, by: &Actor) -> StorageResult<Silence>;
    /// Ends it now. `Conflict` when it is over already.
    async fn end_silence(&self, org: &OrgId, id: SilenceId, by: &Actor) -> StorageResult<Silence>;
    /// By number, the newest first; with `over_at` none that was over at that time.
    async fn silences(
        &self,
        org: &OrgId,
        over_at: Option<Timestamp>,
        page: PageRequest,
    ) -> StorageResult<Page<Silence>>;
    /// Silences of every organisation that are not over.
    async fn all_silences(&self, now: Timestamp) -> StorageResult<Vec<Silence>>;
}

#[cfg(test)]
#[path = "incidents_tests.rs"]
mod tests;
