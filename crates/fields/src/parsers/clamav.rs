//! ClamAV: `/srv/upload/x.php: Php.Webshell-1 FOUND`. The path is anybody's, the signature is not.

use super::{Line, Parser, Reading};

pub(super) const PARSER: Parser = Parser {
    name: "clamav",
    programs: &["clamd", "clamav", "clamscan", "clamav-daemon", "clamonacc", "freshclam", "clamav-milter"],
    sniff: None,
    product: Some("linux"),
    services: &["clamav", "syslog"],
    read,
};

fn read<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    let found = line.text.trim_end().strip_suffix(" FOUND").and_then(|text| text.rsplit_once(": "));
    let Some((path, signature)) = found else { return false };
    out.categories(&["antivirus"]);
    out.action("malware_found", None);
    out.push("Filename", path.rsplit_once("-> ").map_or(path, |(_, path)| path));
    out.push("Signature", signature);
    true
}
