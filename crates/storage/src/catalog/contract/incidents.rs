//! Incidents and silences.

use super::history::detected;
use super::settings::changes;
use super::{Store, admin, at, home, kind, org, page};
use crate::catalog::incidents::{
    Gathering, Incident, IncidentAction, IncidentFilter, IncidentStatus, NewAlert, Plan, SilenceDraft,
};
use crate::catalog::retention::Cutoffs;
use crate::catalog::{Actor, AlertFilter, AuditEntry, AuditFilter, ConfigChangeFilter};
use bytes::Bytes;
use model::{Alert, AlertId, AlertKind, AlertSeverity, AlertState, ErrorKind, OrgId};
use std::time::Duration;

fn gathering(key: &str) -> Gathering {
    Gathering {
        key: key.into(),
        rule_uid: "5a1f".into(),
        title: "Login guessed".into(),
        group_wait: Duration::ZERO,
        repeat_interval: Duration::from_secs(1_000),
        suppress_for: Duration::ZERO,
        resolve_after: Duration::from_secs(10_000),
        reopen_within: Duration::from_secs(500),
        escalate_after: Some(Duration::from_secs(100)),
        silenced_by: None,
    }
}

fn gathered(secs: u64, key: &str) -> NewAlert {
    NewAlert { alert: detected(secs), plan: Plan::Gather(Box::new(gathering(key))) }
}

async fn record(catalog: &Store, alerts: Vec<NewAlert>) -> Vec<AlertState> {
    catalog.record_planned(&home(), Vec::new(), alerts).await.unwrap()
}

async fn all(catalog: &Store, filter: IncidentFilter) -> Vec<Incident> {
    catalog.incidents(&home(), &filter, page(1, 100)).await.unwrap().rows
}

/// What one incident has counted.
async fn counted(catalog: &Store, id: i64) -> (u64, u64, u64) {
    let incident = catalog.incident(&home(), id).await.unwrap();
    (incident.alerts, incident.told, incident.silenced)
}

