//! The life of detection rules: who has which in force, and what a change leaves alone.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

use async_trait::async_trait;
use model::{Alert, Event, EventId, Level, OrgId, Timestamp};
use pipeline::codec;
use pipeline::detections::{
    Detections, Inventory, Library, Limits, Looker, Origin, Policy, RuleKind, SharedText, Why, draft_document,
};
use pipeline::metrics::Metrics;
use rules::sigma::{Gravity, Options, Reader};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::catalog::Actor;
use storage::catalog::detection_rules::*;
use storage::correlations::{LocalCorrelations, WorkerId};
use storage::{StorageError, StorageResult};

const NOW: i64 = 1_800_000_000;

/// Two rules and a correlation that everybody has, one of them not finished.
const SHARED: &str = "\
title: Root shell
id: shell
level: high
logsource: {product: linux}
detection: {s: {cmd: shell}, condition: s}
fields: [cmd]
---
title: Odd name
id: odd
status: experimental
level: medium
logsource: {product: linux}
detection: {s: {cmd: odd}, condition: s}
---
title: Login failed
id: failed
name: failed_login
level: medium
logsource: {product: linux}
detection: {s: {cmd: fail}, condition: s}
---
title: Many failed logins
id: many
level: high
correlation: {type: event_count, rules: [failed_login], group-by: [user], timespan: 5m, condition: {gte: 3}}
";

fn rule(id: &str, cmd: &str) -> String {
    format!(
        "title: Rule {id}\nid: {id}\nlevel: high\nlogsource: {{product: linux}}\n\
         detection: {{s: {{cmd: {cmd}}}, condition: s}}\n"
    )
}

fn library(text: &str, dry_run: bool) -> Library {
    let mut reader = Reader::default();
    reader.text("shared.yml", text);
    let text = SharedText { name: "shared.yml".into(), text: text.into(), ships: true };
    Library::new(reader, vec![text], Options::default(), dry_run)
}

fn org(name: &str) -> OrgId {
    name.parse().unwrap()
}

/// What an organisation says: documents (name, version, text), settings.
fn says(name: &str, documents: &[(&str, u32, &str)], settings: &[(&str, RuleSetting)]) -> OrgDetectionRules {
    let document =
        |(name, version, text): &(&str, u32, &str)| RuleDocument { version: *version, ..draft_document(name, text) };
    let settings = settings.iter().map(|(uid, setting)| ((*uid).to_owned(), setting.clone()));
    OrgDetectionRules {
        org: org(name),
        documents: documents.iter().map(document).collect(),
        settings: settings.collect(),
    }
}

fn state(state: RuleState) -> RuleSetting {
    RuleSetting { state: Some(state), ..RuleSetting::default() }
}

struct Alerter {
    detections: Detections,
    metrics: Arc<Metrics>,
    _folder: tempfile::TempDir,
    events: AtomicU64,
}

impl Alerter {
    fn new(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalCorrelations::open(&folder.path().join("correlations.db")).unwrap();
        let metrics = Metrics::new();
        let detections = Detections::new(Policy::default(), limits, Arc::new(store), WorkerId(1), Arc::clone(&metrics));
        detections.set_library(library(SHARED, false));
        Self { detections, metrics, _folder: folder, events: AtomicU64::new(0) }
    }

    async fn with(orgs: Vec<OrgDetectionRules>) -> Self {
        let alerter = Self::new(Limits::default());
        alerter.detections.replace(orgs).await.unwrap();
        alerter
    }

    fn event(&self, org: &str, cmd: &str) -> Event {
        let number = self.events.fetch_add(1, Ordering::Relaxed);
        let id = EventId::new(Timestamp::from_secs(NOW), 1, number);
        let json = format!(
            r#"{{"hostname":"web1","message":"m","timestamp":{NOW},"cmd":"{cmd}","user":"bob","_org":"{org}","_event_id":"{id}"}}"#
        );
        codec::decode_event(&json.into_bytes().into()).unwrap()
    }

    /// The alerts of one event, correlations among them.
    async fn work(&self, org: &str, cmd: &str) -> Vec<Alert> {
        let mut looker = self.detections.looker().unwrap();
        self.work_with(&mut looker, org, cmd).await
    }

