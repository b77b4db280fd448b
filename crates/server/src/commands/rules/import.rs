//! `muttd rules import`: rows into the catalog, or documents of Sigma rules.

use super::super::client::{Client, Content, refusal};
use super::super::{Global, out};
use super::plain;
use crate::rule_documents::{self, Gathered};
use crate::rule_files;
use anyhow::{Result, anyhow, bail};
use axum::http::Method;
use clap::Args;
use rules::file::FileRule;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
#[command(
    after_help = "Files with a list `rules` become rows of the catalog. Sigma files become documents of the organisation, \
    each with its versions; a document is named by its path below the folder, and one of the same name gets a new \
    version. They are in force within a second.\n\n\
    Examples:\n  \
      muttd rules import sigma/rules/linux --dry-run\n  \
      muttd rules import sigma.zip --partial --reason 'Sigma of November'\n  \
      muttd rules import my-rules --remove-missing     # afterwards there are exactly these documents"
)]
pub struct ImportArgs {
    /// Folders, files and zip archives of rules
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only say what would be imported
    #[arg(long)]
    dry_run: bool,
    /// Take the documents that can be used, and leave the others out
    #[arg(long)]
    partial: bool,
    /// Remove documents that are not among these
    #[arg(long)]
    remove_missing: bool,
    /// Goes into the audit log
    #[arg(long)]
    reason: Option<String>,
    /// The server's report, as JSON
    #[arg(long)]
    json: bool,
}

/// Exit code 1 where something that was meant is not imported.
pub async fn run(global: &Global, args: &ImportArgs) -> Result<ExitCode> {
    let is_archive = |path: &PathBuf| path.extension().is_some_and(|end| end.eq_ignore_ascii_case("zip"));
    if !args.paths.iter().any(is_archive) {
        let files = rule_files::read(&args.paths);
        if files.sigma.is_empty() {
            if args.partial || args.remove_missing {
                bail!("--partial and --remove-missing are about documents of Sigma rules; these are rows");
            }
            rows(global, args, &files).await?;
            return Ok(ExitCode::SUCCESS);
        }
        if !files.rules.is_empty() || !files.problems.is_empty() {
            bail!(
                "nothing was imported: some of these files have a list `rules`, others hold rules of Sigma ({}); import \
                 the ones, then the others",
                files.sigma[0].0
            );
        }
    }
    documents(global, args).await
}

async fn rows(global: &Global, args: &ImportArgs, files: &rule_files::RuleFiles) -> Result<()> {
    let problems: Vec<String> =
        files.unreadable.iter().cloned().chain(files.problems.iter().map(ToString::to_string)).collect();
    if !problems.is_empty() {
        bail!("nothing was imported:\n  {}", problems.join("\n  "));
    }
    if files.rules.is_empty() {
        bail!("there is no rule in these files");
    }
    if args.dry_run {
        out(&format!("{} rule(s) would be imported\n", files.rules.len()));
        return Ok(());
    }
    let rules: Vec<Value> = files.rules.iter().map(as_json).collect();
    let client = Client::open(global).await?;
    let body = json!({"rules": rules, "reason": args.reason.as_deref().unwrap_or("muttd rules import")});
    client.send(Method::POST, "/api/v2/rules/import", &body).await?;
    out(&format!("imported {} rule(s); they act within a second\n", files.rules.len()));
    Ok(())
}

fn as_json(rule: &FileRule) -> Value {
    let draft = &rule.draft;
    json!({
        "match_string": draft.match_string,
        "trap_oid": draft.trap_oid,
        "syslog_severity": draft.syslog_severity,
        "match_type": draft.match_type.as_str(),
        "priority": draft.priority,
        "prod_handling": draft.prod_handling.as_str(),
        "dev_handling": draft.dev_handling.as_str(),
        "team_assignment": draft.team_assignment,
        "is_active": draft.is_active,
    })
}

