//! Documents and settings of detection rules, and the trace that changing them leaves.

use super::settings::changes;
use super::{Store, admin, at, home, kind, org};
use crate::StorageResult;
use crate::catalog::detection_rules::{
    CHANGES_MAX, DOCUMENT_BYTES_MAX, DOCUMENTS_MAX, DocumentChange, ORG_BYTES_MAX, RuleSetting, RuleState,
    VERSIONS_KEPT,
};
use crate::catalog::{ConfigChange, ConfigChangeFilter};
use model::{ErrorKind, Level, OrgId};
use sha2::{Digest, Sha256};

fn put(name: &str, text: &str) -> DocumentChange {
    DocumentChange { name: name.into(), text: Some(text.into()), expected: None }
}

fn remove(name: &str) -> DocumentChange {
    DocumentChange { name: name.into(), text: None, expected: None }
}

fn on(team: &str) -> RuleSetting {
    RuleSetting { state: Some(RuleState::On), level: Some(Level::High), team: Some(team.into()) }
}

fn off() -> RuleSetting {
    RuleSetting { state: Some(RuleState::Off), ..RuleSetting::default() }
}

async fn change(catalog: &Store, changes: Vec<DocumentChange>, secs: u64) -> StorageResult<Vec<u32>> {
    catalog.change_rule_documents(&home(), changes, &admin(secs)).await
}

/// (name, text, version) of every document.
async fn documents(catalog: &Store, org: &OrgId) -> Vec<(String, String, u32)> {
    let documents = catalog.rule_documents(org).await.unwrap();
    documents.into_iter().map(|d| (d.name, d.text, d.version)).collect()
}

fn named(name: &str, text: &str, version: u32) -> (String, String, u32) {
    (name.into(), text.into(), version)
}

/// The log of changes, oldest first.
async fn log(catalog: &Store) -> Vec<ConfigChange> {
    let mut rows = changes(catalog, &home(), ConfigChangeFilter::default()).await;
    rows.reverse();
    rows
}

