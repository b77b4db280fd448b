//! systemd about its units: `Started nginx.service - …`, `nginx.service: Failed with result …`.

use super::text::{without, word};
use super::{Line, Parser, Reading};

pub(super) const PARSER: Parser = Parser {
    name: "systemd",
    programs: &["systemd", "init"],
    sniff: None,
    product: Some("linux"),
    services: &["syslog", "systemd"],
    read,
};

fn read<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    parse(line.text.trim_end(), out).is_some()
}

fn parse<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    const VERBS: &[(&str, &str, Option<bool>)] = &[
        ("Started ", "unit_started", Some(true)),
        ("Starting ", "unit_starting", None),
        ("Stopped ", "unit_stopped", Some(true)),
        ("Stopping ", "unit_stopping", None),
        ("Finished ", "unit_finished", Some(true)),
        ("Failed to start ", "unit_failed", Some(false)),
        ("Reloaded ", "unit_reloaded", Some(true)),
        ("Created slice ", "slice_created", None),
        ("Removed slice ", "slice_removed", None),
        ("Reached target ", "target_reached", None),
    ];
    if let Some((verb, action, success)) = VERBS.iter().find(|(verb, ..)| text.starts_with(verb)) {
        out.action(action, *success);
        // Newer ones name the unit first: `Started nginx.service - A web server.`
        let rest = &text[verb.len()..];
        let (first, behind) = word(rest);
        if let Some(description) = behind.strip_prefix("- ") {
            out.push("unit", first);
            out.push("description", without(description, "."));
        } else {
            let rest = without(rest, ".");
            out.push(if looks_like_unit(rest) { "unit" } else { "description" }, rest);
        }
        return Some(());
    }
    // Before version 230: `Unit nginx.service entered failed state.`, `nginx.service failed.`
    let failed = text
        .strip_prefix("Unit ")
        .and_then(|rest| rest.strip_suffix(" entered failed state."))
        .or_else(|| text.strip_suffix(" failed."));
    if let Some(unit) = failed.filter(|unit| looks_like_unit(unit)) {
        out.action("unit_failed", Some(false));
        out.push("unit", unit);
        return Some(());
    }
    let (unit, rest) = text.split_once(": ")?;
    if !looks_like_unit(unit) {
        return None;
    }
    out.push("unit", unit);
    if let Some(result) = rest.strip_prefix("Failed with result '") {
        out.action("unit_failed", Some(false));
        let result = without(without(result, "."), "'");
        if result == "oom-kill" {
            out.event_type("memory_oom");
        }
        out.push("reason", result);
    } else if let Some(rest) =
        rest.strip_prefix("Main process exited, code=").or_else(|| rest.strip_prefix("main process exited, code="))
    {
        out.action("unit_process_exited", None);
        let (code, status) = rest.split_once(", status=").unwrap_or((rest, ""));
        out.push("exit_code", code);
        out.some("exit_status", Some(status));
        if code == "killed" {
            out.event_type("process_kill");
        }
    } else if rest.starts_with("A process of this unit has been killed by the OOM killer") {
        out.action("oom_kill", None);
        out.event_type("memory_oom");
    } else if rest.starts_with("Killing process ") || rest.starts_with("Sent signal ") {
        out.action("unit_process_killed", None);
        out.event_type("process_kill");
    } else {
        out.action("unit", None);
    }
    Some(())
}

fn looks_like_unit(text: &str) -> bool {
    const KINDS: &[&str] = &[
        ".service",
        ".socket",
        ".timer",
        ".mount",
        ".slice",
        ".scope",
        ".target",
        ".path",
        ".device",
        ".automount",
        ".swap",
    ];
    !text.contains(' ') && KINDS.iter().any(|kind| text.ends_with(kind))
}
