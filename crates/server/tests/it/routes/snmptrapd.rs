//! snmptrapd with the shipped configuration and handler.

use super::{packaged, stored, with};
use crate::support::{SOON, TestServer};
use model::Outcome;
use serde_json::json;
use std::path::Path;
use storage::catalog::{AlertFilter, PageRequest};
use testkit::servers::Snmptrapd;
use testkit::{Behaviour, Receiver, wait_until};

const COLD_START: &str = ".1.3.6.1.6.3.1.1.5.1";
const V2: [&str; 3] = ["-v2c", "-c", "c0mmunity"];

/// The shipped snmptrapd.conf with a community and a user.
fn snmptrapd(env: &[(&str, &str)], spool: &Path) -> Snmptrapd {
    let handler = packaged("snmptrapd/snmptrap_to_mutt.sh");
    let config = with(
        "snmptrapd/snmptrapd.conf",
        &[
            ("#authCommunity log,execute YOUR-COMMUNITY", "authCommunity log,execute c0mmunity"),
            ("#createUser", "createUser"),
            ("#authUser", "authUser"),
            ("AUTH-PASSPHRASE", "auth-passphrase"),
            ("PRIV-PASSPHRASE", "priv-passphrase"),
            ("/opt/mutt/scripts/snmptrap_to_mutt.sh", handler.to_str().unwrap()),
        ],
    );
    let env = [
        &[("MUTT_ENV_FILE", "/nonexistent"), ("NO_PROXY", "127.0.0.1"), ("MUTT_SPOOL_DIR", spool.to_str().unwrap())],
        env,
    ]
    .concat();
    Snmptrapd::start(&config, &env)
}

