//! Precision and recall of every rule that alerts.
//!
//! A rule about one event is judged line by line, a correlation episode by episode: it is to fire in
//! an episode in which a line has its name, and in no other.

use crate::corpus;
use crate::rulebook::{Rulebook, name};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Around the table in the README.
pub const BEGIN: &str = "<!-- measured: begin -->";
pub const END: &str = "<!-- measured: end -->";

#[derive(Default, Clone, Copy)]
struct Score {
    found: usize,
    missed: usize,
    wrong: usize,
    benign: usize,
}

/// The table in Markdown, and every line or episode that a rule gets wrong.
pub fn measure(book: &Rulebook) -> (String, String) {
    let mut faults = String::new();
    let mut scores: BTreeMap<&str, Score> = BTreeMap::new();
    let names: Vec<&str> = book.names().filter(|name| book.alerts(name)).collect();
    for name in &names {
        scores.insert(name, Score::default());
    }
    let (mut lines, mut labelled) = (0, 0);
    let episodes = corpus::attacks();
    for episode in &episodes {
        let seen: BTreeSet<(&str, usize)> =
            book.seen(&episode.entries).into_iter().map(|seen| (name(seen.rule.header()), seen.sample)).collect();
        lines += episode.entries.len();
        labelled += episode.labels.iter().filter(|labels| !labels.is_empty()).count();
        for label in episode.labels.iter().flatten() {
            assert!(scores.contains_key(&**label), "{label} is no rule that alerts");
        }
        for (name, score) in &mut scores {
            let mut judge = |wanted: bool, got: bool, line: &str| {
                if wanted != got {
                    writeln!(faults, "{name} {}: {line}", if wanted { "misses" } else { "is wrong about" })
                        .expect("a string");
                }
                score.found += usize::from(wanted && got);
                score.missed += usize::from(wanted && !got);
                score.wrong += usize::from(!wanted && got);
            };
            let labelled = |labels: &Vec<String>| labels.iter().any(|label| label == name);
            if book.correlates(name) {
                let fired = seen.iter().any(|(seen, _)| seen == name);
                judge(episode.labels.iter().any(labelled), fired, &episode.entries[0].written);
            } else {
                for (number, labels) in episode.labels.iter().enumerate() {
                    judge(labelled(labels), seen.contains(&(*name, number)), &episode.entries[number].written);
                }
            }
        }
    }
    let benign = corpus::benign();
    for (_, entries) in &benign {
        for seen in book.seen(entries) {
            if let Some(score) = scores.get_mut(name(seen.rule.header())) {
                writeln!(faults, "{} sees the ordinary {}", name(seen.rule.header()), entries[seen.sample].written)
                    .expect("a string");
                score.benign += 1;
            }
        }
    }
    let benign_lines: usize = benign.iter().map(|(_, entries)| entries.len()).sum();
    let mut out = format!(
        "{lines} lines of attacks in {} episodes, {labelled} of them labelled; {benign_lines} ordinary lines.\n\n",
        episodes.len()
    );
    out.push_str("| rule | level | on | expected | found | false, attacks | false, ordinary | precision | recall |\n");
    out.push_str("|---|---|---|---|---|---|---|---|---|\n");
    let mut all = [Score::default(); 2];
    for name in names {
        let (score, on) = (scores[name], book.is_on(name));
        let sum = &mut all[usize::from(!on)];
        sum.found += score.found;
        sum.missed += score.missed;
        sum.wrong += score.wrong;
        sum.benign += score.benign;
        row(&mut out, &format!("`{name}`"), book.header(name).level.as_str(), if on { "yes" } else { "no" }, score);
    }
    row(&mut out, "all that are on", "", "yes", all[0]);
    row(&mut out, "all that are off", "", "no", all[1]);
    (out, faults)
}

fn row(out: &mut String, name: &str, level: &str, on: &str, score: Score) {
    let Score { found, missed, wrong, benign } = score;
    let expected = found + missed;
    let share = |part: usize, whole: usize| match whole {
        0 => "–".to_owned(),
        _ => format!("{:.2}", part as f64 / whole as f64),
    };
    let (precision, recall) = (share(found, found + wrong + benign), share(found, expected));
    writeln!(out, "| {name} | {level} | {on} | {expected} | {found} | {wrong} | {benign} | {precision} | {recall} |")
        .expect("writing to a string does not fail");
}
