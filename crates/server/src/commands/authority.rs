//! `muttd admin authority {show,rotate,retire}`: the authority that certifies agents, on its folder. Gateways that run
//! there take a change over within seconds.

use super::{Global, out, print_problems};
use crate::authority::Authority;
use anyhow::{Context, Result};
use clap::Subcommand;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, Subcommand)]
pub enum AuthorityCommand {
    /// Its roots: fingerprint, as tokens carry it, and end; with --pem the certificates
    Show {
        /// The certificates, for agents that are told by a file (-ca)
        #[arg(long)]
        pem: bool,
    },
    /// Make another root; agents that know the old one go on, and get the new one when they renew
    #[command(
        after_help = "Do this when the key may be known to somebody, or its end is near. Tokens of before stay good. When\n\
        every agent has renewed (at most ingest.agents.certificate_days), `muttd admin authority retire` ends\n\
        the old root."
    )]
    Rotate,
    /// Believe the root before no more: agents that have not renewed since must enrol anew
    Retire,
}

pub fn run(global: &Global, command: &AuthorityCommand) -> Result<ExitCode> {
    let loaded = match global.load(None) {
        Ok(loaded) => loaded,
        Err(problems) => return Ok(print_problems(&problems)),
    };
    let settings = loaded.config.agents.context("the gateway for agents is off (setting ingest.agents.listen)")?;
    let dir = settings.authority.dir.clone();
    if !Authority::is_in(&dir) {
        anyhow::bail!("there is no authority in `{}` yet: the first start of an ingestor makes it", dir.display());
    }
    let authority = Authority::open(settings.authority, Arc::new(runtime::SystemClock))?;
    match command {
        AuthorityCommand::Show { pem: true } => out(&authority.roots_pem()),
        AuthorityCommand::Show { pem: false } => out(&shown(&authority)?),
        AuthorityCommand::Rotate => {
            authority.rotate()?;
            out(&format!("A new root is in force; the one before is still believed.\n{}", shown(&authority)?));
        }
        AuthorityCommand::Retire if authority.retire()? => {
            out(&format!("The root before is believed no more.\n{}", shown(&authority)?));
        }
        AuthorityCommand::Retire => out("There is no root before.\n"),
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(authority: &Authority) -> Result<String> {
    let mut text = String::new();
    for (n, (fingerprint, ends_at)) in authority.roots()?.into_iter().enumerate() {
        let what = if n == 0 { "in force" } else { "before" };
        let _ = writeln!(text, "{fingerprint}  {what:<8}  until {}", ends_at.day());
    }
    Ok(text)
}
