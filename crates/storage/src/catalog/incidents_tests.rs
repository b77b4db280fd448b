use super::*;
use bytes::Bytes;
use model::{AlertKind, EventId, Handling};

const MINUTE: Duration = Duration::from_secs(60);

fn at(minutes: u32) -> Timestamp {
    Timestamp::from_secs(1_773_144_000).plus(MINUTE * minutes)
}

fn alert(minutes: u32, severity: AlertSeverity) -> Alert {
    let event_id = EventId::new(at(minutes), 1, u64::from(minutes));
    Alert {
        id: AlertId::derive(event_id, "r"),
        org: OrgId::default(),
        kind: AlertKind::Detection,
        event_id,
        correlation_id: "c".into(),
        created_at: at(minutes),
        host: "h".into(),
        team: "t".into(),
        severity,
        handling: Handling::new("Page_only"),
        rule_id: None,
        signature: "s".into(),
        message: "m".into(),
        raw_json: Bytes::from_static(b"{}"),
        detection: None,
    }
}

fn plan() -> Gathering {
    Gathering {
        key: "k".into(),
        rule_uid: "r".into(),
        title: "t".into(),
        group_wait: Duration::ZERO,
        repeat_interval: MINUTE * 60,
        suppress_for: Duration::ZERO,
        resolve_after: MINUTE * 100,
        reopen_within: MINUTE * 30,
        escalate_after: Some(MINUTE * 15),
        silenced_by: None,
    }
}

fn by(minutes: u32) -> Actor {
    Actor { name: "ann".into(), reason: Some("looking".into()), correlation_id: "c".into(), at: at(minutes) }
}

/// The incident after alerts at these minutes, and what became of the last one.
fn after(plan: &Gathering, minutes: &[u32]) -> (Incident, AlertState) {
    let mut now = None;
    let mut last = AlertState::Dead;
    for minute in minutes {
        let (next, state, _) = join(now.as_ref(), &alert(*minute, AlertSeverity::Major), plan, "k");
        (now, last) = (Some(next), state);
    }
    (now.unwrap(), last)
}

#[test]
fn the_first_is_told_and_the_others_are_counted_until_it_is_time() {
    for (minutes, state, told) in [
        (&[0][..], AlertState::Pending, 1),
        (&[0, 1], AlertState::Grouped, 1),
        (&[0, 1, 59], AlertState::Grouped, 1),
        (&[0, 1, 60], AlertState::Pending, 2),
        (&[0, 60, 119], AlertState::Grouped, 2),
        (&[0, 60, 120], AlertState::Pending, 3),
    ] {
        let (incident, last) = after(&plan(), minutes);
        assert_eq!((last, incident.told, incident.alerts), (state, told, minutes.len() as u64), "{minutes:?}");
    }
    let (incident, last) = after(&Gathering { repeat_interval: Duration::ZERO, ..plan() }, &[0, 10_000]);
    assert_eq!((incident.told, last), (1, AlertState::Grouped), "never again");
}

#[test]
fn a_worse_one_is_told_at_once_even_when_somebody_looks() {
    let (first, _) = after(&plan(), &[0]);
    let seen = act(&first, &IncidentAction::Acknowledge, &by(1)).unwrap();
    for incident in [&first, &seen] {
        let (worse, state, _) = join(Some(incident), &alert(2, AlertSeverity::Critical), &plan(), "k");
        assert_eq!(
            (state, worse.severity, worse.status),
            (AlertState::Pending, AlertSeverity::Critical, incident.status)
        );
        let (again, state, _) = join(Some(&worse), &alert(3, AlertSeverity::Critical), &plan(), "k");
        assert_eq!((state, again.told), (AlertState::Grouped, 2));
        let (milder, state, _) = join(Some(&worse), &alert(3, AlertSeverity::Minor), &plan(), "k");
        assert_eq!((state, milder.severity), (AlertState::Grouped, AlertSeverity::Critical), "the worst so far");
    }
}

#[test]
fn what_is_acknowledged_is_not_repeated_and_not_escalated() {
    let (first, _) = after(&plan(), &[0]);
    assert_eq!(first.escalate_at, Some(at(15)));
    let seen = act(&first, &IncidentAction::Acknowledge, &by(1)).unwrap();
    assert_eq!((seen.escalate_at, seen.acknowledged.clone()), (None, Some(("ann".into(), at(1)))));
    let (later, state, why) = join(Some(&seen), &alert(90, AlertSeverity::Major), &plan(), "k");
    assert_eq!((state, later.alerts, why.as_deref()), (AlertState::Grouped, 2, Some("the incident is acknowledged")));
}

