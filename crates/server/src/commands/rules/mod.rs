//! `muttd rules …`: check, test, import, and hunt with rules.

mod backtest;
mod documents;
mod explain;
mod hunt;
mod import;
mod lint;
mod list;
mod past;
mod run;
mod schedule;
mod test;

use super::client::Client;
use super::{Global, block_on, out, plain, print_failure};
use anyhow::Result;
use clap::{Args, Subcommand};
use rules::file::FileRule;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct RulesArgs {
    #[command(subcommand)]
    command: RulesCommand,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    /// Hunt with Sigma rules in files of events, without a server
    Run(run::RunArgs),
    /// What Sigma rules would have found in the events that are kept, by day and host
    Backtest(backtest::BacktestArgs),
    /// Hunt with Sigma rules in the events that are kept
    Hunt(hunt::HuntArgs),
    /// How far scheduled rules came, their last runs, and what they could not look at
    Schedule(schedule::ScheduleArgs),
    /// What Sigma rules mean in words and in SQL, and why they match an event
    Explain(explain::ExplainArgs),
    /// Check rule files: mistakes, and what is probably not meant
    Lint {
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// One JSON object a finding
        #[arg(long)]
        json: bool,
    },
    /// Run the examples beside rules, or ask which rules match an event and who would be told
    Test(test::TestArgs),
    /// Detection rules of the server and how they stand
    List(list::ListArgs),
    /// A detection rule: what it means, how it stands, its text
    Show(list::ShowArgs),
    /// Say whether a detection rule is on, its level and its team, without touching its text
    Set(list::SetArgs),
    /// Put rules into the catalog: all of them or none
    Import(import::ImportArgs),
    /// All documents of detection rules, into an archive or a folder
    Export(documents::ExportArgs),
    /// Documents of detection rules, or the versions of one
    History(documents::HistoryArgs),
    /// Put an earlier version of a document back
    Restore(documents::RestoreArgs),
    /// Remove a document of detection rules
    Remove(documents::RemoveArgs),
}

pub fn run(global: &Global, args: RulesArgs) -> ExitCode {
    match args.command {
        RulesCommand::Run(args) => run::run(&args),
        RulesCommand::Backtest(args) => ended(block_on(backtest::run(global, &args))),
        RulesCommand::Schedule(args) => ended(block_on(schedule::run(global, &args))),
        RulesCommand::Hunt(args) => ended(block_on(hunt::run(global, &args))),
        RulesCommand::Explain(args) => explain::run(&args),
        RulesCommand::Lint { paths, json } => lint::run(&paths, json),
        RulesCommand::Test(args) => test::run(global, &args),
        RulesCommand::List(args) => say(global, async |client| list::list(client, args).await),
        RulesCommand::Show(args) => say(global, async |client| list::show(client, args).await),
        RulesCommand::Set(args) => say(global, async |client| list::set(client, args).await),
        RulesCommand::Export(args) => say(global, async |client| documents::export(client, &args).await),
        RulesCommand::History(args) => say(global, async |client| documents::history(client, args).await),
        RulesCommand::Restore(args) => say(global, async |client| documents::restore(client, &args).await),
        RulesCommand::Remove(args) => say(global, async |client| documents::remove(client, &args).await),
        RulesCommand::Import(args) => match block_on(import::run(global, &args)) {
            Ok(Ok(code)) => code,
            Ok(Err(error)) => print_failure(&error),
            Err(error) => print_failure(&error.into()),
        },
    }
}

/// Asks the server, and says what comes of it.
fn say(global: &Global, ask: impl AsyncFnOnce(&Client) -> Result<String>) -> ExitCode {
    let done = block_on(async {
        // Boxed: the future of all that a client can be is deep.
        let client = Box::pin(Client::open(global)).await?;
        Box::pin(ask(&client)).await
    });
    match done {
        Ok(Ok(text)) => {
            out(&text);
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => print_failure(&error),
        Err(error) => print_failure(&error.into()),
    }
}

fn ended(result: std::io::Result<Result<()>>) -> ExitCode {
    match result {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => print_failure(&error),
        Err(error) => print_failure(&error.into()),
    }
}

fn place(rule: &FileRule) -> String {
    format!("\"{}\" (line {})", rule.name, rule.line)
}
