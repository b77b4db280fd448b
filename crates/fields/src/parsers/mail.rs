//! Mail servers: who failed to log in at postfix, dovecot, exim.

use super::text::{bracketed_ip, ip, word};
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
        _ => postfix(text, out),
    };
    read.is_some()
}

/// `warning: unknown[192.0.2.7]: SASL LOGIN authentication failed: …`, `connect from host[A]`,
/// `NOQUEUE: reject: RCPT from host[A]: 554 …`.
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
    out.some("SourceHostname", Some(name).filter(|name| *name != "unknown"));
    Some(())
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

/// `plain_login authenticator failed for (x) [192.0.2.7]:5000: 535 Incorrect authentication data (set_id=bob)`
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
    // The name in brackets is the client's; the address is the last of what is in square ones.
    let (_, address) = host.rsplit_once('[')?;
    let (address, port) = address.rsplit_once(']')?;
    let address = bracketed_ip(address)?;
    out.push("auth_method", method);
    out.push("SourceIp", address);
    out.some("SourcePort", port.strip_prefix(':').map(|port| word(port).0));
    out.some("User", rest.rsplit_once("(set_id=").and_then(|(_, user)| user.strip_suffix(')')));
    Some(())
}
