//! FTP servers: vsftpd, proftpd, pure-ftpd.

use super::text::{ip, word};
use super::{Line, Parser, Reading};

pub(super) const PARSER: Parser = Parser {
    name: "ftp",
    programs: &["vsftpd", "proftpd", "pure-ftpd"],
    sniff: None,
    product: Some("linux"),
    services: &["vsftpd", "ftp", "auth"],
    read,
};

fn read<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    let text = line.text.trim();
    // Names are written as they come: the form of one server may be a name at another.
    let read = match line.program {
        "proftpd" => proftpd(text, out),
        "pure-ftpd" => pure_ftpd(text, out),
        _ => vsftpd(text, out),
    };
    read.is_some()
}

/// `[pid 7] [bob] FAIL LOGIN: Client "192.0.2.7"`, in vsftpd's own file behind a date. The name may
/// hold the words as well: then there is no address.
fn vsftpd<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let at = text.find("[pid ")?;
    let (_, rest) = text[at..].split_once("] ")?;
    const SPLIT: &str = ": Client \"";
    let (front, _) = rest.split_once(SPLIT)?;
    let mut parts = rest.split(SPLIT);
    let (_, tail, more) = (parts.next(), parts.next()?, parts.next());
    let (user, what) = match front.strip_prefix('[') {
        Some(named) => named.rsplit_once("] ")?,
        None => ("", front),
    };
    let (action, success) = match what {
        "OK LOGIN" => ("ftp_login", Some(true)),
        "FAIL LOGIN" => ("ftp_login", Some(false)),
        "CONNECT" => ("ftp_connect", None),
        "OK UPLOAD" => ("ftp_upload", Some(true)),
        "OK DOWNLOAD" => ("ftp_download", Some(true)),
        "FAIL UPLOAD" => ("ftp_upload", Some(false)),
        "FAIL DOWNLOAD" => ("ftp_download", Some(false)),
        _ => return None,
    };
    out.action(action, success);
    if (action, success) == ("ftp_login", Some(false)) {
        out.event_type("login_fail");
    }
    if more.is_some() {
        return Some(());
    }
    let (address, _) = tail.split_once('"')?;
    let address = address.strip_prefix("::ffff:").unwrap_or(address);
    out.some("SourceIp", ip(address));
    out.some("User", Some(user));
    Some(())
}

/// `host (client[192.0.2.7]) - USER bob (Login failed): Incorrect password`, elsewhere with `: ` for ` - `.
fn proftpd<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let (front, rest) = text.split_once("])")?;
    let rest = rest.strip_prefix(" - ").or_else(|| rest.strip_prefix(": "))?;
    let (front, address) = front.rsplit_once('[')?;
    if !front.contains(" (") {
        return None;
    }
    let address = ip(address.strip_prefix("::ffff:").unwrap_or(address))?;
    out.push("SourceIp", address);
    let Some(rest) = rest.strip_prefix("USER ") else {
        out.action("ftp", None);
        return Some(());
    };
    // `bob: no such user found from …`, `bob (Login failed): …`, `bob: Login successful.`
    if let Some(user) = rest.strip_suffix(": Login successful.") {
        out.action("ftp_login", Some(true));
        out.push("User", user);
        return Some(());
    }
    let user = rest.rsplit_once(" (Login failed)").or_else(|| rest.rsplit_once(": no such user"));
    let Some((user, _)) = user else {
        out.action("ftp", None);
        return Some(());
    };
    out.action("ftp_login", Some(false));
    out.event_type("login_fail");
    out.push("User", user);
    Some(())
}

/// `(?@192.0.2.7) [WARNING] Authentication failed for user [bob]`
fn pure_ftpd<'m>(text: &'m str, out: &mut Reading<'m>) -> Option<()> {
    let mut parts = text.strip_prefix('(')?.split(") [");
    let (who, rest, more) = (parts.next()?, parts.next()?, parts.next());
    if more.is_some() {
        return None;
    }
    let (user, address) = who.rsplit_once('@')?;
    out.some("SourceIp", ip(address));
    let (_, message) = rest.split_once("] ")?;
    if let Some(user) = message.strip_prefix("Authentication failed for user [") {
        out.action("ftp_login", Some(false));
        out.event_type("login_fail");
        out.push("User", user.strip_suffix(']').unwrap_or(user));
    } else {
        let logged_in = message.ends_with(" is now logged in");
        out.action(if logged_in { "ftp_login" } else { "ftp" }, logged_in.then_some(true));
        let named = message.strip_suffix(" is now logged in").unwrap_or(user);
        out.some("User", Some(word(named).0).filter(|user| *user != "?"));
    }
    Some(())
}
