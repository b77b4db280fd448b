//! Parsers of message texts, one file per program.
//!
//! To add one:
//! 1. a file here with `pub(super) const PARSER: Parser`, whose `read` takes the text behind the
//!    syslog header and pushes fields into a [`Reading`]; the smallest one to imitate is
//!    `clamav.rs`;
//! 2. `mod` and a row in [`ALL`];
//! 3. lines as the program really writes them, with what must come out, in
//!    `fixtures/<name>.txt` (`tests/parsers.rs` explains the format), hostile ones among them;
//! 4. a row in `docs/fields.md`.
//!
//! What every parser keeps to:
//! * It is only asked for lines of the programs it names. Those with a `sniff` are also asked for
//!   lines that name no program, and what they look for begins the line, where no text of anybody
//!   else can stand.
//! * It reads from the fixed words of the program's format, from both ends where somebody else
//!   chooses what stands in the middle. Where two readings are possible, the field stays away.
//! * It looks at each byte a fixed number of times.
//! * `SourceIp` is the address of who did it, checked to be an address; `User` is who did it or
//!   tried to be; `TargetUser` whom it was done to.

mod access_log;
pub(crate) mod auditd;
mod cef;
mod clamav;
mod cron;
mod dhcp;
mod dns;
mod docker;
mod fail2ban;
mod ftp;
mod kernel;
mod key_value;
mod login;
mod mail;
mod pam;
mod proxy;
mod sshd;
mod sudo;
mod syscalls;
mod sysmon;
mod systemd;
mod text;
mod users;

use model::Leaf;
use std::borrow::Cow;

/// A line as a parser gets it: without its syslog header.
#[derive(Debug, Clone, Copy)]
pub struct Line<'m> {
    /// Who wrote it, as the parser's table has it; empty where unknown.
    pub program: &'static str,
    pub text: &'m str,
}

/// A parser and what is known of the lines of its programs, understood or not.
pub struct Parser {
    pub name: &'static str,
    /// Names of programs, compared without case. One that ends in `/` stands for all that begin so,
    /// and for those of an installation's other instances: `NAME-INSTANCE/…`.
    pub programs: &'static [&'static str],
    /// Whether a line that names no program is certainly one for this parser.
    pub sniff: Option<fn(&str) -> bool>,
    pub product: Option<&'static str>,
    pub services: &'static [&'static str],
    /// Reads a line; `false` if it is none that the parser knows.
    pub read: for<'m> fn(Line<'m>, &mut Reading<'m>) -> bool,
}

/// All parsers. For a known program its parser is asked, for a line without one those that sniff, in
/// this order.
pub const ALL: &[Parser] = &[
    sshd::PARSER,
    sudo::PARSER,
    login::PARSER,
    cron::PARSER,
    users::PARSER,
    kernel::PARSER,
    systemd::PARSER,
    auditd::PARSER,
    sysmon::PARSER,
    access_log::NGINX,
    access_log::APACHE,
    access_log::ANY,
    proxy::SQUID,
    proxy::HAPROXY,
    mail::PARSER,
    ftp::PARSER,
    dhcp::PARSER,
    dns::PARSER,
    docker::PARSER,
    fail2ban::PARSER,
    clamav::PARSER,
    cef::PARSER,
    key_value::PARSER,
];

/// Programs of Linux without a parser of their own: their lines are known to be such.
const LINUX: &[&str] = &[
    "rsyslogd",
    "syslog-ng",
    "dbus-daemon",
    "dbus",
    "NetworkManager",
    "polkitd",
    "udisksd",
    "avahi-daemon",
    "snapd",
    "chronyd",
    "ntpd",
    "irqbalance",
    "smartd",
    "anacron",
    "logrotate",
    "firewalld",
    "multipathd",
    "packagekitd",
    "unattended-upgrade",
    "cloud-init",
    "ModemManager",
    "wpa_supplicant",
    "accounts-daemon",
    "systemd-timesyncd",
];

/// Programs of Linux without a parser that are services to Sigma: rules read their lines as text.
const SERVICES: &[(&str, &[&str])] = &[("guacd", &["guacamole", "syslog"]), ("guacamole", &["guacamole", "syslog"])];

/// What a parser read.
#[derive(Debug, Default)]
pub struct Reading<'m> {
    leaves: Vec<Leaf<'m>>,
    categories: Option<&'static [&'static str]>,
    /// Service words beside those of the parser.
    services: Vec<&'static str>,
}

impl<'m> Reading<'m> {
    /// Adds a value.
    pub fn push(&mut self, name: impl Into<Cow<'m, str>>, value: impl Into<Cow<'m, str>>) {
        self.leaves.push(Leaf { name: name.into(), value: Some(value.into()) });
    }