pub async fn documents_and_settings_come_back(open: &impl AsyncFn(&'static str) -> Store) {
    let catalog = open("documents").await;
    let hostile = "title: 'ü' \"\\u0000\"; DROP TABLE alert_rules --\r\n\t\u{7f}";
    let wide = format!("ä/{}.yml", "ö".repeat(249));
    let made = vec![put("b.yml", hostile), put("B.yml", ""), put(&wide, "x"), put("a/b 'c'.yml", "y")];
    assert_eq!(change(&catalog, made, 5).await.unwrap(), [1, 1, 1, 1]);
    let team = "ö".repeat(100);
    let uid = format!("ü{}", "x".repeat(254));
    for (uid, setting) in [(uid.as_str(), on(&team)), ("0a", off())] {
        catalog.set_rule(&home(), uid, &RuleSetting::default(), setting, &admin(6)).await.unwrap();
    }
    let dry = RuleSetting { state: Some(RuleState::DryRun), level: Some(Level::Informational), team: None };
    catalog.set_rule(&home(), "0a", &off(), dry.clone(), &admin(7)).await.unwrap();
    drop(catalog);

    let catalog = open("documents").await;
    let there = documents(&catalog, &home()).await;
    let expected =
        [named("B.yml", "", 1), named("a/b 'c'.yml", "y", 1), named("b.yml", hostile, 1), named(&wide, "x", 1)];
    assert_eq!(there, expected, "by the bytes of their names");
    let one = catalog.rule_document(&home(), "b.yml").await.unwrap();
    assert_eq!((one.text.as_str(), one.version, one.changed_at, one.changed_by.as_str()), (hostile, 1, at(5), "Admin"));
    let settings: Vec<_> = catalog.rule_settings(&home()).await.unwrap().into_iter().collect();
    assert_eq!(settings, [("0a".to_owned(), dry), (uid, on(&team))]);
    for name in ["c.yml", "b.YML", "", "a\0b"] {
        assert_eq!(kind(catalog.rule_document(&home(), name).await), ErrorKind::NotFound);
        assert_eq!(kind(catalog.rule_document_versions(&home(), name).await), ErrorKind::NotFound);
    }
}

pub async fn a_new_text_is_a_version_and_the_same_one_is_none(catalog: &Store) {
    assert_eq!(change(catalog, vec![put("a", "1"), put("b", "1")], 1).await.unwrap(), [1, 1]);
    assert_eq!(change(catalog, vec![put("b", "1"), put("a", "2"), put("c", "1")], 2).await.unwrap(), [1, 2, 1]);
    assert_eq!(change(catalog, vec![put("a", "1")], 3).await.unwrap(), [3], "an old text is a new version");
    let revision = catalog.detection_revision().await.unwrap();
    let rows = log(catalog).await.len();
    assert_eq!(change(catalog, vec![put("a", "1"), put("b", "1")], 4).await.unwrap(), [3, 1]);
    assert_eq!(change(catalog, Vec::new(), 4).await.unwrap(), [0; 0]);
    assert_eq!(catalog.detection_revision().await.unwrap(), revision);
    assert_eq!(log(catalog).await.len(), rows);
    let versions = catalog.rule_document_versions(&home(), "a").await.unwrap();
    let seen: Vec<_> = versions.iter().map(|v| (v.version, v.text.as_deref(), v.changed_at)).collect();
    assert_eq!(seen, [(3, Some("1"), at(3)), (2, Some("2"), at(2)), (1, Some("1"), at(1))]);
    let by = (versions[0].changed_by.as_str(), versions[0].reason.as_deref());
    assert_eq!(by, ("Admin", Some("because")));
}

pub async fn a_removed_document_counts_on_when_it_returns(catalog: &Store) {
    change(catalog, vec![put("a", "1"), put("b", "1")], 1).await.unwrap();
    change(catalog, vec![put("a", "2")], 2).await.unwrap();
    assert_eq!(change(catalog, vec![remove("a")], 3).await.unwrap(), [3]);
    assert_eq!(documents(catalog, &home()).await, [named("b", "1", 1)]);
    assert_eq!(kind(catalog.rule_document(&home(), "a").await), ErrorKind::NotFound);
    assert_eq!(kind(change(catalog, vec![remove("a")], 4).await), ErrorKind::NotFound);
    let versions = catalog.rule_document_versions(&home(), "a").await.unwrap();
    let seen: Vec<_> = versions.iter().map(|v| (v.version, v.text.as_deref())).collect();
    assert_eq!(seen, [(3, None), (2, Some("2")), (1, Some("1"))]);
    assert_eq!(change(catalog, vec![put("a", "2")], 5).await.unwrap(), [4], "also with the text that it had");
    assert_eq!(catalog.rule_document(&home(), "a").await.unwrap().version, 4);
    change(catalog, vec![remove("b")], 6).await.unwrap();
    let all = catalog.all_detection_rules().await.unwrap();
    assert_eq!(all.iter().map(|o| o.documents.len()).collect::<Vec<_>>(), [1]);
    change(catalog, vec![remove("a")], 7).await.unwrap();
    assert!(catalog.all_detection_rules().await.unwrap().is_empty(), "who has removed ones only has none");
}

pub async fn a_document_has_to_be_as_expected(catalog: &Store) {
    change(catalog, vec![put("there", "1"), put("gone", "1"), put("twice", "1")], 1).await.unwrap();
    change(catalog, vec![remove("gone"), put("twice", "2")], 2).await.unwrap();
    let conflict = Err(ErrorKind::Conflict);
    for (name, text, expected, outcome) in [
        ("new", Some("x"), Some(1), conflict),
        ("there", Some("x"), Some(0), conflict),
        ("there", Some("1"), Some(0), conflict),
        ("there", Some("x"), Some(2), conflict),
        ("there", None, Some(2), conflict),
        ("twice", Some("x"), Some(1), conflict),
        ("gone", Some("x"), Some(1), conflict),
        ("gone", Some("x"), Some(2), conflict),
        ("gone", None, Some(2), Err(ErrorKind::NotFound)),
        ("gone", None, Some(0), Err(ErrorKind::NotFound)),
        ("new", None, None, Err(ErrorKind::NotFound)),
        ("new", Some("x"), Some(0), Ok(1)),
        ("there", Some("1"), Some(1), Ok(1)),
        ("there", Some("x"), Some(1), Ok(2)),
        ("there", None, Some(2), Ok(3)),
        ("twice", Some("x"), None, Ok(3)),
        ("gone", Some("x"), Some(0), Ok(3)),
    ] {
        let one = DocumentChange { name: name.into(), text: text.map(Into::into), expected };
        let seen = change(catalog, vec![one], 3).await.map(|versions| versions[0]).map_err(|e| e.kind());
        assert_eq!(seen, outcome, "{name} {text:?} {expected:?}");
    }
}

pub async fn documents_change_all_or_none(catalog: &Store) {
    change(catalog, vec![put("a", "1"), put("b", "1")], 1).await.unwrap();
    let before = (documents(catalog, &home()).await, catalog.detection_revision().await.unwrap());
    let late = DocumentChange { expected: Some(7), ..put("b", "2") };
    for (bad, refused) in [
        (late, ErrorKind::Conflict),
        (remove("c"), ErrorKind::NotFound),
        (put("", "x"), ErrorKind::Invalid),
        (put("a", "3"), ErrorKind::Invalid),
    ] {
        let outcome = change(catalog, vec![put("a", "2"), put("n", "1"), bad.clone()], 2).await;
        assert_eq!(kind(outcome), refused, "{bad:?}");
    }
    assert_eq!((documents(catalog, &home()).await, catalog.detection_revision().await.unwrap()), before);
    assert_eq!(log(catalog).await.len(), 2);
    assert_eq!(catalog.rule_document_versions(&home(), "a").await.unwrap().len(), 1);
    let both = change(catalog, vec![remove("a"), put("b", "2"), put("c", "1")], 3).await.unwrap();
    assert_eq!(both, [2, 2, 1]);
    assert_eq!(documents(catalog, &home()).await, [named("b", "2", 2), named("c", "1", 1)]);
}

pub async fn bad_documents_and_settings_are_invalid(catalog: &Store) {
    let long = |n: usize| "é".repeat(n);
    let largest = "x".repeat(DOCUMENT_BYTES_MAX);
    change(catalog, vec![put(&long(255), &largest)], 1).await.unwrap();
    assert_eq!(catalog.rule_document(&home(), &long(255)).await.unwrap().text.len(), DOCUMENT_BYTES_MAX);
    let many = (0..=CHANGES_MAX).map(|n| remove(&n.to_string())).collect();
    for (field, bad) in [
        ("name", vec![put("", "x")]),
        ("name", vec![put(&long(256), "x")]),
        ("name", vec![put("a\0b", "x")]),
        ("name", vec![put("a\nb", "x")]),
        ("name", vec![remove("")]),
        ("name", vec![put("a", "x"), put("a", "x")]),
        ("text", vec![put("a", &format!("{largest}x"))]),
        ("text", vec![put("a", "x\0")]),
        ("changes", many),
    ] {
        let error = change(catalog, bad, 2).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().starts_with(field), "{error}");
    }
    let none = RuleSetting::default();
    let with_team = |team: &str| RuleSetting { team: Some(team.into()), ..RuleSetting::default() };
    for (field, uid, bad) in [
        ("uid", String::new(), off()),
        ("uid", long(256), off()),
        ("uid", "a\0b".into(), off()),
        ("team", "a".into(), with_team("")),
        ("team", "a".into(), with_team(&long(101))),
        ("team", "a".into(), with_team("a\0b")),
    ] {
        let error = catalog.set_rule(&home(), &uid, &none, bad, &admin(2)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().starts_with(field), "{error}");
    }
    assert_eq!(log(catalog).await.len(), 1);
}

