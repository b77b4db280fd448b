//! Settings of the gateway for agents (contract security-manager §4.1, §10).

use super::check::Check;
use super::raw;
use super::settings::Listen;
use crate::authority::AuthorityConfig;
use model::Durability;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the gateway is opened with.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    pub listen: Listen,
    /// A second door, such as 443.
    pub also_listen: Option<Listen>,
    /// Old agents may come without TLS.
    pub plaintext: bool,
    /// The organisation `demo` and its published token are let in.
    pub demo: bool,
    pub authority: AuthorityConfig,
    /// Where binaries for hosts lie; `None`: beside this program, and where packages put them.
    pub downloads: Option<PathBuf>,
    /// What agents are to dial, for the commands that people are shown; `None`: the listener's address.
    pub address: Option<String>,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub durability: Durability,
}

const LISTEN: &str = "ingest.agents.listen";
const ALSO: &str = "ingest.agents.also_listen";
const DAY: u64 = 86_400;

/// `None`: off.
pub fn agents(check: &mut Check<'_>, raw: &raw::Agents, data_dir: &str) -> Option<AgentSettings> {
    let listen = check.listen(LISTEN, &raw.listen);
    let also_listen = check.listen(ALSO, &raw.also_listen);
    let plaintext = raw.legacy_plaintext || raw.demo;
    let tls = switch(check, raw)?;
    if !tls && !plaintext {
        check.problem(
            "ingest.agents.tls",
            "is false: tokens and events would be readable on their way. If old agents need that, say so with \
             AGENT_LEGACY_PLAINTEXT=true",
        );
    }
    let files = check.tls(("ingest.agents.tls_cert", &raw.tls_cert), ("ingest.agents.tls_key", &raw.tls_key), false);
    let dir = if raw.ca_dir.is_empty() { Path::new(data_dir).join("agents") } else { PathBuf::from(&raw.ca_dir) };
    let days: u64 = check.range("ingest.agents.certificate_days", raw.certificate_days, 1, 825);
    let downloads = (!raw.downloads.is_empty()).then(|| PathBuf::from(&raw.downloads));
    if let Some(folder) = downloads.as_ref().filter(|folder| !folder.is_dir()) {
        check.problem("ingest.agents.downloads", format!("`{}` is not a folder", folder.display()));
    }
    if !raw.public_address.is_empty() && !is_address(&raw.public_address) {
        check.problem(
            "ingest.agents.public_address",
            format!("`{}` is not a name or address with a port", raw.public_address),
        );
    }
    let connections_max = check.range("ingest.agents.connections_max", raw.connections_max, 1, 1_000_000);
    let connections_per_address_max =
        check.range("ingest.agents.connections_per_address_max", raw.connections_per_address_max, 1, 1_000_000);
    let durability = check.durability("ingest.agents.durability", &raw.durability);
    Some(AgentSettings {
        listen: listen?,
        also_listen,
        plaintext,
        demo: raw.demo,
        authority: AuthorityConfig {
            dir,
            names: raw.names.iter().cloned().chain(host_of(&raw.public_address).map(str::to_owned)).collect(),
            server_files: files.map(|files| (files.cert, files.key)),
            agent_certificate: Duration::from_secs(days * DAY),
        },
        downloads,
        address: (!raw.public_address.is_empty()).then(|| raw.public_address.clone()),
        connections_max,
        connections_per_address_max,
        durability,
    })
}

/// Of the two names of one switch (§10): what either says, and never two different things.
fn switch(check: &mut Check<'_>, raw: &raw::Agents) -> Option<bool> {
    let mut said = None;
    for (setting, text) in [("ingest.agents.tls", &raw.tls), ("ingest.agents.use_tls", &raw.use_tls)] {
        let value = match text.trim().to_ascii_lowercase().as_str() {
            "" => continue,
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" => false,
            _ => {
                check.problem(setting, format!("`{text}` is not one of true, false"));
                return None;
            }
        };
        if said.is_some_and(|before| before != value) {
            check.problem(setting, "says the opposite of ingest.agents.tls (TLS_ENABLED)");
            return None;
        }
        said = Some(value);
    }
    Some(said.unwrap_or(true))
}

fn is_address(text: &str) -> bool {
    text.parse::<SocketAddr>().is_ok()
        || text.rsplit_once(':').is_some_and(|(host, port)| {
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            !host.is_empty() && host.chars().all(is_name) && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
}

fn host_of(address: &str) -> Option<&str> {
    let (host, _) = address.rsplit_once(':')?;
    Some(host.trim_start_matches('[').trim_end_matches(']'))
}
