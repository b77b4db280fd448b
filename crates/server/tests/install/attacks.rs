//! Whatever comes instead of the agent: nothing of it runs, and an earlier version stays as it is.

use crate::host::{Host, host};
use crate::plane::{Mischief, Plane, agent};
use rcgen::ExtendedKeyUsagePurpose;

const FOLDER: &str = "/opt/security-manager";

/// A host with version 1, and a control plane that has version 2.
fn with_an_earlier_version() -> Option<(Host, Plane)> {
    let host = host()?;
    let plane = Plane::new();
    plane.put_agent(&agent("1.0.0"));
    let ended = host.install("sh", &["--token", &plane.token("acme"), "--ingest", &plane.address()], &[]);
    assert_eq!(ended.code, 0, "{}", ended.said);
    // Says where it was run.
    plane.put_agent(&[&b"#!/bin/sh\n: >/opt/ran\n"[..], &agent("2.0.0")].concat());
    Some((host, plane))
}

fn refused(host: &Host, arguments: &[&str], says: &str) {
    let before = host.tree("/opt");
    let ended = host.install("sh", arguments, &[]);
    assert!(ended.code == 1 && ended.said.contains(says), "{says}: {} {}", ended.code, ended.said);
    assert!(!host.path("/opt/ran").exists(), "{says}: it was run");
    assert_eq!(host.tree("/opt"), before, "{says}");
    host.keeps_the_secret(&ended);
}

#[test]
fn what_was_changed_on_its_way_never_runs_and_the_earlier_version_stays() {
    let Some((mut host, plane)) = with_an_earlier_version() else { return };
    for without in [None, Some("curl")] {
        host.without = without;
        for (mischief, says) in [
            (Mischief::Bit, "the checksum of sm-agent-linux-"),
            (Mischief::OtherAgent, "the signature of sm-agent-linux-"),
            (Mischief::OtherSignature, "the signature of sm-agent-linux-"),
            (Mischief::Cut, "❌ the "),
            (Mischief::OtherAuthority, "has another fingerprint"),
            (Mischief::EndlessAuthority, "the control plane"),
            (Mischief::Broken, "it answers 500"),
        ] {
            plane.set(mischief);
            refused(&host, &[], says);
        }
        plane.set(Mischief::None);
    }
    // The same host, the same control plane: the way was the fault.
    let ended = host.install("sh", &[], &[]);
    assert!(ended.code == 0 && host.path("/opt/ran").exists(), "{}", ended.said);
}

#[test]
fn who_is_not_the_control_plane_of_the_token_is_not_believed() {
    let Some((host, _)) = with_an_earlier_version() else { return };
    let own = Plane::new();
    // Another control plane; a host of this one; a server of this authority under another name.
    let stranger = Plane::new();
    refused(&host, &["--token", &own.token("acme"), "--ingest", &stranger.address()], "has another fingerprint");
    let agent_as_server = Plane::with("control-plane.muttd", ExtendedKeyUsagePurpose::ClientAuth);
    let (token, address) = (agent_as_server.token("acme"), agent_as_server.address());
    refused(&host, &["--token", &token, "--ingest", &address], "is not believed");
    let misnamed = Plane::with("web-1.example", ExtendedKeyUsagePurpose::ServerAuth);
    refused(&host, &["--token", &misnamed.token("acme"), "--ingest", &misnamed.address()], "is not believed");
    // By file: whom the file names, under the name that was called.
    let named = Plane::with("localhost", ExtendedKeyUsagePurpose::ServerAuth);
    named.put_agent(&agent("3.0.0"));
    let ca = std::fs::read(named.ca_file()).unwrap();
    std::fs::write(host.path("/run/ca.pem"), ca).unwrap();
    let token = "sm_acme_1751700000000_plain";
    let called = |name: &str| format!("{name}:{}", named.port);
    let by_file = |ingest: &str| ["--token", token, "--ca", "/run/ca.pem", "--ingest", ingest].map(str::to_owned);
    let wrong = by_file(&called("127.0.0.1"));
    refused(&host, &wrong.each_ref().map(String::as_str), "is not believed");
    let right = by_file(&called("localhost"));
    let ended = host.install("sh", &right.each_ref().map(String::as_str), &[]);
    assert_eq!(ended.code, 0, "{}", ended.said);
    assert_eq!(host.settings(FOLDER)["SM_CA_FILE"], "/opt/security-manager/ca.pem");
}

#[test]
fn a_full_disk_leaves_the_earlier_version() {
    let Some((mut host, plane)) = with_an_earlier_version() else { return };
    host.prepare = "mkdir /run/kept; cp -a /opt/security-manager/. /run/kept; mount -n -t tmpfs -o size=260k,mode=755 tmpfs /opt/security-manager; \
        cp -a /run/kept/. /opt/security-manager; trap 'cp -a /opt/security-manager/. /run/after' EXIT; mkdir /run/after";
    let ended = host.install("sh", &["--ingest", &plane.address()], &[]);
    assert!(ended.code == 1 && ended.said.contains("could not be fetched"), "{} {}", ended.code, ended.said);
    let contents =
        |path: &str| -> Vec<_> { host.tree(path).into_values().map(|(_, mode, content)| (mode, content)).collect() };
    assert!(contents("/run/kept").len() >= 3);
    assert_eq!(contents("/run/after"), contents("/run/kept"));
}

#[test]
fn an_agent_that_does_not_run_here_is_not_put_in_place() {
    let Some((host, plane)) = with_an_earlier_version() else { return };
    plane.put_agent(b"#!/bin/sh\necho 'version GLIBC_9.99 not found' >&2; exit 1\n");
    refused(&host, &[], "does not run on this host: version GLIBC_9.99 not found");
}

#[test]
fn without_a_network_a_file_is_verified_by_what_lies_beside_it() {
    let Some(host) = host() else { return };
    let plane = Plane::new();
    let content = agent("4.0.0");
    plane.put_agent(&content);
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let name = format!("sm-agent-linux-{arch}");
    let sum = server_sum(&content, &name);
    let signature = server::agent_downloads::Authority::sign(&*plane.root, sum.as_bytes()).unwrap();
    let at = |end: &str| host.path("/run").join(format!("{name}{end}"));
    let token = plane.token("acme");
    let binary = format!("/run/{name}");
    let arguments = ["--token", &*token, "--ingest", "192.0.2.1:9002", "--binary", &*binary];
    std::fs::write(at(""), &content).unwrap();
    std::fs::write(at(".sha256"), server_sum(b"another", &name)).unwrap();
    refused(&host, &arguments, "does not have the checksum");
    std::fs::write(at(".sha256"), &sum).unwrap();
    std::fs::write(at(".sig"), [&signature[..8], &[0; 4], &signature[12..]].concat()).unwrap();
    std::fs::write(host.path("/run/ca.pem"), &plane.root.pem).unwrap();
    refused(&host, &arguments, "the signature of sm-agent-linux-");
    std::fs::write(at(".sig"), signature).unwrap();
    let ended = host.install("sh", &arguments, &[]);
    assert!(ended.code == 0 && ended.said.contains("Checksum and signature are right"), "{}", ended.said);
}

fn server_sum(content: &[u8], name: &str) -> String {
    use sha2::Digest;
    let sum: String = sha2::Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{sum}  {name}\n")
}
