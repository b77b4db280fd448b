//! Measures detection rules and correlations against the `rsigma-eval` crate and prints
//! `bench/sigma/RESULTS.md`.
//!
//!     bench-sigma [--quick] [RULES... -- EVENTS.jsonl]
//!
//! `RULES` are folders of Sigma rules, measured beside those of our making; the events are a flat JSON
//! object a line, with `product`, `category` and `service`, so that both engines route by log source.

mod correlate;
mod detect;
mod generated;
mod kinds;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const HEAD: &str = "# Detection rules and correlations against rsigma-eval 0.23

What `make bench-rules` prints. One run, one thread, the same events for both, one after the other; of each the
best of the rounds. Compare within one run only: machines drift. `make bench-rules` measures the rules of our making;
those of the public set are a sample of SigmaHQ's, which is not part of this repository. Matches differ there because ours
derives the categories of an event from its channel and id, where rsigma is told one category by the event.";

const DETECT: &str = "## Rules

Events come as text and parsing is counted for both. Memory is what the process grows by when it loads the rules, each time
in a process of its own.";

const KINDS: &str = "## One more rule

200 rules of one kind, less the time of the same events with one rule that nothing asks for.";

/// How long things may take.
pub struct Plan {
    quick: bool,
    rounds: usize,
    /// Of one measurement.
    seconds: f64,
}

impl Plan {
    /// Events a second, and the sum of what one pass returns.
    pub fn rate<E>(&self, events: &[E], mut work: impl FnMut(&E) -> usize) -> (f64, usize) {
        let started = Instant::now();
        let (mut passes, mut sum) = (0, 0);
        while passes == 0 || started.elapsed().as_secs_f64() < self.seconds {
            sum = events.iter().map(&mut work).sum();
            passes += 1;
        }
        ((events.len() * passes) as f64 / started.elapsed().as_secs_f64(), sum)
    }

    /// The numbers that another process of this program prints: memory is measured where nothing was
    /// used and freed before.
    pub fn child(&self, arguments: &[String]) -> Vec<f64> {
        let program = std::env::current_exe().expect("this program");
        let out = Command::new(program).arg("child").args(arguments).output().expect("a process");
        let text = String::from_utf8_lossy(&out.stdout);
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        assert!(!numbers.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
        numbers
    }
}

/// Whose rules are loaded.
pub enum Work {
    Generated(usize),
    Folders(Vec<String>),
}

impl Work {
    fn of(arguments: &[String]) -> Self {
        match arguments {
            [word, count] if word == "generated" => Self::Generated(count.parse().expect("a number")),
            folders => Self::Folders(folders.to_vec()),
        }
    }

    pub fn rules(&self) -> Vec<String> {
        match self {
            Self::Generated(count) => (0..*count).map(generated::rule).collect(),
            Self::Folders(folders) => {
                let mut files = Vec::new();
                folders.iter().for_each(|folder| walk(Path::new(folder), &mut files));
                files.sort();
                files.iter().map(|file| std::fs::read_to_string(file).expect("a rule file")).collect()
            }
        }
    }

    pub fn what(&self) -> &'static str {
        match self {
            Self::Generated(_) => "generated",
            Self::Folders(_) => "public",
        }
    }

    /// What tells another process to do `what` with these.
    pub fn child(&self, what: &str) -> Vec<String> {
        let rest = match self {
            Self::Generated(count) => vec!["generated".to_owned(), count.to_string()],
            Self::Folders(folders) => folders.clone(),
        };
        [vec![what.to_owned()], rest].concat()
    }
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == "child") {
        return child(&arguments[1..]);
    }
    let quick = arguments.first().is_some_and(|word| word == "--quick");
    if quick {
        arguments.remove(0);
    }
    let plan = if quick { Plan { quick, rounds: 1, seconds: 0.2 } } else { Plan { quick, rounds: 3, seconds: 0.6 } };
    println!("{HEAD}\n\n{DETECT}\n\n{}", detect::HEAD);
    let events = generated::events();
    for rules in [10, 100, 1_000] {
        detect::row(&plan, &Work::Generated(rules), &events);
    }
    if let Some(split) = arguments.iter().position(|argument| argument == "--") {
        let events = std::fs::read_to_string(&arguments[split + 1]).expect("a file of events");
        let events: Vec<String> = events.lines().map(str::to_owned).collect();
        for folders in arguments[..split].split(|argument| argument == "+") {
            detect::row(&plan, &Work::of(folders), &events);
        }
    }
    println!("\n{KINDS}\n");
    kinds::table(&plan);
    correlate::tables(&plan);
}

fn child(arguments: &[String]) {
    let (what, rest) = arguments.split_first().expect("what to measure");
    match what.as_str() {
        "load-ours" => {
            let rules = Work::of(rest).rules();
            grown(|| detect::Ours::load(&rules));
        }
        "load-theirs" => {
            let rules = Work::of(rest).rules();
            grown(|| detect::Theirs::load(&rules));
        }
        _ => correlate::child(what, rest),
    }
}

/// Prints by how many MB the process grows.
pub fn grown<T>(work: impl FnOnce() -> T) -> T {
    let before = resident_kb();
    let kept = work();
    println!("{}", resident_kb().saturating_sub(before) as f64 / 1024.0);
    kept
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).unwrap_or(0)
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

/// With commas between thousands.
pub fn number(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
