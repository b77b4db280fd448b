//! `muttd rules {list,show,set}`: detection rules of the server, how they stand, and what is said about
//! them; through the running server, or on the opened stores.

use super::super::client::Client;
use super::plain;
use crate::api::in_path;
use anyhow::{Result, bail};
use axum::http::Method;
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write as _;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    muttd rules list --state off --source shipped\n  \
    muttd rules list --tag 'attack.t1110*' --level high\n  \
    muttd rules list --text ssh --json | jq -r '.[].uid'")]
pub struct ListArgs {
    /// on, dry-run, off
    #[arg(long)]
    state: Option<String>,
    /// informational, low, medium, high, critical
    #[arg(long)]
    level: Option<String>,
    /// shipped, file (of the configuration), document (imported)
    #[arg(long)]
    source: Option<String>,
    /// rule, correlation, filter
    #[arg(long)]
    kind: Option<String>,
    /// Whole, or its beginning and `*`
    #[arg(long)]
    tag: Option<String>,
    /// Part of title, id, name or description
    #[arg(long)]
    text: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Id or name of the rule
    rule: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "What is not given stays as it is. The text of the rule is not touched.\n\n\
    Examples:\n  \
      muttd rules set ssh_distributed_brute_force --state dry-run --reason 'first a week of counting'\n  \
      muttd rules set ssh_brute_force --level medium --team SOC\n  \
      muttd rules set ssh_brute_force --default")]
pub struct SetArgs {
    /// Id or name of the rule
    rule: String,
    /// on: it alerts; dry-run: matches are counted and nobody is told; off
    #[arg(long)]
    state: Option<String>,
    /// The severity of its alerts: informational, low, medium, high, critical
    #[arg(long)]
    level: Option<String>,
    /// Who is told, whatever the host
    #[arg(long)]
    team: Option<String>,
    /// Forget what was said before: the rule stands as its author says
    #[arg(long)]
    default: bool,
    /// Goes into the audit log
    #[arg(long)]
    reason: Option<String>,
}

pub async fn list(client: &Client, args: ListArgs) -> Result<String> {
    let mut query = String::new();
    for (name, value) in [
        ("state", &args.state),
        ("level", &args.level),
        ("source", &args.source),
        ("kind", &args.kind),
        ("tag", &args.tag),
        ("text", &args.text),
    ] {
        if let Some(value) = value {
            let _ = write!(query, "&{name}={}", in_path(value));
        }
    }
    let mut rules: Vec<Value> = Vec::new();
    let mut found = Value::Null;
    for page in 1.. {
        found = client.get(&format!("/api/v2/detection/rules?limit=200&page={page}{query}")).await?;
        let rows = found["rules"].as_array().cloned().unwrap_or_default();
        let last = rows.len() < 200;
        rules.extend(rows);
        if last || rules.len() >= args.limit {
            break;
        }
    }
    rules.truncate(args.limit);
    Ok(if args.json { format!("{:#}\n", Value::Array(rules)) } else { table(&rules, &found) })
}

pub async fn show(client: &Client, args: ShowArgs) -> Result<String> {
    let rule = find(client, &args.rule).await?;
    Ok(if args.json { format!("{rule:#}\n") } else { story(&rule) })
}

pub async fn set(client: &Client, args: SetArgs) -> Result<String> {
    let SetArgs { rule, state, level, team, default, reason } = args;
    if !default && state.is_none() && level.is_none() && team.is_none() {
        bail!("say what is to change: --state, --level, --team, or --default");
    }
    let rule = find(client, &rule).await?;
    let before = &rule["setting"];
    let part = |given: Option<String>, name: &str| match given {
        Some(given) => given.into(),
        None if default => Value::Null,
        None => before[name].clone(),
    };
    let body = json!({
        "state": part(state, "state"),
        "level": part(level, "level"),
        "team": part(team, "team"),
        "expected": before,
        "reason": reason,
    });
    let uid = in_path(text(&rule, "uid"));
    let answer = client.send(Method::PUT, &format!("/api/v2/detection/rules/{uid}/setting"), &body).await?;
    let after = &answer["rule"];
    let said = &after["setting"];
    let mut shown = format!("{:?} is {}, {}", text(after, "title"), text(after, "state"), text(after, "level"));
    if let Some(team) = said["team"].as_str() {
        let _ = write!(shown, ", for {}", plain(team, 100));
    }
    if said["state"].is_null() && said["level"].is_null() && said["team"].is_null() {
        shown.push_str(" (as its author says)");
    }
    Ok(shown + "; it holds within a second\n")
}