#[test]
fn in_the_window_of_suppression_nobody_is_told_whatever_happens() {
    let plan = Gathering { suppress_for: MINUTE * 20, ..plan() };
    let (first, _) = after(&plan, &[0]);
    let (worse, state, _) = join(Some(&first), &alert(19, AlertSeverity::Critical), &plan, "k");
    assert_eq!(state, AlertState::Grouped);
    let (_, state, _) = join(Some(&worse), &alert(20, AlertSeverity::Critical), &plan, "k");
    assert_eq!(state, AlertState::Pending, "the worse one is told when it comes again after the window");
    for close in [IncidentAction::Resolve, IncidentAction::Dismiss] {
        let closed = act(&first, &close, &by(5)).unwrap();
        let (next, state, _) = join(Some(&closed), &alert(10, AlertSeverity::Major), &plan, "k");
        assert_eq!(
            (state, next.status),
            (AlertState::Grouped, IncidentStatus::Active),
            "{close:?}: of the key, not of the incident"
        );
    }
}

#[test]
fn a_resolved_incident_goes_on_if_it_comes_back_soon_and_a_dismissed_one_never() {
    let (first, _) = after(&plan(), &[0]);
    let first = Incident { id: 7, ..first };
    let resolved = act(&first, &IncidentAction::Resolve, &by(5)).unwrap();
    let dismissed = act(&first, &IncidentAction::Dismiss, &by(5)).unwrap();
    for (closed, minute, id, alerts) in [(&resolved, 35, 7, 2), (&resolved, 36, 0, 1), (&dismissed, 6, 0, 1)] {
        let (next, state, _) = join(Some(closed), &alert(minute, AlertSeverity::Major), &plan(), "k");
        assert_eq!((next.id, next.alerts, state), (id, alerts, AlertState::Pending), "{minute}");
        assert_eq!((next.status, next.closed.clone()), (IncidentStatus::Active, None));
        assert_eq!(next.escalate_at, Some(at(minute + 15)), "the time begins anew");
    }
    let never = Gathering { reopen_within: Duration::ZERO, ..plan() };
    assert_eq!(join(Some(&resolved), &alert(5, AlertSeverity::Major), &never, "k").0.id, 0);
}

#[test]
fn a_silenced_alert_counts_and_the_first_one_after_the_silence_is_told() {
    let silenced = Gathering { silenced_by: Some(3), ..plan() };
    let (quiet, state, why) = join(None, &alert(0, AlertSeverity::Major), &silenced, "k");
    assert_eq!((state, why.as_deref()), (AlertState::Silenced, Some("silence 3")));
    assert_eq!((quiet.alerts, quiet.silenced, quiet.told, quiet.escalate_at), (1, 1, 0, None));
    let (loud, state, _) = join(Some(&quiet), &alert(1, AlertSeverity::Minor), &plan(), "k");
    assert_eq!((state, loud.alerts, loud.told), (AlertState::Pending, 2, 1));
}

#[test]
fn an_incident_moves_only_as_it_can() {
    use IncidentAction as A;
    use IncidentStatus::{Acknowledged, Active, Dismissed, Resolved};
    let (incident, _) = after(&plan(), &[0]);
    for (from, action, to) in [
        (Active, A::Acknowledge, Some(Acknowledged)),
        (Acknowledged, A::Acknowledge, Some(Acknowledged)),
        (Resolved, A::Acknowledge, None),
        (Active, A::Resolve, Some(Resolved)),
        (Acknowledged, A::Resolve, Some(Resolved)),
        (Dismissed, A::Resolve, None),
        (Acknowledged, A::Dismiss, Some(Dismissed)),
        (Resolved, A::Dismiss, None),
        (Resolved, A::Reopen, Some(Active)),
        (Dismissed, A::Reopen, Some(Active)),
        (Active, A::Reopen, Some(Active)),
        (Active, A::Assign(Some("bob".into())), Some(Active)),
        (Resolved, A::Assign(None), None),
        (Dismissed, A::Comment, Some(Dismissed)),
    ] {
        let before = Incident { status: from, ..incident.clone() };
        let moved = act(&before, &action, &by(9));
        assert_eq!(moved.as_ref().ok().map(|i| i.status), to, "{from:?} {action:?}");
        if let Err(error) = moved {
            assert_eq!(error.kind(), ErrorKind::Conflict);
        }
    }
    let unchanged = act(&incident, &A::Reopen, &by(9)).unwrap();
    assert_eq!(unchanged, incident, "nothing to do leaves no word");
    let silent = Actor { reason: None, ..by(9) };
    for (action, by) in [
        (A::Comment, silent.clone()),
        (A::Assign(Some(" ".into())), silent),
        (A::Resolve, Actor { reason: Some("x".repeat(1_001)), ..by(9) }),
    ] {
        assert_eq!(act(&incident, &action, &by).unwrap_err().kind(), ErrorKind::Invalid, "{action:?}");
    }
}

