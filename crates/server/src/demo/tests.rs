use super::feed::SentLog;
use super::receiver::Received;
use super::report::{Figures, print_alert, print_header, print_summary};
use super::samples::{self, Door, Sample};
use super::*;
use connectors::inputs::syslog::parse::{ParseContext, encode, parse};
use model::{Environment, Rule, Severity, Timestamp};
use rules::{RuleSet, Subject};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const NOW: Timestamp = Timestamp::from_micros(1_795_341_598_123_456); // 2026-11-22T09:59:58.123456Z

/// An event as the pipeline will see it.
#[derive(Debug)]
struct Event {
    host: String,
    message: String,
    severity: Option<Severity>,
    trap_oid: Option<String>,
    door: Door,
}

/// `None`: refused at the door.
fn event(sample: &Sample) -> Option<Event> {
    let text = samples::fill(sample.text, NOW);
    let object: Value = match sample.door {
        Door::Http => serde_json::from_str(&text).ok()?,
        Door::Udp | Door::TcpLines | Door::TcpCounted => {
            let context =
                ParseContext { received_at: NOW, peer_ip: Some("127.0.0.1"), timezone: &jiff::tz::TimeZone::UTC };
            let mut out = Vec::new();
            encode(&parse(text.as_bytes(), &context), false, &mut out);
            serde_json::from_slice(&out).unwrap()
        }
    };
    let field = |name: &str| match &object[name] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let sent = Timestamp::parse(&field("timestamp")?).unwrap_or_else(|| panic!("{object}"));
    assert!(NOW.since(sent).as_secs() < 1 && sent <= NOW, "{object}");
    Some(Event {
        host: field("hostname")?,
        message: field("message")?,
        severity: field("syslog_severity").map(|text| Severity::parse(&text).unwrap()),
        trap_oid: field("trap_oid").map(|oid| oid.trim_start_matches('.').to_owned()),
        door: sample.door,
    })
}

fn events() -> Vec<Event> {
    samples::story().iter().filter_map(event).collect()
}

fn demo_rules() -> (Vec<rules::FileRule>, RuleSet) {
    let (parsed, problems) = rules::file::parse("rules/demo/demo.yml", RULES);
    assert!(problems.is_empty(), "{problems:?}");
    let rows = parsed.iter().zip(1..).map(|(rule, id)| Rule { id, draft: rule.draft.clone() }).collect();
    let (set, problems) = RuleSet::compile(rows);
    assert!(problems.is_empty(), "{problems:?}");
    (parsed, set)
}

fn matched<'s>(set: &'s RuleSet, event: &Event) -> Option<&'s Rule> {
    let subject = Subject { message: &event.message, severity: event.severity, trap_oid: event.trap_oid.as_deref() };
    set.first_match(&subject)
}

#[test]
fn the_demo_rules_pass_their_own_tests() {
    let (parsed, _) = demo_rules();
    assert!(parsed.iter().all(|rule| !rule.tests.matching.is_empty() && !rule.tests.no_match.is_empty()));
    for result in rules::file::run_tests(&parsed) {
        assert!(result.passed, "{result}");
    }
    let teams: BTreeSet<&str> = parsed.iter().map(|rule| rule.draft.team_assignment.as_str()).collect();
    assert_eq!(teams, ["Linux", "NETO", "NetOps", "Security"].into());
}

/// Contract mutt §7.
#[test]
fn the_five_sample_rules_are_the_contracts() {
    let (parsed, _) = demo_rules();
    for expected in [
        ("CRITICAL", 10, "Page_and_ticket", "Ticket_only", "NETO"),
        ("ERROR", 20, "Ticket_only", "Ignore", "NETO"),
        ("LINK-DOWN", 5, "Page_and_ticket", "Ticket_only", "NetOps"),
        ("DOT1X-FIRMWARE-RUNNING", 50, "Ticket_only", "Ignore", "Security"),
        (".1.3.6.1.4.1.9.9.41.2", 15, "Page_and_ticket", "Ignore", "NetOps"),
    ] {
        let row = |rule: &rules::FileRule| {
            let draft = &rule.draft;
            let criterion = draft.match_string.as_deref().or(draft.trap_oid.as_deref()).unwrap_or_default();
            (
                criterion,
                draft.priority,
                draft.prod_handling.as_str(),
                draft.dev_handling.as_str(),
                &*draft.team_assignment,
            ) == expected
        };
        assert!(parsed.iter().any(row), "{expected:?}");
    }
}