pub async fn of_many_versions_the_last_are_kept(catalog: &Store) {
    for n in 1..=VERSIONS_KEPT + 3 {
        change(catalog, vec![put("a", &n.to_string())], u64::from(n)).await.unwrap();
    }
    change(catalog, vec![put("b", "1")], 0).await.unwrap();
    let versions = catalog.rule_document_versions(&home(), "a").await.unwrap();
    let numbers: Vec<u32> = versions.iter().map(|v| v.version).collect();
    assert_eq!(numbers, (4..=VERSIONS_KEPT + 3).rev().collect::<Vec<_>>());
    assert!(versions.iter().all(|v| v.text == Some(v.version.to_string())));
    assert_eq!(catalog.rule_document_versions(&home(), "b").await.unwrap().len(), 1);
}

pub async fn documents_and_settings_of_organisations_are_apart(catalog: &Store) {
    let (ours, theirs) = (org("acme"), org("globex"));
    let change = async |org, changes| catalog.change_rule_documents(org, changes, &admin(1)).await;
    change(&ours, vec![put("a", "ours"), put("b", "1")]).await.unwrap();
    change(&ours, vec![put("a", "ours again")]).await.unwrap();
    assert_eq!(kind(catalog.rule_document(&theirs, "b").await), ErrorKind::NotFound);
    assert_eq!(kind(catalog.rule_document_versions(&theirs, "b").await), ErrorKind::NotFound);
    assert_eq!(kind(change(&theirs, vec![remove("b")]).await), ErrorKind::NotFound);
    let unseen = DocumentChange { expected: Some(2), ..put("a", "x") };
    assert_eq!(kind(change(&theirs, vec![unseen]).await), ErrorKind::Conflict);
    assert_eq!(change(&theirs, vec![put("a", "theirs")]).await.unwrap(), [1]);
    change(&theirs, vec![remove("a")]).await.unwrap();
    assert_eq!(documents(catalog, &ours).await, [named("a", "ours again", 2), named("b", "1", 1)]);
    catalog.set_rule(&theirs, "r", &RuleSetting::default(), off(), &admin(2)).await.unwrap();
    assert!(catalog.rule_settings(&ours).await.unwrap().is_empty());
    assert_eq!(kind(catalog.set_rule(&ours, "r", &off(), on("x"), &admin(2)).await), ErrorKind::Conflict);
    let all = catalog.all_detection_rules().await.unwrap();
    let all: Vec<_> = all.iter().map(|o| (o.org.as_str(), o.documents.len(), o.settings.len())).collect();
    assert_eq!(all, [("acme", 2, 0), ("globex", 0, 1)]);
    assert_eq!(changes(catalog, &ours, ConfigChangeFilter::default()).await.len(), 3);
}

