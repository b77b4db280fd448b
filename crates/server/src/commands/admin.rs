//! `muttd admin user {add,list,role,remove,key}`: through the running server, or on the opened stores. Organisations and
//! tokens are in `fleet.rs`.

use super::authority::{self, AuthorityCommand};
use super::client::Client;
use super::fleet::{self, OrgCommand, TokenCommand};
use super::{Global, block_on, out, print_failure};
use anyhow::Result;
use axum::http::Method;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct AdminArgs {
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Users of the Web API
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Organisations: whose events, rules and agents are apart from all others'
    Org {
        #[command(subcommand)]
        command: OrgCommand,
    },
    /// The authority that certifies agents
    Authority {
        #[command(subcommand)]
        command: AuthorityCommand,
    },
    /// Tokens by which agents come in
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
}

/// What a user may do.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    /// Read
    Viewer,
    /// Also change rules, hosts and teams, and replay dead letters
    Operator,
    /// Also change live settings, users and keys
    Admin,
}

impl Role {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Create a user with a first key, which is printed this once
    Add {
        name: String,
        #[arg(long)]
        role: Role,
        /// Create no key
        #[arg(long)]
        no_key: bool,
        /// Goes into the audit log
        #[arg(long)]
        reason: Option<String>,
    },
    /// All users with their keys
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Give a user another role
    Role {
        name: String,
        role: Role,
        #[arg(long)]
        reason: Option<String>,
    },
    /// Delete a user and the keys
    Remove {
        name: String,
        #[arg(long)]
        reason: Option<String>,
    },
    /// Keys of a user: several at a time, so that one can be replaced without a gap
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key, which is printed this once
    Add {
        name: String,
        /// What it is for
        #[arg(long, default_value = "")]
        label: String,
        /// When it ends, such as 2030-01-31T00:00:00Z
        #[arg(long)]
        expires_at: Option<String>,
        #[arg(long)]
        reason: Option<String>,
    },
    /// Keys of a user
    List { name: String },
    /// Revoke a key by its number
    Revoke {
        name: String,
        id: u64,
        #[arg(long)]
        reason: Option<String>,
    },
}

pub fn run(global: &Global, args: AdminArgs) -> ExitCode {
    let done = match args.command {
        AdminCommand::Authority { command } => authority::run(global, &command),
        AdminCommand::User { command } => through(global, async |client| user_act(client, command).await),
        AdminCommand::Org { command } => through(global, async |client| fleet::org(client, command).await),
        AdminCommand::Token { command } => through(global, async |client| fleet::token(client, command).await),
    };
    done.unwrap_or_else(|error| print_failure(&error))
}

fn through(global: &Global, act: impl AsyncFnOnce(&Client) -> Result<()>) -> Result<ExitCode> {
    block_on(async { act(&Client::open(global).await?).await })??;
    Ok(ExitCode::SUCCESS)
}

async fn user_act(client: &Client, command: UserCommand) -> Result<()> {
    match command {
        UserCommand::Add { name, role, no_key, reason } => {
            let body = json!({ "name": name, "role": role.as_str(), "reason": reason });
            client.send(Method::POST, "/api/v2/users", &body).await?;
            if no_key {
                out(&format!("created {name}, without a key\n"));
                return Ok(());
            }
            let key = client.send(Method::POST, &keys_of(&name), &json!({ "reason": reason })).await?;
            out(&format!("created {name} ({}); the key, shown this once:\n{}\n", role.as_str(), text(&key, "key")));
        }
        UserCommand::List { json } => {
            let users = client.get("/api/v2/users").await?;
            out(&if json { format!("{users:#}\n") } else { table(&users) });
        }
        UserCommand::Role { name, role, reason } => {
            let body = json!({ "role": role.as_str(), "reason": reason });
            client.send(Method::PUT, &user(&name), &body).await?;
            out(&format!("{name} is {} now\n", role.as_str()));
        }
        UserCommand::Remove { name, reason } => {
            client.send(Method::DELETE, &user(&name), &json!({ "reason": reason })).await?;
            out(&format!("deleted {name} and the keys\n"));
        }
        UserCommand::Key { command: KeyCommand::Add { name, label, expires_at, reason } } => {
            let body = json!({ "label": label, "expires_at": expires_at, "reason": reason });
            let key = client.send(Method::POST, &keys_of(&name), &body).await?;
            out(&format!("key {} of {name}, shown this once:\n{}\n", key["id"], text(&key, "key")));
        }
        UserCommand::Key { command: KeyCommand::List { name } } => {
            let user = client.get(&user(&name)).await?;
            out(&table(&json!({ "users": [user] })));
        }
        UserCommand::Key { command: KeyCommand::Revoke { name, id, reason } } => {
            client.send(Method::DELETE, &format!("{}/{id}", keys_of(&name)), &json!({ "reason": reason })).await?;
            out(&format!("revoked key {id} of {name}\n"));
        }
    }
    Ok(())
}

fn user(name: &str) -> String {
    format!("/api/v2/users/{}", crate::api::in_path(name))
}

fn keys_of(name: &str) -> String {
    format!("{}/keys", user(name))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("-")
}

fn table(answer: &Value) -> String {
    let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut out = format!(
        "{:<24} {:<9} {:>5}  {:<8} {:<28} {:<28} LABEL\n",
        "USER", "ROLE", "KEY", "STATE", "LAST USED", "EXPIRES"
    );
    for user in list(answer, "users") {
        let keys = list(&user, "keys");
        if keys.is_empty() {
            let _ = writeln!(out, "{:<24} {:<9} {:>5}", text(&user, "name"), text(&user, "role"), "-");
        }
        for key in keys {
            let _ = writeln!(
                out,
                "{:<24} {:<9} {:>5}  {:<8} {:<28} {:<28} {}",
                text(&user, "name"),
                text(&user, "role"),
                key["id"].as_i64().unwrap_or(0),
                text(&key, "state"),
                text(&key, "last_used_at"),
                text(&key, "expires_at"),
                text(&key, "label"),
            );
        }
    }
    out
}