#[test]
fn the_samples_are_a_few_hundred_events_of_some_thirty_hosts() {
    let samples = samples::story();
    assert!((300..=400).contains(&samples.len()), "{}", samples.len());
    let events = events();
    assert_eq!(samples.len() - events.len(), 2, "one broken body, one without a required field");
    let hosts: BTreeSet<&str> = events.iter().map(|event| &*event.host).collect();
    assert!((25..=35).contains(&hosts.len()), "{}: {hosts:?}", hosts.len());
    assert!(DEV_HOSTS.iter().all(|host| hosts.contains(host)));
    assert!(hosts.iter().all(|host| host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')), "{hosts:?}");
    assert!(events.iter().all(|event| !event.message.contains("{t") && !event.message.starts_with('<')));
    let by_door = |door| events.iter().filter(|event| event.door == door).count();
    for door in [Door::Udp, Door::TcpLines, Door::TcpCounted, Door::Http] {
        assert!(by_door(door) > 20, "{door:?}: {}", by_door(door));
    }
    let oids: Vec<&str> = samples.iter().filter(|s| s.text.contains("trap_oid")).map(|s| s.text).collect();
    assert!(oids.iter().any(|text| text.contains("\"trap_oid\": \".")));
    assert!(oids.iter().any(|text| text.contains("\"trap_oid\": \"1")));
}

#[test]
fn the_story_has_its_parts_and_its_rules_see_them() {
    let (parsed, set) = demo_rules();
    let mut by_rule: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut alerts, mut unhandled) = (0, BTreeMap::<(String, String), usize>::new());
    let events = events();
    for event in &events {
        match matched(&set, event) {
            Some(rule) => {
                *by_rule.entry(&parsed[usize::try_from(rule.id - 1).unwrap()].name).or_default() += 1;
                let dev = DEV_HOSTS.contains(&&*event.host);
                let environment = if dev { Environment::Development } else { Environment::Production };
                alerts += usize::from(rule.draft.handling(environment).forwards());
            }
            None => *unhandled.entry((event.host.clone(), rules::template(&event.message))).or_default() += 1,
        }
    }
    let expected: BTreeMap<&str, usize> = [
        ("BGP neighbour lost", 2),
        ("configuration changed", 4),
        ("critical", 3),
        ("device restarted", 2),
        ("disk is failing", 4),
        ("error", 7),
        ("fan or power supply trap", 3),
        ("link down", 17),
        ("message relayed by a Cisco as a trap", 1),
        ("old 802.1X firmware", 1),
        ("one wrong password", 22),
        ("out of memory", 1),
        ("power supply lost", 2),
        ("root logged in with a password", 1),
        ("root shell or second root account", 2),
        ("running on battery", 2),
        ("too many wrong passwords", 4),
        ("web attack", 5),
    ]
    .into();
    assert_eq!(by_rule, expected);
    assert_eq!(expected.len(), parsed.len(), "every rule has something to do");
    assert_eq!(alerts, 54);
    let loud: Vec<_> = unhandled.iter().filter(|(_, n)| **n >= 100).collect();
    assert_eq!(loud.len(), 1, "{loud:?}");
    assert_eq!((&*loud[0].0.0, *loud[0].1), ("crac-b2", 120));
    let flaps = events.iter().filter(|e| e.host == "sw-access-12" && e.message.contains("LINK-DOWN")).count();
    assert_eq!(flaps, 15);
}

#[test]
fn the_story_is_told_in_one_order_side_by_side() {
    let story = samples::story();
    assert_eq!(story, samples::story());
    let captions: Vec<&str> = story.iter().filter_map(|sample| sample.caption).collect();
    assert!(captions.len() >= 12 && captions.iter().all(|caption| !caption.is_empty()), "{captions:?}");
    let doors: BTreeSet<Door> = story[..40].iter().map(|sample| sample.door).collect();
    assert_eq!(doors.len(), 4, "all doors are busy from the beginning");
}

#[test]
fn every_event_is_found_again_by_what_its_alert_says() {
    let log = SentLog::default();
    let sent = Instant::now();
    for sample in samples::story() {
        log.note(sample.door, &samples::fill(sample.text, NOW), sent);
    }
    for event in events() {
        let arrived = sent + Duration::from_millis(7);
        assert_eq!(log.latency(&event.host, &event.message, arrived), Some(Duration::from_millis(7)), "{event:?}");
    }
    assert_eq!(
        log.latency("sw-access-12", "%PORT-3-LINK-DOWN: Interface GigabitEthernet1/0/24, carrier lost", sent),
        None
    );
    assert_eq!(log.count_of("crac-b2"), 120);
}

fn arrival() -> Arrival {
    Arrival {
        at: Instant::now(),
        wall: NOW,
        alert_id: "alr_1".into(),
        host: "sw-access-12".into(),
        team: "NetOps".into(),
        severity: 4,
        page: true,
        ticket: true,
        message: "%PORT-3-LINK-DOWN: Interface GigabitEthernet1/0/24, carrier\x1b[2J lost".into(),
        unhandled: false,
        event_host: "sw-access-12".into(),
        event_message: String::new(),
    }
}

#[test]
fn a_line_fits_the_screen_and_cannot_steer_it() {
    let line = |width: usize, colour: bool| {
        let mut out = Vec::new();
        print_alert(&mut out, &Style { colour, width }, &arrival(), Some(Duration::from_micros(8_400))).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        line(140, false),
        "09:59:58  NetOps    MAJOR     both     sw-access-12     8.4 ms  \
         %PORT-3-LINK-DOWN: Interface GigabitEthernet1/0/24, carrier·[2J lost\n"
    );
    assert!(line(100, false).ends_with("%PORT-3-LINK-DOWN: Interface Gigabi…\n"));
    assert_eq!(line(100, false).trim_end().chars().count(), 100);
    let mut header = Vec::new();
    print_header(&mut header, &Style { colour: false, width: 100 }).unwrap();
    let header = String::from_utf8(header).unwrap();
    assert_eq!(header.find("message"), line(100, false).find("%PORT"));
    assert_eq!(line(100, true).matches('\x1b').count(), 2);
}

fn summary() -> Summary {
    let fed = Fed { udp: 205, tcp: 100, http: 26, took: Duration::from_millis(5_520), ..Fed::default() };
    let figures = Figures {
        accepted: 329,
        rejected: vec![("malformed".into(), 1), ("missing_field".into(), 1)],
        matched: 83,
        unhandled: 246,
        alerts: 55,
        meta_alerts: 1,
        delivered: 55,
        ..Figures::default()
    };
    let received = Received {
        count: 55,
        alerts: 55,
        faults: 34,
        teams: [("Linux".into(), 5), ("NetOps".into(), 24), ("NETO".into(), 12)].into(),
        ..Received::default()
    };
    let meta = MetaAlert {
        host: "crac-b2".into(),
        team: "NETO".into(),
        events: 120,
        message: "[MUTT] Detected 100 unhandled messages in 86400s from 'crac-b2'. Sample message: zone 3".into(),
    };
    let latencies = (1..=200).map(Duration::from_millis).collect();
    Summary { fed, figures, received, latencies, meta_alerts: vec![meta], quiet: true }
}

fn rendered(summary: &Summary, width: usize) -> String {
    let mut out = Vec::new();
    print_summary(&mut out, &Style { colour: false, width }, summary).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_summary_adds_up() {
    let expected = "
What happened
------------------------------------------------------------------------------
 events sent       331   205 UDP, 100 TCP, 26 HTTP, in 5.5 s
   accepted        329   on disk before anything else is done with them
   rejected          2   1 malformed, 1 missing_field
 stored            329   searchable, with the raw bytes
   matched          83   a rule knew them; each has an audit row
   unhandled       246   no rule knew them; counted by host and shape
 alerts             55   54 by rules, 1 about unhandled events
   delivered        55   24 NetOps, 12 NETO, 5 Linux
   twice             0
   faults           34   repeats share a signature, so they join one incident
 latency                 event sent to alert delivered: p50 100 ms, p99 198 ms, longest 200 ms

 crac-b2 sent 120 events of a shape that no rule knows, each with other numbers. They became one
 alert to NETO instead of silence or 120 pages: \"[MUTT] Detected 100 unhandled messages in 86400s
 from 'crac-b2'. Sample message: zone 3\"
 329 accepted = 83 matched + 246 unhandled + 0 duplicate + 0 dead letters: nothing vanished.
";
    assert_eq!(rendered(&summary(), 100), expected);
}

#[test]
fn a_summary_that_does_not_add_up_says_so() {
    let mut broken = summary();
    broken.figures.matched -= 1;
    broken.figures.lost_in_kernel = 3;
    broken.fed.failed = 1;
    broken.fed.first_failure = Some("Http: connection refused".into());
    broken.latencies.clear();
    broken.quiet = false;
    let text = rendered(&broken, 60);
    assert!(text.lines().all(|line| line.chars().count() <= 78), "{text}");
    for part in [
        "= 328.",
        "lost              3",
        "not sent          1   Http: connection",
        "no alert could",
        "Not everything had come",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn figures_of_one_story_leave_out_what_was_before() {
    let before = Figures { accepted: 5, rejected: vec![("malformed".into(), 2)], ..Figures::default() };
    let now =
        Figures { accepted: 9, rejected: vec![("malformed".into(), 3), ("too_large".into(), 0)], ..Figures::default() };
    let since = now.since(&before);
    assert_eq!((since.accepted, since.rejected), (4, vec![("malformed".to_owned(), 1)]));
}

fn local() -> std::net::SocketAddr {
    (std::net::Ipv4Addr::LOCALHOST, 0).into()
}

#[tokio::test]
async fn the_receiver_tells_new_alerts_from_repeats() {
    let (stopper, stop) = runtime::Stopper::new();
    let (receiver, listening, mut arrivals) =
        Receiver::bind(local(), Arc::new(runtime::ManualClock::new(NOW))).unwrap();
    let serving = tokio::spawn(listening.run(stop));
    let alert = |id: &str| {
        json!({
            "signature": "s", "source_id": "sw-1", "class": "NetOps", "severity": 4, "description": "down",
            "custom_info": {"hostname": "sw-1", "message": "down", "mutt": {
                "alert_id": id, "event_id": "evt_1", "kind": "rule", "page": true, "ticket": false,
            }},
        })
    };
    for id in ["alr_1", "alr_1", "alr_2"] {
        assert_eq!(post::json(&receiver.events_url(), "", &alert(id).to_string()).await.unwrap(), 200);
    }
    assert_eq!(post::json(&receiver.events_url(), "", "[1]").await.unwrap(), 400);
    let expected = Received { count: 3, alerts: 2, duplicates: 1, faults: 1, teams: [("NetOps".into(), 2)].into() };
    assert_eq!(receiver.received(), expected);
    let first = arrivals.recv().await.unwrap();
    assert_eq!((&*first.alert_id, &*first.event_host, first.page, first.ticket), ("alr_1", "sw-1", true, false));
    assert_eq!(arrivals.recv().await.unwrap().alert_id, "alr_2");
    stopper.stop();
    assert!(serving.await.unwrap());
}

/// The doors are stand-ins: sockets that count, and the receiver itself, which refuses broken JSON.
#[tokio::test]
async fn a_story_is_fed_through_every_door_and_told() {
    let (stopper, stop) = runtime::Stopper::new();
    let clock = Arc::new(runtime::ManualClock::new(NOW));
    let (receiver, listening, arrivals) = Receiver::bind(local(), clock.clone()).unwrap();
    let serving = tokio::spawn(listening.run(stop.clone()));
    let udp = tokio::net::UdpSocket::bind(local()).await.unwrap();
    let tcp = tokio::net::TcpListener::bind(local()).await.unwrap();
    let feeder = Feeder {
        ingest_url: receiver.events_url(),
        api_key: runtime::Secret::new("k"),
        syslog_tcp: tcp.local_addr().unwrap(),
        syslog_udp: udp.local_addr().unwrap(),
        rate_per_second: 2_000,
        clock,
    };
    let datagrams = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counting = tokio::spawn({
        let datagrams = Arc::clone(&datagrams);
        async move {
            let mut buffer = [0; 2_048];
            while udp.recv(&mut buffer).await.is_ok() {
                datagrams.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
    });
    let streams = tokio::spawn(async move {
        let mut texts = Vec::new();
        let (mut lines, _) = tcp.accept().await.unwrap();
        let (mut counted, _) = tcp.accept().await.unwrap();
        for stream in [&mut lines, &mut counted] {
            let mut text = String::new();
            tokio::io::AsyncReadExt::read_to_string(stream, &mut text).await.unwrap();
            texts.push(text);
        }
        texts
    });
    let figures = {
        let (receiver, datagrams) = (receiver.clone(), Arc::clone(&datagrams));
        move || {
            let accepted = receiver.received().count + datagrams.load(std::sync::atomic::Ordering::SeqCst) + 100;
            let (alerts, delivered) = (receiver.received().alerts, receiver.received().alerts);
            let rejected = vec![("malformed".to_owned(), 1)];
            Figures { accepted, rejected, unhandled: accepted, alerts, delivered, ..Figures::default() }
        }
    };
    // What is there before the story is left out; the hundred TCP lines and the reject are fixed.
    let before = std::cell::Cell::new(true);
    let figures = || if before.replace(false) { Figures::default() } else { figures() };
    let mut out = Vec::new();
    let style = Style { colour: false, width: 100 };
    let (summary, _) =
        story(Story { feeder, receiver: receiver.clone(), arrivals, figures, out: &mut out, style, stop })
            .await
            .unwrap();
    let texts = streams.await.unwrap();
    assert_eq!((summary.fed.sent(), summary.fed.failed), (samples::story().len() as u64, 0));
    assert_eq!((summary.fed.udp, summary.fed.tcp, summary.fed.http), (205, 100, 26));
    assert_eq!(summary.fed.http_refused, [(400, 1)].into(), "the stand-in only knows broken JSON");
    assert!(summary.quiet, "{:?}", summary.figures);
    assert_eq!(texts[0].lines().count(), 30);
    assert!(texts[1].starts_with(|c: char| c.is_ascii_digit()) && !texts[1].contains('\n'));
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("-- an uplink on sw-access-12 starts to flap\n") && text.contains("What happened"), "{text}");
    stopper.stop();
    counting.abort();
    assert!(serving.await.unwrap());
}