pub async fn of_writers_at_once_none_is_lost(catalog: &Store) {
    change(catalog, vec![put("a", "0"), put("b", "0")], 1).await.unwrap();
    // The same two documents in both orders: nobody waits in a circle, and one of them is late.
    let both = async |first: &str, second: &str, text: &str| {
        let expecting = |name| DocumentChange { expected: Some(1), ..put(name, text) };
        change(catalog, vec![expecting(first), expecting(second)], 2).await
    };
    let (left, right) = tokio::join!(both("a", "b", "left"), both("b", "a", "right"));
    let (winner, loser) = if left.is_ok() { ("left", right) } else { ("right", left) };
    assert_eq!(kind(loser), ErrorKind::Conflict);
    assert_eq!(documents(catalog, &home()).await, [named("a", winner, 2), named("b", winner, 2)]);

    // Without an expectation both happen, and each is a version.
    let any = async |text: &str| change(catalog, vec![put("a", text), put("new", text)], 3).await.unwrap();
    let (left, right) = tokio::join!(any("left 2"), any("right 2"));
    let mut made = [left, right];
    made.sort();
    assert_eq!(made, [[3, 1], [4, 2]]);
    assert_eq!(catalog.rule_document_versions(&home(), "a").await.unwrap().len(), 4);

    let none = RuleSetting::default();
    let set = async |team: &str| catalog.set_rule(&home(), "r", &none, on(team), &admin(4)).await;
    let (left, right) = tokio::join!(set("left"), set("right"));
    let (winner, loser) = if left.is_ok() { ("left", right) } else { ("right", left) };
    assert_eq!(kind(loser), ErrorKind::Conflict);
    assert_eq!(catalog.rule_settings(&home()).await.unwrap()["r"], on(winner));
}

