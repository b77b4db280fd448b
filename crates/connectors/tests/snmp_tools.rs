//! The SNMP listener and net-snmp's own `snmptrap` and `snmpinform`.
#![allow(clippy::unwrap_used, reason = "a test and its helpers")]

mod snmp_support;

use connectors::inputs::contract::RecordingSink;
use connectors::inputs::snmp::{AuthProtocol, BindError, PrivProtocol, SnmpConfig, bind};
use model::{InputKind, RejectReason};
use runtime::Stopper;
use serde_json::{Map, Value, json};
use snmp_support::{AUTH_PASS, COMMUNITY, INFORM, PRIV_PASS, Tools, config, notification, run, user};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// A running listener, its sink, and the tools.
struct Bench {
    sink: Arc<RecordingSink>,
    stopper: Stopper,
    task: JoinHandle<()>,
    to: String,
    tools: Tools,
}

impl Bench {
    fn new(config: SnmpConfig) -> Self {
        let sink = RecordingSink::new();
        let (stopper, stop) = Stopper::new();
        let (address, task) = run(config, sink.clone(), stop);
        Self { sink, stopper, task, to: address.to_string(), tools: Tools::new() }
    }

    /// The one event that a successful run of a tool becomes.
    async fn event(&self, tool: &str, args: &[&str]) -> Map<String, Value> {
        let before = self.sink.messages().len();
        self.tools.succeed(tool, args).await;
        self.sink.wait_for_events(before + 1).await;
        assert_eq!(self.sink.rejects(), []);
        assert!(self.sink.recorded().events.iter().all(|e| e.input == InputKind::Snmp));
        self.sink.objects().pop().unwrap()
    }

