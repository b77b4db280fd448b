//! `muttd rules schedule`: how far scheduled rules came. Reads the catalog itself, beside a server or
//! without one.

use super::super::{Global, out};
use anyhow::{Context, Result, bail};
use clap::Args;
use model::{OrgId, Timestamp};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;
use storage::catalog::Catalog;
use storage::catalog::schedules::{Schedule, ScheduleGap, ScheduleRun};

/// Gaps and runs of a rule that are shown; all that are kept in JSON.
const SHOWN: usize = 5;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    muttd rules schedule\n  \
    muttd rules schedule --rule slow_brute_force --json")]
pub struct ScheduleArgs {
    /// Only this organisation
    #[arg(long, value_name = "ORG")]
    org: Option<OrgId>,
    /// Only this rule, by its identifier
    #[arg(long, value_name = "ID")]
    rule: Option<String>,
    /// A JSON object a rule and organisation, with all runs and gaps that are kept
    #[arg(long)]
    json: bool,
}

/// A rule's place, with what is known of the way there.
struct Known {
    schedule: Schedule,
    runs: Vec<ScheduleRun>,
    gaps: Vec<ScheduleGap>,
}

pub async fn run(global: &Global, args: &ScheduleArgs) -> Result<()> {
    let catalog = open(global).await?;
    let now = runtime::Clock::now(&runtime::SystemClock);
    let mut text = String::new();
    for schedule in catalog.all_schedules().await? {
        let is_wanted = args.org.as_ref().is_none_or(|org| *org == schedule.org)
            && args.rule.as_ref().is_none_or(|rule| *rule == schedule.uid);
        if is_wanted {
            let runs = catalog.schedule_runs(&schedule.org, &schedule.uid).await?;
            let gaps = catalog.schedule_gaps(&schedule.org, &schedule.uid).await?;
            let known = Known { schedule, runs, gaps };
            if args.json {
                let _ = writeln!(text, "{}", known.as_json(now));
            } else {
                text.push_str(&known.as_text(now));
            }
        }
    }
    if text.is_empty() && !args.json {
        text.push_str("no scheduled rule has run yet\n");
    }
    out(&text);
    Ok(())
}

async fn open(global: &Global) -> Result<Arc<dyn Catalog>> {
    let config = match global.load_installed() {
        Ok(loaded) => loaded.config,
        Err(problems) => bail!("the configuration has {} problem(s); `muttd check-config` shows them", problems.len()),
    };
    if !config.data_dir.is_dir() {
        bail!(
            "there is no data directory `{}`: name the one of your server with --data-dir",
            config.data_dir.display()
        );
    }
    let secrets = crate::app::secrets_for_command(&config).await?;
    let stores = config.stores.with_logins(&secrets.redis_credentials(), |user| secrets.database_credentials(user));
    let steps = storage::catalog::pending_steps(&stores.catalog).await.context("the catalog cannot be used")?;
    if !steps.is_empty() {
        bail!("the catalog's schema lacks {} step(s): `muttd migrate` makes them", steps.len());
    }
    storage::catalog::open_as_it_is(stores.catalog).await.context("the catalog cannot be used")
}

impl Known {
    fn lag_seconds(&self, now: Timestamp) -> i64 {
        (now.micros().saturating_sub(self.schedule.through.micros()) / 1_000_000).max(0)
    }

    fn as_json(&self, now: Timestamp) -> Value {
        let schedule = &self.schedule;
        let run = |run: &ScheduleRun| {
            json!({
                "started_at": run.started_at.rfc3339(),
                "from": run.first.rfc3339(),
                "to": run.through.rfc3339(),
                "took_ms": u64::try_from(run.took.as_millis()).unwrap_or(u64::MAX),
                "events": run.events,
                "matches": run.matches,
                "events_late": run.late,
            })
        };
        let gap = |gap: &ScheduleGap| {
            json!({
                "from": gap.first.rfc3339(),
                "to": gap.through.rfc3339(),
                "why": gap.why,
                "found_at": gap.found_at.rfc3339(),
            })
        };
        json!({
            "org": schedule.org.as_str(),
            "rule_id": schedule.uid,
            "through": schedule.through.rfc3339(),
            "lag_seconds": self.lag_seconds(now),
            "off_since": schedule.off_since.map(Timestamp::rfc3339),
            "failures": schedule.failures,
            "error": schedule.error.as_ref().map(|(error, _)| error),
            "gaps_total": schedule.gaps,
            "runs": self.runs.iter().map(run).collect::<Vec<_>>(),
            "gaps": self.gaps.iter().map(gap).collect::<Vec<_>>(),
        })
    }

    fn as_text(&self, now: Timestamp) -> String {
        let schedule = &self.schedule;
        let mut text = format!(
            "{} ({})\n    through  {}, {} s ago\n",
            schedule.uid,
            schedule.org,
            schedule.through.rfc3339(),
            self.lag_seconds(now)
        );
        if let Some(off) = schedule.off_since {
            let _ = writeln!(text, "    off      since {}", off.rfc3339());
        }
        if let Some((error, at)) = &schedule.error {
            let _ = writeln!(text, "    failing  {} time(s), last at {}: {error}", schedule.failures, at.rfc3339());
        }
        for run in self.runs.iter().take(SHOWN) {
            let _ = writeln!(
                text,
                "    run      at {}: up to {} in {} ms, {} events, {} matches{}",
                run.started_at.rfc3339(),
                run.through.rfc3339(),
                run.took.as_millis(),
                run.events,
                run.matches,
                if run.late > 0 { format!(", {} too late", run.late) } else { String::new() }
            );
        }
        for gap in self.gaps.iter().take(SHOWN) {
            let _ = writeln!(text, "    gap      {} to {}: {}", gap.first.rfc3339(), gap.through.rfc3339(), gap.why);
        }
        text
    }
}
