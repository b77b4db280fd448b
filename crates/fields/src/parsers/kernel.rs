//! The kernel: memory, crashes, packets, devices, modules. Whoever sends packets chooses addresses
//! and ports only; prefixes come from the rule, process names from whoever starts them.

use super::text::{ip, number, word, words_with_values};
use super::{Line, Parser, Reading, auditd};

pub(super) const PARSER: Parser = Parser {
    name: "kernel",
    programs: &["kernel", "ulogd", "ufw", "kern"],
    sniff: None,
    product: Some("linux"),
    services: &["syslog", "kern"],
    read,
};

fn read<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    let text = line.text.trim();
    // Behind the uptime: `[12345.678901] `
    let text = match text.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((uptime, rest)) if uptime.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b' ') => rest,
        _ => text,
    };
    // Without an audit daemon, its records end up here.
    if let Some(record) = text.strip_prefix("audit: ") {
        out.service("auditd");
        return auditd::record(record, out);
    }
    const FORMS: &[for<'m> fn(&'m str, &mut Reading<'m>) -> Option<()>] =
        &[packet, network, memory, crash, device, module];
    FORMS.iter().any(|form| form(text, out).is_some())
}

/// netfilter's `IN=eth0 OUT= MAC=… SRC=A DST=B … PROTO=TCP SPT=1 DPT=22 …` behind the rule's prefix.
fn packet<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let at = if text.starts_with("IN=") { 0 } else { text.find("IN=").filter(|at| text[..*at].len() <= 256)? };
    let (prefix, rest) = text.split_at(at);
    // The packet's own part begins with both devices and has both addresses.
    if !rest.contains(" OUT=") {
        return None;
    }
    let mut seen = 0;
    for (name, value) in words_with_values(rest) {
        // ICMP errors repeat the packet they are about in brackets.
        if name.starts_with('[') {
            break;
        }
        let ours: &[&'static str] = match name {
            "SRC" => &["src_ip", "SourceIp"],
            "DST" => &["dst_ip", "DestinationIp"],
            "SPT" => &["src_port", "SourcePort"],
            "DPT" => &["dst_port", "DestinationPort"],
            "PROTO" => &["Protocol"],
            "IN" => &["InterfaceIn"],
            "OUT" => &["InterfaceOut"],
            _ => continue,
        };
        match name {
            "SRC" | "DST" => {
                ip(value)?;
                seen += 1;
            }
            "SPT" | "DPT" => {
                number(value)?;
            }
            _ => {}
        }
        for ours in ours {
            out.some(ours, Some(value));
        }
    }
    if seen != 2 {
        return None;
    }
    out.categories(&["firewall"]);
    let prefix = prefix.trim().trim_end_matches(':');
    out.some("firewall_prefix", Some(prefix));
    let upper = prefix.to_ascii_uppercase();
    let denied = ["BLOCK", "DROP", "DENY", "DENIED", "REJECT"].iter().any(|word| upper.contains(word));
    let allowed = ["ALLOW", "ACCEPT"].iter().any(|word| upper.contains(word));
    match (denied, allowed) {
        (true, false) => {
            out.push("action", "blocked");
            out.push("blocked", "true");
            out.action("packet_blocked", Some(false));
        }
        (false, true) => {
            out.push("action", "accept");
            out.push("blocked", "false");
            out.action("packet_accepted", Some(true));
        }
        (true, true) | (false, false) => out.action("packet", None),
    }
    Some(())
}

/// Links that go down, tables that overflow, floods.
fn network<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let down =
        text.ends_with("Link is Down") || text.ends_with(": link down") || text.contains(": link becomes not ready");
    if down || text.starts_with("NETDEV WATCHDOG: ") {
        out.action("link_down", None);
        out.event_type("network_drop");
        out.some("Interface", text.split(": ").find(|word| is_interface(word)));
        return Some(());
    }
    if text.starts_with("nf_conntrack") && text.contains("table full, dropping packet") {
        out.action("conntrack_full", None);
        out.event_type("network_drop");
        return Some(());
    }
    // `TCP: request_sock_TCP: Possible SYN flooding on port 0.0.0.0:80. Sending cookies.`
    if let Some((_, rest)) = text.split_once("ossible SYN flooding on port ") {
        out.action("syn_flood", None);
        let port = word(rest).0.trim_end_matches('.');
        out.some("dst_port", number(port.rsplit_once(':').map_or(port, |(_, port)| port)));
        return Some(());
    }
    // `martian source A from B, on dev eth0`
    let (target, rest) = text.split_once("martian source ")?.1.split_once(" from ")?;
    let (source, device) = rest.split_once(", on dev ")?;
    out.action("martian", None);
    out.some("dst_ip", ip(target));
    out.some("src_ip", ip(source));
    out.push("Interface", device);
    Some(())
}

