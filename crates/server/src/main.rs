//! `muttd`: the control plane. One `match`: every process it can be is on this screen.

use clap::Parser;
use server::commands::{self, Cli, Command};
use std::process::ExitCode;

/// Events are allocated on one thread and freed on another; the system's allocator is slow at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Serve(args) => commands::serve::run(&cli.global, args),
        Command::CheckConfig(args) => commands::check_config::run(&cli.global, &args),
        Command::Queue(args) => commands::queue::run(&cli.global, args),
        Command::Trace(args) => commands::trace::run(&cli.global, &args),
        Command::Rules(args) => commands::rules::run(&cli.global, args),
        Command::Incident(args) => commands::incident::run(&cli.global, args),
        Command::Silence(args) => commands::silence::run(&cli.global, args),
        Command::Route(args) => commands::route::run(&cli.global, args),
        Command::Agents(args) => commands::agents::run(&cli.global, args),
        Command::Admin(args) => commands::admin::run(&cli.global, args),
        Command::Openapi => commands::openapi::run(),
        Command::Migrate(args) => commands::migrate::run(&cli.global, &args),
        Command::Retention(args) => commands::retention::run(&cli.global, &args),
        Command::Doctor(args) => commands::doctor::run(&cli.global, &args),
        Command::Backup(args) => commands::backup::run(&cli.global, args),
        Command::Restore(args) => commands::backup::restore(&cli.global, &args),
        Command::Demo(args) => commands::demo::run(&cli.global, args),
    }
}