async fn documents(global: &Global, args: &ImportArgs) -> Result<ExitCode> {
    let gathered = rule_documents::gather(&args.paths).map_err(|why| anyhow!(why))?;
    let found = &gathered.found;
    if let Some(refused) = found.refused.first().filter(|_| !args.partial) {
        bail!(
            "nothing was imported: {}: {}{}",
            gathered.place(&refused.name),
            refused.why,
            if found.refused.len() > 1 { format!(" (and {} more)", found.refused.len() - 1) } else { String::new() }
        );
    }
    if found.documents.is_empty() {
        bail!("there are no rule files (.yml, .yaml) here");
    }
    let reason = args.reason.as_deref().unwrap_or("muttd rules import");
    let path = format!(
        "/api/v2/detection/import?dry_run={}&partial={}&remove_missing={}&reason={}",
        args.dry_run,
        args.partial,
        args.remove_missing,
        crate::api::in_path(reason)
    );
    let content = Content::json(&json!({ "documents": found.documents }));
    let client = Client::open(global).await?;
    let (status, report) = client.try_send(Method::POST, &path, content).await?;
    if args.json {
        out(&format!("{report:#}\n"));
    } else if report["documents"].is_object() {
        out(&shown(&report, &gathered));
    }
    if status >= 400 {
        let hint = if args.partial { "" } else { "; --partial takes those that can" };
        let hint = if report["documents"]["refused"].as_u64().unwrap_or(0) > 0 { hint } else { "" };
        bail!("{}{hint}", refusal(status, &report));
    }
    let refused = report["documents"]["refused"].as_u64().unwrap_or(0) + found.refused.len() as u64;
    let done = refused == 0 && report["possible"] == true;
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn shown(report: &Value, gathered: &Gathered) -> String {
    let mut text = String::new();
    for unused in &gathered.found.refused {
        let _ = writeln!(text, "error: {}: {}", plain(&gathered.place(&unused.name), 300), unused.why);
    }
    for problem in report["problems"].as_array().into_iter().flatten() {
        let said = |key: &str| problem[key].as_str();
        let level = if problem["refused"] == true { "error" } else { "warning" };
        let file = match said("document") {
            Some(name) => gathered.place(name),
            None => said("file").unwrap_or_default().to_owned(),
        };
        let _ = write!(text, "{level}: {}:{}: ", plain(&file, 300), problem["line"]);
        if let Some(title) = said("title") {
            let _ = write!(text, "{title:?}: ");
        }
        if let Some(field) = said("field") {
            let _ = write!(text, "{}: ", plain(field, 200));
        }
        let _ = write!(text, "{}", plain(said("message").unwrap_or_default(), 400));
        if let Some(suggestion) = said("suggestion") {
            let _ = write!(text, "; {}", plain(suggestion, 200));
        }
        text.push('\n');
    }
    let (shown, total) = (report["problems"].as_array().map_or(0, Vec::len) as u64, report["problems_total"].as_u64());
    if total.is_some_and(|total| total > shown) {
        let _ = writeln!(text, "and {} problems more", total.unwrap_or(shown) - shown);
    }
    let count = |part: &str, key: &str| report[part][key].as_u64().unwrap_or(0);
    let documents = |key| count("documents", key);
    let skipped = documents("skipped") + gathered.found.skipped.len() as u64;
    let refused = documents("refused") + gathered.found.refused.len() as u64;
    let _ = writeln!(
        text,
        "documents  {} new, {} changed, {} unchanged, {} removed, {refused} refused, {skipped} skipped",
        documents("new"),
        documents("changed"),
        documents("unchanged"),
        documents("removed"),
    );
    let _ = writeln!(
        text,
        "rules      {} new, {} changed, {} gone",
        count("rules", "new_total"),
        count("rules", "changed_total"),
        count("rules", "gone_total")
    );
    if report["dry_run"] == true {
        if report["possible"] != true {
            text.push_str("all of it would be refused, as it is\n");
        }
        text.push_str("nothing was changed: this is a dry run\n");
    } else if report["applied"] == true {
        text.push_str("imported; it acts within a second\n");
    }
    text
}
