//! Lines of PAM modules (`pam_unix(sshd:auth): …`, older: `(pam_unix) …`, `pam_unix: …`), written by the
//! program that uses them.

use super::Reading;
use super::text::{ip, without, word};

/// Services whose programs say in a line of their own that somebody failed to log in: counted there,
/// not twice.
const SPEAKS_ITSELF: &[&str] =
    &["sshd", "su", "su-l", "login", "vsftpd", "proftpd", "pure-ftpd", "dovecot", "smtp", "exim"];

/// Reads the line if it is one of a PAM module. Older modules do not say whom they serve; they are
/// read where the line is one of `program`.
pub(super) fn read<'m>(program: Option<&'static str>, text: &'m str, out: &mut Reading<'m>) -> bool {
    line(program, text, out).is_some()
}

fn line<'m>(program: Option<&'static str>, text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let (module, service, rest) = head(text)?;
    let (service, phase) = match service {
        Some(service) => service.split_once(':').unwrap_or((service, "")),
        None => (program?, ""),
    };
    said(service, rest, out).or_else(|| (!phase.is_empty()).then_some(()))?;
    out.push("pam_module", module);
    out.push("pam_service", service);
    Some(())
}

/// The module, whom it serves and for what, and what it says.
fn head(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let bracketed = text.starts_with('(');
    let name = &text[usize::from(bracketed)..];
    let end = name.bytes().position(|b| !(b.is_ascii_alphanumeric() || b == b'_'))?;
    let (module, rest) = name.split_at(end);
    if !module.starts_with("pam_") {
        return None;
    }
    if bracketed {
        return Some((module, None, rest.strip_prefix(") ")?));
    }
    if let Some(rest) = rest.strip_prefix(": ") {
        return Some((module, None, rest));
    }
    let (service, rest) = rest.strip_prefix('(')?.split_once("): ")?;
    (!service.contains(' ')).then_some((module, Some(service), rest))
}

/// What the module says.
fn said<'m>(service: &str, rest: &'m str, out: &mut Reading<'m>) -> Option<()> {
    if let Some(rest) = rest.strip_prefix("authentication failure; ") {
        out.action("authentication", Some(false));
        out.event_type(if SPEAKS_ITSELF.contains(&service) { "pam_fail" } else { "login_fail" });
        who(service, rest, out);
    } else if let Some(rest) = rest.strip_prefix("session opened for user ") {
        out.action("session_opened", Some(true));
        // `root(uid=0) by (uid=0)`, `root by deploy(uid=1000)`
        let (user, by) = rest.rsplit_once(" by ").unwrap_or((rest, ""));
        out.push("User", user.split_once("(uid=").map_or(user, |(name, _)| name));
        out.some("ByUser", by.split_once("(uid=").map(|(name, _)| name));
    } else if let Some(user) = rest.strip_prefix("session closed for user ") {
        out.action("session_closed", None);
        out.push("User", user);
    } else if let Some(rest) = rest.strip_prefix("password changed for ") {
        out.action("password_changed", Some(true));
        out.push("TargetUser", rest);
    } else if let Some(rest) = rest.strip_prefix("check pass; user unknown") {
        rest.is_empty().then_some(())?;
        out.action("authentication", Some(false));
    } else if let Some(rest) = rest.strip_prefix("auth could not identify password for [") {
        out.action("authentication", Some(false));
        out.push("User", without(rest, "]"));
    } else if let Some(rest) = rest.strip_prefix("Consecutive login failures for user ") {
        // pam_faillock: `bob account temporarily locked`
        out.action("account_locked", Some(false));
        out.some("User", rest.strip_suffix(" account temporarily locked"));
    } else if let Some(rest) = rest.strip_prefix("requirement ") {
        // pam_succeed_if: `"uid >= 1000" not met by user "bob"`
        let (requirement, user) = rest.split_once(" not met by user ")?;
        out.action("account_refused", Some(false));
        out.push("reason", requirement);
        out.push("User", user.trim_matches('"'));
    } else if let Some(rest) = rest.strip_prefix("account ") {
        // `account bob has expired (account expired)`
        let (user, reason) = rest.rsplit_once(" has ")?;
        out.action("account_refused", Some(false));
        out.push("User", user);
        out.push("reason", reason);
    } else if let Some(rest) = rest.strip_prefix("user [") {
        let (user, _) = rest.rsplit_once(']')?;
        out.push("User", user);
    } else {
        return None;
    }
    Some(())
}

/// `logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root`: the name comes last and may
/// hold anything; so may the remote user in front of the address.
pub(super) fn who<'m>(service: &str, text: &'m str, out: &mut Reading<'m>) {
    let Some((front, rest)) = text.split_once("ruser=") else { return };
    for word in front.split(' ') {
        match word.split_once('=') {
            Some(("tty", tty)) => out.some("tty", Some(tty)),
            Some(("logname", name)) => out.some("logname", Some(name)),
            Some(("uid", uid)) => out.some("uid", Some(uid)),
            _ => {}
        }
    }
    // sshd fills in no remote user, so what follows is its own; others repeat what they were told.
    let host = match rest.strip_prefix(" rhost=").filter(|_| service == "sshd") {
        Some(host) => Some(host),
        None => {
            let mut parts = rest.split(" rhost=");
            let (ruser, host, more) = (parts.next(), parts.next(), parts.next());
            out.some("ruser", ruser.filter(|_| more.is_none()));
            host.filter(|_| more.is_none())
        }
    };
    let Some(host) = host else { return };
    let (address, rest) = word(host);
    match ip(address) {
        Some(address) => out.push("SourceIp", address),
        None => out.some("SourceHostname", Some(address)),
    }
    out.some("User", rest.trim_start_matches(' ').strip_prefix("user="));
}
