//! fail2ban: `NOTICE  [sshd] Ban 192.0.2.7`.

use super::text::{ip, word};
use super::{Line, Parser, Reading};

pub(super) const PARSER: Parser = Parser {
    name: "fail2ban",
    programs: &["fail2ban", "fail2ban-server", "fail2ban.actions", "fail2ban.filter"],
    sniff: None,
    product: Some("linux"),
    services: &["fail2ban", "syslog"],
    read,
};

fn read<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    parse(line.text.trim(), out).is_some()
}

fn parse<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    // In front may stand the module, a process id and the level.
    let (_, rest) = text.split_once('[').filter(|(front, _)| front.len() <= 64)?;
    let (first, behind) = rest.split_once(']')?;
    let (jail, rest) = if first.bytes().all(|b| b.is_ascii_digit()) {
        behind.split_once('[')?.1.split_once(']')?
    } else {
        (first, behind)
    };
    let (verb, rest) = word(rest.trim_start());
    let action = match verb {
        "Ban" | "Restore" => "ban",
        "Unban" => "unban",
        "Found" => "ban_candidate",
        _ => return None,
    };
    let rest = rest.strip_prefix("Ban ").unwrap_or(rest);
    let address = ip(word(rest).0)?;
    out.action(action, None);
    out.push("jail", jail);
    out.push("SourceIp", address);
    Some(())
}
