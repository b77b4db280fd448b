//! `muttd rules test`: runs the examples beside rules of both kinds, or asks which rules match an event
//! and who would be told; needs no server.

mod event;

use super::super::{Global, out, print_failure, print_problems};
use super::lint::{self, Finding};
use super::plain;
use crate::config::{Config, DetectionSettings};
use crate::routing::{detection_receivers, receivers};
use crate::rule_files::{self, RuleFiles};
use crate::{detection_rules, field_maps, sigma_files};
use clap::Args;
use model::Rule;
use pipeline::notify::Router;
use rules::file::FileRule;
use rules::sigma::examples::{self, Examples};
use rules::sigma::{Gravity, Options};
use rules::trial::Trial;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, Args)]
#[command(
    after_help = "Without PATH: the rules of the configuration, which are those that ship unless it says otherwise. \
    Beside a rule of Sigma:\n\n  \
      examples:\n    \
        match: ['sshd[7]: Failed password for root from 203.0.113.7 port 22 ssh2']\n    \
        no_match: ['{\"program\": \"sshd\", \"message\": \"Accepted password for bob\"}']\n\n\
    Of a correlation an example is a list of steps: ['0s x5/10s sshd[7]: …{n}', '2m @db1 sshd[9]: …'].\n\n\
    Examples:\n  \
      muttd rules test my-rules --explain\n  \
      muttd rules test my-rules --who --config mutt.toml\n  \
      echo '{\"program\":\"sshd\",\"message\":\"Invalid user x from 192.0.2.1\"}' | muttd rules test --event -"
)]
pub struct TestArgs {
    /// Files and folders of rules
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Explain every test, not only failed ones
    #[arg(long)]
    explain: bool,
    /// Say for each rule with an event that must match who would be told of it, by the routes of the
    /// configuration
    #[arg(long)]
    who: bool,
    /// Events, a JSON object a line or JSON as a whole; `-` is standard input: which rules match, which
    /// correlations fire, and who would be told
    #[arg(long, value_name = "FILE.json", conflicts_with_all = ["who", "explain"])]
    event: Option<PathBuf>,
    /// A value of a placeholder (`%name%`) in rules; again for more values
    #[arg(long = "placeholder", value_name = "NAME=VALUE", value_parser = super::run::placeholder)]
    placeholders: Vec<(String, String)>,
    /// Files and folders that say what the events call the fields of the taxonomy beside those of the
    /// configuration (docs/fields.md)
    #[arg(long, num_args = 1.., value_name = "PATH")]
    fields: Vec<PathBuf>,
    /// A JSON object a line
    #[arg(long)]
    json: bool,
}

/// Exit code 1 where a test fails or a rule cannot be used.
pub fn run(global: &Global, args: &TestArgs) -> ExitCode {
    let config = if args.paths.is_empty() || args.who || args.event.is_some() {
        match global.load_installed() {
            Ok(loaded) => Some(loaded.config),
            Err(problems) => return print_problems(&problems),
        }
    } else {
        None
    };
    let book = Book::read(args, config.as_ref());
    let done = match (&args.event, &config) {
        (Some(file), Some(config)) => event::ask(&book, config, file, args.json),
        (Some(_) | None, config) => Ok(book.run(args, config.as_ref())),
    };
    match done {
        Ok((text, code)) => {
            out(&text);
            code
        }
        Err(error) => print_failure(&error),
    }
}

/// The rules that are tried.
struct Book {
    rows: Vec<FileRule>,
    trial: Trial,
    examples: Vec<Examples>,
    /// What cannot be used.
    refused: Vec<Finding>,
    files: usize,
}

impl Book {
    fn read(args: &TestArgs, config: Option<&Config>) -> Self {
        let mut options = super::run::options(&args.placeholders);
        let files = match config {
            Some(config) if args.paths.is_empty() => of_config(config, &mut options),
            Some(_) | None => rule_files::read(&args.paths),
        };
        let sigma = sigma_files::read_texts(&files.sigma, &options);
        let mut refused = lint::mistakes(&files);
        let problems = sigma.problems.iter().filter(|problem| problem.gravity == Gravity::Refused);
        refused.extend(problems.map(lint::of_sigma));
        let mut all = Vec::new();
        for (name, text) in &files.sigma {
            let (examples, problems) = examples::read(name, text);
            all.extend(examples);
            refused.extend(problems.iter().map(lint::of_sigma));
        }
        let of_config = config.map(|config| &config.detection.field_paths).into_iter().flatten();
        let mapped: Vec<PathBuf> = of_config.chain(&args.fields).cloned().collect();
        let trial = detection_rules::trial(sigma, Arc::new(field_maps::read_and_tell(&mapped)));
        Self { rows: files.rules, trial, examples: all, refused, files: files.files }
    }

