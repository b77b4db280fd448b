//! `muttd rules run`, `explain` and `lint` on Sigma rules, as people call them: the streaming engine and
//! the SQL of both engines find the same.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use testkit::servers::ClickHouse;

const RULES: &str = "\
title: Web server starts a shell
id: 7d1a0001-0000-4000-8000-000000000001
level: high
logsource: {product: linux, category: process_creation}
detection:
  parent: {'ParentImage|endswith': [/nginx, /apache2]}
  shell: {'Image|endswith': [/sh, /bash], 'CommandLine|contains|all': [curl, 'http']}
  filter: {'User|re|i': '^(root|backup)$'}
  condition: parent and shell and not filter
fields: [CommandLine]
---
title: Keyword anywhere
id: 7d1a0001-0000-4000-8000-000000000002
logsource: {product: linux}
detection:
  words: ['*overflow*', 'ÜBER']
  condition: words
---
title: Failed login
name: failed_login
id: 7d1a0001-0000-4000-8000-000000000003
logsource: {service: auth}
detection:
  selection: {outcome: failure, 'address|cidr': 203.0.113.0/24}
  condition: selection
---
title: Many failed logins
id: 7d1a0001-0000-4000-8000-000000000004
level: critical
correlation: {type: event_count, rules: [failed_login], group-by: [address], timespan: 1m, condition: {gte: 3}}
---
title: Broken
id: 7d1a0001-0000-4000-8000-000000000005
logsource: {product: linux}
detection: {selection: {'a|contians': b}, condition: selection}
";

fn events() -> String {
    let mut events = vec![
        json!({"logsource": {"product": "linux", "category": "process_creation"}, "ParentImage": "/usr/sbin/NGINX",
            "Image": "/bin/sh", "CommandLine": "sh -c 'CURL http://198.51.100.1/x'", "User": "www-data"}),
        json!({"logsource": {"product": "linux", "category": "process_creation"}, "ParentImage": "/usr/sbin/nginx",
            "Image": "/bin/sh", "CommandLine": "sh -c 'curl http://198.51.100.1/x'", "User": "ROOT"}),
        json!({"logsource": {"product": "windows", "category": "process_creation"}, "ParentImage": "/usr/sbin/nginx",
            "Image": "/bin/sh", "CommandLine": "curl http", "User": "x"}),
        json!({"deep": {"list": [1, null, "stack OVERFLOW seen"]}}),
        json!({"message": "das ist über allem"}),
        json!({"message": "nothing"}),
    ];
    for (second, address) in
        [(1, "203.0.113.7"), (2, "203.0.113.9"), (30, "203.0.113.7"), (59, "203.0.113.7"), (3, "10.0.0.1")]
    {
        events.push(
            json!({"timestamp": format!("2026-11-26T10:00:{second:02}Z"), "outcome": "failure", "address": address}),
        );
    }
    let mut lines: Vec<String> = events.iter().map(Value::to_string).collect();
    lines.insert(3, "not an event".to_owned());
    lines.join("\n")
}

fn muttd(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_muttd")).args(args).current_dir(dir).env_clear().output().unwrap()
}

/// A folder with the rules and the events.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("rules")).unwrap();
    std::fs::write(dir.path().join("rules/all.yml"), RULES).unwrap();
    std::fs::write(dir.path().join("events.jsonl"), events()).unwrap();
    dir
}

/// What a run found (rule, event), and its summary.
fn run(dir: &Path, more: &[&str]) -> (BTreeSet<(String, u64)>, Value) {
    let args = [&["rules", "run", "--rules", "rules", "--events", "events.jsonl"], more].concat();
    let output = muttd(dir, &args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let found = String::from_utf8(output.stdout).unwrap();
    let found = found.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let short = line["rule_id"].as_str().unwrap().rsplit('0').next().unwrap().to_owned();
        (short, line["event"].as_u64().unwrap())
    });
    let summary = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    (found.collect(), summary)
}

fn expected() -> BTreeSet<(String, u64)> {
    // The line that is no event has the number 3; the failed logins feed their correlation only.
    [("1", 0), ("2", 4), ("2", 5), ("4", 10)].into_iter().map(|(rule, event)| (rule.to_owned(), event)).collect()
}

#[test]
fn a_hunt_finds_the_same_whatever_the_number_of_threads_and_says_what_it_did() {
    let dir = folder();
    for threads in ["1", "2", "7"] {
        let (found, summary) = run(dir.path(), &["--threads", threads]);
        assert_eq!(found, expected(), "{threads} threads");
        assert_eq!((summary["events"].as_u64(), summary["events_invalid"].as_u64()), (Some(12), Some(1)));
        assert_eq!((summary["rules_loaded"].as_u64(), summary["rules_refused"].as_u64()), (Some(4), Some(1)));
        assert_eq!(summary["matches"].as_u64(), Some(4));
        let refused = &summary["refused"][0];
        assert_eq!((refused["file"].as_str(), refused["line"].as_u64()), (Some("rules/all.yml"), Some(35)));
        assert!(refused["reason"].as_str().unwrap().contains("did you mean `contains`"), "{refused}");
        assert!(summary["invalid"][0].as_str().unwrap().starts_with("events.jsonl:4: "), "{summary}");
    }
}