/// The rule of this id, or of this name.
async fn find(client: &Client, wanted: &str) -> Result<Value> {
    let named = client.get(&format!("/api/v2/detection/rules?limit=200&text={}", in_path(wanted))).await?;
    let rows = named["rules"].as_array().cloned().unwrap_or_default();
    let by = |key: &str| rows.iter().find(|row| row[key] == wanted).map(|row| text(row, "uid").to_owned());
    let Some(uid) = by("uid").or_else(|| by("name")) else {
        let like: Vec<String> =
            rows.iter().take(5).map(|row| format!("{} ({})", text(row, "uid"), text(row, "title"))).collect();
        let hint = if like.is_empty() { String::new() } else { format!("; there are {}", like.join(", ")) };
        bail!("there is no detection rule with the id or name `{}`{}", plain(wanted, 100), plain(&hint, 1_000));
    };
    client.get(&format!("/api/v2/detection/rules/{}", in_path(&uid))).await
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("-")
}

fn table(rules: &[Value], found: &Value) -> String {
    let mut table = format!("{:<8} {:<13} {:<9} {:>9} {:<38} TITLE\n", "STATE", "LEVEL", "SOURCE", "MATCHES", "ID");
    for row in rules {
        let matches = row["counts"]["matches"].as_u64().map_or_else(|| "-".to_owned(), |count| count.to_string());
        let paused = if row["counts"]["paused_until"].is_string() { " (paused)" } else { "" };
        let _ = writeln!(
            table,
            "{:<8} {:<13} {:<9} {matches:>9} {:<38} {}{paused}",
            text(row, "state"),
            text(row, "level"),
            text(&row["origin"], "source"),
            plain(text(row, "uid"), 60),
            plain(text(row, "title"), 80),
        );
    }
    let states = &found["states"];
    let _ = writeln!(
        table,
        "{} in all: {} on, {} in dry run, {} off",
        found["pagination"]["total"], states["on"], states["dry-run"], states["off"]
    );
    for uid in found["unknown"].as_array().into_iter().flatten().filter_map(Value::as_str).take(20) {
        let _ = writeln!(table, "note: something is said about {}, and there is no such rule", plain(uid, 100));
    }
    table
}

fn story(rule: &Value) -> String {
    let mut story = format!("{} ({})\n", plain(text(rule, "title"), 200), plain(text(rule, "uid"), 100));
    let mut line = |name: &str, said: String| _ = writeln!(story, "  {name:<16} {}", plain(&said, 600));
    let why = match text(rule, "why") {
        "status" => format!(" (its author calls it {})", text(rule, "status")),
        "setting" => " (as was said)".to_owned(),
        "server-dry-run" => " (detection.dry_run is on)".to_owned(),
        _ => String::new(),
    };
    line("state", format!("{}{why}", text(rule, "state")));
    if rule["held_back"] == true {
        line("", "a correlation looks at it, so it does not alert by itself".to_owned());
    }
    let own = if rule["level"] == rule["own_level"] {
        String::new()
    } else {
        format!(" (its own: {})", text(rule, "own_level"))
    };
    line("level", format!("{}{own}", text(rule, "level")));
    if let Some(team) = rule["setting"]["team"].as_str() {
        line("team", team.to_owned());
    }
    line("from", format!("{} {}:{}", text(&rule["origin"], "source"), text(&rule["origin"], "name"), rule["line"]));
    if rule["replaces"].is_object() {
        line("in place of", format!("{} {}", text(&rule["replaces"], "source"), text(&rule["replaces"], "name")));
    }
    if let Some(matches) = rule["counts"]["matches"].as_u64() {
        line("matches", format!("{matches} since the start of the server"));
    }
    if let Some(until) = rule["counts"]["paused_until"].as_str() {
        line("paused", format!("until {until}"));
    }
    for (name, key) in [("description", "description"), ("author", "author"), ("date", "date")] {
        if let Some(said) = rule[key].as_str().filter(|said| !said.is_empty()) {
            line(name, said.to_owned());
        }
    }
    for (name, key) in [
        ("tags", "tags"),
        ("references", "references"),
        ("false positives", "false_positives"),
        ("not fed by", "inputs_off"),
    ] {
        let all: Vec<&str> = rule[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !all.is_empty() {
            line(name, all.join(", "));
        }
    }
    for said in rule["explanation"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let _ = writeln!(story, "    {}", plain(said, 300));
    }
    story.push('\n');
    for said in text(rule, "text").lines() {
        let _ = writeln!(story, "{}", plain(said, 2_000));
    }
    story
}
