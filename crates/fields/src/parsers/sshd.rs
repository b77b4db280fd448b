//! OpenSSH's server, versions 5 to 10 (`sshd`, `sshd-session`, `sshd-auth`).
//!
//! User names are the client's choice and may hold anything, ` from 10.0.0.1 port 22 ssh2`
//! included; so do the comment of a certificate and the client's parting words. An address is taken
//! only from where the server puts it.

use super::text::{ip, number, peer, peer_or_ip, rsplit, without, word};
use super::{Line, Parser, Reading, pam};

pub(super) const PARSER: Parser = Parser {
    name: "sshd",
    programs: &["sshd", "sshd-session", "sshd-auth", "ssh"],
    sniff: None,
    product: Some("linux"),
    services: &["sshd", "auth", "syslog"],
    read,
};

fn read<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    let text = line.text.trim_end();
    let text = text.strip_prefix("error: ").or_else(|| text.strip_prefix("fatal: ")).unwrap_or(text);
    let text = text.strip_prefix("[preauth] ").unwrap_or(text);
    const FORMS: &[for<'m> fn(&'m str, &mut Reading<'m>) -> Option<()>] =
        &[verdict, invalid_user, too_many, ended, disconnect, refused, noise, session, from_pam];
    FORMS.iter().any(|form| form(text, out).is_some())
}

/// `Failed password for invalid user X from A port N ssh2`, and its relatives.
fn verdict<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let (verdict, rest) = word(text);
    let (action, success) = match verdict {
        "Accepted" => ("ssh_login", Some(true)),
        "Failed" => ("ssh_login", Some(false)),
        "Postponed" | "Partial" => ("ssh_login_step", None),
        _ => return None,
    };
    let (method, rest) = rest.split_once(" for ")?;
    if method.is_empty() || method.contains(' ') {
        return None;
    }
    let (user, invalid) = named(rest);
    // Every place where an address may stand with a tail as the server writes it. A user name can
    // hold one, a certificate's id too: if more than one fits, none is taken.
    let mut found = None;
    let mut fitting = 0;
    let places = user.match_indices(" from ").filter_map(|(at, _)| Some((at, peer(&user[at + 6..])?)));
    for (tried, (at, (address, port, tail))) in places.enumerate() {
        if tried == 8 {
            // Nobody is called like that; looking on would cost time for every place.
            fitting = 2;
            break;
        }
        if let Some(key) = tail.strip_prefix(" ssh2").or_else(|| tail.strip_prefix(" ssh1")).and_then(key_tail) {
            fitting += 1;
            found = Some((&user[..at], address, port, key));
        }
    }
    let (name, address, port, key) = found?;
    out.action(action, success);
    out.push("auth_method", method);
    if invalid {
        out.push("invalid_user", "true");
    }
    if fitting == 1 {
        out.push("User", name);
        out.push("SourceIp", address);
        out.push("SourcePort", port);
        out.some("key_fingerprint", key);
    }
    match (success, method) {
        (Some(true), _) => out.event_type("ssh_success"),
        // Clients offer one key after the other, and `none` to ask what is possible.
        (Some(false), "publickey" | "none" | "gssapi-with-mic") => {}
        (Some(false), _) => out.event_type("ssh_fail"),
        (None, _) => {}
    }
    Some(())
}