    fn run(&self, args: &TestArgs, config: Option<&Config>) -> (String, ExitCode) {
        let mut report = Report { json: args.json, explain: args.explain, ..Report::default() };
        for finding in &self.refused {
            let shown = if args.json { finding.as_json() } else { finding.as_text() };
            let _ = writeln!(report.text, "{shown}");
        }
        self.run_rows(&mut report);
        self.run_examples(&mut report);
        if let Some(config) = config.filter(|_| args.who) {
            self.who(config, &mut report);
        }
        let tested: BTreeSet<&str> =
            self.examples.iter().filter(|one| !one.all.is_empty()).map(|one| &*one.uid).collect();
        let sigma = self.trial.rules();
        let headers = sigma.rules.iter().map(|rule| &rule.header);
        let headers = headers.chain(sigma.correlations.iter().map(|one| &one.header));
        let untested = headers.filter(|header| !tested.contains(&*header.uid)).count()
            + self.rows.iter().filter(|rule| rule.tests.matching.is_empty() && rule.tests.no_match.is_empty()).count();
        let rules = self.rows.len() + sigma.rules.len() + sigma.correlations.len();
        let (passed, failed, refused) = (report.passed, report.failed, self.refused.len());
        let mut text = report.text;
        if args.json {
            let summary = json!({
                "files": self.files, "rules": rules, "rules_without_tests": untested,
                "passed": passed, "failed": failed, "refused": refused,
            });
            let _ = writeln!(text, "{}", json!({ "summary": summary }));
        } else {
            if untested > 0 {
                let _ = writeln!(text, "note: {untested} rule(s) have no tests");
            }
            let _ = writeln!(text, "{rules} rule(s) in {} file(s): {passed} passed, {failed} failed", self.files);
        }
        let code = if failed == 0 && refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        (text, code)
    }

    fn run_rows(&self, report: &mut Report) {
        for result in rules::file::run_tests(&self.rows) {
            let steps = result.explanation.steps.iter().map(ToString::to_string);
            let taken = result.taken_by.iter().map(|rule| format!("{rule:?} takes the event first"));
            report.add(&Outcome {
                passed: result.passed,
                file: &result.file,
                line: result.line,
                rule: &result.rule,
                uid: None,
                must_match: result.must_match,
                events: vec![&result.event],
                why: &|| steps.clone().chain(taken.clone()).collect(),
            });
        }
    }

    fn run_examples(&self, report: &mut Report) {
        for examples in &self.examples {
            // One without was refused, which is said already.
            let (Some(rule), Some(verdicts)) = (self.trial.find(&examples.uid), self.trial.run(examples)) else {
                continue;
            };
            for verdict in verdicts {
                let samples = &verdict.example.samples;
                report.add(&Outcome {
                    passed: verdict.passed,
                    file: &examples.place.file,
                    line: verdict.example.line,
                    rule: &examples.title,
                    uid: Some(&examples.uid),
                    must_match: verdict.example.must_match,
                    events: samples.iter().map(|sample| &*sample.written).collect(),
                    why: &|| self.trial.why(rule, samples),
                });
            }
        }
    }

    /// Who would be told of what must match.
    fn who(&self, config: &Config, report: &mut Report) {
        for rule in &self.rows {
            told_of_row(&config.router, rule, report);
        }
        let alerts = Alerts::of(&self.trial);
        for examples in self.examples.iter().filter(|one| one.all.iter().any(|example| example.must_match)) {
            let Some(rule) = self.trial.find(&examples.uid) else { continue };
            let told = alerts.told(config, rule.header(), "any-host");
            report.told(&examples.place.file, examples.place.line, &examples.title, None, &told);
        }
    }
}

/// What the configuration puts in force: the rules that ship, and those of files.
fn of_config(config: &Config, options: &mut Options) -> RuleFiles {
    let DetectionSettings { shipped, rule_paths, placeholders, .. } = &config.detection;
    let mut files = rule_files::read(&[&config.rule_paths[..], rule_paths].concat());
    if *shipped {
        let texts = detection_rules::shipped().iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        files.files += texts.len();
        files.sigma.splice(0..0, texts);
    }
    for (name, values) in placeholders {
        options.placeholders.entry(name.clone()).or_insert_with(|| values.clone());
    }
    files
}

