//! What the agent is told: flags, then the environment, then `sm-agent.conf`.
//!
//! Flags are read as the original did, which is as Go's `flag` package does: `-x v`, `-x=v`, `--x v`; a switch takes no
//! separate word; what is unknown ends the process with 2, help with 0. Names of earlier installers are read too.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where installers put the configuration.
pub const CONF: &str = "/opt/security-manager/sm-agent.conf";
/// The token of demonstrations. It names no organisation.
const DEMO: (&str, &str) = ("demo", "sm_tok_demo123");

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub org: String,
    pub token: runtime::Secret,
    pub host: String,
    pub ingest: String,
    /// Files and patterns to follow.
    pub files: Vec<String>,
    /// How a message of several lines begins; a pattern, or `indent`.
    pub multiline: Option<String>,
    pub tls: bool,
    pub ca_file: Option<PathBuf>,
    pub data_dir: PathBuf,
    pub log_level: String,
    /// Names of collectors; `None`: all that can run.
    pub collectors: Option<Vec<String>>,
    pub spool_bytes_max: u64,
    /// Whether executables are hashed when they are started.
    pub process_hash: bool,
    /// Events of one collector whose source cannot be read again; 20 seconds' worth may come at once.
    pub events_per_second: u32,
}

/// What a command line comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// With sentences for the log.
    Run(Box<Settings>, Vec<String>),
    /// End at once.
    Exit { code: u8, stdout: String, stderr: String },
}

struct Flag {
    name: &'static str,
    env: &'static str,
    /// Names in the files of earlier installers.
    old: &'static str,
    is_switch: bool,
    help: &'static str,
}

const fn flag(name: &'static str, env: &'static str, old: &'static str, help: &'static str) -> Flag {
    Flag { name, env, old, is_switch: false, help }
}

const FLAGS: &[Flag] = &[
    flag("ca", "SM_CA_FILE", "", "certificates of the authority to believe (PEM file)"),
    flag("collectors", "SM_COLLECTORS", "", "names of the collectors to run, with commas (default all)"),
    flag("config", "SM_CONFIG", "", "file of NAME=value lines (default /opt/security-manager/sm-agent.conf)"),
    flag("data-dir", "SM_DATA_DIR", "", "where records wait and keys are kept (default /var/lib/sm-agent)"),
    flag("events-per-second", "SM_EVENTS_PER_SECOND", "", "of a collector that cannot read again (default 200)"),
    flag("file", "SM_FILE_PATH", "", "files or patterns to follow, with commas"),
    flag("host", "SM_HOST_ID", "HOST_ID", "name of this host (default from the token, or the system's)"),
    flag("ingest", "SM_INGEST_URL", "INGEST_URL", "address of the server (default localhost:9002)"),
    flag("log-level", "SM_LOG_LEVEL", "", "error, warn, info, debug (default info)"),
    flag("multiline", "SM_FILE_MULTILINE", "", "pattern of a message's first line, or \"indent\""),
    flag("org", "SM_ORG_ID", "ORG_ID", "organisation (default from the token)"),
    Flag { is_switch: true, ..flag("process-hash", "SM_PROCESS_HASH", "", "hash what is executed (SHA-256)") },
    flag("service", "", "", "accepted for old installers; services are the service manager's"),
    flag("spool-mb", "SM_SPOOL_MB", "", "most that records may take on disk, in MiB (default 256)"),
    Flag { is_switch: true, ..flag("tls", "SM_USE_TLS", "TLS_ENABLED", "encrypt, and verify the server") },
    flag("token", "SM_TOKEN", "TOKEN", "token of this host; better in the configuration than here"),
    flag("token-file", "SM_TOKEN_FILE", "", "file with the token"),
    Flag { is_switch: true, ..flag("version", "", "", "say the version and end") },
];

fn usage() -> String {
    let mut text = "Usage of sm-agent:\n".to_owned();
    for flag in FLAGS {
        let value = if flag.is_switch { "" } else { " string" };
        text.push_str(&format!("  -{}{value}\n    \t{}\n", flag.name, flag.help));
    }
    text
}

fn refuse(why: &str) -> Parsed {
    Parsed::Exit { code: 2, stdout: String::new(), stderr: format!("{why}\n{}", usage()) }
}

