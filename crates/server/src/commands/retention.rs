//! `muttd retention {show,run}`: what is too old, what lies where, and a round by hand. Works on the
//! stores themselves, beside a server or without one.

use super::{Global, block_on, out, print_failure};
use crate::config::Config;
use crate::retention::{Report, Retention, days, described};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use pipeline::metrics::Metrics;
use pipeline::{Live, RetentionPolicy};
use runtime::{Clock, Stopper, SystemClock};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use storage::catalog::retention::{COUNT_MAX, Holdings, Partition};

/// Months that always have a partition: this one and the next three.
const MONTHS: usize = 4;

#[derive(Debug, Args)]
#[command(after_help = "In the place of the original's scripts:\n  \
    retention_policy_enforcer.py --dry-run   muttd retention run --dry-run\n  \
    retention_policy_enforcer.py             muttd retention run\n  \
    archive_old_events.py --dry-run, --stats muttd retention show\n  \
    create_monthly_partitions.py --stats     muttd retention show\n  \
    create_monthly_partitions.py             not needed: every start and every round makes them\n\n\
    A running server does a round every hour by itself; nothing of this is needed for that. How long\n\
    things are kept: settings retention.*, over which live settings go (docs/configuration.md). Event files\n\
    are those of this data directory.")]
pub struct RetentionArgs {
    #[command(subcommand)]
    command: RetentionCommand,
}