#[test]
fn opened_again_by_hand_it_has_its_quiet_time_before_it() {
    let (incident, _) = after(&plan(), &[0]);
    assert_eq!(incident.resolve_at, Some(at(100)));
    let resolved = act(&incident, &IncidentAction::Resolve, &by(120)).unwrap();
    let again = act(&resolved, &IncidentAction::Reopen, &by(200)).unwrap();
    assert_eq!(again.resolve_at, Some(at(300)));
}

#[test]
fn the_first_ones_wait_and_are_told_as_one_of_the_worst() {
    let plan = Gathering { group_wait: MINUTE * 5, ..plan() };
    let add = |incident: Option<&Incident>, minutes, severity| join(incident, &alert(minutes, severity), &plan, "k");
    let (first, state, why) = add(None, 0, AlertSeverity::Minor);
    assert_eq!((state, why.is_some(), first.told), (AlertState::Grouped, true, 0));
    let (second, state, _) = add(Some(&first), 1, AlertSeverity::Critical);
    assert_eq!(state, AlertState::Grouped, "a worse one waits, too");
    let (third, _, _) = add(Some(&second), 4, AlertSeverity::Critical);
    let worst = alert(1, AlertSeverity::Critical).id;
    let waiting = Waiting { until: at(5), alert: worst, severity: AlertSeverity::Critical, alerts: 3 };
    assert_eq!((third.waiting.as_ref(), third.escalate_at), (Some(&waiting), Some(at(20))), "from when it is told");

    let (told, told_of) = told_late(&third, &first, at(7)).unwrap();
    assert_eq!((told_of, told.told, told.alerts), (waiting, 1, 3), "those that came since it was seen belong to it");
    assert_eq!((told.last_told, told.escalate_at), (Some(at(7)), Some(at(22))), "two minutes later than it should");
    assert_eq!(told_late(&told, &first, at(8)), None, "once");
    let (_, state, _) = add(Some(&told), 8, AlertSeverity::Critical);
    assert_eq!(state, AlertState::Grouped, "told already");

    // What must not wait does not, and ends the waiting.
    let at_once = Gathering { group_wait: Duration::ZERO, ..plan.clone() };
    let (now, state, _) = join(Some(&second), &alert(2, AlertSeverity::Critical), &at_once, "k");
    assert_eq!((state, &now.waiting, now.told), (AlertState::Pending, &None, 1));
    assert_eq!(told_late(&now, &second, at(5)), None);
}

#[test]
fn somebody_who_looks_or_closes_ends_the_waiting() {
    let plan = Gathering { group_wait: MINUTE * 5, resolve_after: MINUTE, ..plan() };
    let (first, _) = after(&plan, &[0]);
    assert_eq!(first.resolve_at, Some(at(5)), "not before it was told");
    let seen = act(&first, &IncidentAction::Acknowledge, &by(1)).unwrap();
    assert_eq!((seen.waiting.as_ref(), told_late(&seen, &first, at(5))), (None, None));
    let (_, state, why) = join(Some(&seen), &alert(2, AlertSeverity::Major), &plan, "k");
    assert_eq!((state, why.as_deref()), (AlertState::Grouped, Some("the incident is acknowledged")));
    for close in [IncidentAction::Resolve, IncidentAction::Dismiss] {
        let closed = act(&first, &close, &by(1)).unwrap();
        assert_eq!(told_late(&closed, &first, at(5)), None, "{close:?}");
        let (next, state, _) = join(Some(&closed), &alert(2, AlertSeverity::Major), &plan, "k");
        assert_eq!((state, next.waiting.map(|waiting| waiting.until)), (AlertState::Grouped, Some(at(7))), "{close:?}");
    }
}

#[test]
fn a_message_says_how_many_alerts_it_is_about() {
    assert_eq!(gathered_message("Login guessed", 1), "Login guessed");
    assert_eq!(gathered_message("Login guessed", 12), "[12 alerts] Login guessed");
}
