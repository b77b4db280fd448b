//! The command line. One file a command; each `run` returns the process's exit code: 0 done, 1
//! failed, 2 wrong usage or configuration.

pub mod admin;
mod agent_test;
pub mod agents;
mod authority;
pub mod backup;
pub mod check_config;
mod client;
pub mod demo;
pub mod doctor;
mod fleet;
pub mod incident;
pub mod migrate;
pub mod openapi;
pub mod queue;
pub mod retention;
pub mod route;
pub mod rules;
pub mod serve;
pub mod silence;
pub mod trace;

pub use client::http_client;

use crate::config::{self, Loaded, Overrides};
use clap::{Args, Parser, Subcommand};
use runtime::config::Problem;
use std::io::Write;
use std::path::{Path, PathBuf};
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
    /// Settings that the environment does not give (NAME=value, as systemd's EnvironmentFile); where
    /// installed by script: /etc/mutt/mutt.env
    #[arg(long, global = true, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
}

/// The settings of an installation by script.
pub const INSTALLED_ENV_FILE: &str = "/etc/mutt/mutt.env";

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
    /// Check, test, import and switch rules; hunt with them
    Rules(rules::RulesArgs),
    /// Incidents: alerts of one cause; acknowledge, assign and resolve them
    Incident(incident::IncidentArgs),
    /// Times in which nobody is told of some alerts
    Silence(silence::SilenceArgs),
    /// Who is told of which alerts: show and try the routing tree
    Route(route::RouteArgs),
    /// Agents: how they are; throw one out, forget one
    #[command(alias = "agent")]
    Agents(agents::AgentsArgs),
    /// Users of the Web API, their roles and keys; organisations; tokens by which agents come in
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
    /// Reads the configuration with the process's environment, and the file of `--env-file` below it.
    pub fn load(&self, roles: Option<Vec<String>>) -> Result<Loaded, Vec<Problem>> {
        let overrides = Overrides { data_dir: self.data_dir.clone(), roles };
        let mut environment = runtime::config::environment();
        if let Some(file) = &self.env_file {
            let text = std::fs::read_to_string(file).map_err(|error| {
                vec![Problem { path: file.display().to_string(), message: format!("cannot be read: {error}") }]
            })?;
            for (name, value) in runtime::env_file::parse(&text) {
                environment.entry(name).or_insert(value);
            }
        }
        config::load(self.config.as_deref(), &environment, &overrides)
    }

    /// The same for a command that is about an installation: says so when that has settings which the
    /// command was not given.
    fn load_installed(&self) -> Result<Loaded, Vec<Problem>> {
        if let Some(hint) = self.hint(Path::new(INSTALLED_ENV_FILE)) {
            let _ = writeln!(std::io::stderr(), "muttd: {hint}");
        }
        self.load(None)
    }

    fn hint(&self, installed: &Path) -> Option<String> {
        let environment = runtime::config::environment();
        let given = config::variables().any(|name| environment.contains_key(name));
        if self.env_file.is_some() || given || std::fs::File::open(installed).is_err() {
            return None;
        }
        let installed = installed.display();
        Some(format!("note: {installed} is not read; for the settings of the services: --env-file {installed}"))
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

/// What an attacker may have written must not move the cursor of whoever reads it.
fn plain(text: &str, chars_max: usize) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(chars_max).collect()
}

/// A runtime for commands that talk to stores or servers.
fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(future))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_is_pointed_at_unless_its_settings_are_given() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("mutt.env");
        assert_eq!(Global::default().hint(&file), None, "nothing is installed");
        std::fs::write(&file, "A=1\n").expect("a file");
        let hint = Global::default().hint(&file).expect("a hint");
        assert!(hint.contains(&format!("--env-file {}", file.display())), "{hint}");
        assert_eq!(Global { env_file: Some(file.clone()), ..Global::default() }.hint(&file), None);
    }
}
