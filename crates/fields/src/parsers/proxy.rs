//! Proxies: squid's own log, and HAProxy's log of HTTP. Both escape what clients write.

use super::text::{ip, number, word};
use super::{Line, Parser, Reading};

pub(super) const SQUID: Parser = Parser {
    name: "squid",
    programs: &["squid", "(squid-1)", "squid3"],
    sniff: None,
    product: None,
    services: &["squid"],
    read: squid,
};

pub(super) const HAPROXY: Parser = Parser {
    name: "haproxy",
    programs: &["haproxy"],
    sniff: None,
    product: None,
    services: &["haproxy"],
    read: haproxy,
};

/// `1764118800.123     57 192.0.2.44 TCP_MISS/200 1234 GET http://example.org/ bob HIER_DIRECT/192.0.2.9 text/html`
fn squid<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    let mut words = line.text.split_ascii_whitespace();
    let mut next = || words.next();
    let (Some(time), Some(elapsed), Some(client), Some(result), Some(size), Some(method), Some(uri)) =
        (next(), next(), next(), next(), next(), next(), next())
    else {
        return false;
    };
    let (Some(client), Some((action, status))) = (ip(client), result.split_once('/')) else { return false };
    if number(elapsed).is_none() || number(status).is_none() || !time.starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    out.categories(&["proxy"]);
    out.push("c-ip", client);
    out.push("SourceIp", client);
    out.push("s-action", action);
    out.push("sc-status", status);
    out.some("sc-bytes", number(size));
    out.push("cs-method", method);
    request(uri, out);
    out.some("cs-username", next().filter(|user| *user != "-"));
    out.some("r-dns", next().and_then(|peer| peer.split_once('/')).map(|(_, peer)| peer).filter(|peer| *peer != "-"));
    out.some("rs-content-type", next().filter(|kind| *kind != "-"));
    true
}

/// `203.0.113.9:33317 [26/Nov/2026:01:00:00.655] http-in static/srv1 10/0/30/69/109 200 2750 - - ----
/// 1/1/1/1/0 0/0 {example.org} {} "GET /index.html HTTP/1.1"`
fn haproxy<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    http(line.text.trim(), out).is_some()
}

fn http<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let (client, rest) = text.split_once(" [")?;
    let (client, port) = client.rsplit_once(':')?;
    let (client, port) = (ip(client)?, number(port)?);
    let (_, rest) = rest.split_once("] ")?;
    let (frontend, rest) = word(rest);
    let (backend, rest) = word(rest);
    let (_timers, rest) = word(rest);
    let (status, rest) = word(rest);
    let (size, rest) = word(rest);
    number(status)?;
    out.categories(&["webserver", "proxy"]);
    out.push("c-ip", client);
    out.push("SourceIp", client);
    out.push("SourcePort", port);
    out.push("frontend", frontend);
    out.push("backend", backend);
    out.push("sc-status", status);
    out.some("sc-bytes", number(size));
    let request_line = rest.split_once('"').and_then(|(_, rest)| rest.strip_suffix('"'));
    if let Some((method, rest)) = request_line.and_then(|line| line.split_once(' ')) {
        out.push("cs-method", method);
        request(rest.split_once(" HTTP/").map_or(rest, |(uri, _)| uri), out);
    }
    Some(())
}

/// The parts of a URI, whole or without its host.
fn request<'m>(uri: &'m str, out: &mut Reading<'m>) {
    out.push("c-uri", uri);
    out.push("cs-uri", uri);
    let path = match uri.split_once("://") {
        Some((_, rest)) => {
            let end = rest.find('/').unwrap_or(rest.len());
            let host = &rest[..end];
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            out.some("cs-host", Some(host));
            &rest[end..]
        }
        // `CONNECT example.org:443`
        None if !uri.starts_with('/') => {
            out.some("cs-host", Some(uri.rsplit_once(':').map_or(uri, |(host, _)| host)));
            return;
        }
        None => uri,
    };
    let (stem, query) = path.split_once('?').unwrap_or((path, ""));
    out.some("cs-uri-stem", Some(stem));
    out.some("c-uri-stem", Some(stem));
    out.some("cs-uri-query", Some(query));
    out.some("c-uri-query", Some(query));
}
