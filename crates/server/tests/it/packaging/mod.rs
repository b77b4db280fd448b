//! What is shipped below `packaging/`, held against the program: units, Prometheus, Grafana,
//! Kubernetes, compose. The installer itself is tested in a booted container: `make packaging-test`.

mod containers;
mod deploy;
mod grafana;
mod kubernetes;
mod prometheus;
mod scripts;
mod units;

use serde_json::Value;
use server::config::{Config, Overrides};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(packaging().join(path)).unwrap_or_else(|e| panic!("packaging/{path}: {e}"))
}

/// The documents of a YAML file as JSON.
fn yaml(path: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(path)).unwrap_or_else(|e| panic!("packaging/{path}: {e}"))
}

/// Files below a folder of `packaging/` that end so, as paths relative to `packaging/`.
fn files(folder: &str, end: &str) -> Vec<String> {
    let mut found: Vec<String> = std::fs::read_dir(packaging().join(folder))
        .unwrap()
        .map(|entry| format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap()))
        .filter(|name| name.ends_with(end))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "packaging/{folder} has *{end}");
    found
}

/// Runs a tool of the machine; its output when it succeeds.
fn tool(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(packaging())
        .output()
        .unwrap_or_else(|e| panic!("`{program}` cannot be started ({e}); `make test` installs it"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}:\n{text}");
    text
}

/// Whether muttd reads this variable.
fn is_known(variable: &str) -> bool {
    server::config::variables().any(|known| known == variable)
}

/// The variables of an env file or of the `NAME=value` lines of a text.
fn assignments(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The port of each listener in the defaults, by dotted path.
fn default_ports() -> BTreeMap<String, u16> {
    let defaults: toml::Table = server::config::DEFAULTS.parse().unwrap();
    let mut ports = BTreeMap::new();
    let mut walk = vec![(String::new(), defaults)];
    while let Some((path, table)) = walk.pop() {
        for (key, value) in table {
            let path = if path.is_empty() { key } else { format!("{path}.{key}") };
            match value {
                toml::Value::Table(table) => walk.push((path, table)),
                toml::Value::String(text) => {
                    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
                        ports.insert(path, address.port());
                    }
                }
                _ => {}
            }
        }
    }
    assert_eq!(ports["ingest.http.listen"], 8080);
    // Off by default; the port that the samples use.
    ports.insert("ingest.snmp.udp".to_owned(), 1162);
    ports
}

#[test]
fn the_shipped_configuration_opens_what_the_defaults_listen_on_and_no_more() {
    let shipped = packaging().join("config/muttd.toml");
    let load = |file| server::config::load(file, &BTreeMap::new(), &Overrides::default()).unwrap().config;
    let (shipped, defaults) = (load(Some(shipped.as_path())), load(None));
    let ports = |config: &Config| config.listens().iter().map(|l| l.address.port()).collect::<Vec<_>>();
    assert_eq!(ports(&shipped), ports(&defaults));
    assert!(shipped.listens().iter().all(|l| l.address.ip().is_unspecified()));
    let udp = |config: &Config| config.syslog.udp.as_ref().map(|l| l.address);
    assert_eq!(udp(&shipped).map(|a| a.port()), udp(&defaults).map(|a| a.port()));
    assert!(udp(&shipped).is_some_and(|a| a.ip().is_unspecified()));
    assert!(shipped.snmp.is_none(), "nobody is believed until a community or user is named");
}