    async fn work_with(&self, looker: &mut Looker, org: &str, cmd: &str) -> Vec<Alert> {
        let event = self.event(org, cmd);
        let now = Timestamp::from_secs(NOW);
        let object = codec::public_object(&event.raw);
        let detected = looker.look(&event.org, std::str::from_utf8(&object).unwrap(), event.id, event.timestamp);
        let mut alerts = self.detections.alerts(looker.sets(), &event, &detected, Some("HostTeam"), now);
        if !detected.correlated.is_empty() {
            let mut turn = self.detections.turn(looker.sets()).await.unwrap();
            let (set, firings) = turn.apply(&event.org, now, detected.correlated);
            let about = pipeline::detections::About { event: &event, team: Some("HostTeam"), now };
            alerts.extend(firings.iter().filter_map(|firing| self.detections.fired(&set, firing, &about)));
            turn.keep().await.unwrap();
        }
        alerts
    }

    /// Identifiers of the rules that alert.
    async fn found(&self, org: &str, cmd: &str) -> Vec<String> {
        let alerts = self.work(org, cmd).await;
        alerts.iter().map(|alert| alert.detection.as_deref().unwrap().rule_uid.clone()).collect()
    }
}

#[tokio::test]
async fn a_document_is_for_its_organisation_and_shared_rules_are_for_all() {
    let alerter = Alerter::with(vec![says("acme", &[("own.yml", 1, &rule("own", "mine"))], &[])]).await;
    assert_eq!(alerter.found("acme", "mine").await, ["own"]);
    assert!(alerter.found("other", "mine").await.is_empty());
    assert!(alerter.found("default", "mine").await.is_empty());
    for org in ["acme", "other"] {
        assert_eq!(alerter.found(org, "shell").await, ["shell"], "{org}");
    }
}

#[tokio::test]
async fn settings_switch_rules_for_one_organisation_and_nobody_else() {
    let settings = [("odd", state(RuleState::On)), ("shell", state(RuleState::Off)), ("nowhere", state(RuleState::On))];
    let alerter = Alerter::with(vec![says("acme", &[], &settings)]).await;
    let found = [
        ("acme", "odd", vec!["odd"]),
        ("other", "odd", vec![]),
        ("acme", "shell", vec![]),
        ("other", "shell", vec!["shell"]),
    ];
    for (org, cmd, expected) in found {
        assert_eq!(alerter.found(org, cmd).await, expected, "{org} {cmd}");
    }
    // In dry run it is counted.
    alerter.detections.replace(vec![says("acme", &[], &[("shell", state(RuleState::DryRun))])]).await.unwrap();
    assert!(alerter.found("acme", "shell").await.is_empty());
    assert_eq!(alerter.detections.counts(&org("acme"), "shell").matches, 1);
    assert!(alerter.found("acme", "odd").await.is_empty(), "what nobody says is as before");
}

#[tokio::test]
async fn level_and_team_of_an_organisation_decide_who_is_told_and_how() {
    let louder = RuleSetting { level: Some(Level::Critical), team: Some("SOC".into()), ..RuleSetting::default() };
    let quiet = RuleSetting { level: Some(Level::Low), ..RuleSetting::default() };
    let many = RuleSetting { team: Some("IAM".into()), level: Some(Level::Medium), ..RuleSetting::default() };
    let settings = says("acme", &[], &[("shell", louder), ("many", many)]);
    let alerter = Alerter::with(vec![settings, says("calm", &[], &[("shell", quiet)])]).await;
    let alert = alerter.work("acme", "shell").await.remove(0);
    assert_eq!((alert.team.as_str(), alert.handling.as_str()), ("SOC", "Page_and_ticket"));
    assert_eq!((alert.detection.unwrap().level, alert.severity), (Level::Critical, Level::Critical.severity()));
    let alert = alerter.work("other", "shell").await.remove(0);
    assert_eq!((alert.team.as_str(), alert.detection.unwrap().level), ("HostTeam", Level::High));
    assert!(alerter.work("calm", "shell").await.is_empty(), "below the level that tells somebody");
    for _ in 0..2 {
        assert!(alerter.work("acme", "fail").await.is_empty());
    }
    let alert = alerter.work("acme", "fail").await.remove(0);
    assert_eq!((alert.team.as_str(), alert.handling.as_str()), ("IAM", "Ticket_only"), "a correlation too");
}

