//! The command line, read as Go's `flag` package reads it: `-x v`, `-x=v`, `--x v`; a switch takes no separate word;
//! what is unknown ends the process with 2, help with 0. In front there may be a command.

use super::Parsed;
use std::collections::BTreeMap;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Run,
    Status,
    Doctor,
}

pub(super) struct Flag {
    pub name: &'static str,
    /// Its variable, in the environment or the configuration file.
    pub env: &'static str,
    /// Names in the files of earlier installers.
    pub old: &'static str,
    is_switch: bool,
    help: &'static str,
}

const fn flag(name: &'static str, env: &'static str, old: &'static str, help: &'static str) -> Flag {
    Flag { name, env, old, is_switch: false, help }
}

const fn switch(name: &'static str, env: &'static str, old: &'static str, help: &'static str) -> Flag {
    Flag { name, env, old, is_switch: true, help }
}

pub(super) const FLAGS: &[Flag] = &[
    flag("ca", "SM_CA_FILE", "", "authorities to believe for the server's real name (PEM file)"),
    flag("collectors", "SM_COLLECTORS", "", "names of the collectors to run, with commas (default all)"),
    flag("config", "SM_CONFIG", "", "file of NAME=value lines (default /opt/security-manager/sm-agent.conf)"),
    flag("data-dir", "SM_DATA_DIR", "", "where records wait and keys are kept (default /var/lib/sm-agent)"),
    flag("events-per-second", "SM_EVENTS_PER_SECOND", "", "of a collector that cannot read again (default 200)"),
    flag("file", "SM_FILE_PATH", "", "files or patterns to follow, with commas"),
    flag("host", "SM_HOST_ID", "HOST_ID", "name of this host (default the system's)"),
    flag("ingest", "SM_INGEST_URL", "INGEST_URL", "address of the server (default localhost:9002)"),
    switch("insecure", "SM_INSECURE", "", "allow -tls=false although the token names the server's authority"),
    flag("log-level", "SM_LOG_LEVEL", "", "error, warn, info, debug (default info)"),
    flag("multiline", "SM_FILE_MULTILINE", "", "pattern of a message's first line, or \"indent\""),
    flag("org", "SM_ORG_ID", "ORG_ID", "organisation (default from the token)"),
    switch("process-hash", "SM_PROCESS_HASH", "", "hash what is executed (SHA-256)"),
    flag("service", "", "", "of old installers; says what to use instead, and ends"),
    flag("spool-mb", "SM_SPOOL_MB", "", "most that records may take on disk, in MiB (default 256)"),
    switch(
        "tls",
        "SM_USE_TLS",
        "TLS_ENABLED",
        "encrypt, and verify the server (default if the token names its authority)",
    ),
    flag("token", "SM_TOKEN", "TOKEN", "token of this host; better in the configuration than here"),
    flag("token-file", "SM_TOKEN_FILE", "", "file with the token"),
    switch("version", "", "", "say the version and end"),
];

const COMMANDS: &str = "\
Usage of sm-agent:
  sm-agent [flags]
    \tobserve this host and bring what it sees to the control plane
  sm-agent status [flags]
    \tshow what the running agent says of itself: connection, certificate, what waits
  sm-agent doctor [flags]
    \tcheck settings, permissions, server, trust, certificate, collectors, disk and service,
    \tand say what to do about what is wrong; ends with 0 if all is well, else with 1

Flags win over the variables in brackets, and these over the same names in the -config file:
";

fn usage() -> String {
    let mut text = COMMANDS.to_owned();
    for flag in FLAGS {
        let value = if flag.is_switch { "" } else { " string" };
        let variable = if flag.env.is_empty() { String::new() } else { format!(" [{}]", flag.env) };
        text.push_str(&format!("  -{}{value}\n    \t{}{variable}\n", flag.name, flag.help));
    }
    text
}

fn refuse(why: &str) -> Parsed {
    Parsed::Exit { code: 2, stdout: String::new(), stderr: format!("{why}\n{}", usage()) }
}

/// The command and the flags that were given, or how it ends.
pub(super) fn read(args: &[String]) -> Result<(Command, BTreeMap<&'static str, String>), Parsed> {
    let (command, args) = match args.split_first() {
        Some((first, rest)) if first == "status" => (Command::Status, rest),
        Some((first, rest)) if first == "doctor" => (Command::Doctor, rest),
        Some(_) | None => (Command::Run, args),
    };
    let mut found = BTreeMap::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some(name) = arg.strip_prefix('-').filter(|rest| !rest.is_empty()) else { break };
        if arg == "--" {
            break;
        }
        let name = name.strip_prefix('-').unwrap_or(name);
        if name.is_empty() || name.starts_with('-') || name.starts_with('=') {
            return Err(refuse(&format!("bad flag syntax: {arg}")));
        }
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        if matches!(name, "h" | "help") {
            return Err(Parsed::Exit { code: 0, stdout: String::new(), stderr: usage() });
        }
        let Some(flag) = FLAGS.iter().find(|flag| flag.name == name) else {
            return Err(refuse(&format!("flag provided but not defined: -{name}")));
        };
        let value = match value {
            Some(value) if flag.is_switch && boolean(&value).is_none() => {
                let why = format!("invalid boolean value {value:?} for -{name}: parse error");
                return Err(refuse(&why));
            }
            Some(value) => value,
            None if flag.is_switch => "true".to_owned(),
            None => match args.next() {
                Some(value) => value.clone(),
                None => return Err(refuse(&format!("flag needs an argument: -{name}"))),
            },
        };
        found.insert(flag.name, value);
    }
    Ok((command, found))
}

/// As Go reads one.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// What to use instead of what the original's `-service` did.
pub(super) fn service(asked: &str) -> String {
    let instead = match asked {
        "install" => "run the installer: curl -fsS https://SERVER:9002/install.sh | sudo sh",
        "uninstall" => "run the installer with --uninstall",
        "start" => "systemctl start sm-agent",
        "stop" => "systemctl stop sm-agent",
        _ => "the installer installs and uninstalls, systemctl starts and stops",
    };
    format!("-service {asked}: sm-agent does not manage itself as a service; instead: {instead}")
}