pub async fn every_change_moves_the_detection_revision_alone(catalog: &Store) {
    let rules = catalog.revision().await.unwrap();
    let mut before = catalog.detection_revision().await.unwrap();
    let mut moved = async |what: &str| {
        let now = catalog.detection_revision().await.unwrap();
        assert!(now > before, "{what}");
        before = now;
    };
    change(catalog, vec![put("a", "1")], 1).await.unwrap();
    moved("create").await;
    change(catalog, vec![put("a", "2")], 1).await.unwrap();
    moved("change").await;
    change(catalog, vec![remove("a")], 1).await.unwrap();
    moved("remove").await;
    let none = RuleSetting::default();
    catalog.set_rule(&home(), "r", &none, off(), &admin(1)).await.unwrap();
    moved("set").await;
    catalog.set_rule(&home(), "r", &off(), on("x"), &admin(1)).await.unwrap();
    moved("set again").await;
    catalog.set_rule(&home(), "r", &on("x"), none.clone(), &admin(1)).await.unwrap();
    moved("forget").await;
    assert!(catalog.rule_settings(&home()).await.unwrap().is_empty());
    let _ = change(catalog, vec![remove("a")], 1).await;
    let _ = catalog.set_rule(&home(), "r", &off(), on("x"), &admin(1)).await;
    catalog.set_rule(&home(), "r", &none, none.clone(), &admin(1)).await.unwrap();
    assert_eq!(catalog.revision().await.unwrap(), rules, "MUTT's rules are as they were");
    catalog.add_dev_host(&home(), "h", &admin(1)).await.unwrap();
    assert_eq!(catalog.detection_revision().await.unwrap(), before);
}

pub async fn changes_are_audited_without_their_texts(catalog: &Store) {
    change(catalog, vec![put("a", "secret 1")], 1).await.unwrap();
    change(catalog, vec![put("a", "secret 22"), put("b", "x")], 2).await.unwrap();
    change(catalog, vec![remove("a")], 3).await.unwrap();
    change(catalog, vec![put("a", "secret 1")], 4).await.unwrap();
    let none = RuleSetting::default();
    catalog.set_rule(&home(), "r", &none, off(), &admin(5)).await.unwrap();
    catalog.set_rule(&home(), "r", &off(), on("x"), &admin(6)).await.unwrap();
    catalog.set_rule(&home(), "r", &on("x"), none, &admin(7)).await.unwrap();
    let rows = log(catalog).await;
    let seen: Vec<_> = rows.iter().map(|r| (r.operation.as_str(), r.table_name.as_str(), r.changed_at)).collect();
    let (documents, settings) = ("detection_documents", "detection_settings");
    let expected = [
        ("CREATE", documents, at(1)),
        ("UPDATE", documents, at(2)),
        ("CREATE", documents, at(2)),
        ("DELETE", documents, at(3)),
        ("CREATE", documents, at(4)),
        ("CREATE", settings, at(5)),
        ("UPDATE", settings, at(6)),
        ("DELETE", settings, at(7)),
    ];
    assert_eq!(seen, expected);
    for row in &rows {
        assert_eq!((row.record_id, row.changed_by.as_str()), (0, "Admin"));
        assert_eq!((row.reason.as_deref(), row.correlation_id.as_deref()), (Some("because"), Some("c-1")));
    }
    let json = |text: &Option<String>| {
        text.as_deref().map_or(serde_json::Value::Null, |text| serde_json::from_str(text).unwrap())
    };
    let values = |n: usize| (json(&rows[n].old_values), json(&rows[n].new_values));
    let document = |version: u32, text: &str| {
        let sha256: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        serde_json::json!({ "name": "a", "version": version, "bytes": text.len(), "sha256": sha256 })
    };
    let null = serde_json::Value::Null;
    assert_eq!(values(0), (null.clone(), document(1, "secret 1")));
    assert_eq!(values(1), (document(1, "secret 1"), document(2, "secret 22")));
    assert_eq!(values(3), (document(2, "secret 22"), null.clone()));
    assert_eq!(values(4), (null.clone(), document(4, "secret 1")));
    let off = serde_json::json!({ "rule_uid": "r", "state": "off", "level": null, "team": null });
    let on = serde_json::json!({ "rule_uid": "r", "state": "on", "level": "high", "team": "x" });
    assert_eq!(values(5), (null.clone(), off.clone()));
    assert_eq!(values(6), (off, on.clone()));
    assert_eq!(values(7), (on, null));
}

