//! `muttd backup` and `muttd restore`: the embedded stores, keys and the configuration file.

use super::{Global, out, print_failure, print_problems};
use clap::{Args, Subcommand};
use runtime::{Clock, SystemClock};
use std::path::PathBuf;
use std::process::ExitCode;
use storage::backup::{self, BackupError};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BackupArgs {
    #[command(subcommand)]
    command: Option<BackupCommand>,
    /// New folder for the copy; the server may run meanwhile
    #[arg(long, value_name = "DIR", required = true)]
    to: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// Check a backup against its manifest
    Verify {
        /// The backup's folder
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup's folder
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Replace a data directory that is not empty; what is there is moved aside
    #[arg(long)]
    force: bool,
}

/// Makes or checks a backup. The extra file is the one of `--config`.
pub fn run(global: &Global, args: BackupArgs) -> ExitCode {
    if let Some(BackupCommand::Verify { dir }) = args.command {
        return match backup::verify(&dir) {
            Ok(manifest) => said(&format!(
                "sound: {} files, {} bytes, made {} by muttd {}\n",
                manifest.files.len(),
                manifest.bytes(),
                manifest.created,
                manifest.version
            )),
            Err(error) => failed(error),
        };
    }
    let loaded = match global.load(None) {
        Ok(loaded) => loaded,
        Err(problems) => return print_problems(&problems),
    };
    let Some(to) = args.to else { return failed(BackupError::Refused("--to DIR is needed".to_owned())) };
    let extra: Vec<(String, PathBuf)> =
        global.config.iter().map(|file| ("muttd.toml".to_owned(), file.clone())).collect();
    let now = SystemClock.now().rfc3339();
    match backup::create(&loaded.config.data_dir, &extra, &to, &now, env!("CARGO_PKG_VERSION")) {
        Ok(manifest) => said(&format!(
            "{} files, {} bytes are in {}; they hold keys: keep them closed\n",
            manifest.files.len(),
            manifest.bytes(),
            to.display()
        )),
        Err(error) => failed(error),
    }
}

/// Puts a backup in place of the data directory.
pub fn restore(global: &Global, args: &RestoreArgs) -> ExitCode {
    let loaded = match global.load(None) {
        Ok(loaded) => loaded,
        Err(problems) => return print_problems(&problems),
    };
    let dir = &loaded.config.data_dir;
    let aside = format!(".before-restore-{}", SystemClock.now().secs());
    match backup::restore(&args.from, dir, args.force, &aside) {
        Ok((manifest, old)) => {
            let old = old.map_or_else(String::new, |old| format!("; what was there is in {}", old.display()));
            said(&format!(
                "{} files of {} are in {}{old}\nThey belong to the user who ran this; a service of another user needs: chown -R mutt: {}\n",
                manifest.files.len(),
                manifest.created,
                dir.display(),
                dir.display()
            ))
        }
        Err(error) => failed(error),
    }
}

fn said(text: &str) -> ExitCode {
    out(text);
    ExitCode::SUCCESS
}

fn failed(error: BackupError) -> ExitCode {
    print_failure(&error.into())
}
