//! Sources that Sigma names by category alone.

use super::{address, alias, known, set};
use model::Fields;
use std::borrow::Cow;

/// The events of Suricata (EVE).
pub(super) fn suricata(out: &mut Fields<'_>) -> bool {
    let eve = out.exists("event_type") && out.exists("src_ip") && out.exists("dest_ip") && out.exists("proto");
    if !eve {
        return false;
    }
    let categories: &[&str] = match out.first("event_type") {
        Some("dns") => &["dns"],
        Some("http") => &["proxy"],
        Some("flow" | "netflow") => &["firewall"],
        Some(
            "alert" | "anomaly" | "tls" | "ssh" | "smb" | "smtp" | "ftp" | "ftp_data" | "rdp" | "dhcp" | "krb5"
            | "snmp" | "tftp" | "nfs" | "fileinfo" | "drop" | "mqtt" | "rfb" | "ike" | "quic" | "http2" | "dcerpc"
            | "ldap",
        ) => &[],
        _ => return false,
    };
    out.source.categories = Some(known(categories));
    for (ours, theirs) in [
        ("dst_ip", "dest_ip"),
        ("dst_port", "dest_port"),
        ("DestinationIp", "dest_ip"),
        ("query", "dns.rrname"),
        ("query", "dns.queries.rrname"),
        ("record_type", "dns.rrtype"),
        ("answer", "dns.answers.rdata"),
        ("c-uri", "http.url"),
        ("cs-host", "http.hostname"),
        ("c-useragent", "http.http_user_agent"),
        ("cs-method", "http.http_method"),
        ("sc-status", "http.status"),
    ] {
        alias(out, ours, theirs);
    }
    address(out, "src_ip");
    true
}

/// The honeypot OpenCanary.
pub(super) fn opencanary(out: &mut Fields<'_>) -> bool {
    let canary = out.exists("logtype") && out.exists("node_id") && out.exists("logdata");
    let canary = canary || (out.exists("logtype") && out.exists("node_id") && out.exists("src_host"));
    if canary {
        set(out, "opencanary", &["application"], &[]);
        alias(out, "src_ip", "src_host");
        address(out, "src_host");
    }
    canary
}

/// Names that web servers and proxies write in JSON, and what Sigma calls them. The first that
/// exists counts.
const WEB: &[(&str, &[&str])] = &[
    (
        "cs-method",
        &["cs_method", "request.method", "RequestMethod", "request_method", "http.request.method", "method", "verb"],
    ),
    ("cs-uri-stem", &["cs_uri_stem", "uri_path", "url.path"]),
    ("cs-uri-query", &["cs_uri_query", "query_string", "url.query", "args"]),
    ("c-uri", &["c_uri", "request.uri", "RequestPath", "request_uri", "url.original", "uri", "cs-uri"]),
    ("sc-status", &["sc_status", "DownstreamStatus", "status", "status_code", "http.response.status_code"]),
    (
        "c-ip",
        &[
            "c_ip",
            "request.remote_ip",
            "ClientHost",
            "remote_addr",
            "client_ip",
            "source.ip",
            "remote_host",
            "clientip",
        ],
    ),
    (
        "cs-user-agent",
        &[
            "cs_user_agent",
            "request.headers.User-Agent",
            "request_User-Agent",
            "http_user_agent",
            "user_agent.original",
            "user_agent",
            "cs(User-Agent)",
            "cs-useragent",
        ],
    ),
    (
        "cs-referer",
        &[
            "cs_referer",
            "request.headers.Referer",
            "request_Referer",
            "http_referer",
            "http.request.referrer",
            "referer",
            "referrer",
            "cs(Referer)",
            "cs-referrer",
        ],
    ),
    ("cs-host", &["cs_host", "request.host", "RequestHost", "http_host", "url.domain", "vhost"]),
    ("cs-username", &["cs_username", "remote_user", "user.name"]),
];

/// Without one of these an event is no access log.
pub(super) const WEB_MARKS: &[&str] = &[
    "cs-method",
    "cs_method",
    "sc-status",
    "sc_status",
    "request_method",
    "http.request.method",
    "request.method",
    "RequestMethod",
];

/// An access log in JSON: certain where method, status and address of a request stand together.
/// Whether a server or a proxy wrote it stays unknown, so the category does too unless it is told.
pub(super) fn web(out: &mut Fields<'_>) -> bool {
    let any = |names: &[&str]| names.iter().any(|name| out.exists(name));
    let w3c = any(&["cs-method", "cs_method", "sc-status", "sc_status"])
        && any(&["c-ip", "c_ip", "cs-uri-stem", "cs_uri_stem", "c-uri"]);
    let nginx = any(&["request_method", "http.request.method"])
        && any(&["remote_addr", "client_ip", "source.ip", "clientip", "request_uri", "url.original", "url.path"]);
    let caddy = out.exists("request.method") && out.exists("request.uri") && out.exists("request.remote_ip");
    let traefik = out.exists("RequestMethod") && out.exists("RequestPath") && out.exists("ClientHost");
    if !w3c && !nginx && !caddy && !traefik {
        return false;
    }
    for (ours, theirs) in WEB {
        for theirs in *theirs {
            alias(out, ours, theirs);
        }
    }
    alias(out, "c-useragent", "cs-user-agent");
    address(out, "c-ip");
    split_uri(out);
    out.source.categories = Some(known(&["webserver", "proxy"]));
    true
}

/// Path and query of `c-uri`, where the log has the whole only.
fn split_uri(out: &mut Fields<'_>) {
    let Some(uri) = super::get(out, "c-uri") else {
        let whole = match (out.first("cs-uri-stem"), out.first("cs-uri-query")) {
            (Some(stem), Some(query)) if !query.is_empty() && query != "-" => format!("{stem}?{query}"),
            (Some(stem), _) => stem.to_owned(),
            (None, _) => return,
        };
        out.push("c-uri", whole);
        return;
    };
    let cut = uri.find('?');
    let part = |from: usize, to: usize| match &uri {
        Cow::Borrowed(text) => Cow::Borrowed(&text[from..to]),
        Cow::Owned(text) => Cow::Owned(text[from..to].to_owned()),
    };
    if !out.exists("cs-uri-stem") {
        out.push("cs-uri-stem", part(0, cut.unwrap_or(uri.len())));
    }
    if let Some(cut) = cut.filter(|_| !out.exists("cs-uri-query")) {
        out.push("cs-uri-query", part(cut + 1, uri.len()));
    }
}
