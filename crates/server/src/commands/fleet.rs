//! `muttd admin org {create,list,change}` and `muttd admin token {create,list,revoke,rotate}`: through the running server,
//! or on the opened stores.

use super::client::Client;
use super::{out, plain};
use crate::agent_tokens::{install_command, installer_sha256, is_gateway};
use anyhow::{Result, bail};
use axum::http::Method;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::Write as _;

#[derive(Debug, Subcommand)]
pub enum OrgCommand {
    /// Create an organisation: it has its own agents, tokens, users and events
    #[command(after_help = "Example: muttd admin org create acme --title \"Acme Ltd\" --agents-max 50")]
    Create {
        /// 1 to 64 of a-z, 0-9 and -
        id: String,
        /// Its name for people
        #[arg(long, default_value = "")]
        title: String,
        /// Agents that it may have; any number if not given
        #[arg(long, value_name = "N")]
        agents_max: Option<u32>,
        /// Goes into the audit log
        #[arg(long)]
        reason: Option<String>,
    },
    /// All organisations
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Change what is given
    Change {
        id: String,
        #[arg(long)]
        title: Option<String>,
        /// A number, or `any`
        #[arg(long, value_name = "N|any", value_parser = agents_max)]
        agents_max: Option<AgentsMax>,
        /// Let nobody of it in: no agent, no token, no user; nothing is removed
        #[arg(long, conflicts_with = "enable")]
        disable: bool,
        /// Let them in again
        #[arg(long)]
        enable: bool,
        #[arg(long)]
        reason: Option<String>,
    },
}

/// `None`: any number.
#[derive(Debug, Clone, Copy)]
pub struct AgentsMax(Option<u32>);

