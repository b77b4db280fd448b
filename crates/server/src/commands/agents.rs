//! `muttd agents {list,show,test,revoke,remove}`: through the running server, or on the opened stores.

use super::agent_test::{self, TestArgs};
use super::client::Client;
use super::{Global, block_on, out, plain, print_failure};
use anyhow::{Result, bail};
use axum::http::Method;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct AgentsArgs {
    #[command(subcommand)]
    command: AgentsCommand,
}

#[derive(Debug, Subcommand)]
enum AgentsCommand {
    #[command(flatten)]
    Api(ApiCommand),
    /// Test whether the gateway answers, takes a token, and keeps an event
    Test(TestArgs),
}

#[derive(Debug, Subcommand)]
enum ApiCommand {
    /// Agents by host: state, version, how far behind, when they were seen last
    #[command(
        after_help = "States: online; offline (not seen for longer than it may be silent); pending (enrolled, never\n\
        seen); revoked. BEHIND is the age of the oldest record that waits on the host; GIVEN UP counts records that it\n\
        had to drop."
    )]
    List {
        /// Part of the host's name
        #[arg(long)]
        host: Option<String>,
        /// online, offline, pending or revoked
        #[arg(long)]
        state: Option<String>,
        /// The organisation
        #[arg(long, default_value = model::OrgId::DEFAULT)]
        org: String,
        /// Page, from 1
        #[arg(long, default_value_t = 1)]
        page: u64,
        /// At most so many, up to 200
        #[arg(long, default_value_t = 200)]
        limit: u64,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// One, by host or id (agt_…): what cannot run there, and what it gave up
    Show {
        agent: String,
        #[arg(long, default_value = model::OrgId::DEFAULT)]
        org: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Throw an agent out: its certificate counts no more, within seconds everywhere
    Revoke(Change),
    /// Forget an agent that is revoked or offline, so that its host can come in anew
    Remove(Change),
}

#[derive(Debug, Args)]
struct Change {
    /// Host or id (agt_…)
    agent: String,
    #[arg(long, default_value = model::OrgId::DEFAULT)]
    org: String,
    /// Stays with the agent and in the audit log
    #[arg(long)]
    reason: Option<String>,
}

pub fn run(global: &Global, args: AgentsArgs) -> ExitCode {
    match block_on(act(global, args.command)) {
        Ok(Ok(text)) => {
            out(&text);
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => print_failure(&error),
        Err(error) => print_failure(&error.into()),
    }
}

async fn act(global: &Global, command: AgentsCommand) -> Result<String> {
    let command = match command {
        // It asks the gateway, not the API.
        AgentsCommand::Test(args) => {
            return agent_test::run(args, &mut std::io::stdout()).await.map(|()| String::new());
        }
        AgentsCommand::Api(command) => command,
    };
    let client = Client::open(global).await?;
    match command {
        ApiCommand::List { host, state, org, page, limit, json } => {
            let mut path = format!("/api/v2/agents?page={page}&limit={limit}&org={}", crate::api::in_path(&org));
            for (name, value) in [("host", host), ("state", state)] {
                if let Some(value) = value {
                    let _ = write!(path, "&{name}={}", crate::api::in_path(&value));
                }
            }
            let found = client.get(&path).await?;
            Ok(if json { format!("{found:#}\n") } else { table(&found) })
        }
        ApiCommand::Show { agent, org, json } => {
            let found = find(&client, &agent, &org).await?;
            Ok(if json { format!("{found:#}\n") } else { whole(&found) })
        }
        ApiCommand::Revoke(Change { agent, org, reason }) => {
            let found = find(&client, &agent, &org).await?;
            let path = of(text(&found, "id"), "/revoke", &org);
            client.send(Method::POST, &path, &json!({ "reason": reason })).await?;
            Ok(format!("revoked the agent of {} ({})\n", plain(text(&found, "host"), 255), text(&found, "id")))
        }
        ApiCommand::Remove(Change { agent, org, reason }) => {
            let found = find(&client, &agent, &org).await?;
            let path = of(text(&found, "id"), "", &org);
            client.send(Method::DELETE, &path, &json!({ "reason": reason })).await?;
            Ok(format!("removed the agent of {} ({})\n", plain(text(&found, "host"), 255), text(&found, "id")))
        }
    }
}

fn of(id: &str, action: &str, org: &str) -> String {
    format!("/api/v2/agents/{}{action}?org={}", crate::api::in_path(id), crate::api::in_path(org))
}

/// An agent by its id, or by its host: of several, the one that is not revoked.
async fn find(client: &Client, agent: &str, org: &str) -> Result<Value> {
    if agent.starts_with("agt_") {
        return client.get(&of(agent, "", org)).await;
    }
    let (host, org_named) = (crate::api::in_path(agent), crate::api::in_path(org));
    let mut revoked: Vec<Value> = Vec::new();
    for page in 1.. {
        let found = client.get(&format!("/api/v2/agents?host={host}&org={org_named}&page={page}&limit=200")).await?;
        let rows = found["agents"].as_array().cloned().unwrap_or_default();
        if rows.is_empty() {
            break;
        }
        for row in rows.into_iter().filter(|row| row["host"] == agent) {
            if row["state"] != "revoked" {
                return Ok(row);
            }
            revoked.push(row);
        }
    }
    match revoked.len() {
        0 => bail!(
            "there is no agent of a host `{}` in {org}; `muttd agents list` shows those there are",
            plain(agent, 100)
        ),
        1 => Ok(revoked.remove(0)),
        n => bail!("{n} agents of this host are revoked; name one by its id (`muttd agents list --state revoked`)"),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("-")
}

fn number(value: &Value, key: &str) -> String {
    value[key].as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn behind(agent: &Value) -> String {
    match agent["lag_ms"].as_u64() {
        None => "-".to_owned(),
        Some(ms @ 0..10_000) => format!("{ms} ms"),
        Some(ms) => format!("{} s", ms / 1_000),
    }
}

fn table(found: &Value) -> String {
    let mut table = format!(
        "{:<32} {:<8} {:<12} {:>9} {:>8} {:>8}  {:<27} ID\n",
        "HOST", "STATE", "VERSION", "BEHIND", "WAITING", "GIVEN UP", "LAST SEEN"
    );
    for agent in found["agents"].as_array().into_iter().flatten() {
        let _ = writeln!(
            table,
            "{:<32} {:<8} {:<12} {:>9} {:>8} {:>8}  {:<27} {}",
            plain(text(agent, "host"), 255),
            text(agent, "state"),
            plain(text(agent, "version"), 32),
            behind(agent),
            number(agent, "spool_records"),
            number(agent, "dropped_records"),
            text(agent, "last_seen_at"),
            text(agent, "id"),
        );
    }
    let states = &found["states"];
    let _ = writeln!(
        table,
        "{} match; in all {} online, {} offline, {} pending, {} revoked",
        found["pagination"]["total"], states["online"], states["offline"], states["pending"], states["revoked"]
    );
    table
}

fn whole(agent: &Value) -> String {
    let mut whole = format!("{} is {}\n", plain(text(agent, "host"), 255), text(agent, "state"));
    for key in [
        "id",
        "version",
        "os_type",
        "os_version",
        "hostname",
        "ip_address",
        "machine_id",
        "enrolled_at",
        "last_seen_at",
        "certificate_ends_at",
        "revoked_at",
        "revoked_why",
    ] {
        if let Some(value) = agent[key].as_str().filter(|value| !value.is_empty()) {
            let _ = writeln!(whole, "  {key:<20} {}", plain(value, 300));
        }
    }
    let _ = writeln!(whole, "  {:<20} {}", "behind", behind(agent));
    for key in ["spool_records", "spool_bytes", "dropped_records", "rss_bytes", "token_id"] {
        let _ = writeln!(whole, "  {key:<20} {}", number(agent, key));
    }
    let capabilities = agent["capabilities"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let capabilities: Vec<String> = capabilities.map(|name| plain(name, 64)).collect();
    let _ = writeln!(whole, "  {:<20} {}", "capabilities", capabilities.join(" "));
    for (key, title) in [("collectors_that_cannot_run", "cannot run"), ("dropped", "given up")] {
        for (name, said) in agent[key].as_object().into_iter().flatten() {
            let said = said.as_str().map_or_else(|| said.to_string(), str::to_owned);
            let _ = writeln!(whole, "  {title:<20} {}: {}", plain(name, 64), plain(&said, 300));
        }
    }
    whole
}
