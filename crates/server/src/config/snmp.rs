//! Settings of the SNMP listener.

use super::check::Check;
use super::raw;
use super::settings::Listen;
use connectors::inputs::snmp::{AuthProtocol, PrivProtocol, SnmpConfig, SnmpUser, unhex};
use runtime::Secret;
use std::path::{Path, PathBuf};

/// What the listener is opened with; `None`: off.
pub fn snmp(check: &mut Check<'_>, raw: &raw::Snmp, data_dir: &str) -> Option<(Listen, SnmpConfig)> {
    let listen = check.listen("ingest.snmp.udp", &raw.udp)?;
    let mut hostnames = std::collections::HashMap::new();
    for (address, name) in &raw.hostnames {
        match address.parse() {
            Ok(address) if !name.trim().is_empty() => {
                hostnames.insert(address, name.clone());
            }
            Ok(_) => check.problem(format!("ingest.snmp.hostnames.{address}"), "is empty"),
            Err(_) => check.problem(format!("ingest.snmp.hostnames.{address}"), "is not an IP address"),
        }
    }
    if !raw.oid_names.is_empty() && !Path::new(&raw.oid_names).is_file() {
        check.problem("ingest.snmp.oid_names", format!("`{}` is not a file", raw.oid_names));
    }
    let communities: Vec<Secret> = raw
        .communities
        .iter()
        .enumerate()
        .map(|(n, text)| check.secret(&format!("ingest.snmp.communities[{n}]"), text))
        .collect();
    let users: Vec<SnmpUser> = raw.users.iter().enumerate().filter_map(|(n, table)| user(check, n, table)).collect();
    if communities.is_empty() && raw.users.is_empty() {
        check.problem("ingest.snmp.communities", "is empty, and so is ingest.snmp.users: nobody could send a trap");
    }
    let config = SnmpConfig {
        udp: listen.address,
        communities,
        users,
        engine_file: Some(PathBuf::from(data_dir).join("snmp_engine")),
        engine_id: None,
        trust_agent_address: raw.trust_agent_address,
        hostnames,
        oid_names: (!raw.oid_names.is_empty()).then(|| PathBuf::from(&raw.oid_names)),
        receive_buffer_bytes: check.range("ingest.snmp.receive_buffer_bytes", raw.receive_buffer_bytes, 4_096, 1 << 30),
        durability: check.durability("ingest.snmp.durability", &raw.durability),
        ..SnmpConfig::default()
    };
    Some((listen, config))
}

fn user(check: &mut Check<'_>, index: usize, table: &toml::Table) -> Option<SnmpUser> {
    let path = format!("ingest.snmp.users[{index}]");
    let raw: raw::SnmpUser = match table.clone().try_into() {
        Ok(raw) => raw,
        Err(error) => {
            check.problem(path, toml::de::Error::message(&error));
            return None;
        }
    };
    if raw.name.is_empty() || raw.name.len() > 32 {
        check.problem(format!("{path}.name"), "must have 1 to 32 bytes");
    }
    let engine_id = if raw.engine_id.is_empty() {
        None
    } else {
        let bytes = unhex(&raw.engine_id).filter(|bytes| (5..=32).contains(&bytes.len()));
        if bytes.is_none() {
            check.problem(format!("{path}.engine_id"), "is not 5 to 32 bytes in hexadecimal");
        }
        bytes
    };
    let mut passphrase = |field: &str, text: &str| {
        let secret = check.secret(&format!("{path}.{field}"), text);
        if secret.expose().len() < 8 {
            check.problem(format!("{path}.{field}"), "must have at least 8 bytes");
        }
        secret
    };
    let auth_secret = (!raw.auth.is_empty()).then(|| passphrase("auth_passphrase", &raw.auth_passphrase));
    let privacy_secret = (!raw.privacy.is_empty()).then(|| passphrase("privacy_passphrase", &raw.privacy_passphrase));
    let auth = auth_secret.and_then(|secret| {
        let protocol = AuthProtocol::parse(&raw.auth);
        if protocol.is_none() {
            check.problem(format!("{path}.auth"), "is not one of md5, sha, sha224, sha256, sha384, sha512");
        }
        Some((protocol?, secret))
    });
    let privacy = privacy_secret.and_then(|secret| {
        let protocol = PrivProtocol::parse(&raw.privacy);
        if protocol.is_none() {
            check.problem(format!("{path}.privacy"), "is not one of des, aes128, aes192, aes256, aes192c, aes256c");
        }
        Some((protocol?, secret))
    });
    if !raw.privacy.is_empty() && raw.auth.is_empty() {
        check.problem(format!("{path}.privacy"), "needs auth too");
    }
    Some(SnmpUser { name: raw.name, engine_id, auth, privacy })
}
