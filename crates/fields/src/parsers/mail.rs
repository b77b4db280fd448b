//! Mail servers: who failed to log in at postfix, dovecot, exim, sendmail.

use super::text::{ip, number, without};
use super::{Line, Parser, Reading};

pub(super) const PARSER: Parser = Parser {
    name: "mail",
    programs: &["postfix/", "dovecot", "exim", "exim4", "sendmail", "sm-mta", "saslauthd", "opendkim", "rspamd"],
    sniff: None,
    product: Some("linux"),
    services: &["syslog", "mail"],
    read,
};

fn read<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    let text = line.text.trim_end();
    let read = match line.program {
        "dovecot" => dovecot(text, out),
        "saslauthd" => saslauthd(text, out),
        "exim" | "exim4" => exim(text, out),
        "sendmail" | "sm-mta" => sendmail(text, out),
        _ => postfix(text, out),
    };
    read.is_some()
}

/// `warning: unknown[192.0.2.7]: SASL LOGIN authentication failed: …`, `connect from host[A]`,
/// `NOQUEUE: reject: RCPT from host[A]: 554 …`; where it is told to, the port follows: `host[A]:5000`.
fn postfix<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let starts: &[(&str, &'static str)] = &[
        ("warning: ", "mail_login"),
        ("connect from ", "mail_connect"),
        ("disconnect from ", "mail_disconnect"),
        ("lost connection after AUTH from ", "mail_lost_after_auth"),
        ("NOQUEUE: reject: RCPT from ", "mail_rejected"),
        ("NOQUEUE: reject: CONNECT from ", "mail_rejected"),
        ("NOQUEUE: reject: VRFY from ", "mail_rejected"),
    ];
    let (action, rest) = starts.iter().find_map(|(start, action)| Some((*action, text.strip_prefix(start)?)))?;
    // The client's name is looked up and holds no bracket.
    let (name, rest) = rest.split_once('[')?;
    let (address, rest) = rest.split_once(']')?;
    if name.contains(' ') {
        return None;
    }
    let address = ip(address)?;
    let (port, rest) = port(rest);
    let failed = match action {
        "mail_login" => {
            let rest = rest.strip_prefix(": SASL ")?;
            let (method, rest) = rest.split_once(" authentication failed")?;
            out.push("auth_method", method);
            out.event_type("login_fail");
            out.some("User", rest.rsplit_once(", sasl_username=").map(|(_, user)| user));
            Some(false)
        }
        "mail_rejected" => {
            out.some("reason", Some(rest.trim_start_matches([':', ' '])));
            Some(false)
        }
        _ => None,
    };
    out.action(action, failed);
    out.push("SourceIp", address);
    out.some("SourcePort", port);
    out.some("SourceHostname", Some(name).filter(|name| *name != "unknown"));
    Some(())
}

/// `:5000` at the beginning, and what is behind it.
fn port(text: &str) -> (Option<&str>, &str) {
    let Some(rest) = text.strip_prefix(':') else { return (None, text) };
    let end = rest.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
    match number(&rest[..end]) {
        Some(port) => (Some(port), &rest[end..]),
        None => (None, text),
    }
}

/// `imap-login: Disconnected: … (auth failed, 3 attempts in 9 secs): user=<x>, method=PLAIN, rip=A,
/// lip=B, session=<…>`: the name is the client's choice, what is behind it is not.
fn dovecot<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let (service, rest) = text.split_once(": ")?;
    if !service.ends_with("-login") {
        return worker(service, rest, out);
    }
    let (front, rest) = rest.split_once("user=<")?;
    let (middle, end) = rest.rsplit_once(", rip=")?;
    let address = ip(end.split(',').next().unwrap_or_default())?;
    let login = front.starts_with("Login: ");
    let failed = front.contains("auth failed") || front.starts_with("Aborted login");
    out.action("mail_login", if login { Some(true) } else { failed.then_some(false) });
    if failed {
        out.event_type("login_fail");
    }
    out.push("mail_service", service);
    let (user, method) = middle.rsplit_once(">, method=").or_else(|| Some((middle.strip_suffix('>')?, "")))?;
    out.some("User", Some(user));
    out.some("auth_method", Some(method));
    out.push("SourceIp", address);
    Some(())
}

