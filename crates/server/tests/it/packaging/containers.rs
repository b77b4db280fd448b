//! Offline: there is no Docker on the machines that test this, so nothing is built or started here.

use super::{assignments, default_ports, is_known, packaging, read, yaml};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const SERVICES: [&str; 5] = ["ingestor", "alerter", "moog-forwarder", "webui", "remediation"];

/// Target → its lines.
fn targets() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in read("docker/Dockerfile").lines() {
        if let Some((_, name)) = line.strip_prefix("FROM ").and_then(|rest| rest.split_once(" AS ")) {
            assert!(!found.contains_key(name), "{name} twice");
            current = name.to_owned();
        }
        found.entry(current.clone()).or_default().push(line.to_owned());
    }
    found
}

#[test]
fn the_image_has_the_originals_targets_and_none_runs_as_root() {
    let targets = targets();
    let base = targets["muttd"].join("\n");
    assert!(base.contains("USER 1000:1000") && base.contains("COPY --from=build /muttd /opt/mutt/bin/muttd"));
    assert!(
        base.contains("COPY --from=build /agents /usr/share/muttd/agents")
            && targets["build"].join("\n").contains("scripts/agents.sh")
    );
    assert!(base.contains("packaging/config/muttd.toml") && packaging().join("config/muttd.toml").exists());
    for service in SERVICES {
        let lines = targets[service].join("\n");
        assert!(lines.starts_with("FROM muttd AS ") && !lines.contains("USER"), "{service}");
        let role = service.trim_start_matches("moog-");
        assert!(lines.contains(&format!("\"--roles\", \"{role}\"")), "{service}");
    }
    let rust = read("docker/Dockerfile").lines().find_map(|l| l.strip_prefix("FROM rust:").map(str::to_owned)).unwrap();
    let wanted = env!("CARGO_PKG_RUST_VERSION").to_owned();
    assert!(rust.starts_with(&wanted), "the image builds with {rust}, Cargo.toml wants {wanted}");
}

#[test]
fn compose_starts_all_five_over_durable_stores() {
    let compose = &yaml("compose/compose.yaml")[0];
    let services = compose["services"].as_object().unwrap();
    assert_eq!(services.len(), SERVICES.len() + 2);
    assert!(services["redis"]["command"].to_string().contains("--appendfsync always"));
    let ports: BTreeSet<u64> = default_ports().values().map(|p| u64::from(*p)).collect();
    let targets = targets();
    for name in SERVICES {
        let service = &services[name];
        let target = service["build"]["target"].as_str().unwrap();
        assert!(targets.contains_key(target), "{target}");
        let health = service["healthcheck"]["test"].to_string();
        let in_image = targets[target].iter().find(|l| l.starts_with("HEALTHCHECK")).unwrap();
        let url = health.split("http://").nth(1).unwrap().split('"').next().unwrap();
        assert!(in_image.contains(url), "{name}: {url} here, {in_image} there");
        for port in service["ports"].as_array().unwrap() {
            let port = port.as_str().unwrap().split('/').next().unwrap();
            let inner: u64 = port.rsplit(':').next().unwrap().parse().unwrap();
            assert!(ports.contains(&inner), "{name}: {port}");
        }
        let volume = service["volumes"][0].as_str().unwrap().split(':').next().unwrap();
        assert!(compose["volumes"].as_object().unwrap().contains_key(volume), "{name}: {volume}");
        // Merge keys are the parser's business.
        let shared = &compose["x-mutt"];
        for (variable, value) in shared["environment"].as_object().unwrap() {
            assert!(is_known(variable), "{variable} is read by nobody");
            let secret = ["_KEY", "_PASS", "_PASSWORD"].iter().any(|end| variable.ends_with(end));
            let text = value.as_str().unwrap();
            assert!(!secret || (text.starts_with("${") && text.contains(":?")), "{variable}={text}");
        }
    }
    for store in ["redis", "postgres"] {
        assert_eq!(compose["x-mutt"]["depends_on"][store]["condition"], Value::from("service_healthy"));
        assert!(services[store]["healthcheck"].is_object());
    }
}

#[test]
fn the_keys_of_compose_are_made_once_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("make-env.sh");
    std::fs::copy(packaging().join("compose/make-env.sh"), &script).unwrap();
    let run = || assert!(Command::new("sh").arg(&script).output().unwrap().status.success());
    run();
    let file = dir.path().join(".env");
    let first = std::fs::read_to_string(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    run();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), first, "what is there stays");
    let made = assignments(&first);
    let distinct: BTreeSet<&String> = made.values().collect();
    assert_eq!((made.len(), distinct.len()), (4, 4), "{:?}", made.keys());
    assert!(made.values().all(|key| key.len() >= 40));
    let compose = read("compose/compose.yaml");
    for name in made.keys() {
        assert!(compose.contains(&format!("${{{name}:?")), "{name}");
    }
}
