//! DHCP servers: ISC dhcpd, Kea's words for the same, dnsmasq.

use super::text::{ip, word};
use super::{Line, Parser, Reading};

pub(super) const PARSER: Parser = Parser {
    name: "dhcp",
    programs: &["dhcpd", "dnsmasq-dhcp", "dhclient"],
    sniff: None,
    product: Some("linux"),
    services: &["syslog", "dhcp"],
    read,
};

fn read<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    parse(line.text.trim(), out).is_some()
}

/// `DHCPACK on 192.0.2.7 to 00:11:22:33:44:55 (name) via eth0`; dnsmasq: `DHCPACK(eth0) 192.0.2.7
/// 00:11:22:33:44:55 name`. The name is the client's.
fn parse<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let end = text.bytes().position(|b| !b.is_ascii_uppercase()).unwrap_or(text.len());
    let kind = &text[..end];
    if !kind.starts_with("DHCP") || kind.len() < 7 {
        return None;
    }
    let mut rest = &text[end..];
    out.push("dhcp_message", kind);
    out.action("dhcp", None);
    if let Some((interface, behind)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(") ")) {
        out.push("Interface", interface);
        rest = behind;
    }
    // The first address and the first hardware address are the server's words.
    let mut address = false;
    for _ in 0..8 {
        let (first, behind) = word(rest.trim_start());
        if first.starts_with('(') || first.is_empty() {
            break;
        }
        if !address && ip(first).is_some() {
            out.push("client_ip", first);
            address = true;
        } else if is_hardware_address(first) {
            out.push("client_mac", first);
            if let Some(name) = behind.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
                out.push("client_hostname", name.0);
            }
            break;
        }
        rest = behind;
    }
    Some(())
}

fn is_hardware_address(text: &str) -> bool {
    text.len() == 17
        && text.bytes().enumerate().all(|(at, b)| if at % 3 == 2 { b == b':' } else { b.is_ascii_hexdigit() })
}