pub async fn a_whole_collection_comes_and_goes_in_one_call(catalog: &Store) {
    let name = |n: usize| format!("folder/{n:05}.yml");
    let text = |n: usize| format!("title: rule {n}\n{}", "# two kilobytes of rule\n".repeat(80));
    let all = |count: usize| (0..count).map(|n| put(&name(n), &text(n))).collect::<Vec<_>>();
    assert_eq!(change(catalog, all(4_000), 1).await.unwrap(), vec![1; 4_000]);
    let there = catalog.rule_documents(&home()).await.unwrap();
    assert!(there.len() == 4_000 && (0..4_000).all(|n| there[n].name == name(n) && there[n].text == text(n)));
    assert_eq!(catalog.all_detection_rules().await.unwrap()[0].documents, there);
    let filter = ConfigChangeFilter { operation: Some("CREATE".into()), ..ConfigChangeFilter::default() };
    let page = super::page(1, 10);
    assert_eq!(catalog.config_changes(&home(), &filter, page).await.unwrap().total, 4_000);

    let small: Vec<_> = (0..DOCUMENTS_MAX).map(|n| put(&name(n), "x")).collect();
    let error = change(catalog, [&small[..], &[put("one more", "x")]].concat(), 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().starts_with("documents"), "{error}");
    let versions = change(catalog, small, 2).await.unwrap();
    assert!(versions[..4_000].iter().all(|v| *v == 2) && versions[4_000..].iter().all(|v| *v == 1));
    assert_eq!(kind(change(catalog, vec![put("one more", "x")], 3).await), ErrorKind::Invalid);
    let replaced = change(catalog, vec![put("one more", "x"), remove(&name(0))], 3).await.unwrap();
    assert_eq!(replaced, [1, 3], "what goes makes room in the same call");

    // One removed document more than are remembered: the first one is forgotten, its count is not.
    let rest = (1..DOCUMENTS_MAX).map(|n| remove(&name(n))).chain([remove("one more")]).collect();
    change(catalog, rest, 4).await.unwrap();
    assert!(catalog.rule_documents(&home()).await.unwrap().is_empty());
    assert_eq!(kind(catalog.rule_document_versions(&home(), &name(0)).await), ErrorKind::NotFound);
    assert_eq!(catalog.rule_document_versions(&home(), "one more").await.unwrap().len(), 2);
    let back = change(catalog, vec![put(&name(0), "x"), put("new", "x"), put("one more", "x")], 5).await.unwrap();
    assert_eq!(back, [4, 4, 3]);
}

pub async fn the_texts_of_an_organisation_are_bounded_together(catalog: &Store) {
    let largest = "x".repeat(DOCUMENT_BYTES_MAX);
    let fits = usize::try_from(ORG_BYTES_MAX).unwrap() / DOCUMENT_BYTES_MAX;
    let error = change(catalog, (0..=fits).map(|n| put(&n.to_string(), &largest)).collect(), 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().starts_with("texts"), "{error}");
    assert!(log(catalog).await.is_empty());
}
