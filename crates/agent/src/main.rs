//! `sm-agent`: observes a host, keeps what it sees, and brings it to the control plane.

use agent::report::Report;
use agent::settings::{Examined, Parsed, Settings, parse};
use runtime::logging::LogConfig;
use runtime::{Clock, Stopper, SystemClock};
use std::io::Write;
use std::path::Path;
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
        Parsed::Status(data_dir) => status(&data_dir),
        Parsed::Doctor(examined) => match doctor(&examined) {
            Ok(code) => code,
            Err(error) => fail(&error),
        },
        Parsed::Run(settings, warnings) => match start(*settings, &warnings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&*error),
        },
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    let mut text = format!("sm-agent: {error}");
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::FAILURE
}

fn say(text: &str, is_well: bool) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the agent wrote last; well if it still lives.
fn status(data_dir: &Path) -> ExitCode {
    let now_unix_ms = SystemClock.now().millis();
    match Report::read(data_dir) {
        Ok(report) if report.is_alive() => say(&report.lines(now_unix_ms), report.is_fresh(now_unix_ms)),
        Ok(report) => {
            say(&format!("the agent does not run; this is what it said last\n{}", report.lines(now_unix_ms)), false)
        }
        Err(error) => fail(&error),
    }
}

fn doctor(examined: &Examined) -> Result<ExitCode, std::io::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let findings = runtime.block_on(agent::doctor::examine(examined, SystemClock.now().millis()));
    // A resolver that hangs keeps nobody.
    runtime.shutdown_background();
    let (text, is_well) = agent::doctor::words(&findings);
    Ok(say(&text, is_well))
}

/// One thread for what is ready to be done, whatever the number of cores: several would mostly wake each other.
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
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(agent::BLOCKING_MAX).enable_all().build()?;
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
