//! `muttd incident {list,show,ack,assign,resolve,dismiss,reopen,comment}`: through the running server, or
//! on the opened stores.

use super::client::Client;
use super::{Global, block_on, out, plain, print_failure};
use anyhow::Result;
use axum::http::Method;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct IncidentArgs {
    #[command(subcommand)]
    command: IncidentCommand,
}

#[derive(Debug, Subcommand)]
enum IncidentCommand {
    /// Incidents by their last alert, newest first
    List {
        /// open, closed, ACTIVE, ACKNOWLEDGED, RESOLVED or DISMISSED
        #[arg(long, default_value = "open")]
        status: String,
        #[arg(long)]
        team: Option<String>,
        #[arg(long)]
        host: Option<String>,
        /// Id of the rule
        #[arg(long)]
        rule: Option<String>,
        #[arg(long)]
        assignee: Option<String>,
        /// Of this organisation
        #[arg(long, default_value = model::OrgId::DEFAULT)]
        org: String,
        /// At most so many, up to 200
        #[arg(long, default_value_t = 50)]
        limit: u64,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// One, with its last alerts and what was done with it
    Show {
        id: u64,
        /// Of this organisation
        #[arg(long, default_value = model::OrgId::DEFAULT)]
        org: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Say that somebody looks at it: no repeats, no escalation
    Ack(Change),
    /// Make it somebody's, or with no name nobody's
    Assign {
        id: u64,
        name: Option<String>,
        #[arg(long)]
        comment: Option<String>,
    },
    /// It is over
    Resolve(Change),
    /// It was nothing
    Dismiss(Change),
    /// It is not over
    Reopen(Change),
    /// Only say something
    Comment { id: u64, comment: String },
}

#[derive(Debug, Args)]
struct Change {
    id: u64,
    /// Stays with the incident and in the audit log
    #[arg(long)]
    comment: Option<String>,
}

pub fn run(global: &Global, args: IncidentArgs) -> ExitCode {
    match block_on(act(global, args.command)) {
        Ok(Ok(text)) => {
            out(&text);
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => print_failure(&error),
        Err(error) => print_failure(&error.into()),
    }
}

async fn act(global: &Global, command: IncidentCommand) -> Result<String> {
    let client = Client::open(global).await?;
    let change = |id: u64, action: &str, assignee: Option<String>, comment: Option<String>| {
        let body = json!({ "action": action, "assignee": assignee, "comment": comment });
        let client = &client;
        async move { client.send(Method::POST, &format!("/api/v2/incidents/{id}"), &body).await }
    };
    let after = match command {
        IncidentCommand::List { status, team, host, rule, assignee, org, limit, json } => {
            let (status, org) = (crate::api::in_path(&status), crate::api::in_path(&org));
            let mut path = format!("/api/v2/incidents?limit={limit}&status={status}&org={org}");
            for (name, value) in [("team", team), ("host", host), ("rule", rule), ("assignee", assignee)] {
                if let Some(value) = value {
                    let _ = write!(path, "&{name}={}", crate::api::in_path(&value));
                }
            }
            let found = client.get(&path).await?;
            return Ok(if json { format!("{found:#}\n") } else { table(&found) });
        }
        IncidentCommand::Show { id, org, json } => {
            let path = format!("/api/v2/incidents/{id}?org={}", crate::api::in_path(&org));
            let incident = client.get(&path).await?;
            return Ok(if json { format!("{incident:#}\n") } else { story(&incident) });
        }
        IncidentCommand::Ack(Change { id, comment }) => change(id, "acknowledge", None, comment).await?,
        IncidentCommand::Assign { id, name, comment } => change(id, "assign", name, comment).await?,
        IncidentCommand::Resolve(Change { id, comment }) => change(id, "resolve", None, comment).await?,
        IncidentCommand::Dismiss(Change { id, comment }) => change(id, "dismiss", None, comment).await?,
        IncidentCommand::Reopen(Change { id, comment }) => change(id, "reopen", None, comment).await?,
        IncidentCommand::Comment { id, comment } => change(id, "comment", None, Some(comment)).await?,
    };
    let whose = after["assignee"].as_str().map_or_else(String::new, |name| format!(", {name}'s"));
    Ok(format!("incident {} is {}{whose}\n", after["id"], text(&after, "status")))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("-")
}

fn table(found: &Value) -> String {
    let mut table =
        format!("{:>6} {:<12} {:<8} {:>7} {:<27} {:<16} TITLE\n", "ID", "STATUS", "SEVERITY", "ALERTS", "LAST", "TEAM");
    for row in found["incidents"].as_array().into_iter().flatten() {
        let _ = writeln!(
            table,
            "{:>6} {:<12} {:<8} {:>7} {:<27} {:<16} {}",
            row["id"].as_i64().unwrap_or(0),
            text(row, "status"),
            text(row, "severity"),
            row["alerts"].as_u64().unwrap_or(0),
            text(row, "last_seen"),
            plain(text(row, "team"), 16),
            plain(text(row, "title"), 60),
        );
    }
    let _ = writeln!(table, "{} in all", found["pagination"]["total"]);
    table
}

fn story(incident: &Value) -> String {
    let mut story = format!(
        "incident {} is {}: {}\n",
        incident["id"],
        text(incident, "status"),
        plain(text(incident, "title"), 300)
    );
    for key in [
        "severity",
        "rule_uid",
        "team",
        "host",
        "first_seen",
        "last_seen",
        "assignee",
        "acknowledged_by",
        "acknowledged_at",
        "closed_by",
        "closed_at",
        "comment",
        "last_told",
        "told_at",
        "resolve_at",
        "escalate_at",
    ] {
        if let Some(value) = incident[key].as_str() {
            let _ = writeln!(story, "  {key:<16} {}", plain(value, 300));
        }
    }
    let _ = writeln!(
        story,
        "  {:<16} {} ({} told, {} silenced)",
        "alerts", incident["alerts"], incident["told"], incident["silenced"]
    );
    for alert in incident["last_alerts"].as_array().into_iter().flatten() {
        let (at, state, message) = (text(alert, "created_at"), text(alert, "state"), text(alert, "message"));
        let _ = writeln!(story, "  {at}  {state:<9} {}", plain(message, 120));
    }
    for change in incident["history"].as_array().into_iter().flatten() {
        let (at, by) = (text(change, "at"), text(change, "by"));
        let comment = change["comment"].as_str().map_or_else(String::new, |said| format!(": {said}"));
        let _ = writeln!(
            story,
            "  {at}  {} -> {} by {}{}",
            text(&change["before"], "status"),
            text(&change["after"], "status"),
            plain(by, 64),
            plain(&comment, 200)
        );
    }
    story
}
