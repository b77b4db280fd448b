//! `sm-agent`: observes a host, keeps what it sees, and brings it to the control plane.

use agent::settings::{Parsed, Settings, parse};
use runtime::logging::LogConfig;
use runtime::{Stopper, SystemClock};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let env = runtime::config::environment();
    let hostname = agent::host::hostname();
    match parse(&args, &env, &hostname, |path| std::fs::read_to_string(path).ok()) {
        Parsed::Exit { code, stdout, stderr } => {
            // Whoever closed them does not want to know.
            let _ = std::io::stdout().write_all(stdout.as_bytes());
            let _ = std::io::stderr().write_all(stderr.as_bytes());
            ExitCode::from(code)
        }
        Parsed::Status(_) | Parsed::Doctor(_) => ExitCode::FAILURE,
        Parsed::Run(settings, warnings) => match start(*settings, &warnings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let mut text = format!("sm-agent: {error}");
                let mut next = error.source();
                while let Some(cause) = next {
                    text = format!("{text}: {cause}");
                    next = cause.source();
                }
                let _ = writeln!(std::io::stderr(), "{text}");
                ExitCode::FAILURE
            }
        },
    }
}

/// Two threads for what waits, whatever the number of cores; files and disks have threads of their own.
fn start(settings: Settings, warnings: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let log = LogConfig {
        level: settings.log_level.clone(),
        json: false,
        service: "sm-agent".to_owned(),
        pod_name: settings.host.clone(),
    };
    runtime::logging::init(&log, Arc::new(SystemClock))?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(8).enable_all().build()?;
    runtime.block_on(async {
        let (stopper, stop) = Stopper::new();
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let run = tokio::spawn(agent::run::run(settings, stop));
        let asked = async {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            tracing::info!("asked to stop");
            stopper.stop();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = run => Ok(ended??),
            () = asked => Ok(()),
        }
    })
}