fn agents_max(text: &str) -> Result<AgentsMax, String> {
    match text {
        "any" => Ok(AgentsMax(None)),
        text => text.parse().map(|n| AgentsMax(Some(n))).map_err(|_| "a whole number, or `any`".to_owned()),
    }
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token by which an agent comes in; it is printed this once
    #[command(after_help = "The token alone goes to standard output, so a script can take it:\n  \
        SM_TOKEN=$(muttd admin token create --host web-1)\n\
        How to install an agent with it goes to standard error. Whoever has a token can add agents: treat it as a\n\
        password. With --host it is for that host only, and for one agent.")]
    Create(Create),
    /// Tokens of an organisation, newest first; none can be shown again
    List {
        #[command(flatten)]
        org: Org,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token by its number; agents that it let in stay (`muttd agents revoke` throws one out)
    Revoke {
        id: u64,
        #[command(flatten)]
        org: Org,
        #[arg(long)]
        reason: Option<String>,
    },
    /// Make a token in place of another, which goes on for a while
    Rotate {
        id: u64,
        #[command(flatten)]
        org: Org,
        /// Days that the new one lasts
        #[arg(long, value_name = "DAYS", default_value_t = 90)]
        expires_days: u32,
        /// Hours that the old one goes on at most
        #[arg(long, value_name = "HOURS", default_value_t = 24)]
        overlap_hours: u32,
        #[command(flatten)]
        gateway: Gateway,
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    org: Org,
    /// Only for the agent of this host
    #[arg(long)]
    host: Option<String>,
    /// What it is for
    #[arg(long, default_value = "")]
    label: String,
    /// For old agents, too: they show it at each connection, and have no certificate
    #[arg(long)]
    legacy: bool,
    /// Days that it lasts
    #[arg(long, value_name = "DAYS", default_value_t = 90)]
    expires_days: u32,
    /// Agents that it lets in at most [default: 1 with --host, else any number]
    #[arg(long, value_name = "N")]
    uses: Option<u32>,
    #[command(flatten)]
    gateway: Gateway,
    /// Goes into the audit log
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Debug, Args)]
pub struct Org {
    /// The organisation
    #[arg(long, default_value = model::OrgId::DEFAULT)]
    org: String,
}

#[derive(Debug, Args)]
pub struct Gateway {
    /// Where hosts reach the gateway, for the command that is shown [default: the setting ingest.agents.public_address, else
    /// this host's name and the gateway's port]
    #[arg(long, value_name = "NAME[:PORT]")]
    gateway: Option<String>,
}

impl Gateway {
    /// With the address and the port that count where none is given.
    fn address(&self, known: Option<&str>, port: u64) -> Result<String> {
        let name = match (&self.gateway, known) {
            (Some(name), _) => name.clone(),
            (None, Some(known)) => known.to_owned(),
            (None, None) => std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
        };
        let has_port = name.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        let address = if has_port { name } else { format!("{name}:{port}") };
        if !is_gateway(&address) {
            bail!("`{}` is no name or address of a gateway; give one with --gateway", plain(&address, 100));
        }
        Ok(address)
    }
}

pub async fn org(client: &Client, command: OrgCommand) -> Result<()> {
    match command {
        OrgCommand::Create { id, title, agents_max, reason } => {
            let body = json!({ "id": id, "title": title, "agents_max": agents_max, "reason": reason });
            client.send(Method::POST, "/api/v2/orgs", &body).await?;
            out(&format!("created {id}; `muttd admin token create --org {id}` makes a token for its first agent\n"));
        }
        OrgCommand::List { json } => {
            let orgs = client.get("/api/v2/orgs").await?;
            out(&if json { format!("{orgs:#}\n") } else { orgs_table(&orgs) });
        }
        OrgCommand::Change { id, title, agents_max, disable, enable, reason } => {
            let mut body = Map::new();
            if let Some(title) = title {
                body.insert("title".into(), title.into());
            }
            if let Some(AgentsMax(max)) = agents_max {
                body.insert("agents_max".into(), max.into());
            }
            if disable || enable {
                body.insert("disabled".into(), disable.into());
            }
            if body.is_empty() {
                bail!("nothing is to be changed: give --title, --agents-max, --disable or --enable");
            }
            body.insert("reason".into(), reason.into());
            let path = format!("/api/v2/orgs/{}", crate::api::in_path(&id));
            let org = client.send(Method::PATCH, &path, &Value::Object(body)).await?;
            out(&orgs_table(&json!({ "orgs": [org] })));
        }
    }
    Ok(())
}

pub async fn token(client: &Client, command: TokenCommand) -> Result<()> {
    match command {
        TokenCommand::Create(create) => {
            create.gateway.address(None, 1)?;
            let body = json!({
                "host": create.host,
                "label": create.label,
                "legacy": create.legacy,
                "expires_in_days": create.expires_days,
                "reason": create.reason,
            });
            let mut body = body;
            if let Some(uses) = create.uses {
                body["uses_max"] = uses.into();
            }
            let made = client.send(Method::POST, &tokens_of(&create.org), &body).await?;
            show(&made, &create.gateway)?;
        }
        TokenCommand::List { org, json } => {
            let tokens = client.get(&tokens_of(&org)).await?;
            out(&if json { format!("{tokens:#}\n") } else { tokens_table(&tokens) });
        }
        TokenCommand::Revoke { id, org, reason } => {
            client.send(Method::DELETE, &format!("{}/{id}", tokens_of(&org)), &json!({ "reason": reason })).await?;
            out(&format!("revoked token {id}; agents that it let in stay\n"));
        }
        TokenCommand::Rotate { id, org, expires_days, overlap_hours, gateway, reason } => {
            gateway.address(None, 1)?;
            let body = json!({ "expires_in_days": expires_days, "overlap_hours": overlap_hours, "reason": reason });
            let made = client.send(Method::POST, &format!("{}/{id}/rotate", tokens_of(&org)), &body).await?;
            show(&made, &gateway)?;
        }
    }
    Ok(())
}

fn tokens_of(org: &Org) -> String {
    format!("/api/v2/orgs/{}/tokens", crate::api::in_path(&org.org))
}

/// The token, and how to install an agent with it.
fn show(made: &Value, gateway: &Gateway) -> Result<()> {
    let token = text(made, "token");
    out(&format!("{token}\n"));
    let address = gateway.address(made["gateway"].as_str(), made["gateway_port"].as_u64().unwrap_or_default())?;
    let mut err = std::io::stderr().lock();
    let _ = writeln!(
        err,
        "This is token {}, shown this once; it ends at {}. On the host, as somebody who may use sudo:\n\n{}\n\n\
         SHA-256 of the installer of this version: {}",
        made["id"],
        text(made, "expires_at"),
        install_command(token, &address),
        installer_sha256()
    );
    Ok(())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("-")
}

fn orgs_table(answer: &Value) -> String {
    let mut table = format!("{:<24} {:<9} {:>10}  {:<27} TITLE\n", "ORG", "STATE", "AGENTS MAX", "CREATED");
    for org in answer["orgs"].as_array().into_iter().flatten() {
        let _ = writeln!(
            table,
            "{:<24} {:<9} {:>10}  {:<27} {}",
            text(org, "id"),
            if org["disabled"] == true { "disabled" } else { "enabled" },
            org["agents_max"].as_u64().map_or_else(|| "any".to_owned(), |max| max.to_string()),
            text(org, "created_at"),
            plain(text(org, "title"), 100),
        );
    }
    table
}

fn tokens_table(answer: &Value) -> String {
    let mut table = format!(
        "{:>6} {:<8} {:>9} {:<6} {:<24} {:<27} {:<27} LABEL\n",
        "TOKEN", "STATE", "USES", "LEGACY", "HOST", "EXPIRES", "LAST USED"
    );
    for token in answer["tokens"].as_array().into_iter().flatten() {
        let max = token["uses_max"].as_u64().map_or_else(|| "any".to_owned(), |max| max.to_string());
        let _ = writeln!(
            table,
            "{:>6} {:<8} {:>9} {:<6} {:<24} {:<27} {:<27} {}",
            token["id"].as_i64().unwrap_or(0),
            text(token, "state"),
            format!("{}/{max}", token["uses"]),
            if token["legacy"] == true { "yes" } else { "no" },
            plain(text(token, "host"), 64),
            text(token, "expires_at"),
            text(token, "last_used_at"),
            plain(text(token, "label"), 100),
        );
    }
    table
}