/// A word such as `eth0` or `enp3s0`.
fn is_interface(word: &str) -> bool {
    !word.is_empty()
        && word.len() <= 15
        && word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.ends_with(|c: char| c.is_ascii_digit())
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'@'))
}

/// `Out of memory: Killed process 7 (name) …`, `Memory cgroup out of memory: …`, `oom-kill:…`.
fn memory<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    if let Some((name, _)) = text.split_once(" invoked oom-killer:") {
        out.action("oom", None);
        out.event_type("memory_oom");
        out.push("Image", name);
        return Some(());
    }
    let rest = text.strip_prefix("Out of memory: ").or_else(|| text.strip_prefix("Memory cgroup out of memory: "));
    if rest.is_none() && !text.starts_with("oom-kill:") && !text.starts_with("oom_reaper: ") {
        return None;
    }
    out.action("oom_kill", None);
    out.event_type("memory_oom");
    let Some(rest) = rest else { return Some(()) };
    // A process may call itself `x) total-vm:…`: what counts is the last bracket in front of the numbers.
    let rest = rest.strip_prefix("Killed process ").or_else(|| rest.strip_prefix("Kill process "))?;
    let (pid, rest) = word(rest);
    out.some("ProcessId", number(pid.trim_end_matches(',')));
    if let Some(rest) = rest.strip_prefix('(') {
        let end = rest.rfind(") ").or_else(|| rest.rfind(')'))?;
        out.push("Image", rest[..end].split_once(") total-vm:").map_or(&rest[..end], |(name, _)| name));
    }
    Some(())
}

/// `nginx[812]: segfault at 0 ip … sp … error 4 in libc.so.6[…]`, `traps: x[1] trap int3 …`.
fn crash<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let text = text.strip_prefix("traps: ").unwrap_or(text);
    let (head, what) = [
        (text.find("]: segfault at "), "segfault"),
        (text.find("] general protection"), "general_protection"),
        (text.find("] trap "), "trap"),
    ]
    .into_iter()
    .find_map(|(at, what)| Some((&text[..at?], what)))?;
    let (name, pid) = head.rsplit_once('[')?;
    out.action("crash", None);
    out.push("reason", what);
    out.push("Image", name);
    out.some("ProcessId", number(pid));
    Some(())
}

fn device<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    // `device eth0 entered promiscuous mode`, newer: `eth0: entered promiscuous mode`
    for (words, action) in
        [(" entered promiscuous mode", "promiscuous_on"), (" left promiscuous mode", "promiscuous_off")]
    {
        if let Some(device) = text.strip_suffix(words) {
            let device = device.strip_prefix("device ").unwrap_or(device).trim_end_matches(':');
            out.action(action, None);
            out.push("Interface", device);
            return Some(());
        }
    }
    if let Some(rest) = text.strip_prefix("usb ") {
        let (port, rest) = rest.split_once(": ")?;
        out.push("usb_port", port);
        out.action(
            if rest.starts_with("new ") || rest.starts_with("New USB device found") {
                "usb_connected"
            } else if rest.starts_with("USB disconnect") {
                "usb_disconnected"
            } else {
                "usb"
            },
            None,
        );
        // `New USB device found, idVendor=0781, idProduct=5567, bcdDevice= 1.00`
        for (name, value) in rest.split(", ").filter_map(|pair| pair.split_once('=')) {
            match name {
                "idVendor" => out.push("usb_vendor", value),
                "idProduct" => out.push("usb_product", value),
                _ => {}
            }
        }
        return Some(());
    }
    let filesystem = text.strip_prefix("EXT4-fs ").or_else(|| text.strip_prefix("XFS "))?;
    if filesystem.contains("No space left") || filesystem.contains("no space") {
        out.event_type("disk_full");
    }
    out.action(if filesystem.starts_with("error") { "filesystem_error" } else { "filesystem" }, None);
    Some(())
}

/// `evil: loading out-of-tree module taints kernel.`, `evil: module verification failed: …`.
fn module<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let (name, rest) = text.split_once(": ")?;
    if name.is_empty()
        || name.contains(' ')
        || !(rest.starts_with("loading out-of-tree module") || rest.starts_with("module "))
    {
        return None;
    }
    out.action("module_loaded", None);
    out.categories(&["driver_load"]);
    out.push("ImageLoaded", name);
    out.push("reason", rest);
    Some(())
}