#[tokio::test]
async fn what_is_off_feeds_nothing_and_a_correlation_on_trial_holds_nobody_back() {
    let off = says("off", &[], &[("failed", state(RuleState::Off))]);
    let trial = says("trial", &[], &[("many", state(RuleState::DryRun))]);
    let dry = says("dry", &[], &[("failed", state(RuleState::DryRun))]);
    let without = says("without", &[], &[("many", state(RuleState::Off))]);
    let alerter = Alerter::with(vec![off, trial, dry, without]).await;
    let expected: [(&str, [&[&str]; 3]); 5] = [
        ("other", [&[], &[], &["many"]]),
        ("off", [&[], &[], &[]]),
        ("trial", [&["failed"], &["failed"], &["failed"]]),
        ("dry", [&[], &[], &["many"]]),
        ("without", [&["failed"], &["failed"], &["failed"]]),
    ];
    for (name, expected) in expected {
        for (round, expected) in expected.into_iter().enumerate() {
            assert_eq!(alerter.found(name, "fail").await, expected, "{name} {round}");
        }
    }
    assert_eq!(alerter.detections.counts(&org("trial"), "many").matches, 1, "it is counted");
    assert_eq!(alerter.detections.counts(&org("without"), "many").matches, 0);
}

#[tokio::test]
async fn a_server_in_dry_run_tells_nobody_whatever_is_said() {
    let alerter = Alerter::new(Limits::default());
    alerter.detections.set_library(library(SHARED, true));
    let settings = [("shell", state(RuleState::On)), ("odd", state(RuleState::On))];
    let said = says("acme", &[], &settings);
    alerter.detections.replace(vec![said.clone()]).await.unwrap();
    assert!(alerter.found("acme", "shell").await.is_empty());
    assert!(alerter.found("acme", "odd").await.is_empty());
    assert_eq!(alerter.detections.counts(&org("acme"), "odd").matches, 1);
    let inventory = alerter.detections.inventory(&said);
    let shell = inventory.rule("shell").unwrap();
    assert_eq!((shell.state, shell.why), (RuleState::DryRun, Why::ServerDryRun));
}

#[tokio::test]
async fn documents_can_replace_filter_and_correlate_shared_rules() {
    let replaced = "title: My shell\nid: shell\nlevel: low\nlogsource: {product: linux}\n\
                    detection: {s: {cmd: other}, condition: s}\n";
    let filter = "title: Bob may\nid: bob\nlogsource: {product: linux}\n\
                  filter: {rules: [shell], s: {user: bob}, condition: not s}\n";
    let correlation = "title: Two shells\nid: two\nlevel: high\n\
                       correlation: {type: event_count, rules: [shell], group-by: [user], timespan: 5m, condition: {gte: 2}}\n";
    let orgs = || {
        vec![
            says("replaces", &[("r.yml", 1, replaced)], &[]),
            says("filters", &[("f.yml", 1, filter)], &[]),
            says("correlates", &[("c.yml", 1, correlation)], &[]),
            says("filter-off", &[("f.yml", 1, filter)], &[("bob", state(RuleState::Off))]),
        ]
    };
    let alerter = Alerter::with(orgs()).await;
    assert!(alerter.found("replaces", "shell").await.is_empty());
    assert!(alerter.found("replaces", "other").await.is_empty(), "its level tells nobody");
    assert_eq!(alerter.detections.counts(&org("replaces"), "shell").matches, 1);
    assert!(alerter.found("filters", "shell").await.is_empty());
    assert_eq!(alerter.found("filter-off", "shell").await, ["shell"]);
    assert!(alerter.found("correlates", "shell").await.is_empty());
    assert_eq!(alerter.found("correlates", "shell").await, ["two"]);
    assert_eq!(alerter.found("other", "shell").await, ["shell"]);
    for said in orgs() {
        assert!(alerter.detections.problems(&said.org).is_empty(), "{:?}", alerter.detections.problems(&said.org));
    }
    let inventory = alerter.detections.inventory(&orgs()[0]);
    let shell = inventory.rule("shell").unwrap();
    assert_eq!(shell.origin, Origin::Document("r.yml".into()));
    assert_eq!(shell.replaces, Some(Origin::Shipped("shared.yml".into())));
}