/// What may stand behind `ssh2`: nothing, or a key; its fingerprint. `None`: neither.
fn key_tail(tail: &str) -> Option<Option<&str>> {
    let tail = without(tail, " [preauth]");
    if tail.is_empty() {
        return Some(None);
    }
    let tail = tail.strip_prefix(": ")?;
    let (kind, rest) = word(tail);
    if kind.is_empty() || !kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'@' || b == b'.') {
        return None;
    }
    let fingerprint = |text: &str| {
        (text.starts_with("SHA256:") || text.starts_with("MD5:") || text.bytes().filter(|b| *b == b':').count() == 15)
            && !text.contains(' ')
    };
    if fingerprint(rest) {
        return Some(Some(rest));
    }
    // The principal of GSSAPI.
    if rest.is_empty() && kind.contains('@') {
        return Some(None);
    }
    // A certificate: `KIND [FINGERPRINT ]ID <anything> (serial 7) CA KIND FINGERPRINT`.
    let (first, behind) = word(rest);
    let id = if fingerprint(first) { behind } else { rest };
    let (_, serial) = rsplit(id.strip_prefix("ID ")?, "(serial ")?;
    let (serial, ca) = serial.split_once(") CA ")?;
    number(serial)?;
    let (_, ca) = word(ca);
    fingerprint(ca).then_some(fingerprint(first).then_some(first))
}

/// Takes `invalid user ` (or `illegal user `) away.
fn named(text: &str) -> (&str, bool) {
    match text.strip_prefix("invalid user ").or_else(|| text.strip_prefix("illegal user ")) {
        Some(name) => (name, true),
        None => (text, false),
    }
}

/// `Invalid user X from A port N`; older ones say no port.
fn invalid_user<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let rest = text.strip_prefix("Invalid user ").or_else(|| text.strip_prefix("Illegal user "));
    let rest = rest.or_else(|| text.strip_prefix("input_userauth_request: invalid user "))?;
    let rest = without(rest, " [preauth]");
    out.push("invalid_user", "true");
    out.action("ssh_invalid_user", Some(false));
    match rsplit(rest, " from ").and_then(|(name, end)| Some((name, whole_peer(end)?))) {
        Some((name, (address, port))) => {
            out.push("User", name);
            source(address, port, out);
        }
        // `Invalid user  from A` with an empty name loses one space in some collectors.
        None => match rest.strip_prefix("from ").and_then(whole_peer) {
            Some((address, port)) => source(address, port, out),
            None => out.push("User", rest),
        },
    }
    Some(())
}

/// The whole text is an address, with a port or without.
fn whole_peer(text: &str) -> Option<(&str, Option<&str>)> {
    match peer_or_ip(text)? {
        (address, port, "") => Some((address, port)),
        _ => None,
    }
}

fn source<'m>(address: &'m str, port: Option<&'m str>, out: &mut Reading<'m>) {
    out.push("SourceIp", address);
    out.some("SourcePort", port);
}

/// `maximum authentication attempts exceeded for [invalid user ]X from A port N ssh2 [preauth]`.
fn too_many<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let rest = text.strip_prefix("maximum authentication attempts exceeded for ")?;
    let (user, invalid) = named(without(rest, " [preauth]"));
    let (name, end) = rsplit(user, " from ")?;
    let (address, port, tail) = peer(end)?;
    if !matches!(tail, " ssh2" | " ssh1" | "") {
        return None;
    }
    out.action("ssh_max_auth_exceeded", Some(false));
    out.push("User", name);
    if invalid {
        out.push("invalid_user", "true");
    }
    source(address, Some(port), out);
    Some(())
}

