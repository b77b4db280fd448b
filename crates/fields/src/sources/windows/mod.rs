//! Windows events: channel and event id say what they are.
//!
//! Forms that are recognised: the XML turned into JSON (`Event`, or `System` beside `EventData`),
//! with attributes in `#attributes`, in `X_attributes` or beside the text; Winlogbeat and what is
//! shaped like it; Wazuh; flat ones (`Channel`, `EventID`, `Image`, …). Of the first, only the
//! plain names become fields; the others keep their own names and get the plain ones beside them.

mod channels;
mod security;
pub(crate) mod sysmon;

use super::marks::{Mark, Marks};
use super::{address, alias, get, known, push_missing};
use crate::flatten::Flattened;
use model::Fields;
use std::borrow::Cow;

/// What the events of a channel are, beyond its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Security,
    Sysmon,
    SysmonLinux,
    PowerShell,
    PowerShellClassic,
    Defender,
    /// Products of others write here too, virus scanners among them.
    Application,
    /// The RPC firewall, which is a product of its own to Sigma.
    RpcFirewall,
    /// Events of no category.
    Nothing,
    /// Events that may belong to a category.
    Unknown,
}

/// Fields of an event of Windows that a collector put into an object of its own.
pub(super) const NESTED: &[&str] =
    &["winlog.channel", "win.system.channel", "data.win.system.channel", "Event.System.Channel", "winlog.event_id"];
/// One of the fields that old versions of Winlogbeat give.
pub(super) const OLD_BEAT: &[&str] = &["log_name"];
/// The field without which no other event is one of Windows.
pub(super) const FLAT: &[&str] = &["EventID"];

/// Sets source and aliases if this is a Windows event.
pub(super) fn recognise(found: &Flattened, marks: Marks, out: &mut Fields<'_>) -> bool {
    let (channel, id, provider) = match found.windows {
        Some(system) => {
            let value = |at: Option<usize>| at.and_then(|at| out.leaves()[at].value.clone());
            (value(system.channel), value(system.event_id), value(system.provider))
        }
        None => {
            if !plain_names(marks, out) {
                return false;
            }
            (get(out, "Channel"), get(out, "EventID"), get(out, "Provider_Name"))
        }
    };
    if id.is_none() || (channel.is_none() && provider.is_none()) {
        return false;
    }
    let known_as = match channel.as_deref() {
        // A collector's own channel says nothing.
        Some(channel) if channel != "ForwardedEvents" => channels::by_channel(channel),
        _ => provider.as_deref().and_then(channels::by_provider),
    };
    alias(out, "ComputerName", "Computer");
    out.source.product = Some(Cow::Borrowed("windows"));
    let Some((services, kind)) = known_as else { return true };
    out.source.services = Some(known(services));
    let id = id.as_deref().and_then(|id| id.parse().ok()).unwrap_or(0);
    out.source.categories = categories(kind, id, out).map(known);
    match kind {
        Kind::Security => security::aliases(id, out),
        Kind::Sysmon => sysmon::aliases(out),
        Kind::SysmonLinux => {
            sysmon::aliases(out);
            out.source.product = Some(Cow::Borrowed("linux"));
        }
        Kind::Defender => {
            without_spaces(out);
            alias(out, "Signature", "Threat Name");
        }
        Kind::RpcFirewall => {
            out.source.product = Some(Cow::Borrowed("rpc_firewall"));
            out.source.services = None;
            push_missing(out, "EventLog", "RPCFW");
        }
        Kind::PowerShell | Kind::PowerShellClassic | Kind::Application | Kind::Nothing | Kind::Unknown => {}
    }
    true
}

/// Defender's names have spaces, and rules write `ThreatName`.
fn without_spaces(out: &mut Fields<'_>) {
    for at in 0..out.leaves().len() {
        let leaf = &out.leaves()[at];
        if !leaf.name.contains(' ') {
            continue;
        }
        let (name, value) = (leaf.name.replace(' ', ""), leaf.value.clone());
        match value {
            Some(value) => out.push(name, value),
            None => out.push_null(name),
        }
    }
}