#[tokio::test]
async fn one_bad_document_stops_no_other_and_is_told_to_its_organisation() {
    let bad = "title: Bad\nid: bad\nlogsource: {product: linux}\ndetection: {s: {cmd|endwith: x}, condition: s}\n";
    let documents = [("a.yml", 1, bad), ("b.yml", 1, &rule("own", "mine")), ("c.yml", 1, "title: [")];
    let said = says("acme", &documents, &[]);
    let alerter = Alerter::with(vec![said.clone()]).await;
    assert_eq!(alerter.found("acme", "mine").await, ["own"]);
    assert_eq!(alerter.found("acme", "shell").await, ["shell"]);
    let problems = alerter.detections.problems(&org("acme"));
    let told: Vec<_> =
        problems.iter().map(|one| (one.document.as_deref().unwrap(), &*one.problem.place.file)).collect();
    assert_eq!(told, [("a.yml", "a.yml"), ("c.yml", "c.yml")]);
    assert!(problems[0].problem.suggestion.as_deref().unwrap().contains("endswith"));
    assert!(alerter.detections.problems(&org("other")).is_empty());
    assert!(alerter.metrics.encode().contains("mutt_detection_documents_refused 2"));
    assert_eq!(alerter.detections.inventory(&said).problems, *problems);
}

#[tokio::test]
async fn a_flood_in_one_organisation_pauses_nothing_in_another() {
    let limits = Limits { matches_per_minute_max: 3, ..Limits::default() };
    let alerter = Alerter::new(limits);
    alerter.detections.replace(vec![says("acme", &[], &[])]).await.unwrap();
    let mut told = Vec::new();
    for _ in 0..20 {
        told.extend(alerter.work("acme", "shell").await);
    }
    assert_eq!(told.len(), 4, "three, and one that says that it is paused");
    assert!(told[3].message.contains("is paused"));
    assert_eq!(alerter.found("other", "shell").await, ["shell"]);
    assert_eq!(alerter.detections.counts(&org("other"), "shell").paused_until, 0);
    assert!(alerter.detections.counts(&org("acme"), "shell").paused_until > NOW);
    // A change elsewhere ends no pause.
    alerter.detections.replace(vec![says("acme", &[("n.yml", 1, &rule("n", "n"))], &[])]).await.unwrap();
    assert!(alerter.found("acme", "shell").await.is_empty());
}