pub async fn alerts_of_one_cause_count_once_and_one_of_them_is_told(open: &impl AsyncFn(&'static str) -> Store) {
    use AlertState::{Grouped, Pending, Silenced};
    let catalog = open("incidents").await;
    let silenced = Gathering { silenced_by: Some(9), ..gathering("b") };
    let batch = vec![
        gathered(1, "a"),
        gathered(2, "b"),
        gathered(3, "a"),
        NewAlert::from(detected(4)),
        NewAlert { alert: detected(5), plan: Plan::Silence(7) },
        NewAlert { alert: detected(6), plan: Plan::Gather(Box::new(silenced)) },
        gathered(1, "a"),
    ];
    let states = [Pending, Pending, Grouped, Pending, Silenced, Silenced, Pending];
    assert_eq!(record(&catalog, batch.clone()).await, states);
    drop(catalog);
    let catalog = open("incidents").await;
    assert_eq!(record(&catalog, batch.clone()).await, states, "again, after a crash");
    // A part of the batch that comes with others.
    let other = vec![gathered(3, "a"), gathered(7, "a"), gathered(2, "b")];
    assert_eq!(record(&catalog, other).await, [Grouped, Grouped, Pending]);
    let found = all(&catalog, IncidentFilter::default()).await;
    let figures: Vec<_> = found.iter().map(|i| (i.key.as_str(), i.alerts, i.told, i.silenced)).collect();
    assert_eq!(figures, [("a", 3, 1, 0), ("b", 2, 1, 1)], "by the last alert");
    let a = &found[0];
    assert_eq!(
        (a.status, a.severity, a.title.as_str()),
        (IncidentStatus::Active, AlertSeverity::Major, "Login guessed")
    );
    assert_eq!((a.first_seen, a.last_seen, a.last_told), (at(1), at(7), Some(at(1))));
    assert_eq!((a.last_alert, a.resolve_at, a.escalate_at), (detected(7).id, Some(at(10_007)), Some(at(101))));
    assert_eq!(catalog.incident(&home(), a.id).await.unwrap(), *a);
    assert_eq!(catalog.open_incidents().await.unwrap(), 2);

    let of_a = AlertFilter { incident: Some(a.id), ..AlertFilter::default() };
    let alerts = catalog.alerts(&home(), &of_a, page(1, 10)).await.unwrap();
    let shown: Vec<_> = alerts.rows.iter().map(|r| (r.alert.created_at, r.state, r.incident)).collect();
    assert_eq!(shown, [(at(7), Grouped, Some(a.id)), (at(3), Grouped, Some(a.id)), (at(1), Pending, Some(a.id))]);
    assert_eq!(alerts.rows[0].detail.as_deref(), Some("told less than repeat_interval ago"));
    let lone = catalog.alert(&home(), detected(5).id).await.unwrap();
    assert_eq!((lone.state, lone.incident, lone.detail.as_deref()), (Silenced, None, Some("silence 7")));
    let waiting: Vec<AlertId> =
        catalog.pending_alerts(None, 10).await.unwrap().into_iter().map(|alert| alert.id).collect();
    assert_eq!(waiting, [detected(1).id, detected(2).id, detected(4).id], "the outbox has what is to be told");
    let sum: u64 = found.iter().map(|i| i.alerts).sum();
    assert_eq!(sum + 2, catalog.alerts(&home(), &AlertFilter::default(), page(1, 1)).await.unwrap().total);

    assert_eq!(kind(catalog.incident(&org("acme"), a.id).await), ErrorKind::NotFound);
    let theirs = catalog.incidents(&org("acme"), &IncidentFilter::default(), page(1, 9)).await.unwrap();
    assert_eq!((theirs.total, theirs.rows.len()), (0, 0));
    let foreign = NewAlert { alert: Alert { org: org("acme"), ..detected(8) }, plan: gathered(8, "a").plan };
    let acme = catalog.record_planned(&org("acme"), Vec::new(), vec![foreign.clone()]).await.unwrap();
    assert_eq!(acme, [Pending], "a key is within its organisation");
    assert_eq!(kind(catalog.record_planned(&home(), Vec::new(), vec![foreign]).await), ErrorKind::Invalid);
}

pub async fn the_same_alerts_by_several_workers_make_one_incident(catalog: &Store) {
    let batch: Vec<NewAlert> = (0..60).map(|n| gathered(n, ["a", "b", "c"][n as usize % 3])).collect();
    let mut workers = tokio::task::JoinSet::new();
    for n in 0..6 {
        let (catalog, mut batch) = (catalog.clone(), batch.clone());
        if n % 2 == 0 {
            batch.reverse();
        }
        workers.spawn(async move { catalog.record_planned(&home(), Vec::new(), batch).await });
    }
    while let Some(recorded) = workers.join_next().await {
        recorded.unwrap().unwrap();
    }
    let found = all(catalog, IncidentFilter::default()).await;
    assert_eq!(found.iter().map(|i| i.alerts).collect::<Vec<_>>(), [20, 20, 20]);
    assert_eq!(catalog.pending_alerts(None, 100).await.unwrap().len(), 3, "one of each is told");
}

pub async fn people_move_incidents_and_it_is_audited(catalog: &Store) {
    record(catalog, vec![gathered(1, "a"), gathered(2, "b")]).await;
    let found = all(catalog, IncidentFilter::default()).await;
    let (a, b) = (found[1].id, found[0].id);
    let act =
        async |id, action: IncidentAction, secs| catalog.change_incident(&home(), id, &action, &admin(secs)).await;
    let seen = act(a, IncidentAction::Acknowledge, 10).await.unwrap();
    assert_eq!(
        (seen.status, seen.acknowledged.clone()),
        (IncidentStatus::Acknowledged, Some(("Admin".into(), at(10))))
    );
    assert_eq!((seen.escalate_at, seen.comment.as_deref()), (None, Some("because")));
    act(a, IncidentAction::Acknowledge, 11).await.unwrap();
    let mine = act(a, IncidentAction::Assign(Some("bob".into())), 12).await.unwrap();
    assert_eq!(mine.assignee.as_deref(), Some("bob"));
    act(b, IncidentAction::Dismiss, 13).await.unwrap();
    assert_eq!(kind(act(b, IncidentAction::Resolve, 14).await), ErrorKind::Conflict);
    let done = act(a, IncidentAction::Resolve, 15).await.unwrap();
    assert_eq!(done.closed, Some(("Admin".into(), at(15))));
    assert_eq!(catalog.incident(&home(), a).await.unwrap(), done);
    let acknowledge = IncidentAction::Acknowledge;
    for (owner, id) in [(org("acme"), a), (home(), 4_242)] {
        assert_eq!(kind(catalog.change_incident(&owner, id, &acknowledge, &admin(16)).await), ErrorKind::NotFound);
    }
    let filter = ConfigChangeFilter { table_name: Some("incidents".into()), record_id: Some(a), ..Default::default() };
    let rows = changes(catalog, &home(), filter).await;
    assert_eq!(rows.len(), 3, "what changed nothing and what was refused left no row");
    assert_eq!((rows[0].operation.as_str(), rows[0].changed_by.as_str()), ("UPDATE", "Admin"));
    assert!(rows[0].new_values.as_deref().unwrap().replace(' ', "").contains(r#""status":"RESOLVED""#), "{rows:?}");

    // A resolved one goes on, a dismissed one does not, and then cannot be opened again.
    assert_eq!(record(catalog, vec![gathered(20, "a"), gathered(21, "b")]).await, [AlertState::Pending; 2]);
    let found = all(catalog, IncidentFilter::default()).await;
    let shown: Vec<_> = found.iter().map(|i| (i.key.as_str(), i.status.as_str(), i.alerts)).collect();
    assert_eq!(shown, [("b", "ACTIVE", 1), ("a", "ACTIVE", 2), ("b", "DISMISSED", 1)]);
    assert_eq!(kind(act(b, IncidentAction::Reopen, 22).await), ErrorKind::Conflict);
    assert_eq!(found[1].id, a);
}

pub async fn incidents_are_filtered_and_paged(catalog: &Store) {
    let batch = (0..25).map(|n| {
        let mut new = gathered(n, &format!("k{n}"));
        (new.alert.host, new.alert.team) = (format!("host-{}", n % 2), format!("team-{}", n % 5));
        new
    });
    record(catalog, batch.collect()).await;
    let ids: Vec<i64> = all(catalog, IncidentFilter::default()).await.iter().map(|i| i.id).collect();
    for id in &ids[..4] {
        catalog.change_incident(&home(), *id, &IncidentAction::Resolve, &admin(99)).await.unwrap();
    }
    let bob = IncidentAction::Assign(Some("bob".into()));
    catalog.change_incident(&home(), ids[10], &bob, &admin(99)).await.unwrap();
    let any = IncidentFilter::default;
    for (filter, number, total, expected) in [
        (any(), 1, 25, &[24, 23, 22, 21][..]),
        (any(), 7, 25, &[0]),
        (IncidentFilter { status: vec![IncidentStatus::Resolved], ..any() }, 1, 4, &[24, 23, 22, 21]),
        (
            IncidentFilter { status: vec![IncidentStatus::Active, IncidentStatus::Acknowledged], ..any() },
            1,
            21,
            &[20, 19, 18, 17],
        ),
        (IncidentFilter { host: Some("host-1".into()), ..any() }, 1, 12, &[23, 21, 19, 17]),
        (IncidentFilter { team: Some("team-4".into()), ..any() }, 2, 5, &[4]),
        (IncidentFilter { assignee: Some("bob".into()), ..any() }, 1, 1, &[14]),
        (IncidentFilter { rule_uid: Some("other".into()), ..any() }, 1, 0, &[]),
        (IncidentFilter { from: Some(at(3)), to: Some(at(4)), ..any() }, 1, 2, &[4, 3]),
    ] {
        let found = catalog.incidents(&home(), &filter, page(number, 4)).await.unwrap();
        let seen: Vec<_> = found.rows.iter().map(|i| i.last_seen).collect();
        let expected: Vec<_> = expected.iter().map(|secs| at(*secs)).collect();
        assert_eq!((found.total, seen), (total, expected), "{filter:?}");
    }
}

pub async fn what_is_quiet_is_resolved_by_itself(catalog: &Store) {
    let never = Gathering { resolve_after: Duration::ZERO, ..gathering("never") };
    let mut batch: Vec<NewAlert> = (0..5).map(|n| gathered(n, &format!("k{n}"))).collect();
    batch.push(NewAlert { alert: detected(5), plan: Plan::Gather(Box::new(never)) });
    record(catalog, batch).await;
    assert_eq!(catalog.resolve_quiet(at(9_999), 100).await.unwrap(), 0);
    assert_eq!(catalog.resolve_quiet(at(10_003), 3).await.unwrap(), 3);
    assert_eq!(catalog.resolve_quiet(at(10_003), 3).await.unwrap(), 1);
    assert_eq!(catalog.resolve_quiet(at(10_003), 3).await.unwrap(), 0);
    assert_eq!(catalog.open_incidents().await.unwrap(), 2);
    let resolved =
        all(catalog, IncidentFilter { status: vec![IncidentStatus::Resolved], ..IncidentFilter::default() }).await;
    assert_eq!(resolved[0].closed, Some(("muttd".into(), at(10_003))));
    let filter = ConfigChangeFilter { changed_by: Some("muttd".into()), ..Default::default() };
    assert_eq!(changes(catalog, &home(), filter).await.len(), 4);
}

pub async fn an_incident_is_escalated_once_whoever_tries(catalog: &Store) {
    record(catalog, vec![gathered(1, "a"), gathered(2, "b"), gathered(3, "a")]).await;
    assert!(catalog.due_escalations(at(100), 10).await.unwrap().is_empty());
    let due = catalog.due_escalations(at(102), 10).await.unwrap();
    let seen: Vec<_> = due.iter().map(|d| (d.incident.key.as_str(), d.alert.id)).collect();
    assert_eq!(seen, [("a", detected(3).id), ("b", detected(2).id)], "with the last alert of each");
    assert_eq!(catalog.due_escalations(at(102), 1).await.unwrap().len(), 1);
    let escalation = |alert: &Alert| Alert {
        id: AlertId::derive(alert.event_id, "escalation"),
        kind: AlertKind::Escalation,
        created_at: at(102),
        ..alert.clone()
    };
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let (catalog, seen, alert) = (catalog.clone(), due[0].incident.clone(), escalation(&due[0].alert));
        workers.spawn(async move { catalog.escalate(&seen, alert).await.unwrap() });
    }
    let done = workers.join_all().await;
    assert_eq!(done.iter().filter(|did| **did).count(), 1, "one of several processes does it");
    let incident = catalog.incident(&home(), due[0].incident.id).await.unwrap();
    assert_eq!((incident.escalations, incident.escalate_at), (1, None));
    let written = catalog.alert(&home(), escalation(&due[0].alert).id).await.unwrap();
    assert_eq!((written.state, written.incident), (AlertState::Pending, Some(incident.id)));
    assert_eq!(counted(catalog, incident.id).await, (2, 1, 0), "an escalation is no alert of its incident");
    // Somebody was faster than the escalation.
    catalog.change_incident(&home(), due[1].incident.id, &IncidentAction::Acknowledge, &admin(102)).await.unwrap();
    assert!(!catalog.escalate(&due[1].incident, escalation(&due[1].alert)).await.unwrap());
    assert!(catalog.due_escalations(at(9_000), 10).await.unwrap().is_empty());
    assert_eq!(kind(catalog.alert(&home(), escalation(&due[1].alert).id).await), ErrorKind::NotFound);
}

pub async fn what_waits_for_others_is_told_once_whoever_tries(catalog: &Store) {
    let wait = Duration::from_secs(30);
    let waits = |new: NewAlert, key: &str| NewAlert {
        plan: Plan::Gather(Box::new(Gathering { group_wait: wait, ..gathering(key) })),
        ..new
    };
    let worse = |mut new: NewAlert| {
        new.alert.severity = AlertSeverity::Critical;
        new
    };
    let batch = vec![
        waits(gathered(1, "a"), "a"),
        waits(worse(gathered(2, "a")), "a"),
        waits(gathered(3, "b"), "b"),
        waits(worse(gathered(4, "a")), "a"),
    ];
    assert_eq!(record(catalog, batch.clone()).await, [AlertState::Grouped; 4]);
    assert_eq!(record(catalog, batch.clone()).await, [AlertState::Grouped; 4], "again, after a crash");
    assert!(catalog.pending_alerts(None, 10).await.unwrap().is_empty());
    assert!(catalog.due_waiting(at(30), 10).await.unwrap().is_empty());
    let due = catalog.due_waiting(at(40), 10).await.unwrap();
    let seen: Vec<_> = due.iter().map(|d| (d.incident.key.as_str(), d.alert.id)).collect();
    assert_eq!(seen, [("a", detected(2).id), ("b", detected(3).id)], "the first of the worst");
    assert_eq!(catalog.due_waiting(at(40), 1).await.unwrap().len(), 1);
    // One more comes after it was seen, and belongs to it; time resolves and escalates nothing meanwhile.
    record(catalog, vec![waits(gathered(35, "a"), "a")]).await;
    assert_eq!(catalog.resolve_quiet(at(20_000), 10).await.unwrap(), 0);
    assert!(catalog.due_escalations(at(20_000), 10).await.unwrap().is_empty());
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let (catalog, seen) = (catalog.clone(), due[0].incident.clone());
        workers.spawn(async move { catalog.tell_waiting(&seen, at(41)).await.unwrap() });
    }
    let told: Vec<Alert> = workers.join_all().await.into_iter().flatten().collect();
    assert_eq!(told.len(), 1, "one of several processes does it");
    assert_eq!(told[0].message, format!("[4 alerts] {}", due[0].alert.message));
    let written = catalog.alert(&home(), detected(2).id).await.unwrap();
    assert_eq!((written.state, written.state_at, written.detail), (AlertState::Pending, at(41), None));
    let waiting = catalog.pending_alerts(None, 10).await.unwrap();
    assert_eq!((waiting.len(), &waiting[0].message), (1, &told[0].message), "the outbox has it, as it is told");
    assert_eq!(counted(catalog, due[0].incident.id).await, (4, 1, 0));
    let incident = catalog.incident(&home(), due[0].incident.id).await.unwrap();
    assert_eq!((incident.waiting, incident.last_told, incident.escalate_at), (None, Some(at(41)), Some(at(141))));
    assert_eq!(record(catalog, batch).await[1], AlertState::Pending, "its batch, once more");
    assert_eq!(counted(catalog, due[0].incident.id).await, (4, 1, 0));
    // Somebody looks at the other before it is told.
    catalog.change_incident(&home(), due[1].incident.id, &IncidentAction::Acknowledge, &admin(41)).await.unwrap();
    assert!(catalog.tell_waiting(&due[1].incident, at(42)).await.unwrap().is_none());
    assert!(catalog.due_waiting(at(9_000), 10).await.unwrap().is_empty());
}

pub async fn audit_rows_say_whether_somebody_was_told(catalog: &Store) {
    let of_rule = |secs: u64| Alert { kind: AlertKind::Rule, rule_id: Some(7), detection: None, ..detected(secs) };
    let entry = |alert: &Alert, forwarded| AuditEntry {
        event_id: alert.event_id,
        event_timestamp: alert.created_at,
        hostname: "h".into(),
        matched_rule_id: 7,
        handling_decision: "Page_only".into(),
        forwarded,
        raw_message: Bytes::from_static(b"{}"),
    };
    let gather = |group_wait| {
        let key = if group_wait == Duration::ZERO { "a" } else { "w" };
        Plan::Gather(Box::new(Gathering { group_wait, ..gathering(key) }))
    };
    let wait = Duration::from_secs(30);
    let plans = [
        (1, gather(Duration::ZERO)),
        (2, gather(Duration::ZERO)),
        (3, Plan::Silence(4)),
        (4, Plan::Tell),
        (5, gather(wait)),
        (6, gather(wait)),
    ];
    let alerts: Vec<NewAlert> = plans.into_iter().map(|(n, plan)| NewAlert { alert: of_rule(n), plan }).collect();
    let mut audits: Vec<AuditEntry> = alerts.iter().map(|new| entry(&new.alert, true)).collect();
    audits.push(entry(&of_rule(7), false));
    // Another rule's row of an event of which nobody was told.
    audits.push(AuditEntry { matched_rule_id: 8, ..entry(&of_rule(2), true) });
    let rows = async || {
        let found = catalog.audit_log(&home(), &AuditFilter::default(), page(1, 100)).await.unwrap().rows;
        let mut rows: Vec<_> = found
            .into_iter()
            .map(|row| (row.entry.event_timestamp, row.entry.matched_rule_id, row.entry.forwarded))
            .collect();
        rows.sort_unstable();
        rows.into_iter().map(|(_, rule, forwarded)| (rule, forwarded)).collect::<Vec<_>>()
    };
    let before = [(7, true), (7, false), (8, true), (7, false), (7, true), (7, false), (7, false), (7, false)];
    for _ in 0..2 {
        catalog.record_planned(&home(), audits.clone(), alerts.clone()).await.unwrap();
        assert_eq!(rows().await, before);
    }
    // Somebody is told of the two that waited, by the first of them.
    let due = catalog.due_waiting(at(40), 10).await.unwrap().remove(0);
    catalog.tell_waiting(&due.incident, at(40)).await.unwrap();
    let mut after = before;
    after[5].1 = true;
    assert_eq!(rows().await, after);
}

pub async fn silences_hold_until_they_are_over(catalog: &Store) {
    let draft = |from, until| SilenceDraft { matcher: r#"{"host":["h"]}"#.into(), from: at(from), until: at(until) };
    let create = async |owner: &OrgId, from, until| catalog.create_silence(owner, draft(from, until), &admin(10)).await;
    let first = create(&home(), 0, 100).await.unwrap();
    let later = create(&home(), 50, 200).await.unwrap();
    let theirs = create(&org("acme"), 0, 100).await.unwrap();
    assert_eq!((first.author.as_str(), first.reason.as_str(), first.created_at), ("Admin", "because", at(10)));
    assert!(first.holds(at(0)) && !first.holds(at(100)) && !later.holds(at(49)));
    for (from, until) in [(0, 10), (200, 100), (100, 100)] {
        assert_eq!(kind(create(&home(), from, until).await), ErrorKind::Invalid, "{from} {until}");
    }
    let nameless = Actor { reason: None, ..admin(10) };
    assert_eq!(kind(catalog.create_silence(&home(), draft(0, 100), &nameless).await), ErrorKind::Invalid);
    let ids = async |over_at: Option<u64>| -> Vec<i64> {
        let found = catalog.silences(&home(), over_at.map(at), page(1, 10)).await.unwrap();
        assert_eq!(found.total, found.rows.len() as u64);
        found.rows.iter().map(|s| s.id).collect()
    };
    assert_eq!(ids(None).await, [later.id, first.id]);
    assert_eq!(ids(Some(100)).await, [later.id]);
    let all: Vec<i64> = catalog.all_silences(at(99)).await.unwrap().iter().map(|s| s.id).collect();
    assert_eq!(all, [first.id, later.id, theirs.id], "of everybody");
    let ended = catalog.end_silence(&home(), first.id, &admin(20)).await.unwrap();
    assert_eq!((ended.ended_at, ended.holds(at(19)), ended.holds(at(20))), (Some(at(20)), true, false));
    assert_eq!(ids(Some(20)).await, [later.id]);
    assert_eq!(kind(catalog.end_silence(&home(), first.id, &admin(21)).await), ErrorKind::Conflict);
    assert_eq!(kind(catalog.end_silence(&home(), theirs.id, &admin(21)).await), ErrorKind::NotFound);
    let filter = ConfigChangeFilter { table_name: Some("silences".into()), ..Default::default() };
    let rows = changes(catalog, &home(), filter).await;
    let operations: Vec<_> = rows.iter().map(|r| (r.operation.as_str(), r.record_id)).collect();
    assert_eq!(operations, [("UPDATE", first.id), ("CREATE", later.id), ("CREATE", first.id)]);
}

pub async fn keys_and_names_that_no_database_likes_are_kept_apart(catalog: &Store) {
    let keys = ["a\0".to_owned(), "ü".repeat(5_000) + "1", "ü".repeat(5_000) + "2", String::new(), "'; --".to_owned()];
    let batch: Vec<NewAlert> = (0u64..)
        .zip(&keys)
        .map(|(n, key)| {
            let odd = Gathering { rule_uid: "\0".into(), title: "t\0".repeat(3_000), ..gathering(key) };
            let alert = Alert { host: "h\0".repeat(5_000), team: "\0".into(), ..detected(n) };
            NewAlert { alert, plan: Plan::Gather(Box::new(odd)) }
        })
        .collect();
    assert_eq!(record(catalog, batch.clone()).await, [AlertState::Pending; 5], "each its own");
    let again: Vec<NewAlert> = batch
        .iter()
        .map(|new| NewAlert { alert: detected(100 + new.alert.event_id.counter()), ..new.clone() })
        .collect();
    assert_eq!(record(catalog, again).await, [AlertState::Grouped; 5], "and found again");
    assert_eq!(all(catalog, IncidentFilter::default()).await.len(), 5);
}

pub async fn closed_incidents_and_old_silences_are_purged(catalog: &Store) {
    record(catalog, (0..6).map(|n| gathered(n, &format!("k{n}"))).collect()).await;
    for incident in &all(catalog, IncidentFilter::default()).await[2..5] {
        catalog.change_incident(&home(), incident.id, &IncidentAction::Resolve, &admin(9)).await.unwrap();
    }
    let silence = SilenceDraft { matcher: "{}".into(), from: at(0), until: at(20) };
    catalog.create_silence(&home(), silence, &admin(9)).await.unwrap();
    let cutoffs = |events, changes| Cutoffs { events: at(events), archive: at(0), changes: at(changes) };
    assert_eq!(catalog.outdated(cutoffs(3, 0)).await.unwrap().incidents, 2);
    assert_eq!(catalog.outdated(cutoffs(3, 30)).await.unwrap().incidents, 3);
    assert_eq!(catalog.purge(at(3), at(0), 100).await.unwrap().incidents, 2, "those of 1 and 2; that of 0 is open");
    assert_eq!(catalog.purge(at(3), at(30), 100).await.unwrap().incidents, 1, "the silence");
    assert_eq!(all(catalog, IncidentFilter::default()).await.len(), 4);
}
