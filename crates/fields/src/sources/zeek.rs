//! Zeek's logs in JSON: `_path` names the log, and with it Sigma's service.

use super::{address, alias, get, known};
use model::Fields;
use std::borrow::Cow;

pub(super) fn recognise(out: &mut Fields<'_>) -> bool {
    let path = get(out, "_path").or_else(|| get(out, "@path"));
    // Every log of Zeek has a time; those about connections, an id.
    let Some(path) =
        path.filter(|_| out.exists("ts") && (out.exists("uid") || out.exists("id.orig_h") || known_path(out)))
    else {
        return false;
    };
    let categories: Option<&[&str]> = match &*path {
        "dns" => Some(&["dns"]),
        "http" => Some(&["proxy"]),
        "conn" => Some(&["firewall", "network_connection"]),
        _ => Some(&[]),
    };
    out.source.product = Some(Cow::Borrowed("zeek"));
    out.source.categories = categories.map(known);
    let aliases: &[(&'static str, &str)] = match &*path {
        "http" => &[
            ("c-uri", "uri"),
            ("c-useragent", "user_agent"),
            ("cs-method", "method"),
            ("cs-host", "host"),
            ("sc-status", "status_code"),
            ("cs-referrer", "referrer"),
        ],
        "dns" => &[("answer", "answers"), ("record_type", "qtype_name")],
        _ => &[],
    };
    for (ours, theirs) in
        [("src_ip", "id.orig_h"), ("src_port", "id.orig_p"), ("dst_ip", "id.resp_h"), ("dst_port", "id.resp_p")]
            .iter()
            .chain(aliases)
    {
        alias(out, ours, theirs);
    }
    address(out, "id.orig_h");
    out.source.services = Some(vec![path]);
    true
}

/// Logs that are not about one connection.
fn known_path(out: &Fields<'_>) -> bool {
    matches!(
        out.first("_path"),
        Some("x509" | "pe" | "files" | "software" | "known_hosts" | "known_services" | "notice")
    )
}