#[tokio::test]
async fn what_a_correlation_knows_outlives_changes_that_do_not_touch_it() {
    let alerter = Alerter::with(Vec::new()).await;
    let documents = [("n.yml", 1, &*rule("n", "n"))];
    assert!(alerter.found("acme", "fail").await.is_empty());
    alerter.detections.replace(vec![says("acme", &documents, &[])]).await.unwrap();
    assert!(alerter.found("acme", "fail").await.is_empty());
    let mut old = alerter.detections.looker().unwrap();
    // Another correlation takes the first place in the collection; back, and a batch that began before.
    let before =
        "title: A\nid: a\ncorrelation: {type: event_count, rules: [shell], timespan: 5m, condition: {gte: 9}}\n---\n";
    alerter.detections.set_library(library(&format!("{before}{SHARED}"), false));
    alerter.detections.replace(Vec::new()).await.unwrap();
    assert!(alerter.found("acme", "shell").await.is_empty(), "the new one holds it back");
    let alerts = alerter.work_with(&mut old, "acme", "fail").await;
    assert_eq!(alerts.len(), 1, "the third, by the rules of then, on what is known now");
    assert_eq!(alerts[0].detection.as_deref().unwrap().rule_uid, "many");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_while_events_come_skips_none_and_repeats_none() {
    const VERSIONS: u32 = 40;
    // More events than a flood has, all in one minute.
    let alerter = Arc::new(Alerter::new(Limits { matches_per_minute_max: u64::MAX, ..Limits::default() }));
    alerter.detections.replace(vec![says("acme", &[("v.yml", 1, &rule("v1", "same"))], &[])]).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let worked = Arc::new(AtomicUsize::new(0));
    let worker = {
        let (alerter, done, worked) = (Arc::clone(&alerter), Arc::clone(&done), Arc::clone(&worked));
        tokio::spawn(async move {
            let mut found = Vec::new();
            while !done.load(Ordering::Relaxed) || found.len() < 100 {
                found.push(alerter.found("acme", "same").await);
                worked.store(found.len(), Ordering::Relaxed);
            }
            found.push(alerter.found("acme", "same").await);
            found
        })
    };
    for version in 2..=VERSIONS {
        // Events come between the changes, however slow the machine.
        while worked.load(Ordering::Relaxed) < version as usize {
            tokio::task::yield_now().await;
        }
        let text = rule(&format!("v{version}"), "same");
        alerter.detections.replace(vec![says("acme", &[("v.yml", version, &text)], &[])]).await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let found = worker.await.unwrap();
    let versions: Vec<u32> = found
        .iter()
        .map(|found| match &found[..] {
            [one] => one[1..].parse().unwrap(),
            other => panic!("an event met {other:?}"),
        })
        .collect();
    assert!(versions.is_sorted() && versions.last() == Some(&VERSIONS), "{versions:?}");
    assert!(versions.iter().collect::<std::collections::BTreeSet<_>>().len() > 1, "{versions:?}");
}

#[tokio::test]
async fn an_inventory_needs_no_alerter_and_tells_everything() {
    let own = "# why\ntitle: Mine\nid: own\nstatus: deprecated\nlogsource: {product: linux}\n\
               detection: {s: {cmd: x}, condition: s}\n";
    let correlation = "title: Odd ones\nid: odds\ncorrelation: {type: temporal, rules: [odd, shell], timespan: 5m}\n";
    let both = format!("{own}---\n{correlation}");
    let said = says(
        "acme",
        &[("own.yml", 7, &both)],
        &[
            ("nowhere", state(RuleState::On)),
            ("shell", RuleSetting { level: Some(Level::Low), ..RuleSetting::default() }),
        ],
    );
    let inventory = Inventory::of(&library(SHARED, false), &said);
    let listed: Vec<_> =
        inventory.rules.iter().map(|one| (&*one.header.uid, one.kind.as_str(), one.state, one.why)).collect();
    assert_eq!(
        listed,
        [
            ("shell", "rule", RuleState::On, Why::Default),
            ("odd", "rule", RuleState::Off, Why::Status),
            ("failed", "rule", RuleState::On, Why::Default),
            ("own", "rule", RuleState::Off, Why::Status),
            ("many", "correlation", RuleState::On, Why::Default),
            ("odds", "correlation", RuleState::On, Why::Default),
        ]
    );
    let rule = |uid: &str| inventory.rule(uid).unwrap();
    assert_eq!((rule("shell").level, rule("shell").header.level), (Level::Low, Level::High));
    assert!(rule("failed").held_back && rule("shell").held_back && !rule("many").held_back);
    assert_eq!(rule("odds").inputs_off, ["odd"]);
    assert_eq!(rule("odds").kind, RuleKind::Correlation);
    assert_eq!((rule("own").origin.kind(), rule("own").origin.name()), ("document", "own.yml"));
    assert_eq!((&*rule("own").text, &*rule("odds").text), (own.trim(), correlation.trim()));
    assert!(rule("odd").text.starts_with("title: Odd name") && rule("odd").text.ends_with("condition: s}"));
    assert_eq!(inventory.unknown, ["nowhere"]);
    assert!(inventory.rules.iter().all(|one| one.counts.is_none()));
    // Where events are worked there are counts.
    let alerter = Alerter::with(vec![said.clone()]).await;
    alerter.work("acme", "shell").await;
    let inventory = alerter.detections.inventory(&said);
    assert_eq!(inventory.rule("shell").unwrap().counts.unwrap().matches, 1);
    assert!(inventory.rule("odd").unwrap().counts.is_none(), "nobody asks it");
}

#[test]
fn a_check_tells_of_what_changes_and_of_what_the_change_breaks() {
    let library = library(SHARED, false);
    let correlation =
        "title: C\nid: c\ncorrelation: {type: event_count, rules: [own], timespan: 1m, condition: {gte: 2}}\n";
    let broken = "title: Broken\nid: broken\nlogsource: {product: linux}\ndetection: {s: {a|no: b}, condition: s}\n";
    let document = |name: &str, text: &str| draft_document(name, text);
    let before =
        [document("broken.yml", broken), document("c.yml", correlation), document("own.yml", &rule("own", "x"))];
    let check = |after: &[RuleDocument]| -> Vec<(String, Gravity)> {
        let found = library.check(&before, after);
        found.into_iter().map(|one| (one.document.unwrap(), one.problem.gravity)).collect()
    };
    assert!(check(&before).is_empty(), "what is broken and untouched is no news");
    let refused = |name: &str| (name.to_owned(), Gravity::Refused);
    assert_eq!(check(&before[..2]), [refused("c.yml")], "its rule is taken away");
    let mut after = before.to_vec();
    after[0].text.push('\n');
    assert_eq!(check(&after), [refused("broken.yml")], "it is touched");
    after[0].text = rule("shell", "y");
    assert!(check(&after).is_empty(), "to take the place of a shared rule is nothing wrong");
    after[0].text = rule("own", "y");
    assert_eq!(check(&after), [refused("own.yml")], "two of one id: the first stays");
}

/// A catalog that can be away.
#[derive(Default)]
struct Kept {
    rules: Mutex<(u64, Vec<OrgDetectionRules>)>,
    away: AtomicBool,
}

impl Kept {
    fn put(&self, rules: Vec<OrgDetectionRules>) {
        let mut kept = self.rules.lock().unwrap();
        *kept = (kept.0 + 1, rules);
    }

    fn get(&self) -> StorageResult<(u64, Vec<OrgDetectionRules>)> {
        match self.away.load(Ordering::Relaxed) {
            true => Err(StorageError::new(model::ErrorKind::Unavailable, "away")),
            false => Ok(self.rules.lock().unwrap().clone()),
        }
    }
}

#[async_trait]
impl DetectionRuleStore for Kept {
    async fn rule_documents(&self, _: &OrgId) -> StorageResult<Vec<RuleDocument>> {
        unimplemented!()
    }
    async fn rule_document(&self, _: &OrgId, _: &str) -> StorageResult<RuleDocument> {
        unimplemented!()
    }
    async fn rule_document_versions(&self, _: &OrgId, _: &str) -> StorageResult<Vec<DocumentVersion>> {
        unimplemented!()
    }
    async fn change_rule_documents(&self, _: &OrgId, _: Vec<DocumentChange>, _: &Actor) -> StorageResult<Vec<u32>> {
        unimplemented!()
    }
    async fn rule_settings(&self, _: &OrgId) -> StorageResult<BTreeMap<String, RuleSetting>> {
        unimplemented!()
    }
    async fn set_rule(&self, _: &OrgId, _: &str, _: &RuleSetting, _: RuleSetting, _: &Actor) -> StorageResult<()> {
        unimplemented!()
    }
    async fn all_detection_rules(&self) -> StorageResult<Vec<OrgDetectionRules>> {
        Ok(self.get()?.1)
    }
    async fn detection_revision(&self) -> StorageResult<u64> {
        Ok(self.get()?.0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_is_followed_and_what_was_in_force_stays_while_it_is_away() {
    let alerter = Alerter::new(Limits::default());
    let catalog = Arc::new(Kept::default());
    let (stopper, stop) = runtime::Stopper::new();
    let (detections, store) = (alerter.detections.clone(), Arc::clone(&catalog));
    let keeper = tokio::spawn(async move { detections.run(store, stop).await });
    let in_force = async |cmd: &str, expected: &[&str]| {
        for _ in 0..400 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if alerter.detections.looker().is_some() && alerter.found("acme", cmd).await == expected {
                return;
            }
        }
        panic!("{cmd} does not find {expected:?}");
    };
    in_force("shell", &["shell"]).await;
    catalog.put(vec![says("acme", &[("n.yml", 1, &rule("n", "n"))], &[])]);
    in_force("n", &["n"]).await;
    // Away: files are read anew meanwhile, and nothing is lost.
    catalog.away.store(true, Ordering::Relaxed);
    alerter.detections.set_library(library(&rule("other", "o"), false));
    assert!(alerter.detections.reload(&*catalog).await.is_err());
    in_force("n", &["n"]).await;
    in_force("shell", &["shell"]).await;
    catalog.away.store(false, Ordering::Relaxed);
    in_force("o", &["other"]).await;
    in_force("shell", &[]).await;
    in_force("n", &["n"]).await;
    assert!(alerter.metrics.encode().contains("mutt_detection_reloads_total{status=\"failure\"} 1"));
    stopper.stop();
    keeper.await.unwrap();
}
