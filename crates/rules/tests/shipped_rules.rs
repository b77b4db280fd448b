//! The security rules that ship, on their own evidence: the examples beside each rule, and the
//! labelled and ordinary log lines in `rules/security/corpora`. Lines take the way of every event:
//! field extraction, then the engine, then the correlator.
#![allow(clippy::unwrap_used, reason = "a test and its helpers")]

#[path = "shipped/corpus.rs"]
mod corpus;
#[path = "shipped/rulebook.rs"]
mod rulebook;
#[path = "shipped/table.rs"]
mod table;

use model::Level;
use rulebook::{Rulebook, name};
use rules::sigma::examples::sequence;
use std::collections::BTreeSet;

#[test]
fn every_rule_is_read_without_a_remark() {
    let book = Rulebook::load();
    let problems: Vec<String> = book.trial.rules().problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems, Vec::<String>::new());
    assert!(book.evidence.len() >= 100, "{} rules", book.evidence.len());
}

#[test]
fn every_rule_says_what_its_reader_needs() {
    let book = Rulebook::load();
    let mut ids = BTreeSet::new();
    for header in book.headers() {
        let name = header.name.clone().unwrap_or_default();
        let id = header.id.clone().unwrap_or_default();
        assert!(id.len() == 36 && ids.insert(id.clone()), "{name}: id {id:?}");
        assert!(
            name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') && !name.is_empty(),
            "{name}"
        );
        assert!(matches!(&*header.status, "stable" | "test" | "experimental"), "{name}: {}", header.status);
        assert_eq!(header.author, "MUTT Security Manager", "{name}");
        assert!(header.description.len() > 40, "{name}");
        if !book.alerts(&name) {
            assert_eq!(header.level, Level::Informational, "{name}: what only counts alarms nobody");
            continue;
        }
        assert!(header.level > Level::Informational, "{name}");
        assert!(header.tags.iter().any(|tag| tag.starts_with("attack.t")), "{name}: a technique is missing");
        assert!(header.references.iter().all(|link| link.starts_with("https://")), "{name}");
        assert!(!header.references.is_empty() && !header.false_positives.is_empty(), "{name}");
    }
}

#[test]
fn the_original_rules_and_the_two_it_promised_are_on() {
    let book = Rulebook::load();
    for name in [
        "ssh_brute_force",
        "high_cpu_usage",
        "disk_full",
        "memory_oom",
        "sudo_abuse",
        "file_modification",
        "network_scan",
        "process_anomaly",
        "high_memory_usage",
        "authentication_anomaly",
    ] {
        assert!(book.is_on(name) && book.alerts(name), "{name}");
    }
}

#[test]
fn every_example_does_what_it_is_an_example_for() {
    let book = Rulebook::load();
    let mut wrong = Vec::new();
    for evidence in &book.evidence {
        let wanted: BTreeSet<bool> = evidence.all.iter().map(|example| example.must_match).collect();
        assert_eq!(wanted.len(), 2, "{} needs examples that do and that do not match", evidence.title);
        for verdict in book.trial.run(evidence).unwrap().into_iter().filter(|verdict| !verdict.passed) {
            let place = format!("{}:{}", evidence.place.file, verdict.example.line);
            let why = book.trial.why(book.trial.find(&evidence.uid).unwrap(), &verdict.example.samples);
            wrong.push(format!("{place}: {}: {}", evidence.title, why.join("\n    ")));
        }
    }
    assert!(wrong.is_empty(), "{} examples are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn an_alert_is_about_the_address_that_the_server_wrote() {
    let book = Rulebook::load();
    for user in ["10.0.0.1", "root from 10.0.0.1", "x from 10.0.0.1 port 22 ssh2", "127.0.0.1 port 1 ssh2: RSA"] {
        let step =
            format!("0s x6/9s sshd[811]: Failed password for invalid user {user} from 203.0.113.9 port 4{{n}} ssh2");
        let seen = book.seen(&sequence([&*step]).unwrap());
        let about: Vec<&str> = seen
            .iter()
            .filter(|seen| name(seen.rule.header()) == "ssh_brute_force")
            .flat_map(|seen| seen.key.iter())
            .map(|k| &**k)
            .collect();
        assert_eq!(about, ["203.0.113.9"], "{user}");
    }
}

#[test]
fn ordinary_logs_raise_no_alert() {
    let book = Rulebook::load();
    let mut lines = 0;
    for (file, entries) in corpus::benign() {
        lines += entries.len();
        let alerts: Vec<String> = book
            .seen(&entries)
            .into_iter()
            .map(|seen| (name(seen.rule.header()), &entries[seen.sample].written))
            .filter(|(rule, _)| book.alerts(rule) && book.is_on(rule))
            .map(|(rule, line)| format!("{file}: {rule}: {line}"))
            .collect();
        assert_eq!(alerts, Vec::<String>::new());
    }
    assert!(lines >= 4_000, "{lines} lines");
}

#[test]
fn the_table_says_what_is_measured() {
    let book = Rulebook::load();
    let (measured, faults) = table::measure(&book);
    let readme = std::fs::read_to_string(rulebook::folder().join("README.md")).unwrap();
    let written =
        readme.split_once(table::BEGIN).and_then(|(_, rest)| rest.split_once(table::END)).map(|(table, _)| table);
    if written.map(str::trim) != Some(measured.trim()) {
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("detection-table.md");
        std::fs::write(&path, measured + "\n" + &faults).unwrap();
        panic!("the table in rules/security/README.md is not what is measured; see {}", path.display());
    }
}
