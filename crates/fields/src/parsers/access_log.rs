//! Access logs of web servers in the common and combined formats, and nginx's error log.
//!
//! Everything behind the status is the client's choice, and so are the request and the user name
//! in front of it; servers write quotes in them as `\"` or `\x22`, so a quote ends the field.

use super::text::{bracketed_ip, ip, number, word};
use super::{Line, Parser, Reading};

pub(super) const NGINX: Parser = parser(
    "nginx",
    &["nginx", "openresty", "nginx-access", "nginx_access", "nginx-error", "nginx_error"],
    &["nginx"],
    None,
);
pub(super) const APACHE: Parser = parser(
    "apache",
    &["apache2", "apache", "httpd", "apache-access", "apache_access", "httpd-access", "httpd_access"],
    &["apache"],
    None,
);
pub(super) const ANY: Parser = parser(
    "access log",
    &["lighttpd", "caddy", "traefik", "tomcat", "access", "access_log", "access-log"],
    &[],
    Some(sniff),
);

const fn parser(
    name: &'static str,
    programs: &'static [&'static str],
    services: &'static [&'static str],
    sniff: Option<fn(&str) -> bool>,
) -> Parser {
    Parser { name, programs, sniff, product: None, services, read }
}

fn sniff(text: &str) -> bool {
    let address = text.split(' ').next().unwrap_or_default();
    ip(address).is_some() && request(text).is_some()
}

fn read<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    let text = line.text.trim();
    access(text, out).is_some() || error(text, out).is_some() || apache_error(text, out).is_some()
}

/// What stands around the request: client and names, request, what is behind it.
fn request(text: &str) -> Option<(&str, &str, &str)> {
    let open = text.find(" [")?;
    // Names may hold brackets, but no bare quote.
    let close = text[open..].find("] \"")? + open;
    let (request, behind) = quoted(&text[close + 2..])?;
    let (status, _) = word(behind.trim_start());
    (status.len() == 3 && number(status).is_some()).then_some((&text[..close], request, behind))
}

/// A quoted text, whose quotes have backslashes, and what is behind it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut escaped = false;
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return Some((&inner[..at], &inner[at + 1..])),
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

fn access<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let (front, request, behind) = request(text)?;
    let (first, rest) = word(front);
    // `example.org:443 192.0.2.7 - - [`: the virtual host comes first in one format.
    let (host, client, rest) = match ip(first) {
        Some(client) => (None, Some(client), rest),
        None => {
            let (second, behind) = word(rest);
            match ip(second) {
                Some(client) if is_virtual_host(first) => (Some(first), Some(client), behind),
                _ => (None, None, rest),
            }
        }
    };
    out.categories(&["webserver"]);
    if let Some(client) = client {
        out.push("c-ip", client);
        out.push("SourceIp", client);
    } else {
        out.some("SourceHostname", Some(first).filter(|first| is_host(first)));
    }
    out.some("cs-host", host.map(|host| host.rsplit_once(':').map_or(host, |(host, _)| host)));
    let (_, user) = word(rest);
    let user = user.rsplit_once(" [").map_or("", |(user, _)| user);
    out.some("cs-username", Some(user).filter(|user| *user != "-"));

    // `GET /path?query HTTP/1.1`; scanners send anything.
    if let Some((method, rest)) =
        request.split_once(' ').filter(|(method, _)| method.bytes().all(|b| b.is_ascii_alphabetic()))
    {
        let (uri, version) = match rest.rsplit_once(' ') {
            Some((uri, version)) if version.starts_with("HTTP/") => (uri, Some(version)),
            _ => (rest, None),
        };
        out.push("cs-method", method);
        out.push("c-uri", uri);
        out.push("cs-uri", uri);
        out.some("cs-version", version);
        let (stem, query) = uri.split_once('?').unwrap_or((uri, ""));
        out.push("cs-uri-stem", stem);
        out.some("cs-uri-query", Some(query));
    } else {
        out.push("c-uri", request);
    }

    let (status, rest) = word(behind.trim_start());
    out.push("sc-status", status);
    let (size, rest) = word(rest);
    out.some("sc-bytes", number(size));
    let Some((referer, rest)) = quoted(rest.trim_start()) else { return Some(()) };
    out.some("cs-referer", Some(referer).filter(|text| *text != "-"));
    out.some("cs-referrer", Some(referer).filter(|text| *text != "-"));
    if let Some((agent, _)) = quoted(rest.trim_start()) {
        out.some("cs-user-agent", Some(agent));
        out.some("c-useragent", Some(agent));
    }
    Some(())
}

