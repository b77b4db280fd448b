//! rsyslogd with the shipped samples.

use super::{packaged, stored, with};
use crate::support::{SOON, TestServer};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use testkit::servers::{Rsyslog, TestCerts};
use testkit::{Behaviour, Receiver, wait_until};

const RETRY: (&str, &str) = ("action.resumeInterval=\"5\"", "action.resumeInterval=\"1\"");
/// Unhandled messages become an event of their own only beyond what these tests send.
const MANY: (&str, &str) = ("UNHANDLED_THRESHOLD", "100000");
const QUOTES: &str = "say \"hi\" \\ back {\"json\": [1]} %s $HOME";
const LINES: &str = "first\nsecond\tindented";
const UTF8: &str = "größer €uro 日本 🦀";
const TRAP: &str = "UDP: [10.1.1.1]:5123->[10.0.0.5]:162: .1.3.6.1.2.1.1.3.0 = Timeticks: (5) 0:00:00.05\t.1.3.6.1.6.3.1.1.4.1.0 = OID: .1.3.6.1.4.1.9.9.43.2.0.1";

/// Sends messages of every kind, and `n` numbered ones.
fn send(rsyslog: &Rsyslog, n: usize) {
    let line = |text: &str| format!("<11>1 2026-11-22T10:00:00.5Z host1 app 42 - - {text}").into_bytes();
    let mut messages = vec![line(QUOTES), line(LINES), line(UTF8)];
    messages.push([line("binary "), vec![0xff, 0xfe, 0x01], b" end".to_vec()].concat());
    messages.push(format!("<173>Nov 22 10:00:00 collector snmptrapd[7]: {TRAP}").into_bytes());
    messages.extend((0..n).map(|i| line(&format!("number {i:05}"))));
    rsyslog.send(&messages);
}

fn messages(events: &[Value]) -> BTreeSet<String> {
    events.iter().map(|e| e["message"].as_str().unwrap().to_owned()).collect()
}

