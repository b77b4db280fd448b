//! `muttd trace ID`: what happened to this event or alert, and why.

use super::client::Client;
use super::{Global, block_on, out, print_failure};
use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;
use std::fmt::Write as _;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct TraceArgs {
    /// An event id (evt_…) or an alert id (alr_…)
    pub id: String,
    /// Of this organisation
    #[arg(long, default_value = model::OrgId::DEFAULT)]
    pub org: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

pub fn run(global: &Global, args: &TraceArgs) -> ExitCode {
    match block_on(act(global, args)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => print_failure(&error),
        Err(error) => print_failure(&error.into()),
    }
}

async fn act(global: &Global, args: &TraceArgs) -> Result<()> {
    let well_formed = args.id.parse::<model::EventId>().is_ok() || args.id.parse::<model::AlertId>().is_ok();
    if !well_formed {
        bail!("`{}` is neither an event id (evt_…) nor an alert id (alr_…)", args.id);
    }
    let client = Client::open(global).await?;
    let answer = client.get(&format!("/api/v2/trace/{}?org={}", args.id, crate::api::in_path(&args.org))).await?;
    if args.json {
        out(&format!("{}\n", serde_json::to_string_pretty(&answer)?));
    } else {
        let mut text = String::new();
        render(&answer, 0, &mut text);
        out(&text);
    }
    Ok(())
}

/// A JSON tree as indented lines: the story in the order the API tells it.
fn render(value: &Value, indent: usize, text: &mut String) {
    let pad = "  ".repeat(indent);
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::Null => {}
                    Value::Array(items) if items.is_empty() => {}
                    Value::Object(_) | Value::Array(_) => {
                        let _ = writeln!(text, "{pad}{key}:");
                        render(value, indent + 1, text);
                    }
                    Value::String(words) if words.contains('\n') => {
                        let _ = writeln!(text, "{pad}{key}:");
                        for line in words.lines() {
                            let _ = writeln!(text, "{pad}  {line}");
                        }
                    }
                    Value::String(words) => {
                        let _ = writeln!(text, "{pad}{key}: {words}");
                    }
                    Value::Bool(_) | Value::Number(_) => {
                        let _ = writeln!(text, "{pad}{key}: {value}");
                    }
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                let _ = writeln!(text, "{pad}-");
                render(item, indent + 1, text);
            }
        }
        Value::String(words) => {
            let _ = writeln!(text, "{pad}{words}");
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            let _ = writeln!(text, "{pad}{value}");
        }
    }
}
