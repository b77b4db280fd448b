//! `muttd rules backtest`: what rules would have found in the events that are kept, before they are
//! switched on.

use super::super::{Global, out};
use super::past::{self, PastArgs};
use crate::hunt::history::{Sink, Told};
use anyhow::Result;
use clap::Args;
use model::Timestamp;
use pipeline::history::Fired;
use rules::sigma::Header;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use storage::events::StoredEvent;

/// Hosts of a rule that are shown; all of them in JSON.
const HOSTS_SHOWN: usize = 5;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  muttd rules backtest my-rules --days 3")]
pub struct BacktestArgs {
    #[command(flatten)]
    past: PastArgs,
    /// A JSON object a rule, with every day and host
    #[arg(long)]
    json: bool,
}

/// What a rule found: by day, and by host.
#[derive(Default, Clone)]
struct Tally {
    total: u64,
    days: BTreeMap<String, u64>,
    hosts: BTreeMap<String, u64>,
}

impl Tally {
    fn add(&mut self, day: String, host: &str) {
        self.total += 1;
        *self.days.entry(day).or_default() += 1;
        *self.hosts.entry(host.to_owned()).or_default() += 1;
    }
}

/// By place in the collection.
struct Tallies {
    rules: Vec<Tally>,
    correlations: Vec<Tally>,
}

impl Sink for Tallies {
    fn matched(&mut self, rule: usize, event: &StoredEvent) {
        self.rules[rule].add(event.id.accepted().day(), &event.host);
    }

    fn fired(&mut self, correlation: usize, fired: &Fired) {
        self.correlations[correlation].add(Timestamp::from_micros(fired.at).day(), &fired.host);
    }
}

/// What was found, by rule and correlation, and how it went.
struct Findings<'c> {
    told: Told,
    rules: Vec<(&'c Header, Tally)>,
}

pub async fn run(global: &Global, args: &BacktestArgs) -> Result<()> {
    let past = args.past.open(global)?;
    let tallies = Tallies {
        rules: vec![Tally::default(); past.collection.rules.len()],
        correlations: vec![Tally::default(); past.collection.correlations.len()],
    };
    let (tallies, told) = past::hunt(&past, tallies).await?;
    let rules = past.collection.rules.iter().map(|rule| &rule.header).zip(tallies.rules);
    let above = past.collection.correlations.iter().map(|correlation| &correlation.header).zip(tallies.correlations);
    let found = Findings { told, rules: rules.chain(above).collect() };
    out(&if args.json { as_json(&found)? } else { as_text(&found, args.past.days, past.refused) });
    Ok(())
}

fn as_json(found: &Findings<'_>) -> Result<String> {
    let mut text = String::new();
    for (header, tally) in &found.rules {
        let line = json!({
            "rule_id": header.uid,
            "title": header.title,
            "level": header.level.as_str(),
            "matches": tally.total,
            "days": tally.days,
            "hosts": tally.hosts,
        });
        let _ = writeln!(text, "{line}");
    }
    Ok(text)
}

fn as_text(found: &Findings<'_>, days: u16, refused: usize) -> String {
    let mut text = String::new();
    let mut matching: Vec<&(&Header, Tally)> = found.rules.iter().filter(|(_, tally)| tally.total > 0).collect();
    matching.sort_by(|a, b| b.1.total.cmp(&a.1.total).then_with(|| a.0.title.cmp(&b.0.title)));
    for (header, tally) in &matching {
        let _ = writeln!(text, "{} × {} ({}, {})", tally.total, header.title, header.uid, header.level.as_str());
        let by_day: Vec<String> = tally.days.iter().map(|(day, count)| format!("{day} {count}")).collect();
        let _ = writeln!(text, "    by day   {}", by_day.join(", "));
        let mut hosts: Vec<(&String, &u64)> = tally.hosts.iter().collect();
        hosts.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        let more = hosts.len().saturating_sub(HOSTS_SHOWN);
        let shown: Vec<String> =
            hosts.iter().take(HOSTS_SHOWN).map(|(host, count)| format!("{host} {count}")).collect();
        let more = if more > 0 { format!(", {more} more") } else { String::new() };
        let _ = writeln!(text, "    by host  {}{more}", shown.join(", "));
    }
    let _ = writeln!(
        text,
        "{} events of {days} day(s); {} of {} rule(s) match, {refused} refused",
        found.told.events,
        matching.len(),
        found.rules.len()
    );
    if found.told.late > 0 {
        let _ = writeln!(text, "{} events came too late to be correlated", found.told.late);
    }
    text
}
