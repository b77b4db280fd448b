//! The command line. One file a command; each `run` returns the process's exit code: 0 done, 1
//! failed, 2 wrong usage or configuration.

pub mod admin;
pub mod backup;
pub mod check_config;
mod client;
pub mod demo;
pub mod doctor;
pub mod migrate;
pub mod openapi;
pub mod queue;
pub mod retention;
pub mod rules;
pub mod serve;
pub mod trace;

pub use client::http_client;

use crate::config::{self, Loaded, Overrides};
use clap::{Args, Parser, Subcommand};
use runtime::config::Problem;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// MUTT Security Manager, the control plane: takes events in, loses none, alerts the right team once.
#[derive(Debug, Parser)]
#[command(name = "muttd", version, max_term_width = 100)]
#[command(after_help = "Start with `muttd serve`. Settings: defaults, then --config FILE, then the environment.\n\
    `muttd check-config --print` shows them all with their values.")]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// Configuration file (TOML); `muttd check-config --defaults` prints a documented one
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder that holds everything that is kept [default: ./mutt-data; MUTT_DATA_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server: all roles in one process, or some of them
    Serve(serve::ServeArgs),
    /// Check the configuration; report every mistake at once
    CheckConfig(check_config::CheckArgs),
    /// Look into the queues and dead letters; replay what died
    Queue(queue::QueueArgs),
    /// Tell what happened to an event or an alert, and why
    Trace(trace::TraceArgs),
    /// Check, test and import rules
    Rules(rules::RulesArgs),
    /// Users of the Web API, their roles and keys
    Admin(admin::AdminArgs),
    /// Print the OpenAPI document of the HTTP interfaces
    Openapi,
    /// Bring the catalog's schema up to date, with the rights of the login that is configured
    Migrate(migrate::MigrateArgs),
    /// What is too old, what the archive and the partitions hold; a round of retention by hand
    Retention(retention::RetentionArgs),
    /// Check this machine and installation; say what to change
    Doctor(doctor::DoctorArgs),
    /// Copy the data of this machine while it runs, or check a copy
    Backup(backup::BackupArgs),
    /// Put a copy back
    Restore(backup::RestoreArgs),
    /// Run everything with sample events and a built-in receiver, and watch
    Demo(demo::DemoArgs),
}

impl Global {
    /// Reads the configuration with the process's environment.
    pub fn load(&self, roles: Option<Vec<String>>) -> Result<Loaded, Vec<Problem>> {
        let overrides = Overrides { data_dir: self.data_dir.clone(), roles };
        config::load(self.config.as_deref(), &runtime::config::environment(), &overrides)
    }
}

/// Prints the problems of a configuration.
fn print_problems(problems: &[Problem]) -> ExitCode {
    let mut err = std::io::stderr().lock();
    let noun = if problems.len() == 1 { "problem" } else { "problems" };
    let _ = writeln!(err, "muttd: the configuration has {} {noun}:", problems.len());
    for problem in problems {
        let _ = writeln!(err, "  {problem}");
    }
    ExitCode::from(2)
}

/// Prints a failure with its causes.
fn print_failure(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "muttd: {error:#}");
    ExitCode::FAILURE
}

/// Writes to standard output; a reader that went away ends the program quietly.
fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(0);
    }
}

/// A runtime for commands that talk to stores or servers.
fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(future))
}
