//! Logins that are not by ssh: `su`, `login`, `systemd-logind`, display managers, `polkit`.

use super::text::{ip, rsplit, without, word};
use super::{Line, Parser, Reading};

pub(super) const PARSER: Parser = Parser {
    name: "login",
    programs: &[
        "su",
        "login",
        "systemd-logind",
        "gdm-password",
        "gdm",
        "lightdm",
        "sddm",
        "polkit-agent-helper-1",
        "pkexec",
        "doas",
        "runuser",
        "xrdp-sesman",
        "cockpit-session",
        "cockpit-tls",
        "gnome-keyring-daemon",
        "polkitd",
        "rlogin",
        "in.rshd",
        "sssd",
        "unix_chkpwd",
    ],
    sniff: None,
    product: Some("linux"),
    services: &["auth", "syslog"],
    read,
};

fn read<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    let text = line.text.trim_end();
    let read = match line.program {
        "su" => su(text, out),
        "login" => login(text, out),
        "systemd-logind" => logind(text, out),
        "pkexec" => pkexec(text, out),
        "unix_chkpwd" => chkpwd(text, out),
        _ => None,
    };
    read.is_some()
}

/// `(to root) bob on pts/0`, `FAILED SU (to root) bob on pts/0`, `Successful su for root by bob`.
fn su<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let (rest, success) = match text.strip_prefix("FAILED SU ") {
        Some(rest) => (rest, false),
        None => (text, true),
    };
    if let Some(rest) = rest.strip_prefix("(to ") {
        let (target, rest) = rest.split_once(") ")?;
        let (user, tty) = rsplit(rest, " on ")?;
        return switched(user, target, success, Some(tty), out);
    }
    for (start, success) in [("Successful su for ", true), ("FAILED su for ", false)] {
        if let Some((target, user)) = text.strip_prefix(start).and_then(|rest| rest.split_once(" by ")) {
            return switched(user, target, success, None, out);
        }
    }
    // `+ /dev/pts/0 bob:root`, of the shadow suite
    let (sign, rest) = word(text);
    let success = match sign {
        "+" => true,
        "-" => false,
        _ => return None,
    };
    let (tty, who) = word(rest);
    let (user, target) = who.split_once(':')?;
    switched(user, target, success, Some(tty), out)
}

fn switched<'m>(
    user: &'m str,
    target: &'m str,
    success: bool,
    tty: Option<&'m str>,
    out: &mut Reading<'m>,
) -> Option<()> {
    out.action("su", Some(success));
    if !success {
        out.event_type("login_fail");
    }
    out.push("User", user);
    out.push("TargetUser", target);
    out.some("tty", tty);
    Some(())
}

/// `FAILED LOGIN (1) on '/dev/tty1' FOR 'bob', Authentication failure`, `ROOT LOGIN ON tty1`.
fn login<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    if text.starts_with("FAILED LOGIN") || text.starts_with("TOO MANY LOGIN TRIES") {
        out.action("login", Some(false));
        out.event_type("login_fail");
        // `FOR 'name', reason`: the name may hold a quote, the reason does not.
        if let Some((_, rest)) = text.split_once(" FOR ")
            && let Some((name, reason)) = rsplit(rest, ", ")
        {
            let name = name.strip_prefix('\'').or_else(|| name.strip_prefix('`')).unwrap_or(name);
            out.push("User", without(name, "'"));
            out.push("reason", reason);
        }
        if let Some((head, _)) = text.split_once(" FOR ")
            && let Some((_, host)) = head.split_once(" FROM ")
        {
            out.some("SourceIp", ip(host.trim_matches('\'')));
        }
        return Some(());
    }
    let (user, rest) = match text.strip_prefix("ROOT LOGIN") {
        Some(rest) => ("root", rest),
        None => {
            // `LOGIN ON tty1 BY bob`
            let (tty, user) = text.strip_prefix("LOGIN ON ")?.split_once(" BY ")?;
            out.action("login", Some(true));
            out.push("User", user.split_once(" FROM ").map_or(user, |(user, _)| user));
            out.push("tty", tty);
            return Some(());
        }
    };
    out.action("login", Some(true));
    out.push("User", user);
    let tty = rest.trim_start().trim_start_matches("ON ").trim_start_matches("on ");
    out.some("tty", Some(word(tty).0.trim_matches('\'')));
    Some(())
}

/// `New session 12 of user bob.`, `Removed session 12.`
fn logind<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    if let Some(rest) = text.strip_prefix("New session ") {
        let (session, user) = rest.split_once(" of user ")?;
        out.action("session_opened", Some(true));
        out.push("session", session.trim_matches('\''));
        out.push("User", without(user, ".").trim_matches('\''));
        return Some(());
    }
    let (session, rest) = word(text.strip_prefix("Removed session ").or_else(|| text.strip_prefix("Session "))?);
    if !rest.is_empty() && !rest.starts_with("logged out") {
        return None;
    }
    out.action("session_closed", None);
    out.push("session", without(session, "."));
    Some(())
}

/// `bob: Executing command [USER=root] [TTY=unknown] [CWD=/home/bob] [COMMAND=/usr/bin/id]`
fn pkexec<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let (user, rest) = text.split_once(": ")?;
    if user.contains(' ') {
        return None;
    }
    let executed = rest.starts_with("Executing command ");
    out.push("User", user);
    out.action("pkexec", Some(executed));
    if !executed {
        out.push("reason", rest.split_once(" [").map_or(rest, |(reason, _)| reason));
    }
    if let Some((_, command)) = rest.split_once(" [COMMAND=") {
        let command = without(command, "]");
        out.push("CommandLine", command);
        if executed {
            out.categories(&["process_creation"]);
            out.push("Image", word(command).0);
            out.push("ParentImage", "/usr/bin/pkexec");
        }
    }
    if let Some((target, _)) = rest.split_once("[USER=").and_then(|(_, rest)| rest.split_once(']')) {
        out.push("TargetUser", target);
    }
    Some(())
}

/// `password check failed for user (bob)`
fn chkpwd<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let user = text.strip_prefix("password check failed for user (")?;
    out.action("password_check", Some(false));
    out.push("User", without(user, ")"));
    Some(())
}
