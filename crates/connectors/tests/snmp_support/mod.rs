//! Starting SNMP listeners, and speaking to them: by hand, and with net-snmp's own tools.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test helper")]

use connectors::inputs::Sink;
use connectors::inputs::snmp::{AuthProtocol, PrivProtocol, SnmpConfig, SnmpUser, bind};
use runtime::Secret;
use std::net::SocketAddr;
use std::process::Output;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::task::JoinHandle;

pub const COMMUNITY: &str = "c0mmunity";
pub const AUTH_PASS: &str = "auth-passphrase";
pub const PRIV_PASS: &str = "priv-passphrase";

pub fn config() -> SnmpConfig {
    SnmpConfig {
        udp: SocketAddr::from(([127, 0, 0, 1], 0)),
        communities: vec![Secret::new(COMMUNITY)],
        ..SnmpConfig::default()
    }
}

/// A user with the passphrases of these tests.
pub fn user(name: &str, auth: Option<AuthProtocol>, privacy: Option<PrivProtocol>) -> SnmpUser {
    SnmpUser {
        name: name.to_owned(),
        engine_id: None,
        auth: auth.map(|p| (p, Secret::new(AUTH_PASS))),
        privacy: privacy.map(|p| (p, Secret::new(PRIV_PASS))),
    }
}

/// Binds and runs.
pub fn run(config: SnmpConfig, sink: Arc<dyn Sink>, stop: runtime::Stop) -> (SocketAddr, JoinHandle<()>) {
    let snmp = bind(config).unwrap();
    let address = snmp.address();
    (address, tokio::spawn(snmp.run(sink, Arc::new(runtime::SystemClock), stop)))
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x82, length[0], length[1]], content].concat()
}

/// 1.3.6.1.4.1.32473.LAST
fn oid(last: u8) -> Vec<u8> {
    element(6, &[0x2b, 6, 1, 4, 1, 0x81, 0xfd, 0x59, last])
}

pub const TRAP: u8 = 0xa7;
pub const INFORM: u8 = 0xa6;
pub const RESPONSE: u8 = 0xa2;

/// An SNMPv2c notification 1.3.6.1.4.1.32473.1 with 1.3.6.1.4.1.32473.2 = text, built by hand.
pub fn notification(pdu: u8, request_id: u32, text: &str) -> Vec<u8> {
    let trap_oid = [element(6, &[0x2b, 6, 1, 6, 3, 1, 1, 4, 1, 0]), oid(1)].concat();
    let varbind = [oid(2), element(4, text.as_bytes())].concat();
    let list = [element(0x30, &trap_oid), element(0x30, &varbind)].concat();
    let body =
        [element(2, &request_id.to_be_bytes()), element(2, &[0]), element(2, &[0]), element(0x30, &list)].concat();
    let message = [element(2, &[1]), element(4, COMMUNITY.as_bytes()), element(pdu, &body)].concat();
    element(0x30, &message)
}

/// The `message` of [`notification`]'s event.
pub fn arrives_as(text: &str) -> String {
    format!("1.3.6.1.4.1.32473.1: 1.3.6.1.4.1.32473.2 = {text}")
}

/// net-snmp's tools with a folder of their own for what they keep.
pub struct Tools(TempDir);

impl Tools {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Runs `snmptrap` or `snmpinform`. Without MIBs, so that names come from our own table.
    pub async fn run(&self, tool: &str, args: &[&str]) -> Output {
        let mut command = std::process::Command::new(tool);
        command.args(args).env("HOME", self.0.path()).env("MIBS", "");
        command.env("SNMP_PERSISTENT_DIR", self.0.path()).env("SNMPCONFPATH", self.0.path());
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
        output.unwrap_or_else(|e| panic!("`{tool}` cannot be started ({e}); `make test` installs it"))
    }

    pub async fn succeed(&self, tool: &str, args: &[&str]) {
        let output = self.run(tool, args).await;
        assert!(output.status.success(), "{tool} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