    /// Adds a value if there is one and it is not empty.
    pub fn some(&mut self, name: &'static str, value: Option<&'m str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.push(name, value);
        }
    }

    /// What happened, and whether it was allowed (`success`) or not (`failure`).
    pub fn action(&mut self, action: &'static str, success: Option<bool>) {
        self.push("event_action", action);
        match success {
            Some(true) => self.push("event_outcome", "success"),
            Some(false) => self.push("event_outcome", "failure"),
            None => {}
        }
    }

    /// The word of the agents' protocol for this kind of event.
    pub fn event_type(&mut self, word: &'static str) {
        self.push("event_type", word);
    }

    /// The line belongs to these categories of Sigma, and no others. Without a call: to none.
    pub fn categories(&mut self, categories: &'static [&'static str]) {
        self.categories = Some(categories);
    }

    /// The line also belongs to this service.
    pub fn service(&mut self, service: &'static str) {
        self.services.push(service);
    }
}

/// What is known after a line was read.
pub(crate) struct Outcome<'m> {
    pub product: Option<&'static str>,
    /// `None`: unknown.
    pub categories: Option<&'static [&'static str]>,
    pub services: Vec<&'static str>,
    pub leaves: Vec<Leaf<'m>>,
}

/// Reads the line with the parser for its program. `None` where nothing is known of the program and
/// no parser recognises the line.
pub(crate) fn read<'m>(program: &str, text: &'m str) -> Option<Outcome<'m>> {
    if let Some((parser, program)) = by_program(program) {
        let mut reading = Reading::default();
        let text = repeated(text, &mut reading);
        // Programs that do not log anybody in may begin their lines with words of others.
        let of_logins = parser.services.contains(&"auth").then_some(program);
        let pam = parser.product == Some("linux") && pam::read(of_logins, text, &mut reading);
        if pam {
            reading.service("auth");
        }
        let understood = pam || (parser.read)(Line { program, text }, &mut reading);
        return Some(outcome(parser, reading, understood));
    }
    let services = match SERVICES.iter().find(|(name, _)| name.eq_ignore_ascii_case(program)) {
        Some((_, services)) => Some(*services),
        None => LINUX.iter().any(|name| name.eq_ignore_ascii_case(program)).then_some(["syslog"].as_slice()),
    };
    // A program that has a name and no parser may write what it was told, from the first byte on:
    // only what vouches for nothing reads its lines.
    let asked = ALL.iter().filter(|parser| program.is_empty() || parser.programs.is_empty());
    let read = asked.filter(|parser| parser.sniff.is_some_and(|sniff| sniff(text))).find_map(|parser| {
        let mut reading = Reading::default();
        (parser.read)(Line { program: "", text }, &mut reading).then(|| outcome(parser, reading, true))
    });
    let Some(services) = services else { return read };
    Some(Outcome {
        product: Some("linux"),
        categories: Some(&[]),
        services: services.to_vec(),
        leaves: read.map(|read| read.leaves).unwrap_or_default(),
    })
}

/// The parser for a program, and the program's name in its table.
pub(crate) fn by_program(program: &str) -> Option<(&'static Parser, &'static str)> {
    ALL.iter().find_map(|parser| {
        let name = parser.programs.iter().find(|name| match name.strip_suffix('/') {
            Some(stem) => program.split_once('/').is_some_and(|(instance, _)| {
                let (head, rest) = instance.split_at_checked(stem.len()).unwrap_or_default();
                head.eq_ignore_ascii_case(stem) && (rest.is_empty() || rest.starts_with('-'))
            }),
            None => name.eq_ignore_ascii_case(program),
        })?;
        Some((parser, *name))
    })
}

fn outcome<'m>(parser: &'static Parser, reading: Reading<'m>, understood: bool) -> Outcome<'m> {
    let mut services = parser.services.to_vec();
    for service in reading.services {
        if !services.contains(&service) {
            services.push(service);
        }
    }
    let categories = match (reading.categories, parser.product) {
        (Some(categories), _) => Some(categories),
        // A program that is known writes into categories only what its parser says.
        (None, Some(_)) => Some([].as_slice()),
        (None, None) => None,
    };
    let leaves = if understood { reading.leaves } else { Vec::new() };
    Outcome { product: parser.product, categories, services, leaves }
}

/// Syslog daemons put equal lines into one: `message repeated 3 times: [ text]`.
fn repeated<'m>(text: &'m str, reading: &mut Reading<'m>) -> &'m str {
    let inner = text.strip_prefix("message repeated ").and_then(|rest| {
        let (times, rest) = rest.split_once(" times: [")?;
        let inner = rest.strip_suffix(']')?;
        (!times.is_empty() && times.len() < 10 && times.bytes().all(|b| b.is_ascii_digit())).then_some((times, inner))
    });
    let Some((times, inner)) = inner else { return text };
    reading.push("repeat_count", times);
    inner.trim_start()
}
