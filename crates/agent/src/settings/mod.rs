//! What the agent is told: flags, then the environment, then `sm-agent.conf`. Names of earlier installers are read too.

mod flags;

pub use runtime::trust::Fingerprint;

use flags::{Command, FLAGS, boolean};
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
    /// Of the authority's root certificate that the token names.
    pub fingerprint: Option<Fingerprint>,
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
    /// Show what the agent with this data folder says of itself.
    Status(PathBuf),
    Doctor(Box<Examined>),
    /// End at once.
    Exit {
        code: u8,
        stdout: String,
        stderr: String,
    },
}

/// What the doctor looks at.
#[derive(Debug, PartialEq, Eq)]
pub struct Examined {
    pub conf: PathBuf,
    pub data_dir: PathBuf,
    /// Or what is wrong with them.
    pub settings: Result<Settings, String>,
    pub warnings: Vec<String>,
}

/// All that was given, by whatever way.
struct Given<'a> {
    flags: BTreeMap<&'static str, String>,
    env: &'a BTreeMap<String, String>,
    conf: BTreeMap<String, String>,
    warnings: Vec<String>,
}

impl Given<'_> {
    fn get(&mut self, name: &str) -> Option<String> {
        let flag = FLAGS.iter().find(|flag| flag.name == name)?;
        if let Some(value) = self.flags.get(name) {
            return Some(value.clone());
        }
        let set = |name: &str| {
            let value = |names: &BTreeMap<String, String>| names.get(name).filter(|v| !v.is_empty()).cloned();
            value(self.env).or_else(|| value(&self.conf))
        };
        if let Some(value) = set(flag.env) {
            return Some(value);
        }
        let value = set(flag.old)?;
        let warning = format!("{} is an old name: use {}", flag.old, flag.env);
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
        Some(value)
    }

    fn list(&mut self, name: &str) -> Option<Vec<String>> {
        let text = self.get(name)?;
        Some(text.split(',').map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect())
    }

    fn switch(&mut self, name: &str) -> Result<Option<bool>, String> {
        match self.get(name) {
            None => Ok(None),
            // What is meant as "yes" must not come to "no".
            Some(text) => match boolean(&text) {
                Some(is_on) => Ok(Some(is_on)),
                None => Err(format!("-{name}: {text:?} is neither true nor false")),
            },
        }
    }

    fn data_dir(&mut self) -> PathBuf {
        self.get("data-dir").map_or_else(|| PathBuf::from("/var/lib/sm-agent"), PathBuf::from)
    }
}

fn fatal(why: impl Into<String>) -> Parsed {
    Parsed::Exit { code: 1, stdout: String::new(), stderr: format!("{}\n", why.into()) }
}

/// Makes settings of what was given. `read` reads a file; `hostname` is the system's.
pub fn parse(
    args: &[String],
    env: &BTreeMap<String, String>,
    hostname: &str,
    read: impl Fn(&str) -> Option<String>,
) -> Parsed {
    let (command, flags) = match flags::read(args) {
        Ok(read) => read,
        Err(end) => return end,
    };
    if flags.get("version").is_some_and(|v| boolean(v) == Some(true)) {
        let stdout = format!("sm-agent {}\n", env!("CARGO_PKG_VERSION"));
        return Parsed::Exit { code: 0, stdout, stderr: String::new() };
    }
    if let Some(asked) = flags.get("service") {
        return fatal(flags::service(asked));
    }
    let asked = flags.get("config").or_else(|| env.get("SM_CONFIG"));
    let path = asked.map_or(CONF, String::as_str);
    let conf = match (asked, read(path)) {
        // Some editors begin a file with a mark of its encoding.
        (_, Some(text)) => runtime::env_file::parse(text.trim_start_matches('\u{feff}')),
        (Some(path), None) => return fatal(format!("cannot read the configuration file {path}")),
        (None, None) => BTreeMap::new(),
    };
    let path = PathBuf::from(path);
    let mut given = Given { flags, env, conf, warnings: Vec::new() };
    match command {
        Command::Run => match settings(&mut given, hostname, read) {
            Ok(settings) => Parsed::Run(Box::new(settings), given.warnings),
            Err(why) => fatal(why),
        },
        Command::Status => Parsed::Status(given.data_dir()),
        Command::Doctor => {
            let settings = settings(&mut given, hostname, read);
            let data_dir = given.data_dir();
            Parsed::Doctor(Box::new(Examined { conf: path, data_dir, settings, warnings: given.warnings }))
        }
    }
}

