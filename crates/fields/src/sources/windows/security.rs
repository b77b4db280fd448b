//! Events of the channel `Security` that say what Sysmon says, in other names.

use super::{address, alias, get, push_missing};
use model::Fields;
use std::borrow::Cow;

/// Sigma's categories of an event id; a service says the rest.
pub(super) fn categories(id: u32, out: &Fields<'_>) -> &'static [&'static str] {
    match id {
        4688 => &["process_creation"],
        4689 => &["process_termination"],
        4657 => match out.first("OperationType") {
            Some("%%1904") => &["registry_event", "registry_add", "registry_set"],
            Some("%%1905") => &["registry_event", "registry_set"],
            Some("%%1906") => &["registry_event", "registry_delete"],
            _ => &["registry_event", "registry_add", "registry_set", "registry_delete"],
        },
        5152 | 5157 => &["firewall"],
        5156 => &["network_connection", "firewall"],
        _ => &[],
    }
}

/// Adds the names of the categories to what the event calls otherwise.
pub(super) fn aliases(id: u32, out: &mut Fields<'_>) {
    match id {
        4688 => process_creation(out),
        4689 => {
            alias(out, "Image", "ProcessName");
            user(out);
        }
        4657 => registry(out),
        5152 | 5156 | 5157 => connection(id, out),
        _ => {}
    }
}

fn process_creation(out: &mut Fields<'_>) {
    alias(out, "Image", "NewProcessName");
    alias(out, "ParentImage", "ParentProcessName");
    // Here `ProcessId` is the creator; the event keeps it beside the one of the new process.
    if let Some(parent) = decimal(out, "ProcessId") {
        push_missing(out, "ParentProcessId", parent);
    }
    if let Some(pid) = decimal(out, "NewProcessId") {
        out.push("ProcessId", pid);
    }
    user(out);
    alias(out, "LogonId", "SubjectLogonId");
    let level = match out.first("MandatoryLabel") {
        Some("S-1-16-4096") => "Low",
        Some("S-1-16-8192" | "S-1-16-8448") => "Medium",
        Some("S-1-16-12288") => "High",
        Some("S-1-16-16384") => "System",
        _ => return,
    };
    push_missing(out, "IntegrityLevel", level);
}

/// `DOMAIN\name`, as Sysmon writes it.
fn user(out: &mut Fields<'_>) {
    if out.exists("User") {
        return;
    }
    match (get(out, "SubjectDomainName"), get(out, "SubjectUserName")) {
        (Some(domain), Some(name)) if !domain.is_empty() && domain != "-" => {
            out.push("User", format!("{domain}\\{name}"));
        }
        (_, Some(name)) => out.push("User", name),
        (_, None) => {}
    }
}

fn registry(out: &mut Fields<'_>) {
    alias(out, "Image", "ProcessName");
    user(out);
    if let Some(key) = get(out, "ObjectName") {
        let mut target = hive(&key);
        if let Some(value) = get(out, "ObjectValueName").filter(|value| !value.is_empty()) {
            target.push('\\');
            target.push_str(&value);
        }
        push_missing(out, "TargetObject", target);
    }
    if let Some(new) = get(out, "NewValue") {
        let number = new.parse::<u64>().or_else(|_| u64::from_str_radix(new.trim_start_matches("0x"), 16));
        let details: Cow<'_, str> = match (out.first("NewValueType"), number) {
            (Some("%%1876"), Ok(number)) => format!("DWORD (0x{number:08x})").into(),
            (Some("%%1883"), Ok(number)) => {
                format!("QWORD (0x{:08x}-0x{:08x})", number >> 32, number & 0xffff_ffff).into()
            }
            _ => new,
        };
        push_missing(out, "Details", details);
    }
    let event_type = match out.first("OperationType") {
        Some("%%1904" | "%%1905") => "SetValue",
        Some("%%1906") => "DeleteValue",
        _ => return,
    };
    push_missing(out, "EventType", event_type);
}

/// The key as Sysmon writes it: short hive, current control set.
fn hive(key: &str) -> String {
    let short = [(r"\REGISTRY\MACHINE\", r"HKLM\"), (r"\REGISTRY\USER\", r"HKU\")].iter().find_map(|(long, short)| {
        let head = key.get(..long.len()).filter(|head| head.eq_ignore_ascii_case(long))?;
        Some((*short, &key[head.len()..]))
    });
    let Some((short, rest)) = short else { return key.to_owned() };
    let set = rest.get(..17).filter(|head| head.eq_ignore_ascii_case(r"SYSTEM\ControlSet"));
    let rest = match set.and_then(|_| rest[17..].split_once('\\')) {
        Some((number, rest)) if number.bytes().all(|b| b.is_ascii_digit()) => {
            format!(r"System\CurrentControlSet\{rest}")
        }
        _ => rest.to_owned(),
    };
    format!("{short}{rest}")
}

fn connection(id: u32, out: &mut Fields<'_>) {
    alias(out, "Image", "Application");
    for (ours, theirs) in [
        ("DestinationIp", "DestAddress"),
        ("DestinationPort", "DestPort"),
        ("src_ip", "SourceAddress"),
        ("src_port", "SourcePort"),
        ("dst_ip", "DestAddress"),
        ("dst_port", "DestPort"),
    ] {
        alias(out, ours, theirs);
    }
    address(out, "SourceAddress");
    match out.first("Direction") {
        Some("%%14593") => push_missing(out, "Initiated", "true"),
        Some("%%14592") => push_missing(out, "Initiated", "false"),
        _ => {}
    }
    push_missing(out, "action", if id == 5156 { "accept" } else { "blocked" });
}

/// A hexadecimal process id as the decimal that other sources give.
fn decimal(out: &Fields<'_>, name: &str) -> Option<String> {
    let hex = out.first(name)?.strip_prefix("0x")?;
    u64::from_str_radix(hex, 16).ok().map(|id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::hive;

    #[test]
    fn registry_keys_are_written_as_sysmon_does() {
        for (long, short) in [
            (r"\REGISTRY\MACHINE\SOFTWARE\A", r"HKLM\SOFTWARE\A"),
            (r"\REGISTRY\MACHINE\SYSTEM\ControlSet001\Services\x", r"HKLM\System\CurrentControlSet\Services\x"),
            (r"\REGISTRY\USER\S-1-5-21\Software", r"HKU\S-1-5-21\Software"),
            (r"\REGISTRY\MACHINE\SYSTEM\ControlSetX\S", r"HKLM\SYSTEM\ControlSetX\S"),
            ("é", "é"),
        ] {
            assert_eq!(hive(long), short);
        }
    }
}
