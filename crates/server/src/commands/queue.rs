//! `muttd queue {ls,peek,replay,doctor}`.

use super::client::Client;
use super::{Global, block_on, out, print_failure};
use anyhow::Result;
use axum::http::Method;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

/// A queue by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Name {
    Ingest,
    Alerts,
    DlqAlerter,
    DlqMoog,
    Dead,
}

impl Name {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Alerts => "alerts",
            Self::DlqAlerter => "dlq-alerter",
            Self::DlqMoog => "dlq-moog",
            Self::Dead => "dead",
        }
    }
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// All queues with their depths
    Ls {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show records without taking them, oldest first
    Peek {
        queue: Name,
        /// How many
        #[arg(short = 'n', long, default_value_t = 10)]
        limit: usize,
        /// Only records after this position (from an earlier peek)
        #[arg(long)]
        after: Option<u64>,
        /// As JSON, whole
        #[arg(long)]
        json: bool,
    },
    /// Put dead letters back where they came from
    Replay {
        /// dlq-alerter, dlq-moog or dead
        queue: Name,
        /// Only these positions (from peek); repeatable
        #[arg(long)]
        position: Vec<u64>,
        /// Only letters whose reason contains this text
        #[arg(long)]
        reason: Option<String>,
        /// Only letters of this host
        #[arg(long)]
        host: Option<String>,
        /// At most this many
        #[arg(short = 'n', long, default_value_t = 1_000)]
        limit: usize,
    },
    /// Judge the queues: broken records put aside, queues near their bound, dead letters
    Doctor,
}

pub fn run(global: &Global, args: QueueArgs) -> ExitCode {
    match block_on(act(global, args.command)) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => print_failure(&error),
        Err(error) => print_failure(&error.into()),
    }
}

async fn act(global: &Global, command: QueueCommand) -> Result<ExitCode> {
    let client = Client::open(global).await?;
    match command {
        QueueCommand::Ls { json } => {
            let answer = client.get("/api/v2/queues").await?;
            out(&if json { pretty(&answer) } else { table(&answer) });
        }
        QueueCommand::Peek { queue, limit, after, json } => {
            let after = after.map_or(String::new(), |a| format!("&after={a}"));
            let answer = client.get(&format!("/api/v2/queues/{}?limit={limit}{after}", queue.as_str())).await?;
            out(&if json { pretty(&answer) } else { records(&answer) });
        }
        QueueCommand::Replay { queue, position, reason, host, limit } => {
            let mut body = json!({"limit": limit});
            if !position.is_empty() {
                body["positions"] = json!(position);
            }
            // Without any condition all are meant, which the API wants to be told.
            if position.is_empty() || reason.is_some() || host.is_some() {
                body["filter"] = json!({"reason_contains": reason, "host": host});
            }
            let answer = client.send(Method::POST, &format!("/api/v2/queues/{}/replay", queue.as_str()), &body).await?;
            let replayed = answer.get("replayed").and_then(Value::as_u64).unwrap_or(0);
            out(&format!("replayed {replayed} dead letter(s)\n"));
        }
        QueueCommand::Doctor => {
            let answer = client.get("/api/v2/queues").await?;
            let (text, healthy) = judge(&answer);
            out(&text);
            return Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).map_or_else(|_| value.to_string(), |text| text + "\n")
}

fn rows(answer: &Value) -> &[Value] {
    answer.get("queues").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn number(row: &Value, key: &str) -> u64 {
    row.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn table(answer: &Value) -> String {
    let mut text = format!(
        "{:<14}{:>10}{:>10}{:>10}{:>14}{:>13}\n",
        "QUEUE", "DEPTH", "LEASED", "DELAYED", "BYTES", "QUARANTINED"
    );
    for row in rows(answer) {
        let _ = writeln!(
            text,
            "{:<14}{:>10}{:>10}{:>10}{:>14}{:>13}",
            row.get("name").and_then(Value::as_str).unwrap_or("?"),
            number(row, "depth"),
            number(row, "leased"),
            number(row, "delayed"),
            number(row, "bytes"),
            number(row, "quarantined")
        );
    }
    text
}

fn records(answer: &Value) -> String {
    let mut text = String::new();
    let records = answer.get("records").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if records.is_empty() {
        return "empty\n".to_owned();
    }
    for record in records {
        let letter = record.get("dead_letter").filter(|l| !l.is_null());
        let _ = write!(text, "#{} attempts={}", number(record, "position"), number(record, "attempts"));
        if let Some(letter) = letter {
            let _ = write!(
                text,
                " replays={} failed_at={} reason={}",
                number(letter, "replays"),
                letter.get("failed_at").and_then(Value::as_str).unwrap_or("?"),
                letter.get("reason").unwrap_or(&Value::Null)
            );
        }
        let body = letter.and_then(|l| l.get("original")).or_else(|| record.get("payload")).unwrap_or(&Value::Null);
        let body: String = body.to_string().chars().take(2_000).collect();
        let _ = writeln!(text, "\n  {body}");
    }
    text
}

fn judge(answer: &Value) -> (String, bool) {
    let mut text = String::new();
    let mut healthy = true;
    for row in rows(answer) {
        let name = row.get("name").and_then(Value::as_str).unwrap_or("?");
        let (depth, limit, quarantined) = (number(row, "depth"), number(row, "limit"), number(row, "quarantined"));
        let mut findings = Vec::new();
        if quarantined > 0 {
            healthy = false;
            findings.push(format!(
                "{quarantined} broken record(s) were put aside; the bytes are in queue/{name}/records/quarantine below the data directory"
            ));
        }
        if limit > 0 && depth > limit / 10 * 9 {
            healthy = false;
            findings.push(format!("over 90 % full ({depth} of {limit})"));
        }
        if name == "dead" && depth > 0 {
            findings.push(format!(
                "{depth} parked: look with `muttd queue peek dead`, try again with `muttd queue replay dead`"
            ));
        }
        if name.starts_with("dlq") && depth > 0 {
            findings.push(format!("{depth} dead letter(s) wait for remediation"));
        }
        let _ =
            writeln!(text, "{name:<12} {}", if findings.is_empty() { "ok".to_owned() } else { findings.join("; ") });
    }
    (text, healthy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doctor_names_what_is_wrong_and_where_to_look() {
        let answer = json!({"queues": [
            {"name": "ingest", "depth": 95, "limit": 100, "quarantined": 2},
            {"name": "alerts", "depth": 0, "limit": 100, "quarantined": 0},
            {"name": "dead", "depth": 3, "limit": 100, "quarantined": 0},
        ]});
        let (text, healthy) = judge(&answer);
        assert!(!healthy);
        assert!(
            text.contains("2 broken record(s)") && text.contains("over 90 % full") && text.contains("alerts       ok"),
            "{text}"
        );
        assert!(text.contains("queue peek dead"));
    }
}
