//! DNS servers: the query logs of named, dnsmasq and unbound, in the names of Sigma's category
//! `dns`.

use super::text::{ip, rsplit, without, word};
use super::{Line, Parser, Reading};

pub(super) const PARSER: Parser = Parser {
    name: "dns",
    programs: &["named", "dnsmasq", "unbound", "bind9"],
    sniff: None,
    product: Some("linux"),
    services: &["syslog", "dns"],
    read,
};

fn read<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    let text = line.text.trim();
    let read = match line.program {
        "dnsmasq" => dnsmasq(text, out),
        "unbound" => unbound(text, out),
        _ => named(text, out),
    };
    read.is_some()
}

fn client<'m>(address: &'m str, out: &mut Reading<'m>) {
    out.push("src_ip", address);
    out.push("SourceIp", address);
}

/// `client @0x7f 192.0.2.7#5353 (example.org): query: example.org IN A +E(0)K (192.0.2.1)`. Names
/// are written with their spaces escaped.
fn named<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let text = text.strip_prefix("queries: ").unwrap_or(text);
    let text = text.strip_prefix("info: ").unwrap_or(text);
    let rest = text.strip_prefix("client ")?;
    let rest = if rest.starts_with('@') { word(rest).1 } else { rest };
    let (peer, rest) = rest.split_once(' ')?;
    let (address, port) = peer.split_once('#')?;
    let address = ip(address)?;
    let (_, query) = rest.split_once(": query: ")?;
    let mut words = query.split(' ');
    let (name, class, kind) = (words.next()?, words.next()?, words.next()?);
    if !matches!(class, "IN" | "CH" | "HS" | "ANY" | "NONE") {
        return None;
    }
    out.categories(&["dns"]);
    out.action("dns_query", None);
    client(address, out);
    out.push("src_port", without(port, ":"));
    out.push("query", name);
    out.push("record_type", kind);
    Some(())
}

/// `query[A] example.org from 192.0.2.7`, `reply example.org is 192.0.2.9`
fn dnsmasq<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    if let Some(rest) = text.strip_prefix("query[") {
        let (kind, rest) = rest.split_once("] ")?;
        let (name, address) = rsplit(rest, " from ")?;
        let address = ip(address)?;
        out.categories(&["dns"]);
        out.action("dns_query", None);
        client(address, out);
        out.push("query", name);
        out.push("record_type", kind);
        return Some(());
    }
    let rest = text.strip_prefix("reply ").or_else(|| text.strip_prefix("cached "))?;
    let (name, answer) = rsplit(rest, " is ")?;
    out.categories(&["dns"]);
    out.action("dns_answer", None);
    out.push("query", name);
    out.push("answer", answer);
    Some(())
}

/// `[7:0] info: 192.0.2.7 example.org. A IN`
fn unbound<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let (_, rest) = text.split_once("info: ")?;
    let mut words = rest.split(' ');
    let (address, name, kind, class) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let address = ip(address)?;
    if class != "IN" {
        return None;
    }
    out.categories(&["dns"]);
    out.action("dns_query", None);
    client(address, out);
    out.push("query", without(name, "."));
    out.push("record_type", kind);
    Some(())
}
