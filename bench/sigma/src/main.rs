//! Measures the detection engine against the `rsigma-eval` crate: the same rules and events, one after
//! the other in one process on one thread, three rounds, the best of each. Prints a JSON object a
//! measurement.
//!
//!     bench-sigma generated                 # 10, 100, 1,000 rules of our making
//!     bench-sigma RULES... -- EVENTS.jsonl  # folders of Sigma rules, a flat JSON object a line
//!
//! Events carry `product`, `category` and `service`, so that both route by log source. Both are given
//! the text of each event and parse it: that is how events come.

use model::Fields;
use rsigma_eval::event::JsonEvent;
use rsigma_eval::logsource::LogSourceExtractor;
use rules::sigma::{Options, Reader};
use rules::stream::{Engine, Scratch};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

const ROUNDS: usize = 3;
/// One pass over the events takes at least this long, in seconds.
const ROUND_SECONDS: f64 = 1.0;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().map(String::as_str) == Some("generated") {
        for rules in [10, 100, 1_000] {
            let texts: Vec<String> = (0..rules).map(generated_rule).collect();
            measure(&format!("generated, {rules} rules"), &texts, &generated_events());
        }
        return;
    }
    let Some(split) = arguments.iter().position(|argument| argument == "--") else {
        eprintln!("usage: bench-sigma generated | RULES... -- EVENTS.jsonl");
        std::process::exit(2);
    };
    let mut files = Vec::new();
    for folder in &arguments[..split] {
        walk(Path::new(folder), &mut files);
    }
    files.sort();
    let texts: Vec<String> = files.iter().map(|file| std::fs::read_to_string(file).expect("a rule file")).collect();
    let events = std::fs::read_to_string(&arguments[split + 1]).expect("a file of events");
    let events: Vec<String> = events.lines().map(str::to_owned).collect();
    measure(&format!("{} rule files", files.len()), &texts, &events);
}

fn walk(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("a folder").flatten() {
            walk(&entry.path(), files);
        }
    } else if path.extension().is_some_and(|extension| extension == "yml") {
        files.push(path.to_owned());
    }
}

fn measure(what: &str, rules: &[String], events: &[String]) {
    let (before, started) = (resident_kb(), Instant::now());
    let mut reader = Reader::new(Options::default());
    rules.iter().for_each(|text| reader.text("rule", text));
    let collection = reader.finish();
    let ours = Engine::compile(collection.rules.iter().map(|rule| (&rule.source, &rule.predicate)));
    let (our_load, our_kb) = (started.elapsed().as_secs_f64(), resident_kb().saturating_sub(before));

    let (before, started) = (resident_kb(), Instant::now());
    let mut theirs = rsigma_eval::Engine::new();
    theirs.set_logsource_extractor(Some(LogSourceExtractor::new()));
    theirs.set_cross_rule_ac(true);
    let mut parsed = Vec::new();
    for text in rules {
        let read = rsigma_parser::parse_sigma_yaml(text).expect("both read the same rules");
        parsed.extend(read.rules);
    }
    theirs.add_rules(parsed.iter());
    let (their_load, their_kb) = (started.elapsed().as_secs_f64(), resident_kb().saturating_sub(before));

    let (mut our_rate, mut our_matches) = (0_f64, 0);
    let (mut their_rate, mut their_matches) = (0_f64, 0);
    let mut scratch = Scratch::default();
    let mut hits = Vec::new();
    for _ in 0..ROUNDS {
        let (rate, matches) = rate(events, |text| {
            let mut fields = Fields::default();
            fields::from_json(text, &mut fields).expect("an event");
            hits.clear();
            ours.matches(&fields, &mut scratch, &mut hits);
            hits.len()
        });
        our_rate = our_rate.max(rate);
        our_matches = matches;
        let (rate, matches) = self::rate(events, |text| {
            let value: Value = serde_json::from_str(text).expect("an event");
            theirs.evaluate(&JsonEvent::borrow(&value)).len()
        });
        their_rate = their_rate.max(rate);
        their_matches = matches;
    }
    let bytes: usize = events.iter().map(String::len).sum();
    println!(
        "{}",
        json!({
            "what": what,
            "rules": ours.len(),
            "events": events.len(),
            "event_bytes": bytes / events.len().max(1),
            "ours_per_second": our_rate.round(),
            "rsigma_per_second": their_rate.round(),
            "ratio": (our_rate / their_rate * 100.0).round() / 100.0,
            "ours_matches": our_matches,
            "rsigma_matches": their_matches,
            "ours_load_ms": (our_load * 1e4).round() / 10.0,
            "rsigma_load_ms": (their_load * 1e4).round() / 10.0,
            "ours_kb": our_kb,
            "rsigma_kb": their_kb,
        })
    );
}

/// Events a second, and the matches of one pass.
fn rate(events: &[String], mut matches: impl FnMut(&str) -> usize) -> (f64, usize) {
    let started = Instant::now();
    let (mut passes, mut found) = (0, 0);
    while passes == 0 || started.elapsed().as_secs_f64() < ROUND_SECONDS {
        found = events.iter().map(|event| matches(event)).sum();
        passes += 1;
    }
    ((events.len() * passes) as f64 / started.elapsed().as_secs_f64(), found)
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).unwrap_or(0)
}

/// Rules as people write them: an image and some words of its command line, and an exception.
fn generated_rule(number: usize) -> String {
    let (tool, word) = (name(number), name(number * 7 + 3));
    format!(
        "title: Use of {tool}\nid: 00000000-0000-4000-8000-{number:012}\nlogsource: {{product: linux, category: process_creation}}\n\
         detection:\n  selection:\n    Image|endswith: ['/{tool}', '/{tool}-ng']\n    CommandLine|contains: ['--{word}', '{word}.conf', ' /{word}/']\n\
         \x20 other:\n    CommandLine|contains|all: ['{tool}', '{word}', '.sh']\n  filter:\n    ParentImage|endswith: '/{word}d'\n\
         \x20 condition: (selection or other) and not filter\nlevel: medium\n"
    )
}

fn name(number: usize) -> String {
    const SYLLABLES: [&str; 16] =
        ["ka", "lo", "mi", "ne", "ru", "so", "ta", "vu", "xe", "za", "bi", "co", "du", "fe", "gi", "ho"];
    (0..4).map(|place| SYLLABLES[(number * 2_654_435_761 >> (place * 5)) % 16]).collect()
}

/// Process starts of a server: most match nothing, one in fifty does.
fn generated_events() -> Vec<String> {
    let event = |number: usize| {
        let (tool, word) = if number % 50 == 0 { (name(number % 1_000), name((number % 1_000) * 7 + 3)) } else { (name(number + 5_000), name(number + 9_000)) };
        let padding: String = (0..12).map(|n| format!(" --option{n}={}", name(number * 13 + n))).collect();
        json!({
            "product": "linux", "category": "process_creation", "Image": format!("/usr/bin/{tool}"),
            "CommandLine": format!("/usr/bin/{tool} --{word} -f /etc/{word}.conf{padding}"),
            "ParentImage": "/usr/sbin/cron", "ParentCommandLine": "/usr/sbin/cron -f", "User": "root",
            "ProcessId": number, "ParentProcessId": 812, "CurrentDirectory": "/var/lib/app",
            "LogonId": 4_294_967_295_u32, "Hashes": format!("SHA256={:064x}", number),
        })
        .to_string()
    };
    (0..20_000).map(event).collect()
}
