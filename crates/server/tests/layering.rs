//! The table in `crates/README.md` is the architecture: cargo must agree with it.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

type Graph = BTreeMap<String, BTreeSet<String>>;

fn metadata() -> Value {
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let rustc = String::from_utf8(rustc.stdout).unwrap();
    let host = rustc.lines().find_map(|l| l.strip_prefix("host: ")).unwrap();
    let output = Command::new(env!("CARGO"))
        // Only this platform's packages: a new machine has fetched no others.
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Normal and build dependencies among all packages, by name.
fn graph(metadata: &Value) -> Graph {
    let mut names = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        names.insert(package["id"].as_str().unwrap(), package["name"].as_str().unwrap());
    }
    let mut graph = Graph::new();
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let from = names[node["id"].as_str().unwrap()].to_owned();
        let uses = graph.entry(from).or_default();
        for dep in node["deps"].as_array().unwrap() {
            let normal = dep["dep_kinds"].as_array().unwrap().iter().any(|k| k["kind"] != "dev");
            if normal {
                uses.insert(names[dep["pkg"].as_str().unwrap()].to_owned());
            }
        }
    }
    graph
}

/// (crate → crates of ours it may use), (crate → layer).
fn table() -> (Graph, BTreeMap<String, String>) {
    let text = include_str!("../../README.md");
    let mut allowed = Graph::new();
    let mut layers = BTreeMap::new();
    for line in text.lines().filter(|l| l.starts_with('|') && l.contains('`')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`').to_owned();
        let uses = cells[3].split(',').map(|c| c.trim().to_owned()).filter(|c| !c.is_empty()).collect();
        layers.insert(name.clone(), cells[0].to_owned());
        allowed.insert(name, uses);
    }
    (allowed, layers)
}

#[test]
fn every_crate_uses_only_what_the_table_allows() {
    let (allowed, _) = table();
    let metadata = metadata();
    let graph = graph(&metadata);
    let ours: BTreeSet<&str> = metadata["workspace_members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| {
            let package = metadata["packages"].as_array().unwrap().iter().find(|p| &p["id"] == id).unwrap();
            package["name"].as_str().unwrap()
        })
        .collect();
    assert_eq!(ours, allowed.keys().map(String::as_str).collect(), "the table lists every crate, and no other");
    for name in &ours {
        let uses: BTreeSet<&str> = graph[*name].iter().map(String::as_str).filter(|d| ours.contains(d)).collect();
        // `connectors` offers its contract suite to tests behind a feature that uses testkit.
        let suite = if *name == "connectors" { Some("testkit") } else { None };
        let extra: Vec<&str> =
            uses.iter().copied().filter(|d| !allowed[*name].contains(*d) && Some(*d) != suite).collect();
        assert!(extra.is_empty(), "{name} uses {extra:?}, which the table in crates/README.md does not allow");
    }
}

#[test]
fn layer_0_does_not_reach_tokio_or_a_socket() {
    let (_, layers) = table();
    let graph = graph(&metadata());
    for (name, _) in layers.iter().filter(|(_, layer)| *layer == "0") {
        let mut seen = BTreeSet::new();
        let mut queue = vec![name.clone()];
        while let Some(next) = queue.pop() {
            if seen.insert(next.clone()) {
                queue.extend(graph.get(&next).into_iter().flatten().cloned());
            }
        }
        for forbidden in ["tokio", "hyper", "reqwest", "rusqlite", "mio", "socket2", "tracing"] {
            assert!(!seen.contains(forbidden), "{name} reaches {forbidden}");
        }
    }
}

#[test]
fn driver_types_are_not_public() {
    let storage = concat!(env!("CARGO_MANIFEST_DIR"), "/../storage/src");
    for family in ["queue", "catalog", "events", "coordination"] {
        let text = std::fs::read_to_string(format!("{storage}/{family}/mod.rs")).unwrap();
        for line in text.lines().filter(|l| l.starts_with("pub mod ") || l.starts_with("pub use ")) {
            assert!(
                !line.contains("sqlite")
                    && !line.contains("embedded")
                    && !line.contains("memory")
                    && !line.contains("local"),
                "{family}: `{line}` shows a driver"
            );
        }
    }
}
