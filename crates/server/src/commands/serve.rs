//! `muttd serve`: logging, configuration, build, announce, run, wait for a signal, drain.

use super::{Global, block_on, print_failure, print_problems};
use crate::app::{App, AppHandle};
use crate::keys::Key;
use clap::Args;
use runtime::logging::LevelHandle;
use runtime::{Clock, ServiceManager, Stop, Stopper, SystemClock};
use std::process::ExitCode;
use std::sync::Arc;
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
        let app = App::build(loaded.config, clock).await?;
        let (stopper, stop) = Stopper::new();
        announce(&app);
        let manager = ServiceManager::from_environment(&runtime::config::environment());
        let running = Running {
            handle: app.handle(),
            level,
            global: global.clone(),
            roles: args.roles,
            manager: manager.clone(),
        };
        let signals = tokio::spawn(signals(stopper, stop.clone(), running));
        let clean = app.run_under(stop, &manager).await;
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

fn announce(app: &App) {
    let addresses = app.addresses();
    for (what, address) in [
        ("HTTP ingest", addresses.ingest),
        ("syslog UDP", addresses.syslog_udp),
        ("syslog TCP", addresses.syslog_tcp),
        ("syslog TLS", addresses.syslog_tls),
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
    if app.parts().channels.is_empty() {
        tracing::warn!(
            "no alert channel is configured: alerts are kept in the catalog only (settings forwarder.moog.url, [[channel]])"
        );
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

/// What a reload needs.
struct Running {
    handle: AppHandle,
    level: LevelHandle,
    global: Global,
    roles: Option<Vec<String>>,
    manager: ServiceManager,
}

/// SIGTERM and SIGINT stop, a second one at once; SIGHUP reloads.
async fn signals(stopper: Stopper, stop: Stop, running: Running) {
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
                running.manager.reloading();
                let status = running.reload().await;
                running.manager.ready(status);
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

impl Running {
    /// Reads the configuration again; what `systemctl status` is to show of it.
    async fn reload(&self) -> &'static str {
        match self.global.load(self.roles.clone()) {
            Ok(loaded) => {
                if let Err(message) = self.level.set(&loaded.config.log.level) {
                    tracing::error!(message, "the log level stays");
                }
                self.handle.apply(&loaded.config).await;
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
