//! Container daemons, which write `time="…" level=info msg="…"`.

use super::{Line, Parser, Reading, key_value};

pub(super) const PARSER: Parser = Parser {
    name: "docker",
    programs: &["dockerd", "docker", "containerd", "podman", "crio", "kubelet"],
    sniff: None,
    product: Some("linux"),
    services: &["docker", "syslog"],
    read,
};

fn read<'m>(line: Line<'m>, out: &mut Reading<'m>) -> bool {
    key_value::pairs(line.text.trim(), out) > 0
}
