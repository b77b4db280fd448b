//! Events in the names of the Elastic Common Schema, as its collectors send them.

use super::generic::web;
use super::{address, alias, known};
use model::Fields;
use std::borrow::Cow;

const NAMES: &[(&str, &str)] = &[
    ("Image", "process.executable"),
    ("CommandLine", "process.command_line"),
    ("CurrentDirectory", "process.working_directory"),
    ("ProcessId", "process.pid"),
    ("ParentImage", "process.parent.executable"),
    ("ParentCommandLine", "process.parent.command_line"),
    ("ParentProcessId", "process.parent.pid"),
    ("OriginalFileName", "process.pe.original_file_name"),
    ("md5", "process.hash.md5"),
    ("sha1", "process.hash.sha1"),
    ("sha256", "process.hash.sha256"),
    ("User", "user.name"),
    ("TargetFilename", "file.path"),
    ("SourcePort", "source.port"),
    ("DestinationIp", "destination.ip"),
    ("DestinationPort", "destination.port"),
    ("DestinationHostname", "destination.domain"),
    ("src_ip", "source.ip"),
    ("src_port", "source.port"),
    ("dst_ip", "destination.ip"),
    ("dst_port", "destination.port"),
    ("QueryName", "dns.question.name"),
    ("query", "dns.question.name"),
    ("record_type", "dns.question.type"),
    ("answer", "dns.answers.data"),
    ("TargetObject", "registry.path"),
    ("Details", "registry.data.strings"),
];

pub(super) fn recognise(out: &mut Fields<'_>) -> bool {
    if !out.exists("event.category") {
        return false;
    }
    for (ours, theirs) in NAMES {
        alias(out, ours, theirs);
    }
    if out.exists("http.request.method") {
        web(out);
        // Whether a server says so, or whoever watched the network, these names do not tell.
        out.source.categories = None;
    }
    address(out, "source.ip");
    let os =
        out.first("host.os.type").or_else(|| out.first("host.os.family")).or_else(|| out.first("host.os.platform"));
    let product = match os {
        Some("windows") => Some("windows"),
        Some("linux" | "debian" | "ubuntu" | "redhat" | "suse" | "centos" | "fedora" | "amazon") => Some("linux"),
        Some("macos" | "darwin") => Some("macos"),
        _ => None,
    };
    out.source.product = product.map(Cow::Borrowed);
    // Only what says plainly what it is: the categories of this schema are wider than Sigma's.
    let started = out.values("event.type").any(|kind| kind == "start");
    if out.values("event.category").all(|category| category == "process") && started {
        out.source.categories = Some(known(&["process_creation"]));
    }
    true
}
