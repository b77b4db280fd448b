//! cron daemons: `(root) CMD (/usr/bin/true)`.

use super::text::without;
use super::{Line, Parser, Reading};

pub(super) const PARSER: Parser = Parser {
    name: "cron",
    programs: &["cron", "crond", "crontab", "anacron", "atd", "fcron"],
    sniff: None,
    product: Some("linux"),
    services: &["cron", "syslog"],
    read,
};

fn read<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    let daemon = if line.program == "crond" { "/usr/sbin/crond" } else { "/usr/sbin/cron" };
    parse(line.text.trim_end(), daemon, out).is_some()
}

fn parse<'m>(text: &'m str, daemon: &'static str, out: &mut Reading<'m>) -> Option<()> {
    let (user, rest) = text.strip_prefix('(')?.split_once(") ")?;
    let (what, rest) = rest.split_once(" (")?;
    let inner = without(rest, ")");
    match what {
        "CMD" => {
            // Some daemons number their jobs: `CMD ([1234] /usr/bin/true)`
            let command = match inner.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
                Some((number, command)) if number.bytes().all(|b| b.is_ascii_digit()) => command,
                _ => inner,
            };
            let command = command.trim_start();
            out.action("cron_command", Some(true));
            out.categories(&["process_creation"]);
            out.push("CommandLine", command);
            out.push("ParentImage", daemon);
        }
        "CMDOUT" => {
            out.action("cron_output", None);
            out.push("output", inner);
        }
        // crontab
        "BEGIN EDIT" | "END EDIT" | "LIST" | "REPLACE" | "DELETE" | "RELOAD" | "EDIT" => {
            out.action(
                match what {
                    "REPLACE" => "crontab_replaced",
                    "DELETE" => "crontab_deleted",
                    "RELOAD" => "crontab_reloaded",
                    "LIST" => "crontab_listed",
                    _ => "crontab_edited",
                },
                Some(true),
            );
            out.push("TargetUser", inner);
        }
        "AUTH" | "WRONG FILE OWNER" | "INSECURE MODE" | "BAD FILE MODE" | "ORPHAN" => {
            out.action("cron_refused", Some(false));
            out.push("reason", inner);
        }
        _ => {
            out.action("cron", None);
            out.push("reason", inner);
        }
    }
    out.push("User", user);
    Some(())
}