/// `Err`: the first thing that is wrong.
fn settings(given: &mut Given<'_>, hostname: &str, read: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
    let token = match (given.get("token"), given.get("token-file")) {
        (Some(token), _) => token,
        (None, Some(path)) => match read(&path) {
            Some(text) => text.trim().to_owned(),
            None => return Err(format!("cannot read the token file {path}")),
        },
        (None, None) => String::new(),
    };
    let found = runtime::trust::look(&token)?;
    let org = match (given.get("org"), found.org) {
        (Some(org), Some(named)) if org != named => {
            return Err(format!("-org is {org}, but the token is of {named}"));
        }
        (Some(org), _) => org,
        (None, Some(named)) => named.to_owned(),
        (None, None) if token == DEMO.1 => DEMO.0.to_owned(),
        (None, None) if token.is_empty() => return Err("missing -token flag or SM_TOKEN env".to_owned()),
        (None, None) => return Err("missing -org flag or SM_ORG_ID env: this token names no organisation".to_owned()),
    };
    if token.is_empty() {
        return Err("missing -token flag or SM_TOKEN env".to_owned());
    }
    let (tls, is_insecure_allowed) = (given.switch("tls")?, given.switch("insecure")? == Some(true));
    let ingest = given.get("ingest").unwrap_or_else(|| "localhost:9002".to_owned());
    let (ingest, tls) = match (ingest.strip_prefix("https://"), ingest.strip_prefix("http://")) {
        (Some(rest), _) => (rest.to_owned(), Some(true)),
        (None, Some(rest)) => (rest.to_owned(), tls),
        (None, None) => (ingest, tls),
    };
    // Who names the authority means it to be checked.
    let tls = tls.unwrap_or(found.fingerprint.is_some());
    if !tls && found.fingerprint.is_some() && !is_insecure_allowed {
        let why = "-tls=false, but the token names the server's authority: leave TLS on, or add -insecure to send \
                   token and records readable for all on the way";
        return Err(why.to_owned());
    }
    let ingest = ingest.trim_end_matches('/').to_owned();
    let ingest = if has_port(&ingest) { ingest } else { format!("{ingest}:9002") };
    let spool_mb = given.get("spool-mb").map(|text| text.parse::<u64>().ok().filter(|mb| (4..=1 << 20).contains(mb)));
    let spool_mb = match spool_mb {
        Some(None) => return Err("-spool-mb: from 4 to 1048576 MiB".to_owned()),
        Some(Some(mb)) => mb,
        None => 256,
    };
    let events_per_second = match given.get("events-per-second").map(|text| text.parse().ok()) {
        None => 200,
        Some(Some(limit @ 1..=100_000)) => limit,
        Some(Some(_) | None) => return Err("-events-per-second: from 1 to 100000".to_owned()),
    };
    let process_hash = given.switch("process-hash")?.unwrap_or(false);
    let multiline = given.get("multiline");
    if let Some(Err(error)) = multiline.as_deref().filter(|m| *m != "indent").map(regex::Regex::new) {
        return Err(format!("-multiline: {error}"));
    }
    let collectors = given.list("collectors");
    let known = crate::collectors::NAMES;
    if let Some(odd) = collectors.iter().flatten().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("-collectors: there is no {odd}; there are {}", known.join(", ")));
    }
    let log_level = given.get("log-level").unwrap_or_else(|| "info".to_owned());
    if let Err(error) = runtime::logging::check_level(&log_level) {
        return Err(error.to_string());
    }
    Ok(Settings {
        org,
        fingerprint: found.fingerprint,
        token: runtime::Secret::new(token),
        // The tail of a token is a secret, never a name.
        host: given.get("host").unwrap_or_else(|| hostname.to_owned()),
        ingest,
        files: given.list("file").unwrap_or_default(),
        multiline,
        tls,
        ca_file: given.get("ca").map(PathBuf::from),
        data_dir: given.data_dir(),
        log_level,
        collectors,
        spool_bytes_max: spool_mb << 20,
        process_hash,
        events_per_second,
    })
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
            other => panic!("{args:?}: {other:?}"),
        }
    }

    fn exit(args: &[&str]) -> (u8, String) {
        match run(args, &[], "") {
            Parsed::Exit { code, stderr, .. } => (code, stderr),
            other => panic!("{args:?}: {other:?}"),
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
            (&["-service", "install"], 1, "-service install: sm-agent does not manage itself"),
            (
                &["-service=start"],
                1,
                "-service start: sm-agent does not manage itself as a service; instead: systemctl start",
            ),
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
    fn a_token_names_the_organisation_and_never_the_host() {
        let token = "sm_acme_1751700000000_k3x_y";
        let found = settings(&["-token", token], &[], "");
        assert_eq!((&*found.org, &*found.host), ("acme", "box"));
        assert_eq!(settings(&["-token", token, "-host", "web"], &[], "").host, "web");
        assert_eq!(settings(&["-token", token], &[], "SM_HOST_ID=db").host, "db");
        let demo = settings(&["-token", "sm_tok_demo123"], &[], "");
        assert_eq!((&*demo.org, &*demo.host), ("demo", "box"));
        assert_eq!(settings(&["-token-file", "/token"], &[], "").org, "acme");
    }

    #[test]
    fn a_token_that_names_an_authority_turns_tls_on() {
        let plain = "sm_acme_1_x";
        let pinned = "sm_acme_1_x.ba7816bf8f01cfea414140de5dae2223";
        for (token, args, tls) in [
            (plain, &[][..], Some(false)),
            (plain, &["-tls"], Some(true)),
            (plain, &["-insecure"], Some(false)),
            (pinned, &[], Some(true)),
            (pinned, &["-insecure"], Some(true)),
            (pinned, &["-tls=false"], None),
            (pinned, &["-tls=false", "-insecure"], Some(false)),
            (pinned, &["-ingest", "http://x"], Some(true)),
            ("sm_acme_1_x.ba78", &[], None),
        ] {
            let args = [&["-token", token], args].concat();
            let found = match run(&args, &[], "") {
                Parsed::Run(found, _) => Some(found.tls),
                Parsed::Exit { code: 1, .. } => None,
                other => panic!("{args:?}: {other:?}"),
            };
            assert_eq!(found, tls, "{args:?}");
        }
        let found = settings(&["-token", pinned], &[], "").fingerprint;
        assert_eq!(found, Some(Fingerprint::of(b"abc")));
        assert_eq!(exit(&["-token", pinned, "-tls=false"]).0, 1);
        let unclear = run(&["-token", plain], &[("SM_USE_TLS", "yes")], "");
        assert!(matches!(unclear, Parsed::Exit { code: 1, .. }), "{unclear:?}");
    }

    #[test]
    fn a_command_is_the_first_word() {
        assert_eq!(run(&["status", "-data-dir", "/d"], &[], ""), Parsed::Status(PathBuf::from("/d")));
        let Parsed::Doctor(found) = run(&["doctor"], &[], "SM_DATA_DIR=/d") else { panic!() };
        assert_eq!((&found.conf, &found.data_dir), (&PathBuf::from(CONF), &PathBuf::from("/d")));
        assert_eq!(found.settings, Err("missing -token flag or SM_TOKEN env".to_owned()));
        let Parsed::Doctor(found) = run(&["doctor", "-token", "sm_acme_1_x"], &[], "") else { panic!() };
        assert_eq!(found.settings.map(|s| s.org), Ok("acme".to_owned()));
        assert!(matches!(run(&["status", "-nope"], &[], ""), Parsed::Exit { code: 2, .. }));
        assert_eq!(settings(&["-org", "o", "-token", "t", "status"], &[], "").org, "o", "only in front");
    }

    #[test]
    fn a_token_is_never_shown() {
        let shown = format!("{:?}", settings(&["-org", "o", "-token", "hush"], &[], ""));
        assert!(!shown.contains("hush"), "{shown}");
    }
}