/// A name of a host.
fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'*'))
}

/// A name of a virtual host with its port, which no name of a client has.
fn is_virtual_host(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && number(port).is_some())
}

/// `2026/11/26 01:00:00 [error] 7#7: *1 open() "/x" failed …, client: 192.0.2.7, server: _, …`
fn error<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let (front, rest) = text.split_once("] ")?;
    let (_, level) = front.rsplit_once('[')?;
    if !matches!(level, "debug" | "info" | "notice" | "warn" | "error" | "crit" | "alert" | "emerg") {
        return None;
    }
    let (pid, rest) = rest.split_once(": ")?;
    number(pid.split_once('#')?.0)?;
    out.push("level", level);
    // Paths and requests may hold the same words; then nobody knows which is the server's.
    let mut clients = rest.split(", client: ");
    let reason = clients.next();
    out.some("reason", reason);
    // `*1 user "bob": password mismatch`, `*1 user "bob" was not found in "…"`
    if let Some((_, who)) = reason.and_then(|reason| reason.split_once(" user \""))
        && reason.is_some_and(|reason| reason.starts_with('*'))
        && let Some((user, what)) =
            who.rsplit_once("\": password mismatch").or_else(|| who.rsplit_once("\" was not found in "))
        && !what.contains(" user ")
    {
        out.action("web_login", Some(false));
        out.event_type("login_fail");
        out.push("User", user);
    }
    if let (Some(client), None) = (clients.next(), clients.next()) {
        out.some("SourceIp", ip(client.split(',').next().unwrap_or_default()));
    }
    Some(())
}

/// `[Wed Nov 26 01:00:00.123456 2026] [auth_basic:error] [pid 7:tid 9] [client 192.0.2.7:5000] AH01617:
/// user bob: authentication failure for "/admin": Password Mismatch`: the server's words in brackets
/// come first.
fn apache_error<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let mut rest = text;
    let mut groups = 0;
    // Since version 2.4 the module is named, and a port follows the address, of IPv6 as well.
    let mut with_port = false;
    while let Some((group, behind)) = rest.strip_prefix('[').and_then(|inner| inner.split_once("] ")) {
        match (groups, group.split_once(':')) {
            (0, _) => {}
            (1, Some((module, level))) => {
                with_port = true;
                out.push("module", module);
                out.push("level", level);
            }
            (1, None) => out.push("level", group),
            _ => {
                if let Some(client) = group.strip_prefix("client ") {
                    let (address, port) = match client.rsplit_once(':').filter(|_| with_port) {
                        Some((address, port)) => (address, Some(port)),
                        None => (client, None),
                    };
                    out.push("SourceIp", bracketed_ip(address)?);
                    out.some("SourcePort", port.and_then(number));
                    rest = behind;
                    groups += 1;
                    break;
                }
            }
        }
        rest = behind;
        groups += 1;
    }
    if groups < 3 {
        return None;
    }
    out.some("reason", Some(rest));
    let user = rest.strip_prefix("AH01617: user ").and_then(|rest| rest.split_once(": authentication failure for "));
    let user = user.or_else(|| rest.strip_prefix("AH01618: user ")?.split_once(" not found: "));
    if let Some((user, _)) = user {
        out.action("web_login", Some(false));
        out.event_type("login_fail");
        out.push("User", user);
    }
    Some(())
}
