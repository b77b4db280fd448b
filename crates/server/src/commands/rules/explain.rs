//! `muttd rules explain`: what a Sigma rule means in words and in SQL, and why it matches an event.

use super::super::{out, print_failure};
use super::run::options;
use crate::{field_maps, sigma_files};
use anyhow::{Context, Result, bail};
use clap::Args;
use model::Fields;
use rules::FieldsView;
use rules::sigma::{Collection, Gravity, Header, SigmaRule};
use rules::sql::correlation::{Events, firings};
use rules::sql::{Dialect, rule_clause};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// The table that the SQL is about, as `rules run` makes it.
const EVENTS: Events<'static> = Events { table: "events", id: "n", time: "ts" };

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    muttd rules explain rules/security --rule ssh_brute_force\n  \
    muttd rules explain rule.yml --event '{\"Image\":\"/usr/bin/nc\",\"CommandLine\":\"nc -l 4444\"}'")]
pub struct ExplainArgs {
    /// Files and folders of Sigma rules
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only rules with this id, name, or part of the title
    #[arg(long, value_name = "TEXT")]
    rule: Option<String>,
    /// The SQL of this engine only
    #[arg(long, value_enum)]
    sql: Option<SqlOf>,
    /// An event in JSON: why each rule matches it, or does not
    #[arg(long, value_name = "JSON")]
    event: Option<String>,
    /// Files and folders that say what the events call the fields of the taxonomy (docs/fields.md)
    #[arg(long, num_args = 1.., value_name = "PATH")]
    fields: Vec<PathBuf>,
    /// A value of a placeholder (`%name%`) in rules; again for more values
    #[arg(long = "placeholder", value_name = "NAME=VALUE", value_parser = super::run::placeholder)]
    placeholders: Vec<(String, String)>,
}

/// Whose SQL is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SqlOf {
    Sqlite,
    #[value(name = "clickhouse")]
    ClickHouse,
}

impl From<SqlOf> for Dialect {
    fn from(of: SqlOf) -> Self {
        match of {
            SqlOf::Sqlite => Self::Sqlite,
            SqlOf::ClickHouse => Self::ClickHouse,
        }
    }
}

pub fn run(args: &ExplainArgs) -> ExitCode {
    match explain(args) {
        Ok(text) => {
            out(&text);
            ExitCode::SUCCESS
        }
        Err(error) => print_failure(&error),
    }
}

fn explain(args: &ExplainArgs) -> Result<String> {
    let collection = sigma_files::read(&args.paths, &options(&args.placeholders));
    let wanted = |header: &Header| {
        args.rule.as_deref().is_none_or(|text| {
            header.uid == text
                || header.name.as_deref() == Some(text)
                || header.title.to_lowercase().contains(&text.to_lowercase())
        })
    };
    let aliases = field_maps::read_and_tell(&args.fields);
    let mut fields = Fields::default();
    if let Some(event) = &args.event {
        fields::from_event(event, &mut fields).context("--event is not a JSON object")?;
        aliases.apply(&mut fields);
    }
    let mut text = String::new();
    for problem in collection.problems.iter().filter(|problem| problem.gravity == Gravity::Refused) {
        let _ = writeln!(text, "refused: {problem}\n");
    }
    let before = text.len();
    let dialects = args.sql.map_or_else(|| vec![Dialect::Sqlite, Dialect::ClickHouse], |of| vec![of.into()]);
    for rule in collection.rules.iter().filter(|rule| wanted(&rule.header)) {
        heading(&rule.header, &format!("looks at {}", rule.source), &mut text);
        match &args.event {
            Some(_) => why(rule, &fields, &mut text),
            None => dialects.iter().for_each(|dialect| {
                let sql = rule_clause(&rule.source, &rule.predicate, *dialect)
                    .map(|condition| format!("SELECT n FROM events\nWHERE {}", condition.replace('\n', "\n  ")));
                shown(*dialect, sql, &mut text);
            }),
        }
    }
    if args.event.is_none() {
        for (place, correlation) in (0..).zip(&collection.correlations).filter(|(_, c)| wanted(&c.header)) {
            heading(&correlation.header, &correlation.describe(), &mut text);
            for dialect in &dialects {
                shown(*dialect, of_correlation(&collection, place, *dialect), &mut text);
            }
        }
    }
    if text.len() == before {
        bail!("no rule here is called so");
    }
    Ok(text)
}

fn of_correlation(collection: &Collection, place: usize, dialect: Dialect) -> Result<String, rules::sql::SqlError> {
    firings(collection, place, EVENTS, None, dialect)
}

fn heading(header: &Header, says: &str, text: &mut String) {
    let _ =
        writeln!(text, "{} ({}, {})\n  {}\n  {says}", header.title, header.uid, header.level.as_str(), header.place);
    if let Some(schedule) = header.schedule {
        let _ = writeln!(text, "  {}", schedule.describe());
    }
}

fn shown(dialect: Dialect, sql: Result<String, rules::sql::SqlError>, text: &mut String) {
    let sql = sql.unwrap_or_else(|error| format!("-- {error}"));
    let _ = writeln!(text, "\n  -- {dialect}\n  {}", sql.replace('\n', "\n  "));
    text.push('\n');
}

fn why(rule: &SigmaRule, event: &Fields<'_>, text: &mut String) {
    if !rule.source.admits(&event.source) {
        let known = &event.source;
        let _ = writeln!(text, "  no match: the event is known to come from another log ({known:?})\n");
        return;
    }
    let mut checks = Vec::new();
    let hit = rules::explain::ask(&rule.predicate, &FieldsView(event), &mut checks);
    let _ = writeln!(text, "  {}", if hit { "match" } else { "no match" });
    for check in checks {
        let mark = if check.passed { "yes" } else { "no " };
        let _ = writeln!(text, "    {mark}  {}? It is {}", check.asked, check.found);
    }
    text.push('\n');
}