#[test]
fn the_sql_of_sqlite_finds_the_same() {
    let dir = folder();
    let (found, summary) = run(dir.path(), &["--via", "sqlite"]);
    assert_eq!(found, expected());
    assert_eq!((summary["via"].as_str(), summary["rules_loaded"].as_u64()), (Some("sqlite"), Some(4)));
}

#[test]
fn events_of_other_names_meet_the_rules_by_a_mapping_whatever_asks() {
    let dir = folder();
    let mapping = "
mappings:
  - when: {prog: shop}
    logsource: {product: linux, category: process_creation}
    fields: {ParentImage: parent.exe, Image: exe, CommandLine: [args.line, line], User|re: who}
";
    std::fs::write(dir.path().join("fields.yml"), mapping).unwrap();
    let event = |prog: &str| json!({"prog": prog, "parent": {"exe": "/usr/sbin/nginx"}, "exe": "/bin/sh", "line": "curl http://198.51.100.1"});
    std::fs::write(dir.path().join("events.jsonl"), format!("{}\n{}\n", event("shop"), event("other"))).unwrap();
    let found: BTreeSet<(String, u64)> = [("1".to_owned(), 0)].into();
    for via in ["stream", "sqlite"] {
        assert_eq!(run(dir.path(), &["--via", via, "--fields", "fields.yml"]).0, found, "{via}");
        assert!(run(dir.path(), &["--via", via]).0.is_empty(), "{via}");
    }
    let args = ["rules", "run", "--rules", "rules", "--events", "events.jsonl", "--fields", "fields.yml"];
    let said = String::from_utf8(muttd(dir.path(), &args).stderr).unwrap();
    assert!(said.starts_with("fields: fields.yml:5: mappings[0].fields.User|re: modifiers belong to rules"), "{said}");
    let event = event("shop").to_string();
    let args = ["rules", "explain", "rules", "--rule", "starts a shell", "--fields", "fields.yml", "--event", &event];
    let why = String::from_utf8(muttd(dir.path(), &args).stdout).unwrap();
    assert!(why.contains("yes  ParentImage ends with \"/nginx\""), "{why}");
}

#[test]
fn the_sql_of_clickhouse_finds_the_same_and_leaves_nothing_there() {
    let server = ClickHouse::start();
    let dir = folder();
    let (found, _) = run(dir.path(), &["--via", "clickhouse", "--clickhouse-url", &server.address()]);
    assert_eq!(found, expected());
    assert_eq!(server.query("SHOW TABLES").trim(), "");
    let away = muttd(
        dir.path(),
        &[
            "rules",
            "run",
            "--rules",
            "rules",
            "--events",
            "events.jsonl",
            "--via",
            "clickhouse",
            "--clickhouse-url",
            "http://127.0.0.1:1",
        ],
    );
    let said = String::from_utf8_lossy(&away.stderr);
    assert!(!away.status.success() && said.contains("ClickHouse cannot be reached"), "{said}");
}

#[test]
fn a_rule_is_explained_in_words_and_in_sql() {
    let dir = folder();
    let explain = |args: &[&str]| {
        let output = muttd(dir.path(), &[&["rules", "explain", "rules"], args].concat());
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (_, shown) = explain(&["--rule", "Many failed"]);
    assert!(shown.contains("by address") && shown.contains("-- sqlite") && shown.contains("-- clickhouse"), "{shown}");
    let event = r#"{"ParentImage":"/usr/sbin/nginx","Image":"/bin/sh","CommandLine":"curl http","User":"root"}"#;
    let (_, why) = explain(&["--rule", "7d1a0001-0000-4000-8000-000000000001", "--event", event]);
    assert!(why.contains("no match\n") && why.contains("yes  ParentImage ends with \"/nginx\""), "{why}");
    assert!(!explain(&["--rule", "nobody"]).0);
}

#[test]
fn lint_names_file_line_and_what_to_write_instead() {
    let dir = folder();
    let output = muttd(dir.path(), &["rules", "lint", "rules", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let first: Value = serde_json::from_str(String::from_utf8(output.stdout).unwrap().lines().next().unwrap()).unwrap();
    assert_eq!((first["file"].as_str(), first["line"].as_u64()), (Some("rules/all.yml"), Some(35)));
    assert_eq!((first["level"].as_str(), first["rule"].as_str()), (Some("error"), Some("Broken")));
    assert!(first["suggestion"].as_str().unwrap().contains("`contains`"), "{first}");
}
