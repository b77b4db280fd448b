//! `muttd rules …`: check, test, import, and hunt with rules.

mod backtest;
mod explain;
mod hunt;
mod lint;
mod past;
mod run;
mod schedule;

use super::client::Client;
use super::{Global, block_on, out, print_failure, print_problems};
use crate::routing::receivers;
use crate::{rule_files, sigma_files};
use anyhow::{Result, bail};
use axum::http::Method;
use clap::{Args, Subcommand};
use model::Rule;
use pipeline::notify::Router;
use rules::file::FileRule;
use rules::sigma::{Gravity, Options};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct RulesArgs {
    #[command(subcommand)]
    command: RulesCommand,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    /// Hunt with Sigma rules in files of events, without a server
    Run(run::RunArgs),
    /// What Sigma rules would have found in the events that are kept, by day and host
    Backtest(backtest::BacktestArgs),
    /// Hunt with Sigma rules in the events that are kept
    Hunt(hunt::HuntArgs),
    /// How far scheduled rules came, their last runs, and what they could not look at
    Schedule(schedule::ScheduleArgs),
    /// What Sigma rules mean in words and in SQL, and why they match an event
    Explain(explain::ExplainArgs),
    /// Check rule files: mistakes, and what is probably not meant
    Lint {
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// One JSON object a finding
        #[arg(long)]
        json: bool,
    },
    /// Run the tests in rule files (events that must and must not match)
    Test {
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Explain every test, not only failed ones
        #[arg(long)]
        explain: bool,
        /// Say for each event that must match who would be told of it, by the routes of the configuration
        #[arg(long)]
        who: bool,
    },
    /// Put the rules of files into the catalog: all of them or none
    Import {
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Only say what would be imported
        #[arg(long)]
        dry_run: bool,
        /// Goes into the audit log
        #[arg(long)]
        reason: Option<String>,
    },
}

pub fn run(global: &Global, args: RulesArgs) -> ExitCode {
    match args.command {
        RulesCommand::Run(args) => run::run(&args),
        RulesCommand::Backtest(args) => ended(block_on(backtest::run(global, &args))),
        RulesCommand::Schedule(args) => ended(block_on(schedule::run(global, &args))),
        RulesCommand::Hunt(args) => ended(block_on(hunt::run(global, &args))),
        RulesCommand::Explain(args) => explain::run(&args),
        RulesCommand::Lint { paths, json } => lint::run(&paths, json),
        RulesCommand::Test { paths, explain, who: false } => test(&paths, explain, None),
        RulesCommand::Test { paths, explain, who: true } => match global.load_installed() {
            Ok(loaded) => test(&paths, explain, Some(&loaded.config.router)),
            Err(problems) => print_problems(&problems),
        },
        RulesCommand::Import { paths, dry_run, reason } => {
            ended(block_on(import(global, &paths, dry_run, reason.as_deref())))
        }
    }
}

fn ended(result: std::io::Result<Result<()>>) -> ExitCode {
    match result {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => print_failure(&error),
        Err(error) => print_failure(&error.into()),
    }
}

fn place(rule: &FileRule) -> String {
    format!("\"{}\" (line {})", rule.name, rule.line)
}

fn test(paths: &[PathBuf], explain: bool, router: Option<&Router>) -> ExitCode {
    let files = rule_files::read(paths);
    let mut text = String::new();
    for problem in files.unreadable.iter().cloned().chain(files.problems.iter().map(ToString::to_string)) {
        let _ = writeln!(text, "error: {problem}");
    }
    let sigma = sigma_files::read_texts(&files.sigma, &Options::default());
    let refused = sigma.problems.iter().filter(|problem| problem.gravity == Gravity::Refused);
    let refused: Vec<String> = refused.map(ToString::to_string).collect();
    for problem in &refused {
        let _ = writeln!(text, "error: {problem}");
    }
    let results = rules::file::run_tests(&files.rules);
    let failed = results.iter().filter(|r| !r.passed).count();
    for result in &results {
        if !result.passed || explain {
            let _ = writeln!(text, "{result}\n{}", result.explanation);
        }
    }
    for rule in router.iter().flat_map(|router| files.rules.iter().map(move |rule| (router, rule))) {
        text.push_str(&told(rule.0, rule.1));
    }
    let untested = files.rules.iter().filter(|r| r.tests.matching.is_empty() && r.tests.no_match.is_empty()).count();
    if untested > 0 {
        let _ = writeln!(text, "note: {untested} rule(s) have no tests");
    }
    let tried_elsewhere = sigma.rules.len() + sigma.correlations.len();
    if tried_elsewhere > 0 {
        let _ = writeln!(
            text,
            "note: {tried_elsewhere} Sigma rule(s) can be read; `muttd rules explain --event`, `run` and `backtest` try them"
        );
    }
    let _ = writeln!(text, "{} passed, {failed} failed", results.len() - failed);
    out(&text);
    let broken = files.problems.len() + files.unreadable.len() + refused.len();
    if failed == 0 && broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Who would be told of the events that the rule must match.
fn told(router: &Router, rule: &FileRule) -> String {
    let row = Rule { id: 0, draft: rule.draft.clone() };
    let mut text = String::new();
    for event in &rule.tests.matching {
        let told = receivers(router, &row, &rule.draft.prod_handling, "any-host", event.severity);
        let told = if told.is_empty() { "nobody".to_owned() } else { told.join(", ") };
        let message: String = event.message.chars().take(60).filter(|c| !c.is_control()).collect();
        let _ = writeln!(text, "{}: \"{message}\" for {}: {told}", place(rule), rule.draft.team_assignment);
    }
    text
}

async fn import(global: &Global, paths: &[PathBuf], dry_run: bool, reason: Option<&str>) -> Result<()> {
    let files = rule_files::read(paths);
    let problems: Vec<String> =
        files.unreadable.iter().cloned().chain(files.problems.iter().map(ToString::to_string)).collect();
    if !problems.is_empty() {
        bail!("nothing was imported:\n  {}", problems.join("\n  "));
    }
    if let Some((file, _)) = files.sigma.first() {
        bail!(
            "nothing was imported: {file} has no list `rules`. Sigma rules are not kept in the catalog: name their \
             folder in detection.rules"
        );
    }
    if files.rules.is_empty() {
        bail!("there is no rule in these files");
    }
    if dry_run {
        out(&format!("{} rule(s) would be imported\n", files.rules.len()));
        return Ok(());
    }
    let rules: Vec<Value> = files.rules.iter().map(as_json).collect();
    let client = Client::open(global).await?;
    let body = json!({"rules": rules, "reason": reason.unwrap_or("muttd rules import")});
    client.send(Method::POST, "/api/v2/rules/import", &body).await?;
    out(&format!("imported {} rule(s); they act within a second\n", files.rules.len()));
    Ok(())
}

fn as_json(rule: &FileRule) -> Value {
    let draft = &rule.draft;
    json!({
        "match_string": draft.match_string,
        "trap_oid": draft.trap_oid,
        "syslog_severity": draft.syslog_severity,
        "match_type": draft.match_type.as_str(),
        "priority": draft.priority,
        "prod_handling": draft.prod_handling.as_str(),
        "dev_handling": draft.dev_handling.as_str(),
        "team_assignment": draft.team_assignment,
        "is_active": draft.is_active,
    })
}
