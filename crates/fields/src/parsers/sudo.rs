//! sudo: `deploy : TTY=pts/0 ; PWD=/home/deploy ; USER=root ; COMMAND=/usr/bin/id`.
//!
//! The caller chooses the directory's name and the command, so ` ; COMMAND=` may stand in both:
//! `CommandLine` begins at the first, which is never less than the real one.

use super::text::{number, word};
use super::{Line, Parser, Reading};

pub(super) const PARSER: Parser = Parser {
    name: "sudo",
    programs: &["sudo"],
    sniff: None,
    product: Some("linux"),
    services: &["sudo", "auth", "syslog"],
    read,
};

fn read<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    parse(line.text.trim(), out).is_some()
}

fn parse<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let (user, rest) = text.split_once(" : ")?;
    if user.is_empty() || user.contains(';') {
        return None;
    }
    let at = if rest.starts_with("TTY=") { Some(0) } else { rest.find(" ; TTY=").map(|at| at + 3) };
    // Without a terminal, older versions begin with the directory.
    let at = at.or_else(|| if rest.starts_with("PWD=") { Some(0) } else { rest.find(" ; PWD=").map(|at| at + 3) })?;
    let refusal = rest[..at].strip_suffix(" ; ").unwrap_or_default();
    let rest = &rest[at..];
    let (front, command) = match rest.find(" ; COMMAND=") {
        Some(at) => (&rest[..at], Some(&rest[at + 11..])),
        None => (rest, None),
    };
    for part in front.split(" ; ") {
        match part.split_once('=') {
            // Under sudo's own names too: public rules ask for `USER`.
            Some(("TTY", tty)) => both("TTY", "tty", tty, out),
            Some(("PWD", directory)) => both("PWD", "CurrentDirectory", directory, out),
            Some(("USER", target)) => both("USER", "TargetUser", target, out),
            Some(("GROUP", group)) => both("GROUP", "TargetGroup", group, out),
            _ => {}
        }
    }
    out.push("User", user);
    out.event_type("sudo_usage");
    if let Some(command) = command {
        both("COMMAND", "CommandLine", command, out);
    }
    if refusal.is_empty() {
        out.action("sudo_command", Some(true));
        if let Some(command) = command {
            out.categories(&["process_creation"]);
            for command in std::iter::once(command).chain(command.split(" ; COMMAND=").skip(1).take(8)) {
                out.push("Image", word(command).0);
            }
            out.push("ParentImage", "/usr/bin/sudo");
        }
        return Some(());
    }
    out.push("reason", refusal);
    let (count, words) = word(refusal);
    if number(count).is_some() && words.starts_with("incorrect password attempt") {
        out.action("sudo_wrong_password", Some(false));
        out.push("failure_count", count);
    } else if refusal.ends_with("NOT in sudoers") {
        out.action("sudo_not_in_sudoers", Some(false));
    } else {
        out.action("sudo_refused", Some(false));
    }
    Some(())
}

fn both<'m>(theirs: &'static str, ours: &'static str, value: &'m str, out: &mut Reading<'m>) {
    out.push(theirs, value);
    out.push(ours, value);
}