    async fn end(self) {
        self.sink.assert_sound();
        let secrets = [COMMUNITY, AUTH_PASS, PRIV_PASS];
        for object in &self.sink.recorded().events {
            let text = String::from_utf8_lossy(&object.object).into_owned();
            assert!(!secrets.iter().any(|s| text.contains(s)), "{text}");
        }
        self.stopper.stop();
        self.task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_of_version_one_becomes_an_event_of_its_sender() {
    let bench = Bench::new(config());
    let to = bench.to.clone();
    let generic = ["-v1", "-c", COMMUNITY, &to, ".1.3.6.1.4.1.9.1.1", "10.9.8.7", "2", "0", "4200"];
    let link = [&generic[..], &["1.3.6.1.2.1.2.2.1.1.3", "i", "3", "1.3.6.1.2.1.2.2.1.8.3", "i", "2"]].concat();
    let event = bench.event("snmptrap", &link).await;
    assert_eq!(event["trap_oid"], "1.3.6.1.6.3.1.1.5.3");
    assert_eq!(event["message"], "linkDown: ifIndex.3 = 3, ifOperStatus.3 = down(2)");
    assert_eq!(event["hostname"], "127.0.0.1", "an agent-addr is not believed unless that is configured");
    assert_eq!((&event["agent_address"], &event["uptime_ms"]), (&json!("10.9.8.7"), &json!(42_000)));
    assert_eq!((&event["snmp_version"], &event["source"]), (&json!("1"), &json!("snmp")));
    assert_eq!((&event["syslog_severity"], &event["severity"]), (&json!(3), &json!("err")));
    let specific = ["-v1", "-c", COMMUNITY, &to, ".1.3.6.1.4.1.9.9.43.2", "", "6", "17", ""];
    let event = bench.event("snmptrap", &specific).await;
    assert_eq!(event["trap_oid"], "1.3.6.1.4.1.9.9.43.2.0.17");
    assert_eq!(event["enterprise"], "1.3.6.1.4.1.9.9.43.2");
    assert_eq!(event.get("severity"), None);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_of_value_arrives() {
    let bench = Bench::new(config());
    let to = bench.to.clone();
    #[rustfmt::skip]
    let args = ["-v2c", "-c", COMMUNITY, &to, "", "1.3.6.1.4.1.8072.2.3.0.1",
        "1.3.1.1", "i", "-5", "1.3.1.2", "u", "4294967295", "1.3.1.3", "c", "4000000000", "1.3.1.4", "C", "18446744073709551615",
        "1.3.1.5", "t", "100", "1.3.1.6", "a", "192.0.2.1", "1.3.1.7", "o", ".1.3.6.1.4.1", "1.3.1.8", "n", "",
        "1.3.1.9", "s", "zwei\nZeilen\t\"ä\" \\", "1.3.1.10", "x", "00 1b ff", "1.3.1.11", "s", "", "1.3.1.12", "d", "7.0.200"];
    let event = bench.event("snmptrap", &args).await;
    let item = |n: u32, kind: &str, value: Value| json!({"oid": format!("1.3.1.{n}"), "type": kind, "value": value});
    let hex = |n: u32, value: &str| json!({"oid": format!("1.3.1.{n}"), "type": "OctetString", "value": value, "encoding": "hex"});
    let expected = json!([
        item(1, "Integer", json!(-5)),
        item(2, "Gauge32", json!(4_294_967_295u32)),
        item(3, "Counter32", json!(4_000_000_000u32)),
        item(4, "Counter64", json!(u64::MAX)),
        item(5, "TimeTicks", json!(100)),
        item(6, "IpAddress", json!("192.0.2.1")),
        item(7, "ObjectIdentifier", json!("1.3.6.1.4.1")),
        item(8, "Null", Value::Null),
        item(9, "OctetString", json!("zwei\nZeilen\t\"ä\" \\")),
        hex(10, "001bff"),
        item(11, "OctetString", json!("")),
        hex(12, "0700c8"),
    ]);
    assert_eq!(event["varbinds"], expected);
    assert!(event["message"].as_str().unwrap().contains("1.3.1.9 = zwei Zeilen \"ä\" \\, 1.3.1.10 = 0x001bff"));
    assert!(event["uptime_ms"].is_u64());
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inform_of_version_2c_is_acknowledged_and_kept_once() {
    let bench = Bench::new(config());
    let args = ["-v2c", "-r0", "-t20", "-c", COMMUNITY, &bench.to, "5", ".1.3.6.1.6.3.1.1.5.1"];
    let event = bench.event("snmpinform", &args).await;
    assert_eq!((&event["trap_name"], &event["notification"]), (&json!("coldStart"), &json!("inform")));
    bench.end().await;
}

/// Protocols, and what net-snmp calls them.
type Auth<'a> = Option<(AuthProtocol, &'a str)>;
type Priv<'a> = Option<(PrivProtocol, &'a str)>;
const PROTOCOLS: [(Auth<'_>, Priv<'_>); 10] = [
    (None, None),
    (Some((AuthProtocol::Md5, "MD5")), None),
    (Some((AuthProtocol::Sha1, "SHA")), None),
    (Some((AuthProtocol::Md5, "MD5")), Some((PrivProtocol::Des, "DES"))),
    (Some((AuthProtocol::Sha1, "SHA")), Some((PrivProtocol::Aes128, "AES"))),
    (Some((AuthProtocol::Sha1, "SHA")), Some((PrivProtocol::Aes256, "AES-256"))),
    (Some((AuthProtocol::Sha224, "SHA-224")), Some((PrivProtocol::Aes192, "AES-192"))),
    (Some((AuthProtocol::Sha256, "SHA-256")), Some((PrivProtocol::Aes256, "AES-256"))),
    (Some((AuthProtocol::Sha384, "SHA-384")), Some((PrivProtocol::Des, "DES"))),
    (Some((AuthProtocol::Sha512, "SHA-512")), Some((PrivProtocol::Aes128, "AES"))),
];

/// The arguments that make a message of this user.
fn security<'a>(
    name: &'a str,
    auth: Option<(AuthProtocol, &'a str)>,
    privacy: Option<(PrivProtocol, &'a str)>,
) -> Vec<&'a str> {
    let level = match (auth, privacy) {
        (None, _) => "noAuthNoPriv",
        (Some(_), None) => "authNoPriv",
        (Some(_), Some(_)) => "authPriv",
    };
    let mut args = vec!["-v3", "-u", name, "-l", level];
    if let Some((_, protocol)) = auth {
        args.extend(["-a", protocol, "-A", AUTH_PASS]);
    }
    if let Some((_, protocol)) = privacy {
        args.extend(["-x", protocol, "-X", PRIV_PASS]);
    }
    args
}

fn users() -> Vec<connectors::inputs::snmp::SnmpUser> {
    let user = |(i, (auth, privacy)): (usize, &(Auth<'_>, Priv<'_>))| {
        user(&format!("user{i}"), auth.map(|a| a.0), privacy.map(|p| p.0))
    };
    PROTOCOLS.iter().enumerate().map(user).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traps_of_version_three_are_taken_with_every_protocol() {
    let bench = Bench::new(SnmpConfig { users: users(), ..config() });
    for (i, (auth, privacy)) in PROTOCOLS.into_iter().enumerate() {
        let name = format!("user{i}");
        let mut args = security(&name, auth, privacy);
        args.extend(["-e", "0x80001f8880aabbccdd", "-n", "vrf1", &bench.to, "7", ".1.3.6.1.6.3.1.1.5.4"]);
        let event = bench.event("snmptrap", &args).await;
        assert_eq!((&event["snmp_version"], &event["snmp_user"]), (&json!("3"), &json!(name)), "{auth:?} {privacy:?}");
        assert_eq!((&event["trap_name"], &event["context"]), (&json!("linkUp"), &json!("vrf1")));
        assert_eq!(event["engine_id"], "80001f8880aabbccdd");
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn informs_of_version_three_discover_us_and_are_acknowledged() {
    let bench = Bench::new(SnmpConfig { users: users(), ..config() });
    for (i, (auth, privacy)) in PROTOCOLS.into_iter().enumerate() {
        let name = format!("user{i}");
        let mut args = security(&name, auth, privacy);
        args.extend(["-r0", "-t20", &bench.to, "7", ".1.3.6.1.6.3.1.1.5.4", "1.3.1.1", "s", "twö"]);
        let event = bench.event("snmpinform", &args).await;
        assert_eq!((&event["notification"], &event["snmp_user"]), (&json!("inform"), &json!(name)));
        assert_eq!(event["varbinds"][0]["value"], "twö");
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_stays_the_same_over_restarts_and_counts_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("snmp-engine");
    let both = (Some((AuthProtocol::Sha256, "SHA-256")), Some((PrivProtocol::Aes128, "AES")));
    let with_file = || SnmpConfig {
        users: vec![user("u", both.0.map(|a| a.0), both.1.map(|p| p.0))],
        engine_file: Some(file.clone()),
        ..config()
    };
    let mut ids = Vec::new();
    for boots in 1..=2 {
        let bound = bind(with_file()).unwrap();
        ids.push(bound.engine_id().unwrap());
        drop(bound);
        assert!(std::fs::read_to_string(&file).unwrap().contains(&format!("boots = {}\n", boots * 2 - 1)));
        let bench = Bench::new(with_file());
        let mut args = security("u", both.0, both.1);
        args.extend(["-r0", "-t20", &bench.to, "7", ".1.3.6.1.6.3.1.1.5.4"]);
        bench.event("snmpinform", &args).await;
        bench.end().await;
    }
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_believed_is_counted_with_its_reason() {
    let strong = user("strong", Some(AuthProtocol::Sha256), Some(PrivProtocol::Aes128));
    let bench = Bench::new(SnmpConfig { users: vec![strong], ..config() });
    let coldstart = ["1", ".1.3.6.1.6.3.1.1.5.1"];
    let engine = ["-e", "0x80001f8880aabbccdd"];
    let v3 = |user, args: &[&'static str]| [&["-v3", "-u", user][..], args, &engine].concat();
    let auth = ["-a", "SHA-256", "-A", AUTH_PASS];
    #[rustfmt::skip]
    let cases: [(Vec<&str>, RejectReason); 8] = [
        (vec!["-v2c", "-c", "public"], RejectReason::UnknownCommunity),
        (v3("nobody", &["-l", "noAuthNoPriv"]), RejectReason::UnknownUser),
        (v3("strong", &["-l", "noAuthNoPriv"]), RejectReason::Unauthorized),
        ([v3("strong", &["-l", "authNoPriv"]), auth.to_vec()].concat(), RejectReason::Unauthorized),
        (v3("strong", &["-l", "authPriv", "-a", "SHA-256", "-A", "wrong-passphrase", "-x", "AES", "-X", PRIV_PASS]), RejectReason::WrongDigest),
        (v3("strong", &["-l", "authPriv", "-a", "SHA", "-A", AUTH_PASS, "-x", "AES", "-X", PRIV_PASS]), RejectReason::WrongDigest),
        ([v3("strong", &["-l", "authPriv", "-x", "AES", "-X", "wrong-passphrase"]), auth.to_vec()].concat(), RejectReason::DecryptionFailed),
        ([v3("strong", &["-l", "authPriv", "-x", "DES", "-X", PRIV_PASS]), auth.to_vec()].concat(), RejectReason::DecryptionFailed),
    ];
    for (i, (args, reason)) in cases.iter().enumerate() {
        let args = [&args[..], &[bench.to.as_str()], &coldstart].concat();
        bench.tools.succeed("snmptrap", &args).await;
        bench.sink.wait_until("the reject is counted", |s| s.rejects.len() > i).await;
        let (found, detail) = bench.sink.rejects().pop().unwrap();
        assert_eq!(found, *reason, "{args:?}: {detail}");
    }
    assert_eq!(bench.sink.messages(), [] as [&str; 0]);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_from_before_the_last_reboot_is_a_replay() {
    let bench = Bench::new(SnmpConfig { users: vec![user("u", Some(AuthProtocol::Sha1), None)], ..config() });
    let trap = |clock: &'static str| {
        let mut args = security("u", Some((AuthProtocol::Sha1, "SHA")), None);
        args.extend(["-e", "0x80001f8880aabbccdd", "-Z", clock]);
        args
    };
    let to = bench.to.clone();
    let end = [to.as_str(), "1", ".1.3.6.1.6.3.1.1.5.1"];
    bench.event("snmptrap", &[trap("5,1000"), end.to_vec()].concat()).await;
    bench.event("snmptrap", &[trap("5,2000"), end.to_vec()].concat()).await;
    for (i, old) in ["4,5000", "5,1000"].into_iter().enumerate() {
        bench.tools.succeed("snmptrap", &[trap(old), end.to_vec()].concat()).await;
        bench.sink.wait_until("the replay is counted", |s| s.rejects.len() > i).await;
    }
    assert_eq!(bench.sink.rejected(RejectReason::NotInTimeWindow), 2);
    assert_eq!(bench.sink.messages().len(), 2);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inform_that_is_not_kept_is_not_acknowledged() {
    let bench = Bench::new(config());
    bench.sink.refuse(RejectReason::QueueFull, Duration::from_millis(10));
    let args = ["-v2c", "-r1", "-t1", "-c", COMMUNITY, &bench.to, "5", ".1.3.6.1.6.3.1.1.5.1"];
    let output = bench.tools.run("snmpinform", &args).await;
    assert!(!output.status.success(), "nobody acknowledges what nobody keeps");
    assert_eq!(bench.sink.rejected(RejectReason::QueueFull), 2, "once for each attempt");
    bench.sink.take();
    bench.tools.succeed("snmpinform", &args).await;
    assert_eq!(bench.sink.messages(), ["coldStart"]);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inform_repeated_before_or_after_its_answer_is_one_event() {
    let bench = Bench::new(config());
    let to: SocketAddr = bench.to.parse().unwrap();
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut answer = [0; 1_024];
    bench.sink.hold();
    let inform = notification(INFORM, 7, "held");
    for _ in 0..3 {
        socket.send_to(&inform, to).await.unwrap();
    }
    // Behind it, so that all three are read before the sink answers.
    socket.send_to(b"not SNMP", to).await.unwrap();
    bench.sink.wait_until("all are read", |s| s.rejects.len() == 1).await;
    bench.sink.take();
    let first = socket.recv(&mut answer).await.unwrap();
    let first = answer[..first].to_vec();
    socket.send_to(&inform, to).await.unwrap();
    let again = socket.recv(&mut answer).await.unwrap();
    assert_eq!(answer[..again], first[..], "an answer that was lost is given again");
    assert_eq!(bench.sink.messages(), [snmp_support::arrives_as("held")]);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datagram_beyond_the_bound_is_refused_and_counted() {
    let bench = Bench::new(SnmpConfig { max_message_bytes: 1_000, ..config() });
    let long = "x".repeat(1_000);
    let args = ["-v2c", "-c", COMMUNITY, &bench.to, "5", ".1.3.6.1.6.3.1.1.5.1", "1.3.1.1", "s", &long];
    bench.tools.succeed("snmptrap", &args).await;
    bench.sink.wait_until("it is counted", |s| s.rejects.len() == 1).await;
    assert_eq!(bench.sink.rejected(RejectReason::TooLarge), 1);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_hosts_and_traps_come_from_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let names = dir.path().join("oids");
    std::fs::write(&names, ".1.3.6.1.4.1.9.9.43.2.0.1 ciscoConfigManEvent notice\n").unwrap();
    let bench = Bench::new(SnmpConfig {
        oid_names: Some(names),
        hostnames: [("10.9.8.7".parse().unwrap(), "core-sw1".to_owned())].into(),
        trust_agent_address: true,
        ..config()
    });
    let args = ["-v1", "-c", COMMUNITY, &bench.to, ".1.3.6.1.4.1.9.9.43.2", "10.9.8.7", "6", "1", ""];
    let event = bench.event("snmptrap", &args).await;
    assert_eq!((&event["hostname"], &event["relay"]), (&json!("core-sw1"), &json!("127.0.0.1")));
    assert_eq!((&event["message"], &event["severity"]), (&json!("ciscoConfigManEvent"), &json!("notice")));
    let forwarded = ["-v2c", "-c", COMMUNITY, &bench.to, "1", ".1.3.6.1.4.1.8.1"];
    let address = ["1.3.6.1.6.3.18.1.3.0", "a", "10.9.8.7", "1.3.6.1.6.3.18.1.4.0", "s", "another-secret"];
    let event = bench.event("snmptrap", &[&forwarded[..], &address].concat()).await;
    assert_eq!(event["hostname"], "core-sw1");
    assert!(!serde_json::to_string(&event).unwrap().contains("another-secret"), "no community gets into an event");
    bench.end().await;
}

#[tokio::test]
async fn a_listener_that_cannot_open_says_why() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp = taken.local_addr().unwrap();
    let error = bind(SnmpConfig { udp, ..config() }).unwrap_err();
    assert!(error.to_string().ends_with("another process has it"), "{error}");
    let error = bind(SnmpConfig { communities: vec![runtime::Secret::new("")], ..config() }).unwrap_err();
    assert!(matches!(error, BindError::EmptyCommunity));
    let error = bind(SnmpConfig { engine_id: Some(vec![1]), ..config() }).unwrap_err();
    assert!(error.to_string().contains("5 to 32 octets"), "{error}");
}
