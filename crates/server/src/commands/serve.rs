//! `muttd serve`: logging, configuration, build, announce, run, wait for a signal, drain.

use super::{Global, block_on, print_failure, print_problems};
use crate::app::{App, AppHandle};
use crate::keys::Key;
use anyhow::Result;
use clap::Args;
use runtime::logging::LevelHandle;
use runtime::{Clock, ServiceManager, Stop, Stopper, SystemClock};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Roles to run, separated by commas: ingestor, alerter, forwarder, remediation, webui [default: all]
    #[arg(long, value_delimiter = ',', value_name = "ROLES")]
    pub roles: Option<Vec<String>>,
}

pub fn run(global: &Global, args: ServeArgs) -> ExitCode {
    let loaded = match global.load(args.roles.clone()) {
        Ok(loaded) => loaded,
        Err(problems) => return print_problems(&problems),
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let level = match runtime::logging::init(&loaded.config.log, Arc::clone(&clock)) {
        Ok(level) => level,
        Err(message) => return print_failure(&anyhow::anyhow!(message)),
    };
    for note in &loaded.notes {
        tracing::warn!("{note}");
    }
    let served = block_on(async {
        let (stopper, stop) = Stopper::new();
        // From the start: waiting for a store must end with a signal too.
        let context = Arc::new(Context {
            handle: OnceLock::new(),
            level,
            global: global.clone(),
            roles: args.roles,
            manager: ServiceManager::from_environment(&runtime::config::environment()),
        });
        let signals = tokio::spawn(signals(stopper, stop.clone(), Arc::clone(&context)));
        let app = build_under(&context.manager, App::build(loaded.config, clock, &stop)).await?;
        announce(&app);
        let _ = context.handle.set(app.handle());
        let clean = app.run_under(stop, &context.manager).await;
        signals.abort();
        Ok::<bool, anyhow::Error>(clean)
    });
    match served {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::FAILURE,
        Ok(Err(error)) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
        Err(error) => print_failure(&error.into()),
    }
}

/// Waits for the start, and keeps the service manager patient meanwhile: a store that is away is no
/// reason to be killed.
async fn build_under(manager: &ServiceManager, build: impl Future<Output = Result<App>>) -> Result<App> {
    let mut build = std::pin::pin!(build);
    let mut patience = tokio::time::interval(START_SIGN);
    loop {
        tokio::select! {
            built = &mut build => return built,
            _ = patience.tick() => manager.starting(START_SIGN * 6),
        }
    }
}

/// How often the service manager hears that we are still starting.
const START_SIGN: Duration = Duration::from_secs(5);

fn announce(app: &App) {
    let addresses = app.addresses();
    for (what, address) in [
        ("HTTP ingest", addresses.ingest),
        ("gateway for agents", addresses.agents),
        ("syslog UDP", addresses.syslog_udp),
        ("syslog TCP", addresses.syslog_tcp),
        ("syslog TLS", addresses.syslog_tls),
        ("SNMP", addresses.snmp),
        ("web API", addresses.webui),
    ] {
        if let Some(address) = address {
            tracing::info!(%address, "{what} listens on {address}");
        }
    }
    for (role, address) in &addresses.workers {
        tracing::info!(%address, "health and metrics of {role} on {address}");
    }
    for (what, key) in [("ingest", &app.ingest_key), ("web API", &app.webui_key)] {
        announce_key(what, key);
    }
    if let Some(note) = app.config().channels_note() {
        tracing::warn!("{note}");
    }
}

fn announce_key(what: &str, key: &Key) {
    if let Some(file) = &key.file {
        if key.generated {
            tracing::info!(file = %file.display(), "made a new {what} key; it is in {}", file.display());
        } else {
            tracing::info!(file = %file.display(), "the {what} key is in {}", file.display());
        }
    }
}

/// What signals act upon, and what a reload needs.
struct Context {
    /// There once everything is open.
    handle: OnceLock<AppHandle>,
    level: LevelHandle,
    global: Global,
    roles: Option<Vec<String>>,
    manager: ServiceManager,
}

/// SIGTERM and SIGINT stop, a second one at once; SIGHUP reloads.
async fn signals(stopper: Stopper, stop: Stop, context: Arc<Context>) {
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        tracing::error!("signals cannot be handled; only a kill will end this process");
        return;
    };
    loop {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = hup.recv() => {
                if context.handle.get().is_some() {
                    context.manager.reloading();
                    let status = context.reload().await;
                    context.manager.ready(status);
                } else {
                    tracing::warn!("still starting: there is nothing to reload yet");
                }
                continue;
            }
        }
        if stop.is_requested() {
            tracing::warn!("second signal: stopping at once; what was not finished is safe in the queue");
            std::process::exit(1);
        }
        stopper.stop();
    }
}

impl Context {
    /// Reads the configuration again; what `systemctl status` is to show of it.
    async fn reload(&self) -> &'static str {
        let Some(handle) = self.handle.get() else { return "still starting" };
        match self.global.load(self.roles.clone()) {
            Ok(loaded) => {
                if let Err(message) = self.level.set(&loaded.config.log.level) {
                    tracing::error!(message, "the log level stays");
                }
                handle.apply(&loaded.config).await;
                tracing::info!(
                    "live settings, rule files and the log level are taken over; everything else changes with a restart"
                );
                "the configuration was reloaded"
            }
            Err(problems) => {
                for problem in problems {
                    tracing::error!(path = problem.path, "{}", problem.message);
                }
                tracing::error!("the configuration was not reloaded; the old one stays in force");
                "the configuration was NOT reloaded: it has problems, see the log"
            }
        }
    }
}
