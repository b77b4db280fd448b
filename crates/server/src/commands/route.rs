//! `muttd route {show,test}`: the routing tree of the configuration; needs no server. Silences are not
//! asked: they are the server's.

use super::{Global, out, print_failure, print_problems};
use crate::routing::{SampleAlert, tree_shown, verdict_shown, verdict_text};
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use model::OrgId;
use pipeline::notify::{RouteView, Router};
use runtime::{Clock, SystemClock};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct RouteArgs {
    #[command(subcommand)]
    command: RouteCommand,
}

#[derive(Debug, Subcommand)]
enum RouteCommand {
    /// The routing tree as it is configured
    Show {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Who would be told of an alert, and by which route
    Test(Box<TestArgs>),
}

#[derive(Debug, Args)]
struct TestArgs {
    /// An alert as the API shows it, or parts of one; `-` reads standard input
    #[arg(long, value_name = "FILE.json")]
    alert: Option<PathBuf>,
    #[arg(long)]
    org: Option<String>,
    /// low, medium, high, critical, or Minor, Warning, Major, Critical
    #[arg(long)]
    severity: Option<String>,
    #[arg(long)]
    team: Option<String>,
    /// Such as attack.t1110; more than once
    #[arg(long = "tag")]
    tags: Vec<String>,
    /// Id of a detection rule
    #[arg(long)]
    rule: Option<String>,
    /// Number of a rule of MUTT
    #[arg(long)]
    rule_id: Option<i64>,
    #[arg(long)]
    host: Option<String>,
    /// rule, detection, unhandled, escalation
    #[arg(long)]
    kind: Option<String>,
    #[arg(long)]
    handling: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub fn run(global: &Global, args: RouteArgs) -> ExitCode {
    let loaded = match global.load_installed() {
        Ok(loaded) => loaded,
        Err(problems) => return print_problems(&problems),
    };
    let router = &loaded.config.router;
    let done = match args.command {
        RouteCommand::Show { json: true } => Ok(format!("{:#}\n", tree_shown(router))),
        RouteCommand::Show { json: false } => Ok(tree_text(router)),
        RouteCommand::Test(args) => test(router, *args),
    };
    match done {
        Ok(text) => {
            out(&text);
            ExitCode::SUCCESS
        }
        Err(error) => print_failure(&error),
    }
}

fn test(router: &Router, args: TestArgs) -> Result<String> {
    let mut sample = match &args.alert {
        Some(file) => read(file)?,
        None => SampleAlert::default(),
    };
    for (given, part) in [
        (args.org, &mut sample.org),
        (args.severity, &mut sample.severity),
        (args.team, &mut sample.team),
        (args.rule, &mut sample.rule),
        (args.host, &mut sample.host),
        (args.kind, &mut sample.kind),
        (args.handling, &mut sample.handling),
    ] {
        if given.is_some() {
            *part = given;
        }
    }
    sample.rule_id = args.rule_id.or(sample.rule_id);
    sample.tags.extend(args.tags);
    let alert = sample.alert(&OrgId::default(), SystemClock.now()).map_err(anyhow::Error::msg)?;
    Ok(if args.json { format!("{:#}\n", verdict_shown(router, &alert)) } else { verdict_text(router, &alert) })
}

fn read(file: &PathBuf) -> Result<SampleAlert> {
    let named = || format!("failed to read `{}`", file.display());
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin().lock()).with_context(named)?
    } else {
        std::fs::read_to_string(file).with_context(named)?
    };
    serde_json::from_str(&text).with_context(|| format!("`{}` is not an alert", file.display()))
}

fn tree_text(router: &Router) -> String {
    fn below(route: RouteView<'_>, depth: usize, all: &[String], text: &mut String) {
        let matcher = serde_json::to_string(route.matcher()).unwrap_or_default();
        let told = route.policy().channels.as_deref().unwrap_or(all);
        let told = if told.is_empty() { "nobody".to_owned() } else { told.join(", ") };
        let goes_on = if route.goes_on() { " and on" } else { "" };
        let name = if route.name().is_empty() { route.path() } else { route.name() };
        text.push_str(&format!("{:indent$}{name}: {matcher} -> {told}{goes_on}\n", "", indent = depth * 2));
        for route in route.routes() {
            below(route, depth + 1, all, text);
        }
    }
    let all = router.channels();
    let told = if all.is_empty() { "nobody: no channel is configured".to_owned() } else { all.join(", ") };
    let mut text = format!("everybody: -> {told}\n");
    for route in router.routes() {
        below(route, 1, all, &mut text);
    }
    for note in router.notes() {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}