/// `Connection closed by authenticating user X A port N [preauth]`, `Disconnected from user X A
/// port N`, `Disconnecting invalid user X A port N: reason [preauth]`.
fn ended<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    const STARTS: &[&str] = &[
        "Connection closed by ",
        "Connection reset by ",
        "Disconnected from ",
        "Disconnecting ",
        "Close session: user ",
    ];
    let (start, rest) = STARTS.iter().find_map(|start| Some((*start, text.strip_prefix(start)?)))?;
    if start.starts_with("Close") {
        // `Close session: user X from A port N id 0`
        let (name, end) = rsplit(rest, " from ")?;
        let (address, port, tail) = peer(end)?;
        number(tail.strip_prefix(" id ")?)?;
        out.action("ssh_session_closed", None);
        out.push("User", name);
        source(address, Some(port), out);
        return Some(());
    }
    let preauth = rest.ends_with(" [preauth]");
    let rest = without(rest, " [preauth]");
    let (user, kind) = match rest.strip_prefix("authenticating user ") {
        Some(user) => (Some(user), "authenticating"),
        None => match rest.strip_prefix("invalid user ") {
            Some(user) => (Some(user), "invalid"),
            None => (rest.strip_prefix("user "), "user"),
        },
    };
    out.action(if preauth { "ssh_closed_preauth" } else { "ssh_closed" }, None);
    if kind == "invalid" {
        out.push("invalid_user", "true");
    }
    let Some(user) = user else {
        // `Connection closed by A port N`, older: `Connection closed by A`.
        let (address, port, _) = peer_or_ip(rest)?;
        source(address, port, out);
        return Some(());
    };
    if start == "Disconnecting " {
        // Reasons repeat user names, so an address in front of a colon may be part of either.
        let mut fits = user
            .match_indices(" ")
            .filter_map(|(at, _)| Some((at, peer(&user[at + 1..])?)))
            .filter(|(_, (_, _, tail))| tail.starts_with(": "));
        let first = fits.next()?;
        if fits.next().is_none() {
            let (at, (address, port, reason)) = first;
            out.push("User", &user[..at]);
            source(address, Some(port), out);
            out.push("reason", &reason[2..]);
        }
        return Some(());
    }
    // The end is the server's: `X A port N`.
    let (name_and_address, port) = rsplit(user, " port ")?;
    let (name, address) = rsplit(name_and_address, " ")?;
    let (port, address) = (number(port)?, ip(address)?);
    out.push("User", name);
    source(address, Some(port), out);
    Some(())
}

/// `Received disconnect from A port N:11: words of the client [preauth]`.
fn disconnect<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let rest = text.strip_prefix("Received disconnect from ")?;
    let (address, port) = match peer(rest) {
        Some((address, port, _)) => (address, Some(port)),
        // Before version 7: `A: 11: words`.
        None => (ip(rest.split_once(": ")?.0)?, None),
    };
    out.action("ssh_received_disconnect", None);
    source(address, port, out);
    Some(())
}

/// `User X from A not allowed because …`, `ROOT LOGIN REFUSED FROM A port N`.
fn refused<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    if let Some(rest) = text.strip_prefix("ROOT LOGIN REFUSED FROM ") {
        let (address, port, _) = peer_or_ip(rest)?;
        out.action("ssh_root_login_refused", Some(false));
        out.push("User", "root");
        source(address, port, out);
        return Some(());
    }
    // `Access denied for user X by PAM account configuration`
    if let Some(user) = text.strip_prefix("Access denied for user ") {
        let (user, _) = rsplit(user, " by PAM account configuration")?;
        out.action("ssh_user_not_allowed", Some(false));
        out.push("User", user);
        return Some(());
    }
    let rest = text.strip_prefix("User ")?;
    let (who, reason) = rsplit(rest, " not allowed because ")?;
    out.action("ssh_user_not_allowed", Some(false));
    out.push("reason", reason);
    if let Some((name, from)) = rsplit(who, " from ") {
        out.push("User", name);
        out.some("SourceIp", ip(from));
    }
    Some(())
}