#[derive(Debug, Subcommand)]
enum RetentionCommand {
    /// What is kept for how long, what a round would take now, the archive, the partitions; changes nothing
    Show {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// One round now: archive and delete what is too old
    Run {
        /// Only count what a round would take; change nothing
        #[arg(long)]
        dry_run: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Whether the stores may be changed by being opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Look,
    Work,
}

pub fn run(global: &Global, args: &RetentionArgs) -> ExitCode {
    match block_on(act(global, &args.command)) {
        Ok(Ok(text)) => {
            out(&text);
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => print_failure(&error),
        Err(error) => print_failure(&error.into()),
    }
}

async fn act(global: &Global, command: &RetentionCommand) -> Result<String> {
    let config = match global.load(None) {
        Ok(loaded) => loaded.config,
        Err(problems) => {
            let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
            bail!("the configuration has problems:\n  {}", all.join("\n  "));
        }
    };
    match command {
        RetentionCommand::Show { json } => {
            let retention = open(&config, Access::Look).await?;
            let policy = retention.policy().await?;
            let would = retention.outlook(&policy).await?;
            let holdings = retention.catalog.holdings().await?;
            let missing = missing_months(&holdings, &retention.clock.now().day());
            if *json {
                return pretty(&json!({
                    "policy": policy_json(&policy),
                    "would": would,
                    "holdings": holdings_json(&holdings),
                    "missing_partitions": missing,
                }));
            }
            let mut text = format!("{}\n", described(&policy));
            report(&mut text, "a round now would take", &would);
            lies_where(&mut text, &holdings, &missing);
            Ok(text)
        }
        RetentionCommand::Run { dry_run: true, json } => {
            let retention = open(&config, Access::Look).await?;
            let policy = retention.policy().await?;
            let would = retention.outlook(&policy).await?;
            told(&policy, "would", "a round now would take", &would, *json)
        }
        RetentionCommand::Run { dry_run: false, json } => {
            let retention = open(&config, Access::Work).await?;
            let policy = retention.policy().await?;
            if !policy.enabled {
                bail!(
                    "retention is off (retention.enabled, or the live setting retention_enforcement_enabled); \
                     --dry-run says what a round would take"
                );
            }
            if policy.dry_run {
                let would = retention.outlook(&policy).await?;
                return told(&policy, "would", "retention.dry_run is set: a round would take", &would, *json);
            }
            let (_stopper, stop) = Stopper::new();
            let did = retention.enforce(&policy, &stop).await?;
            told(&policy, "did", "this round took", &did, *json)
        }
    }
}

async fn open(config: &Config, access: Access) -> Result<Retention> {
    let dir = &config.data_dir;
    if !dir.is_dir() {
        bail!(
            "there is no data directory `{}`: name the one of your server with --data-dir or MUTT_DATA_DIR",
            dir.display()
        );
    }
    let secrets = crate::app::secrets_for_command(config).await?;
    let stores = config.stores.with_logins(&secrets.redis_credentials(), |user| secrets.database_credentials(user));
    let steps = storage::catalog::pending_steps(&stores.catalog).await.context("the catalog cannot be used")?;
    if !steps.is_empty() {
        bail!(
            "the catalog's schema lacks {} step(s): `muttd migrate` makes them, and `muttd migrate --dry-run` names them",
            steps.len()
        );
    }
    let catalog = match access {
        Access::Look => storage::catalog::open_as_it_is(stores.catalog).await,
        Access::Work => storage::catalog::open(stores.catalog).await,
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Ok(Retention {
        catalog: catalog.context("the catalog cannot be used")?,
        events: storage::events::open(stores.events).await.context("the events cannot be read")?,
        coordination: storage::coordination::open(stores.coordination)
            .await
            .context("the live settings cannot be read")?,
        live: Live::new(config.live.clone()),
        metrics: Metrics::new(),
        clock,
    })
}

/// The partitions that this and the next months should have and that no partition covers.
fn missing_months(holdings: &Holdings, today: &str) -> Vec<String> {
    if holdings.archive.is_none() {
        return Vec::new();
    }
    let mut parts = today.split('-').filter_map(|part| part.parse::<usize>().ok());
    let (year, month) = (parts.next().unwrap_or(0), parts.next().unwrap_or(1));
    let covers = |first: &str| {
        let within =
            |p: &Partition| p.days.as_ref().is_some_and(|(from, to)| from.as_str() <= first && first < to.as_str());
        holdings.partitions.iter().any(within)
    };
    (0..MONTHS)
        .map(|n| (year + (month - 1 + n) / 12, (month - 1 + n) % 12 + 1))
        .filter(|(year, month)| !covers(&format!("{year:04}-{month:02}-01")))
        .map(|(year, month)| format!("event_audit_log_{year:04}_{month:02}"))
        .collect()
}

fn told(policy: &RetentionPolicy, key: &str, title: &str, report: &Report, json: bool) -> Result<String> {
    if json {
        return pretty(&json!({ "policy": policy_json(policy), key: report }));
    }
    let mut text = format!("{}\n", described(policy));
    self::report(&mut text, title, report);
    Ok(text)
}

fn report(text: &mut String, title: &str, report: &Report) {
    let _ = writeln!(text, "{title}:");
    for (n, what) in [
        (report.event_days, "day(s) of event files"),
        (report.archived, "audit rows of events, from the log into the archive"),
        (report.archive_deleted, "archived audit rows of events, deleted"),
        (report.events_deleted, "audit rows of events, deleted"),
        (report.alerts_deleted, "settled alerts, deleted"),
        (report.incidents_deleted, "closed incidents and silences that are over, deleted"),
        (report.config_audit_deleted, "audit rows of changes, deleted"),
    ] {
        let _ = writeln!(text, "  {:>10}  {what}", counted(n));
    }
}

fn lies_where(text: &mut String, holdings: &Holdings, missing: &[String]) {
    let _ = writeln!(text, "audit rows of events in the log: {}", counted(holdings.events));
    let Some(archive) = &holdings.archive else { return };
    let day = |time: Option<model::Timestamp>| time.map_or_else(|| "-".to_owned(), model::Timestamp::day);
    let _ = writeln!(
        text,
        "archive: {} rows, {} MiB, events from {} to {}",
        counted(archive.rows),
        archive.bytes >> 20,
        day(archive.oldest_event),
        day(archive.newest_event)
    );
    let _ = writeln!(text, "partitions:");
    for partition in &holdings.partitions {
        let days =
            partition.days.as_ref().map_or_else(|| "the rest".to_owned(), |(from, to)| format!("{from} to {to}"));
        let _ = writeln!(
            text,
            "  {:<28} {days:<26} {:>10} rows {:>8} KiB",
            partition.name,
            partition.rows,
            partition.bytes >> 10
        );
    }
    if !missing.is_empty() {
        let _ = writeln!(text, "partitions that the next round makes: {}", missing.join(", "));
    }
}

fn counted(n: u64) -> String {
    if n == COUNT_MAX { format!("{n}+") } else { n.to_string() }
}

fn policy_json(policy: &RetentionPolicy) -> Value {
    json!({
        "enabled": policy.enabled,
        "dry_run": policy.dry_run,
        "event_days": days(policy.events),
        "archive_years": days(policy.archive) / 365,
        "config_audit_days": days(policy.config_audit),
    })
}

fn holdings_json(holdings: &Holdings) -> Value {
    let archive = holdings.archive.as_ref().map(|archive| {
        json!({
            "rows": archive.rows,
            "bytes": archive.bytes,
            "oldest_event": archive.oldest_event.map(model::Timestamp::rfc3339),
            "newest_event": archive.newest_event.map(model::Timestamp::rfc3339),
        })
    });
    let partition = |p: &Partition| {
        let (from, to) = p.days.clone().unzip();
        json!({ "name": p.name, "from": from, "to": to, "rows": p.rows, "bytes": p.bytes })
    };
    json!({
        "events": holdings.events,
        "archive": archive,
        "partitions": holdings.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

fn pretty(value: &Value) -> Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::catalog::retention::Archive;

    #[test]
    fn months_without_a_partition_are_named_through_the_year() {
        let month = |from: &str, to: &str| Partition {
            name: "p".into(),
            days: Some((from.into(), to.into())),
            rows: 0,
            bytes: 0,
        };
        let mut holdings = Holdings { archive: Some(Archive::default()), ..Holdings::default() };
        holdings.partitions = vec![month("2026-01-01", "2026-12-01"), month("2027-01-01", "2027-02-01")];
        let missing = missing_months(&holdings, "2026-11-25");
        assert_eq!(missing, ["event_audit_log_2026_12", "event_audit_log_2027_02"]);
        assert!(missing_months(&Holdings::default(), "2026-11-25").is_empty(), "SQLite has none");
    }
}
