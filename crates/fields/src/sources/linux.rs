//! The audit log of Linux in JSON.

use super::{RENAMED_MAX, alias, get, known, push_missing};
use crate::parsers::auditd::{categories_of, is_type};
use model::Fields;
use std::borrow::Cow;

/// Laurel writes one object per audit event, a member per record type.
pub(super) fn laurel(out: &mut Fields<'_>) -> bool {
    let event = out.exists("ID")
        && (out.exists("SYSCALL.syscall") || out.exists("SYSCALL.SYSCALL") || out.exists("EXECVE.ARGV"));
    if !event {
        return false;
    }
    for at in 0..out.leaves().len().min(RENAMED_MAX) {
        let leaf = &out.leaves()[at];
        let Some((record, inner)) = leaf.name.split_once('.') else { continue };
        if !is_type(record) {
            continue;
        }
        let (record, inner) = (record.to_owned(), inner.to_owned());
        if !out.values("type").any(|known| known == record) {
            out.push("type", record.clone());
        }
        if record == "SYSCALL" && !out.exists(&inner) {
            match out.leaves()[at].value.clone() {
                Some(value) => out.push(inner, value),
                None => out.push_null(inner),
            }
        }
    }
    for at in 0..out.leaves().len().min(RENAMED_MAX) {
        if out.leaves()[at].name == "PATH.name"
            && let Some(name) = out.leaves()[at].value.clone()
        {
            out.push("name", name);
        }
    }
    let argv: Vec<Cow<'_, str>> =
        out.leaves().iter().filter(|leaf| leaf.name == "EXECVE.ARGV").filter_map(|leaf| leaf.value.clone()).collect();
    if !argv.is_empty() {
        push_missing(out, "CommandLine", argv.join(" "));
        for (at, argument) in argv.into_iter().enumerate().take(64) {
            out.push(format!("a{at}"), argument);
        }
    }
    finish(out, "EXECVE");
    // Who ran it, where names are told.
    alias(out, "User", "UID");
    true
}

/// One record per object, fields in auditd's names.
pub(super) fn auditd(out: &mut Fields<'_>) -> bool {
    let Some(kind) = get(out, "type").filter(|kind| is_type(kind)) else { return false };
    let record = ["auid", "AUID", "ses", "syscall", "SYSCALL", "a0", "nametype", "argc"];
    if !record.iter().any(|name| out.exists(name)) {
        return false;
    }
    if kind == "EXECVE" {
        let mut line = String::new();
        for at in 0..RENAMED_MAX {
            let Some(argument) = out.first(&format!("a{at}")) else { break };
            if at > 0 {
                line.push(' ');
            }
            line.push_str(argument);
        }
        if !line.is_empty() {
            push_missing(out, "CommandLine", line);
        }
    }
    if kind == "SYSCALL" && !out.exists("acct") {
        alias(out, "User", "UID");
    }
    finish(out, &kind);
    true
}

fn finish(out: &mut Fields<'_>, kind: &str) {
    out.source.product = Some(Cow::Borrowed("linux"));
    out.source.services = Some(known(&["auditd"]));
    out.source.categories = Some(known(categories_of(kind)));
    alias(out, "Image", "exe");
    alias(out, "ProcessId", "pid");
    alias(out, "ParentProcessId", "ppid");
}