/// `auth-worker(7): pam(bob,192.0.2.7,<…>): pam_authenticate() failed: …`
fn worker<'m>(service: &str, rest: &'m str, out: &mut Reading<'m>) -> Option<()> {
    if !service.starts_with("auth") {
        return None;
    }
    let rest = rest.strip_prefix("Info: ").unwrap_or(rest);
    let rest = match rest.split_once("): ") {
        // `conn unix:auth-worker (pid=7,uid=8): auth-worker<1>: pam(…): …`
        Some((head, behind)) if head.starts_with("conn ") => behind.split_once(": ").map_or(behind, |(_, rest)| rest),
        _ => rest,
    };
    let (_, rest) = rest.split_once('(')?;
    let (inside, reason) = rest.rsplit_once("): ")?;
    if !(reason.contains("failed") || reason.contains("unknown user") || reason.contains("mismatch")) {
        return None;
    }
    let inside = match inside.rsplit_once(",<") {
        Some((front, _)) => front,
        None => inside,
    };
    let (user, address) = inside.rsplit_once(',')?;
    let address = ip(address)?;
    out.action("mail_auth", Some(false));
    out.push("User", user);
    out.push("SourceIp", address);
    out.push("reason", reason);
    Some(())
}

/// `do_auth         : auth failure: [user=bob] [service=smtp] [realm=] [mech=pam] [reason=PAM auth error]`
fn saslauthd<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let (_, rest) = text.split_once("auth failure: [user=")?;
    let (user, rest) = rest.split_once("] [service=")?;
    out.action("authentication", Some(false));
    out.event_type("login_fail");
    out.push("User", user);
    out.some("service", rest.split_once(']').map(|(service, _)| service));
    Some(())
}

/// `plain_login authenticator failed for (x) [192.0.2.7]:5000 I=[192.0.2.1]:25: 535 Incorrect
/// authentication data (set_id=bob)`: port and `I=`, the server's own address, only where it is told to.
fn exim<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let (method, rest) = text.split_once(" authenticator failed for ")?;
    let (_, method) = method.rsplit_once(' ').unwrap_or(("", method));
    let (host, rest) = rest.split_once(": 535 ")?;
    out.action("mail_login", Some(false));
    out.event_type("login_fail");
    if rest.contains(": 535 ") {
        // Names on either side may hold it.
        return Some(());
    }
    out.push("auth_method", method);
    // The name in brackets is the client's, and so is what an ident server answered behind the
    // address: if more than one place fits, none is taken.
    let mut peers = host.match_indices('[').filter_map(|(at, _)| {
        // A word of its own, which `I=[…]` is not.
        let own_word = at == 0 || host.as_bytes()[at - 1] == b' ';
        exim_peer(&host[at + 1..]).filter(|_| own_word)
    });
    if let (Some((address, port)), None) = (peers.next(), peers.next()) {
        out.push("SourceIp", address);
        out.some("SourcePort", port);
    }
    out.some("User", rest.rsplit_once("(set_id=").and_then(|(_, user)| user.strip_suffix(')')));
    Some(())
}

/// `192.0.2.7]:5000` or `192.0.2.7]` at the beginning, the end of a word behind it.
fn exim_peer(text: &str) -> Option<(&str, Option<&str>)> {
    let end = text.as_bytes().iter().take(65).position(|b| *b == b']')?;
    let (port, rest) = port(&text[end + 1..]);
    (rest.is_empty() || rest.starts_with(' ')).then_some((ip(&text[..end])?, port))
}

/// `26H8: AUTH failure (LOGIN): authentication failure (-13) SASL(-13): …, user=bob, relay=host [192.0.2.7]
/// (may be forged)`: the name is the client's choice, what is behind the last `relay=` is not.
fn sendmail<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let (queue, rest) = text.split_once(": AUTH failure (")?;
    if queue.contains(' ') {
        return None;
    }
    let (method, rest) = rest.split_once("): ")?;
    let (front, relay) = rest.rsplit_once(", relay=")?;
    let (name, address) = without(relay, " (may be forged)").strip_suffix(']')?.rsplit_once('[')?;
    let address = ip(address.strip_prefix("IPv6:").unwrap_or(address))?;
    out.action("mail_login", Some(false));
    out.event_type("login_fail");
    out.push("auth_method", method);
    out.push("SourceIp", address);
    out.some("SourceHostname", Some(name.trim_end()));
    // Reasons repeat names, so the word may be part of either.
    let mut parts = front.split(", user=");
    let (reason, user, more) = (parts.next(), parts.next(), parts.next());
    out.some("reason", reason.filter(|_| more.is_none()));
    out.some("User", user.filter(|_| more.is_none()));
    Some(())
}