fn fatal(why: impl Into<String>) -> Parsed {
    Parsed::Exit { code: 1, stdout: String::new(), stderr: format!("{}\n", why.into()) }
}

/// The flags that were given, or how it ends.
fn flags(args: &[String]) -> Result<BTreeMap<&'static str, String>, Parsed> {
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
            Some(value) if flag.is_switch && switch(&value).is_none() => {
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
    Ok(found)
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Organisation and host in a token of the form `sm_<org>_<digits>_<rest>`.
fn in_token(token: &str) -> Option<(&str, &str)> {
    let (org, rest) = token.strip_prefix("sm_")?.split_once('_')?;
    let (digits, host) = rest.split_once('_')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    (is_number && !org.is_empty() && !host.is_empty()).then_some((org, host))
}

/// Makes settings of what was given. `read` reads a file; `hostname` is the system's.
pub fn parse(
    args: &[String],
    env: &BTreeMap<String, String>,
    hostname: &str,
    read: impl Fn(&str) -> Option<String>,
) -> Parsed {
    let flags = match flags(args) {
        Ok(flags) => flags,
        Err(end) => return end,
    };
    if flags.get("version").is_some_and(|v| switch(v) == Some(true)) {
        let stdout = format!("sm-agent {}\n", env!("CARGO_PKG_VERSION"));
        return Parsed::Exit { code: 0, stdout, stderr: String::new() };
    }
    if flags.contains_key("service") {
        return fatal("-service: install, start and stop sm-agent with the installer and the service manager");
    }
    let mut warnings = Vec::new();
    let asked = flags.get("config").or_else(|| env.get("SM_CONFIG"));
    let conf = match (asked, read(asked.map_or(CONF, String::as_str))) {
        // Some editors begin a file with a mark of its encoding.
        (_, Some(text)) => runtime::env_file::parse(text.trim_start_matches('\u{feff}')),
        (Some(path), None) => return fatal(format!("cannot read the configuration file {path}")),
        (None, None) => BTreeMap::new(),
    };
    let mut get = |name: &str| -> Option<String> {
        let flag = FLAGS.iter().find(|flag| flag.name == name)?;
        if let Some(value) = flags.get(name) {
            return Some(value.clone());
        }
        let set = |names: &BTreeMap<String, String>, name: &str| names.get(name).filter(|v| !v.is_empty()).cloned();
        if let Some(value) = set(env, flag.env).or_else(|| set(&conf, flag.env)) {
            return Some(value);
        }
        let value = set(env, flag.old).or_else(|| set(&conf, flag.old))?;
        warnings.push(format!("{} is an old name: use {}", flag.old, flag.env));
        Some(value)
    };
    let token = match (get("token"), get("token-file")) {
        (Some(token), _) => token,
        (None, Some(path)) => match read(&path) {
            Some(text) => text.trim().to_owned(),
            None => return fatal(format!("cannot read the token file {path}")),
        },
        (None, None) => String::new(),
    };
    let in_token = in_token(&token);
    let org = match (get("org"), in_token) {
        (Some(org), Some((named, _))) if org != named => {
            return fatal(format!("-org is {org}, but the token is of {named}"));
        }
        (Some(org), _) => org,
        (None, Some((named, _))) => named.to_owned(),
        (None, None) if token == DEMO.1 => DEMO.0.to_owned(),
        (None, None) if token.is_empty() => return fatal("missing -token flag or SM_TOKEN env"),
        (None, None) => return fatal("missing -org flag or SM_ORG_ID env: this token names no organisation"),
    };
    if token.is_empty() {
        return fatal("missing -token flag or SM_TOKEN env");
    }
    let host = get("host").or_else(|| in_token.map(|(_, host)| host.to_owned())).unwrap_or_else(|| hostname.to_owned());
    let list = |text: Option<String>| -> Vec<String> {
        text.iter().flat_map(|t| t.split(',')).map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect()
    };
    let tls = get("tls").is_some_and(|text| switch(&text) == Some(true));
    let ingest = get("ingest").unwrap_or_else(|| "localhost:9002".to_owned());
    let (ingest, tls) = match (ingest.strip_prefix("https://"), ingest.strip_prefix("http://")) {
        (Some(rest), _) => (rest.to_owned(), true),
        (None, Some(rest)) => (rest.to_owned(), tls),
        (None, None) => (ingest, tls),
    };
    let ingest = ingest.trim_end_matches('/').to_owned();
    let ingest = if has_port(&ingest) { ingest } else { format!("{ingest}:9002") };
    let spool_mb = get("spool-mb").map(|text| text.parse::<u64>().ok().filter(|mb| (4..=1 << 20).contains(mb)));
    let spool_mb = match spool_mb {
        Some(None) => return fatal("-spool-mb: from 4 to 1048576 MiB"),
        Some(Some(mb)) => mb,
        None => 256,
    };
    let events_per_second = match get("events-per-second").map(|text| text.parse().ok()) {
        None => 200,
        Some(Some(limit @ 1..=100_000)) => limit,
        Some(Some(_) | None) => return fatal("-events-per-second: from 1 to 100000"),
    };
    let process_hash = get("process-hash").is_some_and(|text| switch(&text) == Some(true));
    let multiline = get("multiline");
    if let Some(Err(error)) = multiline.as_deref().filter(|m| *m != "indent").map(regex::Regex::new) {
        return fatal(format!("-multiline: {error}"));
    }
    let collectors = get("collectors").map(|text| list(Some(text)));
    let known = crate::collectors::NAMES;
    if let Some(odd) = collectors.iter().flatten().find(|name| !known.contains(&name.as_str())) {
        return fatal(format!("-collectors: there is no {odd}; there are {}", known.join(", ")));
    }
    let log_level = get("log-level").unwrap_or_else(|| "info".to_owned());
    if let Err(error) = runtime::logging::check_level(&log_level) {
        return fatal(error);
    }
    let settings = Settings {
        org,
        token: runtime::Secret::new(token),
        host,
        ingest,
        files: list(get("file")),
        multiline,
        tls,
        ca_file: get("ca").map(PathBuf::from),
        data_dir: get("data-dir").map_or_else(|| PathBuf::from("/var/lib/sm-agent"), PathBuf::from),
        log_level,
        collectors,
        spool_bytes_max: spool_mb << 20,
        process_hash,
        events_per_second,
    };
    Parsed::Run(Box::new(settings), warnings)
}

/// `host:port`, `[v6]:port`; not `host`, not `[v6]`.
fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str], env: &[(&str, &str)], conf: &str) -> Parsed {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        parse(&args, &env, "box", |path| match path {
            CONF if !conf.is_empty() => Some(conf.to_owned()),
            "/token" => Some("sm_acme_1_t\n".to_owned()),
            _ => None,
        })
    }

    fn settings(args: &[&str], env: &[(&str, &str)], conf: &str) -> Settings {
        match run(args, env, conf) {
            Parsed::Run(settings, _) => *settings,
            Parsed::Exit { stderr, .. } => panic!("{args:?}: {stderr}"),
        }
    }

    fn exit(args: &[&str]) -> (u8, String) {
        match run(args, &[], "") {
            Parsed::Exit { code, stderr, .. } => (code, stderr),
            Parsed::Run(settings, _) => panic!("{args:?}: {settings:?}"),
        }
    }

    const BASE: &[&str] = &["-org", "acme", "-token", "t"];

    #[test]
    fn flags_are_read_as_go_reads_them() {
        for args in [
            &["-org", "o", "-token", "t", "-ingest", "s:1", "-tls"][..],
            &["-org=o", "-token=t", "-ingest=s:1", "-tls=true"],
            &["--org", "o", "--token", "t", "--ingest=s:1", "--tls=1", "--", "-x"],
            &["-tls", "-org", "o", "-token", "t", "-ingest", "s:1", "rest", "-x"],
        ] {
            let found = settings(args, &[], "");
            assert_eq!((&*found.org, &*found.ingest, found.tls), ("o", "s:1", true), "{args:?}");
        }
        // A switch takes no separate word: it ends the flags.
        assert_eq!(exit(&["-tls", "true", "-org", "o"]).0, 1);
        assert_eq!(settings(&["-org", "-x", "-token", "t"], &[], "").org, "-x");
    }

    #[test]
    fn what_cannot_be_read_ends_with_2_and_help_with_0() {
        for (args, code, start) in [
            (&["-nope"][..], 2, "flag provided but not defined: -nope\nUsage of sm-agent:"),
            (&["-org"], 2, "flag needs an argument: -org\n"),
            (&["-tls=maybe"], 2, "invalid boolean value \"maybe\" for -tls: parse error\n"),
            (&["---x"], 2, "bad flag syntax: ---x\n"),
            (&["-h"], 0, "Usage of sm-agent:"),
            (&["--help"], 0, "Usage of sm-agent:"),
            (&[], 1, "missing -token flag or SM_TOKEN env"),
            (&["-org", "o"], 1, "missing -token flag or SM_TOKEN env"),
            (&["-token", "t"], 1, "missing -org flag or SM_ORG_ID env"),
            (&["-org", "o", "-token", "sm_other_1_x"], 1, "-org is o, but the token is of other"),
            (&["-org", "o", "-token", "t", "-multiline", "("], 1, "-multiline: "),
            (&["-org", "o", "-token", "t", "-events-per-second", "0"], 1, "-events-per-second: from 1"),
            (&["-org", "o", "-token", "t", "-log-level", "a=b=c"], 1, "`a=b=c` is not a log level"),
            (
                &["-org", "o", "-token", "t", "-collectors", "heartbeat,x"],
                1,
                "-collectors: there is no x; there are heartbeat",
            ),
            (&["-service", "install"], 1, "-service: "),
        ] {
            let (found, stderr) = exit(args);
            assert!(found == code && stderr.starts_with(start), "{args:?}: {found} {stderr}");
        }
        assert!(
            matches!(run(&["--version"], &[], ""), Parsed::Exit { code: 0, stdout, .. } if stdout.starts_with("sm-agent "))
        );
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let env = [("SM_ORG_ID", "e"), ("SM_TOKEN", "te"), ("SM_USE_TLS", "true")];
        let conf = "\u{feff}# comment\nSM_ORG_ID=c\nSM_TOKEN=tc\nSM_HOST_ID=hc\nSM_USE_TLS=false\n";
        let found = settings(&["-org", "f"], &env, conf);
        assert_eq!((&*found.org, found.token.expose(), &*found.host, found.tls), ("f", "te", "hc", true));
        assert_eq!(settings(&[], &[], conf).org, "c");
        assert_eq!(settings(BASE, &[("SM_INGEST_URL", "https://x")], "").ingest, "x:9002");
        assert!(settings(BASE, &[("SM_INGEST_URL", "https://x")], "").tls);
        assert_eq!(settings(BASE, &[], "SM_FILE_PATH=/a, /b/*.log").files, ["/a", "/b/*.log"]);
    }

    #[test]
    fn names_of_old_installers_are_read_and_said() {
        let conf = "ORG_ID=o\nTOKEN=t\nINGEST_URL=s:9\nTLS_ENABLED=true\n";
        let Parsed::Run(found, warnings) = run(&[], &[], conf) else { panic!() };
        assert_eq!((&*found.org, found.token.expose(), &*found.ingest, found.tls), ("o", "t", "s:9", true));
        assert_eq!(warnings.len(), 4);
        assert_eq!(warnings[0], "TOKEN is an old name: use SM_TOKEN");
    }

    #[test]
    fn a_token_names_organisation_and_host_unless_told_otherwise() {
        let token = "sm_acme_1751700000000_k3x_y";
        let found = settings(&["-token", token], &[], "");
        assert_eq!((&*found.org, &*found.host), ("acme", "k3x_y"));
        assert_eq!(settings(&["-token", token, "-host", "web"], &[], "").host, "web");
        let demo = settings(&["-token", "sm_tok_demo123"], &[], "");
        assert_eq!((&*demo.org, &*demo.host), ("demo", "box"));
        assert_eq!(settings(&["-token-file", "/token"], &[], "").org, "acme");
        for odd in ["sm_a_b", "sm__1_x", "sm_a_1_", "sm_a__x", "xm_a_1_b", "sm_a_1x_b"] {
            assert_eq!(in_token(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let shown = format!("{:?}", settings(&["-org", "o", "-token", "hush"], &[], ""));
        assert!(!shown.contains("hush"), "{shown}");
    }
}
