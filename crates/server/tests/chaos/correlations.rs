//! `kill -9` while correlations fire, again and again, with an oracle.
//!
//! Clients post the events of many groups, shuffled and some of them twice; some groups must fire, the
//! others must not. After the last round every group that must has one alert, one incident and one
//! delivery, and no other has any.

use crate::process::{Server, client, configure, post, start};
use fastrand::Rng;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use testkit::Receiver;
use tokio::time::Duration;

const RULES: &str = "
title: failed
name: failed
level: low
logsource: {service: chaos}
detection: {s: {what: failed}, condition: s}
---
title: tried
name: tried
level: low
logsource: {service: chaos}
detection: {s: {what: tried}, condition: s}
---
title: came
name: came
level: low
logsource: {service: chaos}
detection: {s: {what: came}, condition: s}
---
title: went
name: went
level: low
logsource: {service: chaos}
detection: {s: {what: went}, condition: s}
---
title: Many failed
name: many
level: high
correlation: {type: event_count, rules: [failed], group-by: [src], timespan: 1m, condition: {gte: 5}}
---
title: Many users
name: users
level: high
correlation: {type: value_count, rules: [tried], group-by: [src], timespan: 1m, condition: {field: user, gte: 4}}
---
title: Came and went
name: ordered
level: high
correlation: {type: temporal_ordered, rules: [came, went], group-by: [src], timespan: 1m}
";

/// An event that is to be sent.
#[derive(Clone)]
struct Planned {
    json: String,
    /// Whether it may be sent again when nobody knows whether it was taken: it changes nothing then.
    repeatable: bool,
}

/// The correlation that the group of this number makes fire.
fn fires(group: u64) -> Option<&'static str> {
    match group % 7 {
        0 => Some("many"),
        3 => Some("users"),
        5 => Some("ordered"),
        _ => None,
    }
}

/// The events of a group: what, second, user.
fn events_of(group: u64, random: &mut Rng) -> Vec<Planned> {
    let events: Vec<(&str, u64, u64)> = match group % 7 {
        // Enough in a minute: five or more, so that where it begins depends on what came first.
        0 => (0..random.u64(5..10)).map(|n| ("failed", random.u64(0..60), n)).collect(),
        // One too few.
        1 => (0..4).map(|n| ("failed", random.u64(0..60), n)).collect(),
        // Enough, and never in a minute.
        2 => (0..9).map(|n| ("failed", n * 20, n)).collect(),
        // Enough users, some of them twice.
        3 => (0..8).map(|n| ("tried", random.u64(0..60), n % 4)).collect(),
        // One user too few, however often.
        4 => (0..12).map(|n| ("tried", random.u64(0..60), n % 3)).collect(),
        5 => vec![("came", 10, 0), ("went", 30, 0), ("came", 12, 0)],
        _ => vec![("went", 10, 0), ("came", 30, 0), ("went", 5, 0)],
    };
    let planned = events.into_iter().map(|(what, second, user)| {
        let (minute, second) = (second / 60, second % 60);
        let body = json!({
            "hostname": "h", "message": format!("{what} {group}"), "what": what, "src": format!("g{group}"),
            "user": format!("u{user}"), "timestamp": format!("2026-11-22T10:{minute:02}:{second:02}Z"),
        });
        // Those that are too few must not become enough because they were sent twice.
        Planned { json: format!("{body}\n"), repeatable: !matches!(group % 7, 1 | 2) }
    });
    planned.collect()
}

/// One of several clients, each with groups of its own.
struct Client {
    random: Rng,
    next_group: u64,
    step: u64,
    waiting: Vec<Planned>,
    sent: u64,
}

impl Client {
    fn plan(&mut self) {
        while self.waiting.len() < 200 {
            let events = events_of(self.next_group, &mut self.random);
            self.next_group += self.step;
            self.waiting.extend(events);
        }
        self.random.shuffle(&mut self.waiting);
    }

    /// Sends some; `Err` when the server is gone.
    async fn send(&mut self, http: &reqwest::Client, url: &str, key: &str) -> Result<(), ()> {
        let count = self.random.usize(1..=12).min(self.waiting.len());
        let batch = self.waiting.split_off(self.waiting.len() - count);
        let body = batch.iter().map(|planned| planned.json.as_str()).collect();
        match post(http, url, key, body).await {
            Ok(response) if response.status() == 200 => {
                self.sent += count as u64;
                // Now and then a client that did not hear the answer.
                let again = batch.into_iter().filter(|planned| planned.repeatable && self.random.u8(0..20) == 0);
                self.waiting.extend(again.collect::<Vec<_>>());
                Ok(())
            }
            // Full or draining: nothing was taken.
            Ok(_) => {
                self.waiting.extend(batch);
                tokio::time::sleep(Duration::from_millis(5)).await;
                Ok(())
            }
            Err(_) => {
                self.waiting.extend(batch.into_iter().filter(|planned| planned.repeatable));
                Err(())
            }
        }
    }
}