/// Who would be told of the events that the rule must match.
fn told_of_row(router: &Router, rule: &FileRule, report: &mut Report) {
    let row = Rule { id: 0, draft: rule.draft.clone() };
    for event in &rule.tests.matching {
        let told = receivers(router, &row, &rule.draft.prod_handling, "any-host", event.severity);
        let message = plain(&event.message, 60);
        let told = Told { told, why_not: None, team: rule.draft.team_assignment.clone() };
        report.told(&rule.file, rule.line, &rule.name, Some(&message), &told);
    }
}

/// Which detection rules alert by themselves, and whom.
struct Alerts<'t> {
    /// Identifiers of rules that only correlations look at.
    feeding: BTreeSet<&'t str>,
}

/// Who is told of something.
struct Told {
    told: Vec<String>,
    /// Why nobody is, or would not be.
    why_not: Option<&'static str>,
    team: String,
}

impl<'t> Alerts<'t> {
    fn of(trial: &'t Trial) -> Self {
        let all = trial.rules();
        let rules = all.rules.iter().map(|rule| &rule.header).zip(all.rules_that_alert());
        let correlations = all.correlations.iter().map(|one| &one.header).zip(all.correlations_that_alert());
        let silent = rules.chain(correlations).filter(|(_, alerts)| !alerts);
        Self { feeding: silent.map(|(header, _)| &*header.uid).collect() }
    }

    fn told(&self, config: &Config, header: &rules::sigma::Header, host: &str) -> Told {
        let settings = &config.detection;
        let team = settings.policy.team.clone();
        let nobody = |why| Told { told: Vec::new(), why_not: Some(why), team: team.clone() };
        if self.feeding.contains(&*header.uid) {
            return nobody("it is counted by correlations");
        }
        let Some(told) = detection_receivers(&config.router, &settings.policy, header, host) else {
            return nobody("its level is below detection.ticket_from");
        };
        let why_not = if !pipeline::detections::on_by_default(header) {
            Some("it is off unless it is switched on")
        } else if settings.dry_run {
            Some("detection.dry_run is on")
        } else {
            None
        };
        Told { told, why_not, team }
    }
}

impl Told {
    fn as_text(&self) -> String {
        let told = if self.told.is_empty() { "nobody".to_owned() } else { self.told.join(", ") };
        match self.why_not {
            Some(why) => format!("{told} ({why})"),
            None => told,
        }
    }
}

/// One test and what came of it.
struct Outcome<'a> {
    passed: bool,
    file: &'a str,
    line: u64,
    rule: &'a str,
    uid: Option<&'a str>,
    must_match: bool,
    /// As written.
    events: Vec<&'a str>,
    why: &'a dyn Fn() -> Vec<String>,
}

#[derive(Default)]
struct Report {
    json: bool,
    explain: bool,
    text: String,
    passed: usize,
    failed: usize,
}

impl Report {
    fn add(&mut self, outcome: &Outcome<'_>) {
        let Outcome { passed, file, line, rule, must_match, .. } = *outcome;
        *if passed { &mut self.passed } else { &mut self.failed } += 1;
        let why = if !passed || self.explain { (outcome.why)() } else { Vec::new() };
        if self.json {
            const EVENTS_SHOWN_MAX: usize = 20;
            let events: Vec<&&str> = outcome.events.iter().take(EVENTS_SHOWN_MAX).collect();
            let shown = json!({
                "passed": passed, "file": file, "line": line, "rule": rule, "uid": outcome.uid,
                "must_match": must_match, "events": events, "why": why,
            });
            let _ = writeln!(self.text, "{shown}");
            return;
        }
        if passed && !self.explain {
            return;
        }
        let verdict = if passed { "ok" } else { "FAILED" };
        let wanted = if must_match { "must match" } else { "must not match" };
        let first = plain(outcome.events.first().unwrap_or(&""), 160);
        let more = match outcome.events.len() {
            0 | 1 => String::new(),
            count => format!(" … {count} events"),
        };
        let _ = writeln!(self.text, "{verdict} {file}:{line}: {rule:?} {wanted}: {first}{more}");
        for line in why {
            let _ = writeln!(self.text, "    {line}");
        }
    }

    fn told(&mut self, file: &str, line: u64, rule: &str, event: Option<&str>, told: &Told) {
        if self.json {
            let shown = json!({
                "file": file, "line": line, "rule": rule, "event": event, "team": told.team,
                "told": told.told, "why_not": told.why_not,
            });
            let _ = writeln!(self.text, "{shown}");
            return;
        }
        let event = event.map_or_else(String::new, |event| format!(": {event:?}"));
        let _ = writeln!(self.text, "{file}:{line}: {rule:?}{event} for {}: {}", told.team, told.as_text());
    }
}