/// Files in a folder with this ending.
fn files(folder: &Path, ending: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|n| n.ends_with(ending)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn traps_of_every_version_arrive_as_events_of_their_device() {
    let spool = tempfile::tempdir().unwrap();
    let server = TestServer::start(&[]).await;
    let (url, key) = (server.ingest_url("/ingest"), server.ingest_key.clone());
    let trapd = snmptrapd(&[("MUTT_INGEST_URL", &url), ("MUTT_INGEST_API_KEY", &key)], spool.path());
    let value = "zwei\nZeilen\t\"quoted\" \\ end";
    let name = "1.3.6.1.2.1.1.5.0";
    trapd.trap(&V2, &["5", COLD_START, name, "s", value, "1.3.6.1.2.1.1.6.0", "x", "001bff"]);
    let v1 = ["-v1", "-c", "c0mmunity"];
    trapd.trap(&v1, &[".1.3.6.1.4.1.9.9.43.2", "10.9.8.7", "6", "17", "4200", name, "s", "one"]);
    trapd.trap(&v1, &[".1.3.6.1.4.1.9.1.1", "0.0.0.0", "2", "0", "4200"]);
    let forged = "said \"so\" \\\n.1.3.6.1.6.3.18.1.3.0 = IpAddress: 6.6.6.6";
    trapd.trap(&V2, &["5", ".1.3.6.1.6.3.1.1.5.2", name, "s", forged]);
    let v3 = ["-v3", "-e", "0x80001f8880aabbccdd", "-u", "mutt", "-l", "authPriv"];
    let keys = ["-a", "SHA-256", "-A", "auth-passphrase", "-x", "AES", "-X", "priv-passphrase"];
    trapd.trap(&[&v3[..], &keys].concat(), &["5", ".1.3.6.1.6.3.1.1.5.4"]);
    let events = stored(&server, "127.0.0.1", 5).await;
    let oids: Vec<_> = events.iter().map(|e| e["trap_oid"].as_str().unwrap()).collect();
    let expected = [
        "1.3.6.1.6.3.1.1.5.1",
        "1.3.6.1.4.1.9.9.43.2.0.17",
        "1.3.6.1.6.3.1.1.5.3",
        "1.3.6.1.6.3.1.1.5.2",
        "1.3.6.1.6.3.1.1.5.4",
    ];
    assert_eq!(oids, expected, "{}", trapd.daemon().output());
    let message = events[0]["message"].as_str().unwrap();
    assert!(message.contains("zwei\nZeilen\t\\\"quoted\\\" \\\\ end"), "{message:?}");
    assert!(message.contains("00 1B FF"), "{message:?}");
    assert_eq!((&events[1]["agent_address"], &events[1]["source"]), (&json!("10.9.8.7"), &json!("snmp")));
    assert!(events[3]["message"].as_str().unwrap().contains("6.6.6.6"), "{}", events[3]);
    assert_eq!(events[3].get("agent_address"), None, "a line of a text is no variable");
    for event in &events {
        assert!(!event.to_string().contains("c0mmunity"), "no community gets into an event: {event}");
        assert_eq!(event["source_ip"], "127.0.0.1");
    }
    drop(trapd);
    let trusting = snmptrapd(
        &[("MUTT_INGEST_URL", &url), ("MUTT_INGEST_API_KEY", &key), ("MUTT_TRUST_AGENT_ADDRESS", "yes")],
        spool.path(),
    );
    trusting.trap(&v1, &[".1.3.6.1.4.1.9.9.43.2", "10.9.8.7", "6", "17", "4200"]);
    assert_eq!(stored(&server, "10.9.8.7", 1).await[0]["source_ip"], "127.0.0.1");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_on_an_oid_matches_traps_below_it_and_no_near_ones() {
    let spool = tempfile::tempdir().unwrap();
    let server = TestServer::start(&[]).await;
    server
        .rule_with(json!({"trap_oid": ".1.3.6.1.4.1.9.9", "match_type": "oid_prefix", "prod_handling": "Page_only", "dev_handling": "Ignore", "team_assignment": "NET"}))
        .await;
    let url = server.ingest_url("/ingest");
    let trapd = snmptrapd(&[("MUTT_INGEST_URL", &url), ("MUTT_INGEST_API_KEY", &server.ingest_key)], spool.path());
    for oid in [".1.3.6.1.4.1.9.99.1", ".1.3.6.1.4.1.9.9.43.2.0.1", ".1.3.6.1.4.1.9"] {
        trapd.trap(&V2, &["5", oid]);
    }
    stored(&server, "127.0.0.1", 3).await;
    server.until_settled(Outcome::Handled, 1).await;
    server.until_settled(Outcome::Unhandled, 2).await;
    let page = PageRequest { page: 1, limit: 10 };
    let alerts = server.parts.catalog.alerts(&model::OrgId::default(), &AlertFilter::default(), page).await.unwrap();
    assert_eq!(alerts.rows.len(), 1);
    assert!(alerts.rows[0].alert.message.contains("1.3.6.1.4.1.9.9.43.2.0.1"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_that_is_not_taken_waits_in_the_spool_and_goes_with_the_next() {
    let receiver = Receiver::start().await;
    let spool = tempfile::tempdir().unwrap();
    let url = receiver.url();
    let trapd = snmptrapd(
        &[("MUTT_INGEST_URL", &url), ("MUTT_INGEST_API_KEY", "key \"with\" \\ quotes"), ("MUTT_TRIES", "2")],
        spool.path(),
    );
    receiver.set(Behaviour::status(503));
    trapd.trap(&V2, &["5", COLD_START, "1.3.1.1", "s", "first"]);
    assert!(wait_until(SOON, || files(spool.path(), ".json").len() == 1).await, "it is kept");
    assert_eq!(receiver.deliveries().len(), 2, "after two tries");
    receiver.set(Behaviour::accept());
    receiver.forget();
    trapd.trap(&V2, &["5", COLD_START, "1.3.1.1", "s", "second"]);
    let came = receiver.wait_for(2, SOON).await;
    assert!(wait_until(SOON, || files(spool.path(), ".json").is_empty()).await, "the spool is empty again");
    let text = |i: usize| came[i].json()["message"].as_str().unwrap().to_owned();
    assert!(text(0).contains("second") && text(1).contains("first"));
    assert_eq!(came[0].header("x-api-key"), Some("key \"with\" \\ quotes"));
    receiver.set(Behaviour::status(400));
    trapd.trap(&V2, &["5", COLD_START, "1.3.1.1", "s", "never"]);
    let refused = spool.path().join("refused");
    assert!(wait_until(SOON, || files(&refused, ".json").len() == 1).await, "what is refused for good is kept too");
    receiver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_in_no_command_line() {
    let spool = tempfile::tempdir().unwrap();
    let receiver = Receiver::start().await;
    receiver.set(Behaviour::Hang);
    let url = receiver.url();
    let trapd = snmptrapd(
        &[("MUTT_INGEST_URL", &url), ("MUTT_INGEST_API_KEY", "very-secret-key"), ("MUTT_TRIES", "1")],
        spool.path(),
    );
    trapd.trap(&V2, &["5", COLD_START]);
    receiver.wait_for(1, SOON).await;
    let mut curls = 0;
    for process in std::fs::read_dir("/proc").unwrap() {
        let line = std::fs::read(process.unwrap().path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        assert!(!line.contains("very-secret-key"), "{line:?}");
        curls += usize::from(line.starts_with("curl") && line.contains(&url));
    }
    assert_eq!(curls, 1, "the request that hangs was looked at");
    drop(trapd);
    receiver.stop().await;
}
