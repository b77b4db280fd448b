//! `muttd check-config`.

use super::{Global, out, print_problems};
use crate::config::Config;
use clap::Args;
use rules::sigma::Gravity;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Print the settings in force, keys hidden
    #[arg(long)]
    pub print: bool,
    /// Print the documented defaults, to start a file of your own
    #[arg(long)]
    pub defaults: bool,
    /// Print what would be listened on: protocol, address and setting a line, for scripts
    #[arg(long, conflicts_with_all = ["print", "defaults"])]
    pub listens: bool,
}

pub fn run(global: &Global, args: &CheckArgs) -> ExitCode {
    if args.defaults {
        out(crate::config::DEFAULTS);
        return ExitCode::SUCCESS;
    }
    let loaded = match global.load_installed() {
        Ok(loaded) => loaded,
        Err(problems) => return print_problems(&problems),
    };
    if args.listens {
        out(&listens(&loaded.config));
        return ExitCode::SUCCESS;
    }
    if args.print {
        out(&loaded.effective);
    }
    let roles: Vec<&str> = loaded.config.roles.iter().map(|r| r.as_str()).collect();
    let mut text = String::new();
    for note in &loaded.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    let files = crate::rule_files::read(&loaded.config.rule_paths);
    for problem in files.problems.iter().map(ToString::to_string).chain(files.unreadable.iter().cloned()) {
        text.push_str(&format!("rule problem: {problem}\n"));
    }
    for (file, _) in &files.sigma {
        text.push_str(&format!("rule problem: {file} has no list `rules`; Sigma rules belong to detection.rules\n"));
    }
    let detection = crate::detection_rules::read(&loaded.config.detection);
    let detection = detection.shared();
    let refused: Vec<_> = detection.problems.iter().filter(|problem| problem.gravity == Gravity::Refused).collect();
    for problem in &refused {
        text.push_str(&format!("detection rule refused: {problem}\n"));
    }
    let (_, fields) = crate::field_maps::read(&loaded.config.detection.field_paths);
    for problem in &fields {
        text.push_str(&format!("fields: {problem}\n"));
    }
    let unmapped = fields.iter().filter(|problem| problem.gravity == Gravity::Refused).count();
    let bad_rules = files.problems.len() + files.unreadable.len() + files.sigma.len() + refused.len() + unmapped;
    if !args.print {
        text.push_str(&format!(
            "the configuration is valid: roles {}; data in {}; {} channel(s); {} rule(s) in files, {} detection rule(s)\n",
            roles.join(", "),
            loaded.config.data_dir.display(),
            loaded.config.channels.len(),
            files.rules.len(),
            detection.rules.len() + detection.correlations.len(),
        ));
    }
    out(&text);
    if bad_rules == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn listens(config: &Config) -> String {
    let tcp = config.listens().into_iter().map(|listen| ("tcp", listen));
    let udp = config.listens_udp().into_iter().map(|listen| ("udp", listen));
    tcp.chain(udp).map(|(protocol, listen)| format!("{protocol} {} {}\n", listen.address, listen.setting)).collect()
}
