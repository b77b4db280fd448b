//! `muttd rules backtest`: what rules would have found in the events that are kept, before they are
//! switched on.

use super::super::{Global, out};
use super::run::options;
use crate::{field_maps, hunt, sigma_files};
use anyhow::{Result, bail};
use clap::Args;
use fields::Aliases;
use model::{Fields, OrgId, Timestamp};
use pipeline::codec;
use rules::correlate::{Change, Correlator, Event, Hit, Lacking, Limits, Plans, Share};
use rules::sigma::{Collection, Header};
use rules::stream::{Engine, Scratch};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use storage::events::{self, EventQuery, StoredEvent};

/// Events of one page.
const PAGE: usize = 1_000;
const DAY: Duration = Duration::from_secs(86_400);
/// Hosts of a rule that are shown; all of them in JSON.
const HOSTS_SHOWN: usize = 5;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  muttd rules backtest my-rules --days 3")]
pub struct BacktestArgs {
    /// Files and folders of Sigma rules
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// How far back, by acceptance
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=3_660))]
    days: u16,
    /// Whose events
    #[arg(long, value_name = "ORG", default_value = OrgId::DEFAULT)]
    org: OrgId,
    /// A value of a placeholder (`%name%`) in rules; again for more values
    #[arg(long = "placeholder", value_name = "NAME=VALUE", value_parser = super::run::placeholder)]
    placeholders: Vec<(String, String)>,
    /// Files and folders that say what the events call the fields of the taxonomy beside those of the
    /// configuration (docs/fields.md)
    #[arg(long, num_args = 1.., value_name = "PATH")]
    fields: Vec<PathBuf>,
    /// A JSON object a rule, with every day and host
    #[arg(long)]
    json: bool,
}

/// What a rule found: by day, and by host.
#[derive(Default)]
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

pub async fn run(global: &Global, args: &BacktestArgs) -> Result<()> {
    let collection = sigma_files::read(&args.paths, &options(&args.placeholders));
    let refused = hunt::refused(&collection);
    if collection.rules.is_empty() {
        bail!("there is no rule to try: {} refused; `muttd rules lint` says why", refused.len());
    }
    let loaded = match global.load_installed() {
        Ok(loaded) => loaded,
        Err(problems) => bail!("the configuration has {} problem(s); `muttd check-config` shows them", problems.len()),
    };
    let store = events::open_to_read(loaded.config.stores.events.clone());
    let mapped: Vec<PathBuf> = loaded.config.detection.field_paths.iter().chain(&args.fields).cloned().collect();
    let mut test = Backtest::new(&collection, field_maps::read_and_tell(&mapped));
    // Newest first, as the store pages.
    let now = runtime::Clock::now(&runtime::SystemClock);
    let mut query =
        EventQuery { from: Some(now.minus(DAY * u32::from(args.days))), limit: PAGE, ..EventQuery::default() };
    let shown = std::io::stderr().is_terminal();
    loop {
        let page = store.search(&args.org, &query).await?;
        let Some(last) = page.last() else { break };
        query.before = Some(last.id);
        page.iter().for_each(|event| test.event(event));
        if shown {
            let day = last.id.accepted().day();
            let _ = write!(std::io::stderr(), "\r\x1b[K{} events, back to {day}", test.events);
        }
        if page.len() < PAGE {
            break;
        }
    }
    if shown {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let found = test.finish();
    out(&if args.json { as_json(&found)? } else { as_text(&found, args.days, refused.len()) });
    Ok(())
}

struct Backtest<'c> {
    collection: &'c Collection,
    aliases: Aliases,
    engine: Engine,
    plans: Arc<Plans>,
    scratch: Scratch,
    events: u64,
    rules: Vec<Tally>,
    /// What correlations are told, and of which host it is.
    correlated: Vec<Hit>,
    hosts: BTreeMap<u128, String>,
}

/// What was found, by rule and correlation, and how many events there were.
struct Findings<'c> {
    events: u64,
    rules: Vec<(&'c Header, Tally)>,
}

impl<'c> Backtest<'c> {
    fn new(collection: &'c Collection, aliases: Aliases) -> Self {
        Self {
            collection,
            aliases,
            engine: Engine::compile(collection.rules.iter().map(|rule| (&rule.source, &rule.predicate))),
            plans: Arc::new(Plans::compile(collection, Limits::for_history())),
            scratch: Scratch::default(),
            events: 0,
            rules: collection.rules.iter().map(|_| Tally::default()).collect(),
            correlated: Vec::new(),
            hosts: BTreeMap::new(),
        }
    }

    fn event(&mut self, event: &StoredEvent) {
        self.events += 1;
        let object = codec::public_object(&event.raw);
        let mut fields = Fields::default();
        let read = std::str::from_utf8(&object).is_ok_and(|object| fields::from_event(object, &mut fields).is_ok());
        if !read {
            return;
        }
        self.aliases.apply(&mut fields);
        let mut hits = Vec::new();
        self.engine.matches(&fields, &mut self.scratch, &mut hits);
        for rule in hits {
            let place = rule as usize;
            self.rules[place].add(event.id.accepted().day(), &event.host);
            if self.plans.listens(place) {
                let id = event.id.to_u128();
                let of = Event { id, time: event.timestamp.micros() };
                self.plans.hits(place, of, &fields, &mut self.correlated, &mut Lacking::default());
                self.hosts.insert(id, event.host.clone());
            }
        }
    }

    fn finish(mut self) -> Findings<'c> {
        let mut correlations: Vec<Tally> = self.collection.correlations.iter().map(|_| Tally::default()).collect();
        // Events of one moment have one time, whatever the order in which they were found.
        self.correlated.sort_by_key(|hit| hit.time);
        let newest = self.correlated.last().map_or(0, |hit| hit.time);
        let mut correlator = Correlator::new(Arc::clone(&self.plans), Share::ALL);
        let mut changes = correlator.apply(newest, self.correlated).changes;
        changes.extend(correlator.pass(i64::MAX).changes);
        for firing in changes.into_iter().filter_map(Change::opened) {
            let host = firing.events.iter().max().and_then(|id| self.hosts.get(id));
            let host = host.cloned().unwrap_or_else(|| firing.key.join(", "));
            correlations[firing.correlation].add(Timestamp::from_micros(firing.anchor).day(), &host);
        }
        let rules = self.collection.rules.iter().map(|rule| &rule.header).zip(self.rules);
        let above = self.collection.correlations.iter().map(|correlation| &correlation.header).zip(correlations);
        Findings { events: self.events, rules: rules.chain(above).collect() }
    }
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
        found.events,
        matching.len(),
        found.rules.len()
    );
    text
}