/// Checks what [`send`] sent.
async fn arrived(server: &TestServer, n: usize, binary: &str) {
    let events = stored(server, "host1", 4 + n).await;
    let found = messages(&events);
    assert_eq!(found.len(), 4 + n, "each once");
    for expected in [QUOTES, LINES, UTF8, binary] {
        assert!(found.contains(expected), "{expected:?} in {:?}", found.iter().take(4).collect::<Vec<_>>());
    }
    assert!((0..n).all(|i| found.contains(&format!("number {i:05}"))));
    for event in &events {
        let told =
            json!([event["syslog_severity"], event["severity"], event["facility"], event["program"], event["source"]]);
        assert_eq!(told, json!([3, "err", "user", "app", "syslog"]));
        assert!(event["timestamp"].as_str().unwrap().starts_with("2026-11-22T10:00:00.5"), "{event}");
    }
    let trap = &stored(server, "10.1.1.1", 1).await[0];
    assert_eq!((&trap["trap_oid"], &trap["message"]), (&json!("1.3.6.1.4.1.9.9.43.2.0.1"), &json!(TRAP)));
    assert_eq!(trap["facility"], "local5");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_by_tcp() {
    let server = TestServer::start(&[MANY]).await;
    let port = server.addresses.syslog_tcp.unwrap().port().to_string();
    let rsyslog = Rsyslog::start(&with("rsyslog/99-mutt-syslog.conf", &[("\"5514\"", &format!("\"{port}\""))]), &[]);
    send(&rsyslog, 500);
    arrived(&server, 500, "binary \u{fffd}\u{fffd}\u{1} end").await;
    drop(rsyslog);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_by_tls_and_only_from_whom_the_name_says() {
    let dir = tempfile::tempdir().unwrap();
    let certs = TestCerts::write(dir.path());
    let server = TestServer::start(&[
        MANY,
        ("MUTT_SYSLOG_TLS", "127.0.0.1:0"),
        ("MUTT_SYSLOG_TLS_CERT", certs.cert.to_str().unwrap()),
        ("MUTT_SYSLOG_TLS_KEY", certs.key.to_str().unwrap()),
    ])
    .await;
    let port = format!("\"{}\"", server.addresses.syslog_tls.unwrap().port());
    let sample = |peer: &str| {
        let peer = format!("streamDriverPermittedPeers=\"{peer}\"");
        with(
            "rsyslog/99-mutt-syslog-tls.conf",
            &[
                ("streamDriverPermittedPeers=\"mutt.example.com\"", &peer),
                ("target=\"mutt.example.com\"", "target=\"127.0.0.1\""),
                ("\"6514\"", &port),
                ("/etc/mutt/certs/ca.pem", certs.ca.to_str().unwrap()),
                RETRY,
            ],
        )
    };
    let stranger = Rsyslog::start(&sample("mutt.example.com"), &[]);
    stranger.send(&["<11>1 - stranger app - - - to a server of another name"]);
    let rsyslog = Rsyslog::start(&sample("localhost"), &[]);
    send(&rsyslog, 100);
    arrived(&server, 100, "binary \u{fffd}\u{fffd}\u{1} end").await;
    assert!(stored(&server, "stranger", 0).await.is_empty());
    drop((rsyslog, stranger));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_wait_for_a_listener_that_is_away() {
    let port = testkit::free_port();
    let address = format!("127.0.0.1:{port}");
    let sample = with("rsyslog/99-mutt-syslog.conf", &[("\"5514\"", &format!("\"{port}\"")), RETRY]);
    let rsyslog = Rsyslog::start(&sample, &[]);
    send(&rsyslog, 200);
    let server = TestServer::start(&[MANY, ("MUTT_SYSLOG_TCP", &address)]).await;
    // rsyslog may send the message again that it was at when the connection came back.
    let mut found = BTreeSet::new();
    server
        .until(async || {
            let (_, page) = server.api("GET", "/api/v2/events?host=host1&limit=1000", None).await;
            found = page["events"].as_array().unwrap().iter().map(|e| e["event"]["message"].to_string()).collect();
            found.len() >= 204
        })
        .await;
    assert_eq!(found.len(), 204, "all, and no others");
    assert!((0..200).all(|i| found.contains(&format!("\"number {i:05}\""))));
    drop(rsyslog);
    server.stop().await;
}

/// What devices send, with the host and message that every way has to give.
const OLD_STYLE: [(&str, &str, &str); 12] = [
    ("Nov 25 22:14:15 sw7 %DOT1X-5-FIRMWARE-RUNNING: x", "sw7", "%DOT1X-5-FIRMWARE-RUNNING: x"),
    ("Nov 25 22:14:15 asa1 : %ASA-4-106023: Deny tcp", "asa1", "%ASA-4-106023: Deny tcp"),
    ("Nov 25 22:14:15 sw9 %%10SHELL/5/SHELL_LOGIN: admin", "sw9", "%%10SHELL/5/SHELL_LOGIN: admin"),
    ("Nov 25 22:14:15 app1 CRITICAL: disk failed", "app1", "CRITICAL: disk failed"),
    ("Nov 25 22:14:15 app2 error: disk failed", "app2", "error: disk failed"),
    ("Nov 25 22:14:15 app3 disk failed: sda", "app3", "disk failed: sda"),
    ("Nov 25 22:14:15 app4 sshd[42]: Failed password", "app4", "Failed password"),
    ("Nov 25 22:14:15 app5 cron: job", "app5", "job"),
    ("124: sw1: *Nov 25 22:14:15.123: %LINK-3-UPDOWN: Gi0/1 down", "sw1", "%LINK-3-UPDOWN: Gi0/1 down"),
    ("125: sw2: Nov 25 22:14:15.123 UTC: %LINK-3-UPDOWN: Gi0/2", "sw2", "%LINK-3-UPDOWN: Gi0/2"),
    ("126: sw3: %SYS-5-CONFIG_I: Configured from console", "sw3", "%SYS-5-CONFIG_I: Configured from console"),
    ("127: sw4: .Nov 25 2026 22:14:15: %SYS-5-RESTART: up", "sw4", "%SYS-5-RESTART: up"),
];

#[tokio::test(flavor = "multi_thread")]
async fn severity_words_and_mnemonics_stay_in_the_message_on_every_way() {
    let server = TestServer::start(&[MANY]).await;
    let dir = tempfile::tempdir().unwrap();
    let port = format!("\"{}\"", server.addresses.syslog_tcp.unwrap().port());
    let tcp = Rsyslog::start(&with("rsyslog/99-mutt-syslog.conf", &[("\"5514\"", &port)]), &[]);
    let http = omprog(&server.ingest_url("/ingest"), &server.ingest_key, &dir.path().join("refused"));
    let lines: Vec<String> = OLD_STYLE.iter().map(|(line, ..)| format!("<187>{line}")).collect();
    tcp.send(&lines);
    http.send(&lines);
    let direct = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for line in &lines {
        direct.send_to(line.as_bytes(), server.addresses.syslog_udp.unwrap()).unwrap();
    }
    for (line, host, message) in OLD_STYLE {
        let events = stored(&server, host, 3).await;
        let told: Vec<_> = events.iter().map(|e| [&e["message"], &e["program"]]).collect();
        for event in &told {
            assert_eq!(event[0], message, "{line}: {told:?}");
            assert_eq!(event[1], told[0][1], "{line}: {told:?}");
        }
    }
    // A tag that was not in the line is none of the line's words.
    let file = dir.path().join("app.log");
    std::fs::write(&file, "disk failed\n").unwrap();
    let input = format!("module(load=\"imfile\")\ninput(type=\"imfile\" file=\"{}\" tag=\"disk\")\n", file.display());
    let sample = with("rsyslog/99-mutt-syslog.conf", &[("\"5514\"", &port)]);
    let files = Rsyslog::start(&format!("{input}{sample}"), &[]);
    server
        .until(async || {
            let (_, page) = server.api("GET", "/api/v2/events?limit=1000", None).await;
            let events = page["events"].as_array().unwrap().iter().map(|e| &e["event"]);
            events.filter(|e| e["program"] == "disk" && e["message"] == "disk failed").count() == 1
        })
        .await;
    drop((tcp, http, files));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_replaced_is_read_again_when_the_old_one_is_refused() {
    let receiver = Receiver::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let in_file = format!("MUTT_INGEST_API_KEY_FILE={}\n", path("key"));
    for (settings, then) in
        [(in_file.as_str(), in_file.as_str()), ("MUTT_INGEST_API_KEY=\"one\"\n", "MUTT_INGEST_API_KEY=\"two\"\n")]
    {
        receiver.forget();
        std::fs::write(path("key"), "one\n").unwrap();
        std::fs::write(path("env"), settings).unwrap();
        let program = packaged("rsyslog/rsyslog_to_mutt.sh");
        let one_program = ("queue.workerThreads=\"4\"", "queue.workerThreads=\"1\"");
        let script = ("/opt/mutt/scripts/rsyslog_to_mutt.sh", program.to_str().unwrap());
        let replacements = [script, one_program, RETRY];
        let env = [
            ("MUTT_ENV_FILE", path("env")),
            ("NO_PROXY", "127.0.0.1".to_owned()),
            ("MUTT_INGEST_URL", receiver.url()),
            ("MUTT_REFUSED_FILE", path("refused")),
        ];
        let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
        let rsyslog = Rsyslog::start(&with("rsyslog/99-mutt-omprog.conf", &replacements), &env);
        rsyslog.send(&["<11>1 - host1 app - - - before"]);
        receiver.wait_for(1, SOON).await;
        std::fs::write(path("key"), "two\n").unwrap();
        std::fs::write(path("env"), then).unwrap();
        receiver.script([Behaviour::status(401)]);
        rsyslog.send(&["<11>1 - host1 app - - - after"]);
        let came = receiver.wait_for(3, SOON).await;
        let told: Vec<_> = came.iter().map(|r| (r.json()["message"].clone(), r.header("x-api-key"))).collect();
        let expected = [(json!("before"), Some("one")), (json!("after"), Some("one")), (json!("after"), Some("two"))];
        assert_eq!(told, expected, "{settings}");
    }
    receiver.stop().await;
}

/// The omprog sample and its environment.
fn omprog(url: &str, key: &str, refused: &std::path::Path) -> Rsyslog {
    let program = packaged("rsyslog/rsyslog_to_mutt.sh");
    let replacements = [("/opt/mutt/scripts/rsyslog_to_mutt.sh", program.to_str().unwrap()), RETRY];
    let sample = with("rsyslog/99-mutt-omprog.conf", &replacements);
    let env = [
        ("MUTT_ENV_FILE", "/nonexistent"),
        ("NO_PROXY", "127.0.0.1"),
        ("MUTT_INGEST_URL", url),
        ("MUTT_INGEST_API_KEY", key),
        ("MUTT_REFUSED_FILE", refused.to_str().unwrap()),
    ];
    Rsyslog::start(&sample, &env)
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_by_http_without_omhttp() {
    let server = TestServer::start(&[MANY]).await;
    let dir = tempfile::tempdir().unwrap();
    let rsyslog = omprog(&server.ingest_url("/ingest"), &server.ingest_key, &dir.path().join("refused"));
    send(&rsyslog, 60);
    arrived(&server, 60, "binary   \u{1} end").await;
    drop(rsyslog);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_http_does_not_take_is_sent_again_and_what_it_refuses_is_kept() {
    let receiver = Receiver::start().await;
    let dir = tempfile::tempdir().unwrap();
    let refused = dir.path().join("refused");
    receiver.script([Behaviour::status(503), Behaviour::status(503), Behaviour::status(400)]);
    let rsyslog = omprog(&receiver.url(), "k", &refused);
    let texts: Vec<String> = (0..20).map(|i| format!("<11>1 - host1 app - - - number {i:05}")).collect();
    rsyslog.send(&texts);
    let accepted = || {
        let deliveries = receiver.deliveries();
        let taken = deliveries.iter().filter(|r| r.answered == Some(200));
        taken.map(|r| r.json()["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(wait_until(SOON, || accepted().len() >= 19).await, "{:?} {}", accepted(), rsyslog.daemon().output());
    let kept = std::fs::read_to_string(&refused).unwrap();
    let kept: Value = serde_json::from_str(kept.trim()).unwrap();
    let mut all = accepted();
    all.push(kept["message"].as_str().unwrap().to_owned());
    all.sort();
    let expected: Vec<String> = (0..20).map(|i| format!("number {i:05}")).collect();
    assert_eq!(all, expected, "each taken once, or kept");
    drop(rsyslog);
    receiver.stop().await;
}

/// omhttp is in no package of Debian's, so its samples are held against its documentation (rsyslog
/// 8.2302, modules/omhttp, and actions, queue parameters), and what they share with the omprog
/// sample, which runs, is the same text.
#[test]
fn the_samples_for_omhttp_use_what_is_documented_and_what_is_tested() {
    const KNOWN: &[&str] = &[
        "name",
        "type",
        "server",
        "serverport",
        "restpath",
        "useHttps",
        "tls.cacert",
        "httpheaders",
        "httpcontenttype",
        "template",
        "batch",
        "batch.format",
        "batch.maxsize",
        "batch.maxbytes",
        "retry",
        "retry.ruleset",
        "ratelimit.interval",
        "errorfile",
        "action.resumeRetryCount",
        "action.resumeInterval",
        "queue.type",
        "queue.filename",
        "queue.saveOnShutdown",
        "queue.maxDiskSpace",
        "queue.size",
        "queue.workerThreads",
    ];
    let shared =
        |text: &str| text[text.find("# Whether the tag").unwrap()..text.find("# Every value").unwrap()].to_owned();
    let template = |text: &str| {
        let text = &text[text.find("template(name=\"mutt_json\"").unwrap()..];
        text[..text.find("}\n\n").unwrap()].to_owned()
    };
    let tested = with("rsyslog/99-mutt-omprog.conf", &[]);
    for file in ["99-mutt.conf", "99-mutt-tls.conf", "99-mutt-batch.conf"] {
        let text = with(&format!("rsyslog/{file}"), &[]);
        assert_eq!(shared(&text), shared(&tested), "{file}");
        assert_eq!(template(&text).lines().count(), 11, "{file}");
        assert!(tested.contains(&template(&text)), "{file}");
        let mut actions = 0;
        for action in text.split("action(").skip(1).filter(|a| a.contains("type=\"omhttp\"")) {
            actions += 1;
            let action = &action[..action.find(")\n").unwrap()];
            let mut words = action.split_whitespace().filter_map(|word| word.split_once('='));
            assert!(words.all(|(name, _)| KNOWN.contains(&name) || name.starts_with('"')), "{file}: {action}");
            assert!(action.contains("X-API-KEY: ") && action.contains("restpath=\"ingest\""), "{file}");
        }
        assert_eq!(actions, if file.contains("batch") { 2 } else { 1 }, "{file}");
        // Everything but the module that is not there is understood by the real rsyslogd.
        let output = std::process::Command::new("rsyslogd")
            .arg("-N1")
            .arg("-f")
            .arg(packaged(&format!("rsyslog/{file}")))
            .output()
            .expect("rsyslogd; `make test` installs it");
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        for line in complaints.lines() {
            let told = ["omhttp", "error during parsing file", "config validation run"];
            assert!(told.iter().any(|t| line.contains(t)), "{file}: {line}");
        }
    }
}
