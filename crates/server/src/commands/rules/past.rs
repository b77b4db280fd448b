//! What commands share that ask rules of the events that are kept.

use super::super::Global;
use super::run::{options, placeholder};
use crate::hunt::history::{Hunter, Sink, Stretch, Told, Via};
use crate::{field_maps, hunt, sigma_files};
use anyhow::{Result, bail};
use clap::Args;
use fields::Aliases;
use model::OrgId;
use rules::sigma::Collection;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use storage::events::{self, EventStore};

const DAY: Duration = Duration::from_secs(86_400);
/// What a shell says of a command that its user interrupted.
const INTERRUPTED: i32 = 130;

#[derive(Debug, Args)]
pub struct PastArgs {
    /// Files and folders of Sigma rules
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// How far back, by acceptance
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=3_660))]
    pub days: u16,
    /// Whose events
    #[arg(long, value_name = "ORG", default_value = OrgId::DEFAULT)]
    org: OrgId,
    /// How: both find the same
    #[arg(long, value_enum, default_value = DEFAULT)]
    via: Via,
    /// A value of a placeholder (`%name%`) in rules; again for more values
    #[arg(long = "placeholder", value_name = "NAME=VALUE", value_parser = placeholder)]
    placeholders: Vec<(String, String)>,
    /// Files and folders that say what the events call the fields of the taxonomy beside those of the
    /// configuration (docs/fields.md)
    #[arg(long, num_args = 1.., value_name = "PATH")]
    fields: Vec<PathBuf>,
}

/// The faster one.
const DEFAULT: &str = "stream";

/// Rules and the events to ask them of.
pub struct Past {
    pub collection: Arc<Collection>,
    pub refused: usize,
    pub aliases: Arc<Aliases>,
    via: Via,
    store: Arc<dyn EventStore>,
    stretch: Stretch,
}

impl PastArgs {
    pub fn open(&self, global: &Global) -> Result<Past> {
        let collection = sigma_files::read(&self.paths, &options(&self.placeholders));
        let refused = hunt::refused(&collection).len();
        if collection.rules.is_empty() {
            bail!("there is no rule to try: {refused} refused; `muttd rules lint` says why");
        }
        let loaded = match global.load_installed() {
            Ok(loaded) => loaded,
            Err(problems) => {
                bail!("the configuration has {} problem(s); `muttd check-config` shows them", problems.len())
            }
        };
        let now = runtime::Clock::now(&runtime::SystemClock);
        let mapped: Vec<PathBuf> = loaded.config.detection.field_paths.iter().chain(&self.fields).cloned().collect();
        Ok(Past {
            collection: Arc::new(collection),
            refused,
            aliases: Arc::new(field_maps::read_and_tell(&mapped)),
            via: self.via,
            store: events::open_to_read(loaded.config.stores.events.clone()),
            stretch: Stretch { org: self.org.clone(), from: now.minus(DAY * u32::from(self.days)), to: now },
        })
    }
}

/// Asks all rules of all events; the progress is shown on a terminal.
pub async fn hunt<S: Sink>(past: &Past, sink: S) -> Result<(S, Told)> {
    let shown = std::io::stderr().is_terminal();
    let line = |text: &str| {
        if shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
        }
    };
    let (hunter, left_out) = Hunter::new(&past.collection, Arc::clone(&past.aliases), past.via, sink)?;
    for rule in &left_out {
        let _ = writeln!(std::io::stderr(), "warning: {:?} ({}) is left out: {}", rule.title, rule.uid, rule.why);
    }
    let progress = |told: &Told, through: model::Timestamp| {
        line(&format!("{} events, up to {}", told.events, through.rfc3339()));
    };
    tokio::select! {
        found = hunter.run(&*past.store, past.stretch.clone(), progress) => {
            line("");
            found
        }
        _ = tokio::signal::ctrl_c() => {
            line("");
            // What lies on disk has no name and goes with the process; a question that runs is not waited for.
            std::process::exit(INTERRUPTED)
        }
    }
}
