//! `muttd silence {add,list,expire}`: through the running server, or on the opened stores.

use super::client::Client;
use super::{Global, block_on, out, print_failure};
use anyhow::{Result, bail};
use axum::http::Method;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct SilenceArgs {
    #[command(subcommand)]
    command: SilenceCommand,
}

#[derive(Debug, Subcommand)]
enum SilenceCommand {
    /// Nobody is told of these alerts for a time; they are kept
    Add(Box<AddArgs>),
    /// Silences that are not over
    List {
        /// Those that are over, too
        #[arg(long)]
        all: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// End one now
    Expire {
        id: u64,
        /// Goes into the audit log
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Debug, Args)]
struct AddArgs {
    /// Patterns with * and ?; each option may be given more than once
    #[arg(long)]
    host: Vec<String>,
    #[arg(long)]
    team: Vec<String>,
    /// Id or title of a detection rule, or the number of a rule
    #[arg(long)]
    rule: Vec<String>,
    #[arg(long)]
    tag: Vec<String>,
    /// rule, detection, unhandled
    #[arg(long)]
    kind: Vec<String>,
    /// This or worse
    #[arg(long)]
    severity: Option<String>,
    /// How long, such as 2h
    #[arg(long = "for", value_name = "TIME", conflicts_with = "until")]
    lasts: Option<String>,
    /// Until when, such as 2030-01-31T00:00:00Z
    #[arg(long)]
    until: Option<String>,
    /// From when, if not from now
    #[arg(long)]
    from: Option<String>,
    /// Why: those who miss an alert will ask
    #[arg(long)]
    reason: String,
}

pub fn run(global: &Global, args: SilenceArgs) -> ExitCode {
    match block_on(act(global, args.command)) {
        Ok(Ok(text)) => {
            out(&text);
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => print_failure(&error),
        Err(error) => print_failure(&error.into()),
    }
}

async fn act(global: &Global, command: SilenceCommand) -> Result<String> {
    let client = Client::open(global).await?;
    match command {
        SilenceCommand::Add(args) => {
            let made = client.send(Method::POST, "/api/v2/silences", &draft(*args)?).await?;
            Ok(format!("silence {} until {}\n", made["id"], made["until"].as_str().unwrap_or("-")))
        }
        SilenceCommand::List { all, json } => {
            let found = client.get(&format!("/api/v2/silences?limit=200&all={all}")).await?;
            Ok(if json { format!("{found:#}\n") } else { table(&found) })
        }
        SilenceCommand::Expire { id, reason } => {
            client.send(Method::DELETE, &format!("/api/v2/silences/{id}"), &json!({ "reason": reason })).await?;
            Ok(format!("silence {id} is over\n"))
        }
    }
}

fn draft(args: AddArgs) -> Result<Value> {
    let mut matcher = Map::new();
    for (name, texts) in
        [("host", args.host), ("team", args.team), ("rule", args.rule), ("tag", args.tag), ("kind", args.kind)]
    {
        if !texts.is_empty() {
            matcher.insert(name.to_owned(), texts.into());
        }
    }
    if let Some(severity) = args.severity {
        matcher.insert("severity".to_owned(), severity.into());
    }
    if matcher.is_empty() {
        bail!("say which alerts: --host, --team, --rule, --tag, --kind, --severity (--host '*' is all)");
    }
    let mut draft = json!({ "match": matcher, "reason": args.reason });
    for (name, value) in [("for", args.lasts), ("until", args.until), ("from", args.from)] {
        if let Some(value) = value {
            draft[name] = value.into();
        }
    }
    Ok(draft)
}

fn table(found: &Value) -> String {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or("-").to_owned();
    let mut table = format!("{:>5} {:<8} {:<28} {:<28} {:<16} MATCH, REASON\n", "ID", "STATE", "FROM", "UNTIL", "BY");
    for row in found["silences"].as_array().into_iter().flatten() {
        let _ = writeln!(
            table,
            "{:>5} {:<8} {:<28} {:<28} {:<16} {} {}",
            row["id"].as_i64().unwrap_or(0),
            text(row, "state"),
            text(row, "from"),
            text(row, "until"),
            text(row, "author"),
            row["match"],
            text(row, "reason"),
        );
    }
    table
}