/// Rows of a paged list.
async fn all(server: &Server, path: &str, name: &str) -> Vec<Value> {
    let mut rows = Vec::new();
    for page in 1.. {
        let found = server.get(&format!("{path}?limit=1000&page={page}")).await;
        let found = found[name].as_array().unwrap().clone();
        if found.is_empty() {
            break;
        }
        rows.extend(found);
    }
    rows
}

/// Counts by correlation and group.
type Counts = BTreeMap<(String, String), u64>;

#[tokio::test(flavor = "multi_thread")]
async fn every_group_fires_once_and_no_other_whatever_kill_9_interrupts() {
    const ROUNDS: u32 = 40;
    const CLIENTS: u64 = 3;
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start().await;
    configure(dir.path(), "rate_limit = 1000000\nconcurrency = 32");
    let (rules, file) = (dir.path().join("sigma.yml"), dir.path().join("chaos.toml"));
    std::fs::write(&rules, RULES).unwrap();
    let toml = std::fs::read_to_string(&file).unwrap();
    // Nothing is paused: neither floods nor a slow machine are what this is about.
    let detection = format!(
        "[detection]\nshipped = false\nrules = [\"{}\"]\nmatches_per_minute_max = 10000000\nanswer_max_us = 1000000\n",
        rules.display()
    );
    std::fs::write(&file, format!("{toml}{detection}")).unwrap();

    let seed = 0x636f_7272;
    let mut random = Rng::with_seed(seed);
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|n| Client {
            random: Rng::with_seed(seed ^ (n + 1)),
            next_group: n,
            step: CLIENTS,
            waiting: Vec::new(),
            sent: 0,
        })
        .collect();
    for _ in 0..ROUNDS {
        let mut server = start(dir.path(), &receiver.url()).await;
        let (http, key) = (client(), server.ingest_key.clone());
        let url = format!("http://{}/api/v2/ingest", server.ingest);
        let load = |mut one: Client| {
            let (http, url, key) = (http.clone(), url.clone(), key.clone());
            tokio::spawn(async move {
                one.plan();
                while one.send(&http, &url, &key).await.is_ok() {
                    one.plan();
                }
                one
            })
        };
        let working: Vec<_> = clients.drain(..).map(load).collect();
        tokio::time::sleep(Duration::from_millis(random.u64(20..350))).await;
        server.kill();
        for one in working {
            clients.push(one.await.unwrap());
        }
    }
    let server = start(dir.path(), &receiver.url()).await;
    let (http, url) = (client(), format!("http://{}/api/v2/ingest", server.ingest));
    for one in &mut clients {
        while !one.waiting.is_empty() {
            one.send(&http, &url, &server.ingest_key).await.unwrap();
        }
    }
    server.drained().await;

    let mut groups: Vec<u64> = clients
        .iter()
        .flat_map(|one| (0..one.next_group).step_by(1).filter(|g| g % CLIENTS == one.next_group % CLIENTS))
        .collect();
    groups.sort_unstable();
    let expected: Counts =
        groups.iter().filter_map(|group| Some(((fires(*group)?.to_owned(), format!("g{group}")), 1))).collect();
    let mut alerts = Counts::new();
    for alert in all(&server, "/api/v2/alerts", "alerts").await {
        let detection = &alert["detection"];
        let source = detection["fields"][0]["value"].as_str().unwrap().to_owned();
        *alerts.entry((detection["name"].as_str().unwrap().to_owned(), source)).or_default() += 1;
    }
    let mut incidents = Counts::new();
    for incident in all(&server, "/api/v2/incidents", "incidents").await {
        assert_eq!((&incident["alerts"], &incident["told"]), (&json!(1), &json!(1)), "{incident}");
        let (rule, rest) = incident["key"].as_str().unwrap().split_once('|').unwrap();
        let source = rest.split_once("src=").unwrap().1.trim_end_matches(';').to_owned();
        *incidents.entry((rule.to_owned(), source)).or_default() += 1;
    }
    let mut keys: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for request in receiver.deliveries().iter().filter(|request| request.answered == Some(200)) {
        let detection = request.json()["custom_info"]["mutt"]["detection"].clone();
        let of = |value: &Value| value.as_str().unwrap().to_owned();
        let group = (of(&detection["rule"]), of(&detection["fields"]["src"]));
        keys.entry(group).or_default().insert(request.idempotency_key().unwrap().to_owned());
    }
    let delivered: Counts = keys.into_iter().map(|(group, keys)| (group, keys.len() as u64)).collect();
    let sent: u64 = clients.iter().map(|one| one.sent).sum();
    println!(
        "chaos: seed {seed:#x}, {ROUNDS} rounds, {sent} events of {} groups, {} fire",
        groups.len(),
        expected.len()
    );
    assert!(expected.len() > 50, "the rounds did something");
    for (what, found) in [("alerts", alerts), ("incidents", incidents), ("deliveries", delivered)] {
        let missing: Vec<_> = expected.keys().filter(|group| !found.contains_key(group)).take(10).collect();
        let wrong: Vec<_> = found.iter().filter(|(group, n)| expected.get(group) != Some(n)).take(10).collect();
        assert!(missing.is_empty() && wrong.is_empty(), "{what}: missing {missing:?}; wrong {wrong:?}");
    }
}