/// Strangers who never came as far as a name.
fn noise<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    const FRONT: &[(&str, &str)] = &[
        ("Unable to negotiate with ", "ssh_no_match"),
        ("banner exchange: Connection from ", "ssh_bad_banner"),
        ("Did not receive identification string from ", "ssh_no_identification"),
        ("Connection from ", "ssh_connection"),
        ("Timeout before authentication for connection from ", "ssh_timeout"),
        ("Timeout before authentication for ", "ssh_timeout"),
        ("ssh_dispatch_run_fatal: Connection from ", "ssh_protocol_error"),
    ];
    if let Some((action, rest)) = FRONT.iter().find_map(|(start, action)| Some((*action, text.strip_prefix(start)?))) {
        let (address, port, _) = peer_or_ip(rest)?;
        out.action(action, None);
        source(address, port, out);
        return Some(());
    }
    if let Some(rest) = text.strip_prefix("Bad protocol version identification ") {
        let (_, end) = rsplit(rest, " from ")?;
        let (address, port) = whole_peer(end)?;
        out.action("ssh_bad_banner", None);
        source(address, port, out);
        return Some(());
    }
    // `reverse mapping checking getaddrinfo for NAME [A] failed`: the name is whoever's asked.
    if let Some(rest) = text.strip_prefix("reverse mapping checking getaddrinfo for ") {
        let (front, _) = rsplit(rest, "] failed")?;
        let (name, address) = rsplit(front, " [")?;
        let address = ip(address)?;
        out.action("ssh_reverse_mapping", None);
        out.push("SourceHostname", name);
        source(address, None, out);
        return Some(());
    }
    // `Address A maps to NAME, but this does not map back to the address.`
    if let Some(rest) = text.strip_prefix("Address ") {
        let (address, _) = rest.split_once(" maps to ")?;
        let address = ip(address)?;
        out.action("ssh_reverse_mapping", None);
        source(address, None, out);
        return Some(());
    }
    // `srclimit_penalise: ipv4: new A/32 penalty of 5 seconds for penalty: failed authentication`
    if let Some(rest) = text.strip_prefix("srclimit_penalise: ") {
        let (_, rest) = rest.split_once(": ")?;
        let (_, rest) = word(rest);
        let address = ip(rest.split_once('/')?.0)?;
        out.action("ssh_penalty", None);
        source(address, None, out);
        return Some(());
    }
    // `drop connection #1 from [A]:N on [B]:22 past MaxStartups`
    let rest = text.strip_prefix("drop connection #").or_else(|| text.strip_prefix("drop connection "))?;
    let (_, rest) = rest.split_once("from [")?;
    let (address, rest) = rest.split_once("]:")?;
    let address = ip(address)?;
    let (port, _) = word(rest);
    out.action("ssh_connection_dropped", None);
    source(address, number(port), out);
    Some(())
}

/// `Starting session: shell on pts/0 for X from A port N id 0`, `subsystem request for sftp by user X`.
fn session<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    if let Some(rest) = text.strip_prefix("subsystem request for ") {
        let (subsystem, user) = rest.split_once(" by user ")?;
        out.action("ssh_subsystem", None);
        out.push("subsystem", subsystem);
        out.push("User", user);
        return Some(());
    }
    let rest = text.strip_prefix("Starting session: ")?;
    let (who, end) = rsplit(rest, " from ")?;
    let (address, port, tail) = peer(end)?;
    if !(tail.is_empty() || tail.starts_with(" id ")) {
        return None;
    }
    let (what, name) = who.split_once(" for ")?;
    out.action("ssh_session_started", None);
    out.push("session", what);
    out.push("User", name);
    source(address, Some(port), out);
    Some(())
}

/// `PAM 2 more authentication failures; logname= … rhost=A  user=X`, `PAM: Authentication failure
/// for [illegal user ]X from A`.
fn from_pam<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    if let Some(rest) = text.strip_prefix("PAM ") {
        let (count, rest) = rest.split_once(" more authentication failure")?;
        number(count)?;
        let (_, rest) = rest.split_once("; ")?;
        out.action("authentication_more_failures", Some(false));
        out.push("failure_count", count);
        pam::who("sshd", rest, out);
        return Some(());
    }
    let rest = text.strip_prefix("PAM: ")?;
    let (reason, who) = rest.split_once(" for ")?;
    let (user, invalid) = named(who);
    let (name, from) = rsplit(user, " from ")?;
    out.action("authentication", Some(false));
    out.push("reason", reason);
    out.push("User", name);
    if invalid {
        out.push("invalid_user", "true");
    }
    out.some("SourceIp", ip(from));
    Some(())
}
