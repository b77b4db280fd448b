//! Rules, hosts, teams, and the trace that changing them leaves.

use super::{Store, admin, at, draft, home, kind, org, page};
use crate::catalog::{ConfigChange, ConfigChangeFilter};
use model::{ErrorKind, Handling, MatchType, Rule, RuleDraft};

fn full_draft() -> RuleDraft {
    RuleDraft {
        match_string: Some("naïve 'quoted' \"text\"; DROP TABLE alert_rules --".into()),
        trap_oid: Some(".1.3.6.1.4.1.9".into()),
        syslog_severity: Some(7),
        match_type: MatchType::OidPrefix,
        priority: i32::MIN,
        prod_handling: Handling::new("  Page_only "),
        dev_handling: Handling::new(""),
        team_assignment: "ö".repeat(100),
        is_active: false,
    }
}

pub async fn every_field_of_a_rule_comes_back(open: &impl AsyncFn(&'static str) -> Store) {
    let catalog = open("fields").await;
    let id = catalog.create_rule(&home(), full_draft(), &admin(0)).await.unwrap();
    drop(catalog);
    let catalog = open("fields").await;
    let rule = Rule { id, draft: full_draft() };
    assert_eq!(catalog.rule(&home(), id).await.unwrap(), rule);
    assert_eq!(catalog.rules(&home()).await.unwrap(), [rule]);
    let changed = RuleDraft { match_type: MatchType::Regex, priority: i32::MAX, trap_oid: None, ..draft("x") };
    catalog.update_rule(&home(), id, &full_draft(), changed.clone(), &admin(0)).await.unwrap();
    assert_eq!(catalog.rule(&home(), id).await.unwrap().draft, changed);
}

pub async fn rules_are_ordered_by_priority_then_id(catalog: &Store) {
    let with = |priority| RuleDraft { priority, ..draft("x") };
    let drafts = vec![with(50), with(-1), with(50), with(7)];
    let ids = catalog.create_rules(&home(), drafts, &admin(0)).await.unwrap();
    let listed: Vec<_> = catalog.rules(&home()).await.unwrap().iter().map(|r| r.id).collect();
    assert_eq!(listed, [ids[1], ids[3], ids[0], ids[2]]);
    let all: Vec<_> = catalog.all_rules().await.unwrap().into_iter().map(|(_, r)| r.id).collect();
    assert_eq!(all, listed);
}

pub async fn rules_are_created_all_or_none(catalog: &Store) {
    let bad = RuleDraft { match_string: None, ..draft("x") };
    let result = catalog.create_rules(&home(), vec![draft("a"), bad], &admin(0)).await;
    assert_eq!(kind(result), ErrorKind::Invalid);
    assert!(catalog.rules(&home()).await.unwrap().is_empty());
    assert_eq!(catalog.create_rules(&home(), Vec::new(), &admin(0)).await.unwrap().len(), 0);
    let ids = catalog.create_rules(&home(), vec![draft("a"), draft("b")], &admin(0)).await.unwrap();
    assert_eq!(catalog.rule(&home(), ids[1]).await.unwrap().draft, draft("b"));
}

pub async fn a_rule_changed_meanwhile_is_a_conflict(catalog: &Store) {
    let id = catalog.create_rule(&home(), draft("a"), &admin(0)).await.unwrap();
    catalog.update_rule(&home(), id, &draft("a"), draft("b"), &admin(0)).await.unwrap();
    let late = catalog.update_rule(&home(), id, &draft("a"), draft("c"), &admin(0)).await;
    assert_eq!(kind(late), ErrorKind::Conflict);
    assert_eq!(catalog.rule(&home(), id).await.unwrap().draft, draft("b"));
    assert_eq!(
        kind(catalog.update_rule(&home(), id + 1, &draft("a"), draft("c"), &admin(0)).await),
        ErrorKind::NotFound
    );
}

pub async fn of_two_updates_at_once_one_wins(catalog: &Store) {
    let id = catalog.create_rule(&home(), draft("a"), &admin(0)).await.unwrap();
    let update = async |text: &str| catalog.update_rule(&home(), id, &draft("a"), draft(text), &admin(1)).await;
    let (left, right) = tokio::join!(update("left"), update("right"));
    let (winner, loser) = if left.is_ok() { ("left", right) } else { ("right", left) };
    assert_eq!(kind(loser), ErrorKind::Conflict);
    assert_eq!(catalog.rule(&home(), id).await.unwrap().draft, draft(winner));
    assert_eq!(changes(catalog, &home(), ConfigChangeFilter::default()).await.len(), 2);
}

pub async fn ids_of_rules_are_never_given_again(open: &impl AsyncFn(&'static str) -> Store) {
    let catalog = open("ids").await;
    let first = catalog.create_rule(&home(), draft("a"), &admin(0)).await.unwrap();
    catalog.delete_rule(&home(), first, &admin(0)).await.unwrap();
    assert_eq!(kind(catalog.rule(&home(), first).await), ErrorKind::NotFound);
    assert_eq!(kind(catalog.delete_rule(&home(), first, &admin(0)).await), ErrorKind::NotFound);
    drop(catalog);
    let catalog = open("ids").await;
    assert!(catalog.create_rule(&home(), draft("b"), &admin(0)).await.unwrap() > first);
}

pub async fn bad_rules_are_invalid(catalog: &Store) {
    let long = |n: usize| "é".repeat(n);
    let good = catalog.create_rule(&home(), draft(&long(255)), &admin(0)).await.unwrap();
    for (name, bad) in [
        ("no criterion", RuleDraft { match_string: None, ..draft("") }),
        ("severity", RuleDraft { syslog_severity: Some(8), ..draft("x") }),
        ("match_string", draft(&long(256))),
        ("trap_oid", RuleDraft { trap_oid: Some(long(256)), ..draft("x") }),
        ("prod_handling", RuleDraft { prod_handling: Handling::new(long(101)), ..draft("x") }),
        ("dev_handling", RuleDraft { dev_handling: Handling::new(long(101)), ..draft("x") }),
        ("team_assignment", RuleDraft { team_assignment: long(101), ..draft("x") }),
        ("NUL", draft("a\0b")),
    ] {
        assert_eq!(kind(catalog.create_rule(&home(), bad.clone(), &admin(0)).await), ErrorKind::Invalid, "{name}");
        let update = catalog.update_rule(&home(), good, &draft(&long(255)), bad, &admin(0)).await;
        assert_eq!(kind(update), ErrorKind::Invalid, "{name}");
    }
}

pub async fn hosts_and_teams_are_kept_sorted_and_unique(catalog: &Store) {
    for host in ["b", "a", "C", "ä"] {
        catalog.add_dev_host(&home(), host, &admin(0)).await.unwrap();
        catalog.add_team(&home(), host, &format!("team {host}"), &admin(0)).await.unwrap();
    }
    assert_eq!(kind(catalog.add_dev_host(&home(), "a", &admin(0)).await), ErrorKind::Conflict);
    assert_eq!(kind(catalog.add_team(&home(), "a", "t", &admin(0)).await), ErrorKind::Conflict);
    assert_eq!(catalog.dev_hosts(&home()).await.unwrap(), ["C", "a", "b", "ä"]);
    catalog.update_team(&home(), "b", "new", &admin(0)).await.unwrap();
    catalog.remove_team(&home(), "a", &admin(0)).await.unwrap();
    catalog.remove_dev_host(&home(), "C", &admin(0)).await.unwrap();
    let teams = catalog.teams(&home()).await.unwrap();
    let expected = [("C", "team C"), ("b", "new"), ("ä", "team ä")];
    assert_eq!(teams.iter().map(|(h, t)| (h.as_str(), t.as_str())).collect::<Vec<_>>(), expected);
    assert_eq!(kind(catalog.remove_dev_host(&home(), "C", &admin(0)).await), ErrorKind::NotFound);
    assert_eq!(kind(catalog.remove_team(&home(), "a", &admin(0)).await), ErrorKind::NotFound);
    assert_eq!(kind(catalog.update_team(&home(), "a", "t", &admin(0)).await), ErrorKind::NotFound);
    for (host, team) in [("", "t"), (&*"h".repeat(256), "t"), ("h", ""), ("h", &*"t".repeat(101))] {
        assert_eq!(kind(catalog.add_team(&home(), host, team, &admin(0)).await), ErrorKind::Invalid);
    }
    assert_eq!(kind(catalog.add_dev_host(&home(), "", &admin(0)).await), ErrorKind::Invalid);
}

pub async fn organisations_never_see_each_other(catalog: &Store) {
    let (ours, theirs) = (org("acme"), org("globex"));
    let id = catalog.create_rule(&ours, draft("a"), &admin(0)).await.unwrap();
    for org in [&ours, &theirs] {
        catalog.add_dev_host(org, "h", &admin(0)).await.unwrap();
    }
    catalog.add_team(&ours, "h", "ours", &admin(0)).await.unwrap();
    assert_eq!(kind(catalog.rule(&theirs, id).await), ErrorKind::NotFound);
    assert_eq!(kind(catalog.delete_rule(&theirs, id, &admin(0)).await), ErrorKind::NotFound);
    assert_eq!(kind(catalog.update_rule(&theirs, id, &draft("a"), draft("b"), &admin(0)).await), ErrorKind::NotFound);
    assert_eq!(kind(catalog.update_team(&theirs, "h", "t", &admin(0)).await), ErrorKind::NotFound);
    assert_eq!(kind(catalog.remove_team(&theirs, "h", &admin(0)).await), ErrorKind::NotFound);
    assert!(catalog.rules(&theirs).await.unwrap().is_empty());
    assert!(catalog.teams(&theirs).await.unwrap().is_empty());
    assert_eq!(changes(catalog, &theirs, ConfigChangeFilter::default()).await.len(), 1);
    let all: Vec<_> = catalog.all_rules().await.unwrap().into_iter().map(|(org, r)| (org, r.id)).collect();
    assert_eq!(all, [(ours.clone(), id)]);
    let hosts = catalog.all_hosts().await.unwrap();
    let hosts: Vec<_> = hosts.iter().map(|o| (o.org.as_str(), o.dev_hosts.len(), o.teams.len())).collect();
    assert_eq!(hosts, [("acme", 1, 1), ("globex", 1, 0)]);
}

pub async fn every_change_moves_the_revision_and_nothing_else_does(open: &impl AsyncFn(&'static str) -> Store) {
    let catalog = open("revision").await;
    let mut before = catalog.revision().await.unwrap();
    let mut moved = async |what: &str| {
        let now = catalog.revision().await.unwrap();
        assert!(now > before, "{what}");
        before = now;
    };
    let id = catalog.create_rule(&home(), draft("a"), &admin(0)).await.unwrap();
    moved("create").await;
    catalog.create_rules(&home(), vec![draft("b"), draft("c")], &admin(0)).await.unwrap();
    moved("create several").await;
    catalog.update_rule(&home(), id, &draft("a"), draft("b"), &admin(0)).await.unwrap();
    moved("update").await;
    catalog.delete_rule(&home(), id, &admin(0)).await.unwrap();
    moved("delete").await;
    catalog.add_dev_host(&home(), "h", &admin(0)).await.unwrap();
    moved("add host").await;
    catalog.remove_dev_host(&home(), "h", &admin(0)).await.unwrap();
    moved("remove host").await;
    catalog.add_team(&home(), "h", "t", &admin(0)).await.unwrap();
    moved("add team").await;
    catalog.update_team(&home(), "h", "u", &admin(0)).await.unwrap();
    moved("update team").await;
    catalog.remove_team(&home(), "h", &admin(0)).await.unwrap();
    moved("remove team").await;
    let _ = catalog.add_dev_host(&home(), "", &admin(0)).await;
    let _ = catalog.delete_rule(&home(), id, &admin(0)).await;
    catalog.purge(at(0), at(0), 10).await.unwrap();
    assert_eq!(catalog.revision().await.unwrap(), before);
    drop(catalog);
    assert_eq!(open("revision").await.revision().await.unwrap(), before);
}

pub async fn changes(catalog: &Store, org: &model::OrgId, filter: ConfigChangeFilter) -> Vec<ConfigChange> {
    catalog.config_changes(org, &filter, page(1, 200)).await.unwrap().rows
}

fn json(text: Option<&String>) -> serde_json::Value {
    text.map_or(serde_json::Value::Null, |t| serde_json::from_str(t).unwrap())
}

pub async fn every_change_is_audited_with_old_and_new_values(catalog: &Store) {
    let id = catalog.create_rule(&home(), full_draft(), &admin(1)).await.unwrap();
    catalog.update_rule(&home(), id, &full_draft(), draft("b"), &admin(2)).await.unwrap();
    catalog.delete_rule(&home(), id, &admin(3)).await.unwrap();
    catalog.add_dev_host(&home(), "h", &admin(4)).await.unwrap();
    catalog.remove_dev_host(&home(), "h", &admin(5)).await.unwrap();
    catalog.add_team(&home(), "h", "t", &admin(6)).await.unwrap();
    catalog.update_team(&home(), "h", "u", &admin(7)).await.unwrap();
    catalog.remove_team(&home(), "h", &admin(8)).await.unwrap();

    let mut rows = changes(catalog, &home(), ConfigChangeFilter::default()).await;
    rows.reverse();
    let seen: Vec<_> = rows.iter().map(|r| (r.operation.as_str(), r.table_name.as_str(), r.record_id)).collect();
    let expected = [
        ("CREATE", "alert_rules", id),
        ("UPDATE", "alert_rules", id),
        ("DELETE", "alert_rules", id),
        ("CREATE", "development_hosts", 0),
        ("DELETE", "development_hosts", 0),
        ("CREATE", "device_teams", 0),
        ("UPDATE", "device_teams", 0),
        ("DELETE", "device_teams", 0),
    ];
    assert_eq!(seen, expected);
    for (row, secs) in rows.iter().zip(1..) {
        assert_eq!((row.changed_at, row.changed_by.as_str()), (at(secs), "Admin"));
        assert_eq!((row.reason.as_deref(), row.correlation_id.as_deref()), (Some("because"), Some("c-1")));
    }
    let values = |n: usize| (json(rows[n].old_values.as_ref()), json(rows[n].new_values.as_ref()));
    let rule = serde_json::json!({
        "id": id,
        "match_string": full_draft().match_string,
        "trap_oid": ".1.3.6.1.4.1.9",
        "syslog_severity": 7,
        "match_type": "oid_prefix",
        "priority": i32::MIN,
        "prod_handling": "  Page_only ",
        "dev_handling": "",
        "team_assignment": "ö".repeat(100),
        "is_active": false,
    });
    assert_eq!(values(0), (serde_json::Value::Null, rule.clone()));
    assert_eq!(values(1).0, rule);
    assert_eq!(values(1).1["trap_oid"], serde_json::Value::Null);
    assert_eq!(values(2), (values(1).1, serde_json::Value::Null));
    assert_eq!(values(4), (serde_json::json!({"hostname": "h"}), serde_json::Value::Null));
    let team = |t| serde_json::json!({"hostname": "h", "team_assignment": t});
    assert_eq!(values(6), (team("t"), team("u")));
}

pub async fn a_refused_change_leaves_no_trace(catalog: &Store) {
    catalog.add_dev_host(&home(), "h", &admin(0)).await.unwrap();
    let _ = catalog.add_dev_host(&home(), "h", &admin(0)).await;
    let _ = catalog.remove_team(&home(), "h", &admin(0)).await;
    let _ = catalog.create_rule(&home(), RuleDraft { match_string: None, ..draft("") }, &admin(0)).await;
    let _ = catalog.delete_rule(&home(), 1, &admin(0)).await;
    assert_eq!(changes(catalog, &home(), ConfigChangeFilter::default()).await.len(), 1);
}