fn categories(kind: Kind, id: u32, out: &Fields<'_>) -> Option<&'static [&'static str]> {
    let categories: &[&str] = match (kind, id) {
        (Kind::Sysmon | Kind::SysmonLinux, id) => sysmon::categories(id),
        (Kind::Security, id) => security::categories(id, out),
        (Kind::PowerShell, 4103) => &["ps_module"],
        (Kind::PowerShell, 4104) => &["ps_script"],
        (Kind::PowerShellClassic, 400) => &["ps_classic_start"],
        (Kind::PowerShellClassic, 600) => &["ps_classic_provider_start"],
        (Kind::PowerShellClassic, 800) => &["ps_classic_script"],
        (Kind::Defender, 1006..=1009 | 1015 | 1116..=1119) => &["antivirus"],
        (Kind::Application, _) => &["antivirus", "application"],
        (Kind::RpcFirewall, _) => &["application"],
        (Kind::PowerShell | Kind::PowerShellClassic | Kind::Defender | Kind::Nothing, _) => &[],
        (Kind::Unknown, _) => return None,
    };
    Some(categories)
}

/// Gives an event that is not in the form of the XML the plain names, if it is one of Windows:
/// only those have both a channel and an event id, or name Windows where they are collected.
fn plain_names(marks: Marks, out: &mut Fields<'_>) -> bool {
    let nested = marks.has(Mark::WindowsNested);
    let old_beat = marks.has(Mark::WindowsOldBeat) && out.exists("source_name") && out.exists("event_id");
    let flat = marks.has(Mark::WindowsFlat)
        && (out.exists("Channel") || out.exists("Provider_Name") || out.exists("ProviderName") || nxlog(out));
    if !nested && !old_beat && !flat {
        return false;
    }
    if nested || old_beat || out.leaves().iter().any(|leaf| leaf.name.starts_with("EventData.")) {
        inner_names(out);
    }
    for (ours, theirs) in [
        ("Channel", ["winlog.channel", "log_name", "win.system.channel", "data.win.system.channel"].as_slice()),
        ("EventID", &["winlog.event_id", "event_id", "event.code", "win.system.eventID", "data.win.system.eventID"]),
        (
            "Provider_Name",
            &[
                "winlog.provider_name",
                "source_name",
                "win.system.providerName",
                "data.win.system.providerName",
                "ProviderName",
                "SourceName",
            ],
        ),
        (
            "Computer",
            &[
                "winlog.computer_name",
                "computer_name",
                "win.system.computer",
                "data.win.system.computer",
                "ComputerName",
                "Hostname",
            ],
        ),
    ] {
        if !out.exists(ours)
            && let Some(value) = theirs.iter().find_map(|theirs| get(out, theirs))
        {
            out.push(ours, value);
        }
    }
    true
}

/// NXLog leaves out nothing, but others shorten what it sends.
fn nxlog(out: &Fields<'_>) -> bool {
    out.exists("SourceName") && (out.exists("SourceModuleName") || out.exists("ProviderGuid"))
}

/// Adds every field of the event's data under the name it has in the event.
fn inner_names(out: &mut Fields<'_>) {
    for at in 0..out.leaves().len() {
        let leaf = &out.leaves()[at];
        let Some((inner, capital)) = inner_name(&leaf.name) else { continue };
        let inner: Cow<'_, str> = match (capital, inner.as_bytes().first()) {
            (true, Some(first)) if first.is_ascii_lowercase() => {
                Cow::Owned(format!("{}{}", char::from(first.to_ascii_uppercase()), &inner[1..]))
            }
            _ => Cow::Owned(inner.to_owned()),
        };
        match leaf.value.clone() {
            Some(value) => out.push(inner, value),
            None => out.push_null(inner),
        }
    }
}

/// What a name is within the event's data, and whether its first letter was made small on the way.
fn inner_name(name: &str) -> Option<(&str, bool)> {
    const SAME: &[&str] = &["winlog.event_data.", "event_data.", "EventData.", "Event.EventData.", "Event.System."];
    const SMALL: &[&str] = &["win.eventdata.", "data.win.eventdata."];
    const WRAPPED: &[&str] = &["winlog.user_data.", "user_data.", "UserData.", "Event.UserData."];
    if !matches!(name.as_bytes().first(), Some(b'w' | b'e' | b'E' | b'd' | b'u' | b'U')) {
        return None;
    }
    let strip = |prefixes: &[&str]| prefixes.iter().find_map(|prefix| name.strip_prefix(prefix).map(str::len));
    let (rest, capital) = match (strip(SAME), strip(SMALL), strip(WRAPPED)) {
        (Some(rest), ..) => (rest, false),
        (None, Some(rest), _) => (rest, true),
        (None, None, Some(rest)) => {
            let inner = &name[name.len() - rest..];
            // Winlogbeat drops the object's name and keeps it as a field; others keep it around.
            (inner.split_once('.').map_or(rest, |(_, inner)| inner.len()), false)
        }
        (None, None, None) => return None,
    };
    Some(&name[name.len() - rest..]).filter(|inner| !inner.is_empty()).map(|inner| (inner, capital))
}
