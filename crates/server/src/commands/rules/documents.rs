//! `muttd rules {export,history,restore,remove}`: documents of detection rules in the catalog; through the
//! running server, or on the opened stores.

use super::super::client::Client;
use super::plain;
use crate::api::in_path;
use crate::rule_documents;
use anyhow::{Context, Result, anyhow, bail};
use axum::http::Method;
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  muttd rules export rules.zip\n  muttd rules export kept-rules/")]
pub struct ExportArgs {
    /// A file that ends in .zip, or a folder that is empty or not there yet
    to: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    muttd rules history                              # all documents\n  \
    muttd rules history linux/ssh.yml                # who changed it, when and why\n  \
    muttd rules history linux/ssh.yml --version 3    # what it was")]
pub struct HistoryArgs {
    /// Name of a document
    name: Option<String>,
    /// The text of this version
    #[arg(long, requires = "name", value_name = "N")]
    version: Option<u32>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  muttd rules restore linux/ssh.yml 3 --reason 'the new one floods'")]
pub struct RestoreArgs {
    /// Name of the document
    name: String,
    /// Number of the version, as `muttd rules history NAME` tells
    version: u32,
    /// Goes into the audit log
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Its versions stay: `muttd rules restore` brings it back.\n\n\
    Example:\n  muttd rules remove linux/ssh.yml --reason 'replaced by the shipped one'")]
pub struct RemoveArgs {
    /// Name of the document
    name: String,
    /// Also if rules of other documents need it
    #[arg(long)]
    force: bool,
    /// Goes into the audit log
    #[arg(long)]
    reason: Option<String>,
}

pub async fn export(client: &Client, args: &ExportArgs) -> Result<String> {
    let bytes = client.fetch("/api/v2/detection/export").await?;
    let found = rule_documents::unpack(&bytes).map_err(|why| anyhow!("what the server sent: {why}"))?;
    let to = args.to.display();
    if args.to.extension().is_some_and(|end| end.eq_ignore_ascii_case("zip")) {
        std::fs::write(&args.to, &bytes).with_context(|| format!("failed to write `{to}`"))?;
    } else {
        let is_used = std::fs::read_dir(&args.to).is_ok_and(|mut entries| entries.next().is_some());
        if is_used || args.to.is_file() {
            bail!("`{to}` is there already; name a folder that is not, or one that is empty");
        }
        std::fs::create_dir_all(&args.to).with_context(|| format!("failed to make `{to}`"))?;
        for (name, text) in &found.documents {
            write(&args.to.join(name), text)?;
        }
    }
    Ok(format!("{} document(s) in {to}\n", found.documents.len()))
}

/// `path` is below the folder: names of documents lead nowhere else.
fn write(path: &Path, text: &str) -> Result<()> {
    let named = || format!("failed to write `{}`", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(named)?;
    }
    std::fs::write(path, text).with_context(named)
}

pub async fn history(client: &Client, args: HistoryArgs) -> Result<String> {
    let Some(name) = args.name else { return all(client, args.json).await };
    let path = format!("/api/v2/detection/documents/{}/versions", in_path(&name));
    if let Some(version) = args.version {
        let found = client.get(&format!("{path}/{version}")).await?;
        return Ok(match (args.json, found["text"].as_str()) {
            (true, _) => format!("{found:#}\n"),
            (false, Some(text)) => text.to_owned(),
            (false, None) => format!("with version {version} it was removed\n"),
        });
    }
    let found = client.get(&path).await?;
    if args.json {
        return Ok(format!("{found:#}\n"));
    }
    let mut table = format!("{:>7} {:<28} {:<20} {:>8} REASON\n", "VERSION", "AT", "BY", "BYTES");
    for row in found["versions"].as_array().into_iter().flatten() {
        let bytes = row["bytes"].as_u64().map_or_else(|| "removed".to_owned(), |bytes| bytes.to_string());
        let _ = writeln!(
            table,
            "{:>7} {:<28} {:<20} {bytes:>8} {}",
            row["version"].as_u64().unwrap_or(0),
            text(row, "changed_at"),
            plain(text(row, "changed_by"), 20),
            plain(text(row, "reason"), 200),
        );
    }
    Ok(table)
}

/// All documents.
async fn all(client: &Client, json: bool) -> Result<String> {
    let mut documents = Vec::new();
    for page in 1.. {
        let found = client.get(&format!("/api/v2/detection/documents?limit=200&page={page}")).await?;
        let rows = found["documents"].as_array().cloned().unwrap_or_default();
        let last = rows.len() < 200;
        documents.extend(rows);
        if last {
            break;
        }
    }
    if json {
        return Ok(format!("{:#}\n", Value::Array(documents)));
    }
    let mut table = format!("{:>7} {:>6} {:>8} {:<28} {:<20} NAME\n", "VERSION", "RULES", "PROBLEMS", "AT", "BY");
    for row in &documents {
        let number = |key: &str| row[key].as_u64().unwrap_or(0);
        let _ = writeln!(
            table,
            "{:>7} {:>6} {:>8} {:<28} {:<20} {}",
            number("version"),
            number("rules"),
            number("problems"),
            text(row, "changed_at"),
            plain(text(row, "changed_by"), 20),
            plain(text(row, "name"), 255),
        );
    }
    let _ = writeln!(table, "{} in all", documents.len());
    Ok(table)
}

pub async fn restore(client: &Client, args: &RestoreArgs) -> Result<String> {
    let path = format!("/api/v2/detection/documents/{}/restore", in_path(&args.name));
    let body = json!({ "version": args.version, "reason": args.reason });
    let kept = client.send(Method::POST, &path, &body).await?;
    Ok(format!(
        "{} is version {} again, as version {}; it acts within a second\n",
        plain(&args.name, 255),
        args.version,
        kept["version"]
    ))
}

pub async fn remove(client: &Client, args: &RemoveArgs) -> Result<String> {
    let path = format!("/api/v2/detection/documents/{}", in_path(&args.name));
    let body = json!({ "force": args.force, "reason": args.reason });
    client.send(Method::DELETE, &path, &body).await?;
    Ok(format!("{} is removed; its versions stay\n", plain(&args.name, 255)))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("-")
}
