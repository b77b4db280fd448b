//! Audit rows and alerts.

use super::settings::changes;
use super::{Store, admin, at, draft, event_id, home, kind, org, page};
use crate::catalog::retention::{Cutoffs, Outdated};
use crate::catalog::{
    AlertFilter, AlertProgress, AuditEntry, AuditFilter, AuditRow, ConfigChange, ConfigChangeFilter, Cursor, Purged,
};
use bytes::Bytes;
use model::{Alert, AlertId, AlertKind, AlertSeverity, AlertState, Detection, ErrorKind, EventId, Handling, Level};

fn entry(secs: u64, number: u64) -> AuditEntry {
    AuditEntry {
        event_id: event_id(secs, number),
        event_timestamp: at(secs),
        hostname: "router-1".into(),
        matched_rule_id: 5,
        handling_decision: "Page_only".into(),
        forwarded: true,
        raw_message: Bytes::from_static(r#"{"message":"naïve"}"#.as_bytes()),
    }
}

fn alert(event: EventId, secs: u64) -> Alert {
    Alert {
        id: AlertId::derive(event, "rule"),
        org: home(),
        kind: AlertKind::Rule,
        event_id: event,
        correlation_id: "c".into(),
        created_at: at(secs),
        host: "router-1".into(),
        team: "NETO".into(),
        severity: AlertSeverity::Major,
        handling: Handling::new("Page_only"),
        rule_id: Some(5),
        signature: "router-1:5".into(),
        message: "link down".into(),
        raw_json: Bytes::from_static(b"{}"),
        detection: None,
    }
}

/// An alert of a detection rule that says all that one can, hostile texts among it.
pub(super) fn detected(secs: u64) -> Alert {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let event = event_id(secs, secs);
    let detection = Detection {
        rule_uid: "5a1f7a0e".into(),
        name: "login_guessed".into(),
        title: "Login guessed".into(),
        description: "a\0b".into(),
        level: Level::Critical,
        tags: texts(&["attack.t1110", "attack.credential_access"]),
        references: texts(&["https://example.org/\u{1f480}"]),
        false_positives: texts(&["a scanner of ours"]),
        fields: vec![("SourceIp".into(), "192.0.2.1".into()), ("User".into(), "\"\\\0".into())],
        events: u64::MAX,
    };
    Alert {
        id: AlertId::derive(event, "5a1f7a0e"),
        kind: AlertKind::Detection,
        rule_id: None,
        created_at: at(secs),
        detection: Some(Box::new(detection)),
        ..alert(event, secs)
    }
}

async fn audit(catalog: &Store, filter: AuditFilter) -> Vec<AuditRow> {
    catalog.audit_log(&home(), &filter, page(1, 200)).await.unwrap().rows
}

pub async fn recording_again_changes_nothing(open: &impl AsyncFn(&'static str) -> Store) {
    let catalog = open("record").await;
    let (entries, alerts) = (vec![entry(0, 1), entry(1, 2)], vec![alert(event_id(0, 1), 0)]);
    catalog.record(&home(), entries.clone(), alerts.clone()).await.unwrap();
    let id = alerts[0].id;
    let delivered = AlertProgress { id, state: AlertState::Delivered, at: at(5), attempts: 1, detail: None };
    catalog.mark_alerts(vec![delivered]).await.unwrap();
    drop(catalog);
    let catalog = open("record").await;
    let more = [entries.clone(), vec![entry(2, 3), entry(2, 3)]].concat();
    catalog.record(&home(), more, alerts).await.unwrap();
    // The same event under another rule, and in another organisation, is another row.
    catalog.record(&home(), vec![AuditEntry { matched_rule_id: 6, ..entry(0, 1) }], Vec::new()).await.unwrap();
    catalog.record(&org("acme"), entries, Vec::new()).await.unwrap();
    catalog.record(&home(), Vec::new(), Vec::new()).await.unwrap();
    let log = catalog.audit_log(&home(), &AuditFilter::default(), page(1, 50)).await.unwrap();
    assert_eq!((log.total, log.rows.len()), (4, 4));
    assert_eq!(log.rows[0].entry, entry(2, 3));
    assert_eq!(catalog.alert(&home(), id).await.unwrap().state, AlertState::Delivered, "not pending again");
}

pub async fn deleting_a_rule_keeps_history(catalog: &Store) {
    let id = catalog.create_rule(&home(), draft("a"), &admin(0)).await.unwrap();
    let row = AuditEntry { matched_rule_id: id, ..entry(0, 1) };
    catalog.record(&home(), vec![row.clone()], vec![alert(event_id(0, 1), 0)]).await.unwrap();
    catalog.delete_rule(&home(), id, &admin(1)).await.unwrap();
    assert_eq!(audit(catalog, AuditFilter { rule_id: Some(id), ..Default::default() }).await[0].entry, row);
    catalog.record(&home(), vec![AuditEntry { event_id: event_id(1, 2), ..row }], Vec::new()).await.unwrap();
    assert_eq!(audit(catalog, AuditFilter::default()).await.len(), 2, "a worker with old rules is not refused");
}

pub async fn audit_rows_are_filtered_and_paged_newest_first(catalog: &Store) {
    let mut entries: Vec<_> = (0..95).map(|n| entry(n, n)).collect();
    for (n, entry) in (0u64..).zip(&mut entries) {
        entry.hostname = format!("host-{}", n % 2);
        entry.matched_rule_id = (n % 5) as i64;
        entry.forwarded = n % 3 == 0;
    }
    entries.reverse();
    catalog.record(&home(), entries.clone(), Vec::new()).await.unwrap();
    let mut seen = Vec::new();
    for number in 1..=12 {
        let page = catalog.audit_log(&home(), &AuditFilter::default(), page(number, 10)).await.unwrap();
        assert_eq!(page.total, 95);
        assert_eq!(page.rows.len(), [10, 5, 0][(number as usize).saturating_sub(9).min(2)], "page {number}");
        seen.extend(page.rows.into_iter().map(|row| row.entry));
    }
    assert_eq!(seen, entries, "each row once, newest first");
    let first = catalog.audit_log(&home(), &AuditFilter::default(), page(0, 1)).await.unwrap();
    assert_eq!(first.rows[0].entry, entries[0], "page 0 is page 1");
    let check = async |filter: AuditFilter, expected: usize| {
        let page = catalog.audit_log(&home(), &filter, page(1, 1_000)).await.unwrap();
        assert_eq!((page.rows.len(), page.total), (expected, expected as u64), "{filter:?}");
    };
    let any = AuditFilter::default;
    check(AuditFilter { hostname: Some("host-1".into()), ..any() }, 47).await;
    check(AuditFilter { hostname: Some("host".into()), ..any() }, 0).await;
    check(AuditFilter { rule_id: Some(2), ..any() }, 19).await;
    check(AuditFilter { event_id: Some(event_id(7, 7)), ..any() }, 1).await;
    check(AuditFilter { from: Some(at(10)), to: Some(at(19)), ..any() }, 10).await;
    let all = AuditFilter { hostname: Some("host-0".into()), rule_id: Some(0), from: Some(at(10)), ..any() };
    check(AuditFilter { to: Some(at(30)), ..all }, 3).await;
    let others = catalog.audit_log(&org("acme"), &any(), page(1, 10)).await.unwrap();
    assert_eq!((others.total, others.rows.len()), (0, 0));
}

pub async fn a_cursor_meets_each_row_once_whatever_arrives(catalog: &Store) {
    // Some at the same time: the id decides.
    let entries = (0..25).map(|n| AuditEntry { hostname: format!("host-{}", n % 2), ..entry(n / 3, n) });
    catalog.record(&home(), entries.collect(), Vec::new()).await.unwrap();
    for host in [None, Some("host-1".to_owned())] {
        let mut filter = AuditFilter { hostname: host.clone(), ..Default::default() };
        let all = catalog.audit_log(&home(), &filter, page(1, 1_000)).await.unwrap();
        assert!(all.next.is_none(), "the last page says so");
        let mut seen = Vec::new();
        loop {
            let found = catalog.audit_log(&home(), &filter, page(1, 4)).await.unwrap();
            seen.extend(found.rows);
            let Some(next) = found.next else { break };
            filter.after = Cursor::parse(&next.to_string());
            assert_eq!(filter.after, Some(next));
            // Newer rows, which would move every page by number.
            let number = 1_000 + seen.len() as u64 + u64::from(host.is_some()) * 100;
            catalog.record(&home(), vec![entry(number, number)], Vec::new()).await.unwrap();
        }
        assert_eq!(seen, all.rows, "{host:?}");
    }
    let change = |secs| ConfigChange {
        id: 0,
        changed_at: at(secs),
        changed_by: "x".into(),
        operation: "UPDATE".into(),
        table_name: "t".into(),
        record_id: 0,
        old_values: None,
        new_values: None,
        reason: None,
        correlation_id: Some("c".into()),
    };
    for n in 0..9 {
        catalog.record_config_change(&home(), change(n / 2)).await.unwrap();
    }
    let mut filter = ConfigChangeFilter::default();
    let all = catalog.config_changes(&home(), &filter, page(1, 9)).await.unwrap().rows;
    let mut seen = Vec::new();
    loop {
        let found = catalog.config_changes(&home(), &filter, page(1, 4)).await.unwrap();
        assert!(found.total >= 9, "a cursor leaves the total alone");
        seen.extend(found.rows);
        filter.after = found.next;
        if filter.after.is_none() {
            break;
        }
        catalog.record_config_change(&home(), change(1_000)).await.unwrap();
    }
    assert_eq!(seen, all);
}

pub async fn config_changes_are_filtered_and_wildcards_mean_themselves(catalog: &Store) {
    let change = |by: &str, secs| ConfigChange {
        id: 0,
        changed_at: at(secs),
        changed_by: by.into(),
        operation: "UPDATE".into(),
        table_name: "dynamic_config".into(),
        record_id: 0,
        old_values: None,
        new_values: Some(r#"{"key":"moog_rate_limit","value":"60"}"#.into()),
        reason: None,
        correlation_id: Some("c-9".into()),
    };
    for (by, secs) in [("alice_1", 1), ("ALICEx1", 2), ("100%", 3), (r"back\slash", 4)] {
        catalog.record_config_change(&home(), change(by, secs)).await.unwrap();
    }
    let id = catalog.create_rule(&home(), draft("a"), &admin(5)).await.unwrap();
    let bad = ConfigChange { operation: "DROP".into(), ..change("x", 1) };
    assert_eq!(kind(catalog.record_config_change(&home(), bad).await), ErrorKind::Invalid);
    let check = async |filter: ConfigChangeFilter, expected: &[u64]| {
        let label = format!("{filter:?}");
        let page = catalog.config_changes(&home(), &filter, page(1, 10)).await.unwrap();
        assert_eq!(page.total, expected.len() as u64, "{label}");
        let times: Vec<_> = page.rows.iter().map(|c| c.changed_at).collect();
        assert_eq!(times, expected.iter().map(|s| at(*s)).collect::<Vec<_>>(), "{label}");
    };
    let any = ConfigChangeFilter::default;
    let by = |text: &str| ConfigChangeFilter { changed_by: Some(text.into()), ..any() };
    check(any(), &[5, 4, 3, 2, 1]).await;
    check(by("alice"), &[2, 1]).await;
    check(by("e_1"), &[1]).await;
    check(by("%"), &[3]).await;
    check(by(r"\"), &[4]).await;
    check(ConfigChangeFilter { operation: Some("CREATE".into()), ..any() }, &[5]).await;
    check(ConfigChangeFilter { table_name: Some("dynamic_config".into()), ..by("a") }, &[4, 2, 1]).await;
    check(ConfigChangeFilter { record_id: Some(id), ..any() }, &[5]).await;
    check(ConfigChangeFilter { from: Some(at(2)), to: Some(at(4)), ..any() }, &[4, 3, 2]).await;
    let second = catalog.config_changes(&home(), &any(), page(2, 2)).await.unwrap();
    assert_eq!((second.total, second.rows[0].changed_at), (5, at(3)));
    let row = &changes(catalog, &home(), by("100")).await[0];
    assert_eq!(ConfigChange { id: row.id, ..change("100%", 3) }, *row);
}

pub async fn old_rows_are_purged_in_batches(catalog: &Store) {
    for n in 0..10 {
        let mut entry = entry(n, n);
        entry.event_timestamp = at(1_000_000 - n); // the device's clock says nothing about age
        let alert = alert(event_id(n, n), n);
        let state = if n < 2 { AlertState::Pending } else { AlertState::ALL[1 + n as usize % 3] };
        let step = AlertProgress { id: alert.id, state, at: at(n), attempts: 1, detail: None };
        catalog.record(&home(), vec![entry], vec![alert]).await.unwrap();
        catalog.mark_alerts(vec![step]).await.unwrap();
        catalog.add_dev_host(&home(), &format!("h{n}"), &admin(n)).await.unwrap();
    }
    // Older than 6: six audit rows, four settled alerts, five changes.
    let before = Cutoffs { events: at(6), archive: at(0), changes: at(5) };
    let archived = catalog.holdings().await.unwrap().archive.map(|_| 0);
    let outdated = Outdated { events: 6, archived, alerts: 4, incidents: 0, changes: 5 };
    assert_eq!(catalog.outdated(before).await.unwrap(), outdated, "told before it is done");
    assert_eq!(catalog.holdings().await.unwrap().events, 10);
    let mut gone = Vec::new();
    while gone.last() != Some(&Purged::default()) {
        gone.push(catalog.purge(at(6), at(5), 3).await.unwrap());
    }
    let purged = |events, alerts, changes| Purged { events, alerts, incidents: 0, changes };
    assert_eq!(gone, [purged(3, 3, 3), purged(3, 1, 2), purged(0, 0, 0)]);
    assert_eq!(catalog.outdated(before).await.unwrap(), Outdated { archived, ..Outdated::default() });
    let log = catalog.audit_log(&home(), &AuditFilter::default(), page(1, 50)).await.unwrap();
    assert_eq!((log.total, log.rows.len()), (4, 4));
    let alerts = catalog.alerts(&home(), &AlertFilter::default(), page(1, 50)).await.unwrap();
    assert_eq!(alerts.total, 6, "pending alerts stay however old they are");
    assert_eq!(changes(catalog, &home(), ConfigChangeFilter::default()).await.len(), 5);
}

pub async fn alerts_go_from_pending_to_an_end(open: &impl AsyncFn(&'static str) -> Store) {
    let catalog = open("alerts").await;
    let alerts: Vec<_> = (0..4).map(|n| alert(event_id(n, n), n)).collect();
    let meta = Alert {
        id: AlertId::derive(event_id(9, 9), "unhandled"),
        kind: AlertKind::Unhandled,
        rule_id: None,
        severity: AlertSeverity::Clear,
        raw_json: Bytes::from_static(b"\xff\x00"),
        created_at: at(9),
        ..alerts[0].clone()
    };
    let detected = detected(10);
    let mut all = alerts.clone();
    all.extend([meta.clone(), detected.clone()]);
    catalog.record(&home(), Vec::new(), all).await.unwrap();
    drop(catalog);
    let catalog = open("alerts").await;
    let ids: Vec<AlertId> = alerts.iter().map(|a| a.id).collect();
    let pending = async |after: Option<&Alert>, limit| -> Vec<AlertId> {
        let after = after.map(|a| (a.created_at, a.id));
        catalog.pending_alerts(after, limit).await.unwrap().into_iter().map(|a| a.id).collect()
    };
    assert_eq!(pending(None, 2).await, ids[..2], "oldest first");
    assert_eq!(pending(Some(&alerts[1]), 2).await, ids[2..4], "the next page goes on where the last one ended");
    let step = |id, state, secs, attempts, detail: Option<&str>| AlertProgress {
        id,
        state,
        at: at(secs),
        attempts,
        detail: detail.map(Into::into),
    };
    let unknown = AlertId::derive(event_id(50, 50), "x");
    catalog
        .mark_alerts(vec![
            step(ids[0], AlertState::Delivered, 20, 2, Some("receipt 7")),
            step(ids[1], AlertState::Dead, 21, 6, Some("gone")),
            step(ids[2], AlertState::Pending, 22, 1, None),
            step(unknown, AlertState::Dead, 22, 1, None),
        ])
        .await
        .unwrap();
    // A report that comes late, and a dead one that is replayed.
    catalog
        .mark_alerts(vec![
            step(ids[0], AlertState::Pending, 30, 3, None),
            step(ids[1], AlertState::Delivered, 31, 7, None),
        ])
        .await
        .unwrap();
    catalog.mark_alerts(Vec::new()).await.unwrap();
    let record = catalog.alert(&home(), ids[0]).await.unwrap();
    assert_eq!((record.state, record.state_at, record.attempts), (AlertState::Delivered, at(20), 2));
    assert_eq!(record.detail.as_deref(), Some("receipt 7"));
    let states = catalog.alert_states(&[ids[3], unknown, ids[0], ids[1]]).await.unwrap();
    let expected = [(ids[3], AlertState::Pending), (ids[0], AlertState::Delivered), (ids[1], AlertState::Delivered)];
    assert_eq!(states, expected);
    assert_eq!(pending(None, 10).await, [ids[2], ids[3], meta.id, detected.id]);
    let record = catalog.alert(&home(), meta.id).await.unwrap();
    assert_eq!((record.state, record.attempts, record.state_at, record.detail), (AlertState::Pending, 0, at(9), None));
    assert_eq!(format!("{:?}", record.alert), format!("{meta:?}"), "every field comes back");
    let record = catalog.alert(&home(), detected.id).await.unwrap();
    assert_eq!(format!("{:?}", record.alert), format!("{detected:?}"), "with all that its rule says");
    assert_eq!(kind(catalog.alert(&org("acme"), ids[0]).await), ErrorKind::NotFound);
    assert_eq!(kind(catalog.alert(&home(), unknown).await), ErrorKind::NotFound);
}

pub async fn alerts_are_filtered_and_paged(catalog: &Store) {
    let alerts: Vec<_> =
        (0..25).map(|n| Alert { host: format!("host-{}", n % 2), ..alert(event_id(n, n), n) }).collect();
    catalog.record(&home(), Vec::new(), alerts.clone()).await.unwrap();
    let dead =
        |n: usize| AlertProgress { id: alerts[n].id, state: AlertState::Dead, at: at(99), attempts: 1, detail: None };
    catalog.mark_alerts((0..10).map(dead).collect()).await.unwrap();
    let check = async |filter: AlertFilter, number, expected_total, expected: &[u64]| {
        let label = format!("{filter:?}");
        let page = catalog.alerts(&home(), &filter, page(number, 4)).await.unwrap();
        let times: Vec<_> = page.rows.iter().map(|r| r.alert.created_at).collect();
        let expected: Vec<_> = expected.iter().map(|s| at(*s)).collect();
        assert_eq!((page.total, times), (expected_total, expected), "{label}");
    };
    let any = AlertFilter::default;
    check(any(), 1, 25, &[24, 23, 22, 21]).await;
    check(any(), 7, 25, &[0]).await;
    check(AlertFilter { state: Some(AlertState::Dead), ..any() }, 2, 10, &[5, 4, 3, 2]).await;
    check(AlertFilter { hostname: Some("host-1".into()), ..any() }, 1, 12, &[23, 21, 19, 17]).await;
    check(AlertFilter { event_id: Some(event_id(7, 7)), ..any() }, 1, 1, &[7]).await;
    check(AlertFilter { from: Some(at(3)), to: Some(at(4)), ..any() }, 1, 2, &[4, 3]).await;
    let others = catalog.alerts(&org("acme"), &any(), page(1, 10)).await.unwrap();
    assert_eq!((others.total, others.rows.len()), (0, 0));
}

pub async fn texts_that_no_database_likes_are_recorded_and_found(catalog: &Store) {
    let hosts =
        ["a\0b".to_owned(), "h".repeat(20_000), "ü".repeat(3_000) + "1", "ü".repeat(3_000) + "2", String::new()];
    let mut entries = Vec::new();
    let mut alerts = Vec::new();
    for (n, host) in (0u64..).zip(&hosts) {
        entries.push(AuditEntry {
            hostname: host.clone(),
            handling_decision: format!("\0{}", "x".repeat(500)),
            raw_message: Bytes::from_static(b"{\"message\":\"a\0b\xff \\u0000 \\ud800\"}"),
            ..entry(n, n)
        });
        alerts.push(Alert {
            host: host.clone(),
            message: "m\0".repeat(5_000),
            signature: "s\0".into(),
            team: "t\0".into(),
            correlation_id: "c\0".repeat(1_000),
            handling: Handling::new("\0"),
            ..alert(event_id(n, n), n)
        });
    }
    entries.push(entry(9, 9));
    catalog.record(&home(), entries.clone(), alerts.clone()).await.unwrap();
    catalog.record(&home(), entries, alerts.clone()).await.unwrap();
    let log = catalog.audit_log(&home(), &AuditFilter::default(), page(1, 50)).await.unwrap();
    assert_eq!((log.total, log.rows.len()), (6, 6), "each row once, the good one among them");
    for host in hosts {
        let rows = audit(catalog, AuditFilter { hostname: Some(host.clone()), ..Default::default() }).await;
        assert_eq!(rows.len(), 1, "{} bytes", host.len());
        let filter = AlertFilter { hostname: Some(host.clone()), ..Default::default() };
        let found = catalog.alerts(&home(), &filter, page(1, 10)).await.unwrap();
        assert_eq!(found.total, 1, "{} bytes", host.len());
        let whole = found.rows[0].alert.host == host || found.rows[0].alert.host == host.replace('\0', "\u{fffd}");
        assert!(whole, "an alert tells the whole name");
    }
    let detail = Some("a\0b".into());
    let step = AlertProgress { id: alerts[0].id, state: AlertState::Dead, at: at(9), attempts: u32::MAX, detail };
    catalog.mark_alerts(vec![step]).await.unwrap();
    assert_eq!(catalog.alert(&home(), alerts[0].id).await.unwrap().state, AlertState::Dead);
    let change = ConfigChange {
        id: 0,
        changed_at: at(1),
        changed_by: "a\0".repeat(200),
        operation: "UPDATE".into(),
        table_name: "t".repeat(200),
        record_id: i64::MAX,
        old_values: Some(r#"{"value":"\u0000 \ud800 \ud83d\ude00"}"#.into()),
        new_values: None,
        reason: Some("\0".into()),
        correlation_id: Some("c".repeat(1_000)),
    };
    catalog.record_config_change(&home(), change).await.unwrap();
    assert_eq!(catalog.config_changes(&home(), &ConfigChangeFilter::default(), page(1, 9)).await.unwrap().total, 1);
}

pub async fn wrong_clocks_are_recorded_and_listed(catalog: &Store) {
    let times = ["9999-12-30T00:00:00Z", "2031-05-01T00:00:00Z", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z"];
    let times: Vec<_> = times.iter().map(|t| model::Timestamp::parse(t).unwrap()).collect();
    let mut entries: Vec<_> =
        (0u64..).zip(&times).map(|(n, t)| AuditEntry { event_timestamp: *t, ..entry(n, n) }).collect();
    for (n, micros) in [(10, i64::MIN), (11, i64::MAX)] {
        entries.push(AuditEntry { event_timestamp: model::Timestamp::from_micros(micros), ..entry(n, n) });
    }
    catalog.record(&home(), entries.clone(), Vec::new()).await.unwrap();
    catalog.record(&home(), entries, Vec::new()).await.unwrap();
    let log = catalog.audit_log(&home(), &AuditFilter::default(), page(1, 50)).await.unwrap();
    assert_eq!((log.total, log.rows.len()), (6, 6));
    let filter = AuditFilter { from: Some(times[3]), to: Some(times[0]), ..Default::default() };
    let mut seen: Vec<_> = audit(catalog, filter).await.into_iter().map(|row| row.entry.event_timestamp).collect();
    seen.retain(|time| times.contains(time));
    seen.dedup();
    assert_eq!(seen, times);
}

pub async fn the_same_batch_by_several_workers_counts_once(catalog: &Store) {
    let entries: Vec<_> = (0..300).map(|n| entry(n, n)).collect();
    let alerts: Vec<_> = (0..300).map(|n| alert(event_id(n, n), n)).collect();
    let mut workers = tokio::task::JoinSet::new();
    for n in 0..6 {
        let (catalog, mut entries, mut alerts) = (catalog.clone(), entries.clone(), alerts.clone());
        if n % 2 == 0 {
            entries.reverse();
            alerts.reverse();
        }
        workers.spawn(async move { catalog.record(&home(), entries, alerts).await });
    }
    while let Some(recorded) = workers.join_next().await {
        recorded.unwrap().unwrap();
    }
    let log = catalog.audit_log(&home(), &AuditFilter::default(), page(1, 1_000)).await.unwrap();
    assert_eq!((log.total, log.rows.len()), (300, 300));
    assert_eq!(catalog.alerts(&home(), &AlertFilter::default(), page(1, 1)).await.unwrap().total, 300);
}

pub async fn what_is_archived_leaves_the_log_once(catalog: &Store) {
    let entries: Vec<_> = (0..10).map(|n| entry(n, n)).collect();
    catalog.record(&home(), entries, Vec::new()).await.unwrap();
    let mut archived = 0;
    loop {
        let gone = catalog.archive(at(6), 4).await.unwrap();
        assert!(gone <= 4);
        archived += gone;
        let log = catalog.audit_log(&home(), &AuditFilter::default(), page(1, 50)).await.unwrap();
        assert_eq!((log.total, log.rows.len() as u64), (10 - archived, 10 - archived));
        if gone == 0 {
            break;
        }
    }
    let purged = catalog.purge(at(6), at(0), 100).await.unwrap().events;
    assert_eq!(archived + purged, 6);
    let before = Cutoffs { events: at(6), archive: at(4), changes: at(0) };
    let archive = catalog.holdings().await.unwrap().archive;
    let told = Outdated { archived: archive.as_ref().map(|_| 4), ..Outdated::default() };
    assert_eq!(catalog.outdated(before).await.unwrap(), told);
    assert_eq!(archive.map_or(0, |archive| archive.rows), archived);
    let out_of_archive = catalog.purge_archive(at(4), 100).await.unwrap();
    assert_eq!(out_of_archive, if archived == 0 { 0 } else { 4 });
    assert_eq!(catalog.purge_archive(at(4), 100).await.unwrap(), 0);
}

pub async fn steps_of_one_alert_in_one_batch_end_as_one_by_one(catalog: &Store) {
    let alerts: Vec<_> = (0..3).map(|n| alert(event_id(n, n), n)).collect();
    catalog.record(&home(), Vec::new(), alerts.clone()).await.unwrap();
    let step =
        |n: usize, state, secs| AlertProgress { id: alerts[n].id, state, at: at(secs), attempts: 1, detail: None };
    let steps = vec![
        step(0, AlertState::Delivered, 1),
        step(0, AlertState::Dead, 2),
        step(1, AlertState::Dead, 3),
        step(1, AlertState::Pending, 4),
        step(2, AlertState::Recorded, 5),
        step(2, AlertState::Delivered, 6),
    ];
    catalog.mark_alerts(steps).await.unwrap();
    for (n, expected) in [(0, AlertState::Delivered), (1, AlertState::Pending), (2, AlertState::Delivered)] {
        assert_eq!(catalog.alert(&home(), alerts[n].id).await.unwrap().state, expected, "{n}");
    }
}

pub async fn a_batch_of_another_organisation_is_refused_whole(catalog: &Store) {
    let foreign = Alert { org: org("acme"), ..alert(event_id(0, 1), 0) };
    let result = catalog.record(&home(), vec![entry(0, 1)], vec![foreign]).await;
    assert_eq!(kind(result), ErrorKind::Invalid);
    assert!(audit(catalog, AuditFilter::default()).await.is_empty());
}
