//! The event that a notification becomes: pure.

use super::engine::hex;
use super::names::{Names, carried_severity, label};
use super::pdu::{Notification, VALUE_MAX, Value, Varbind};
use model::Severity;
use serde::Serialize;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Octets of `message`; longer ones are cut and the event says so.
const MESSAGE_MAX: usize = 8 << 10;

/// What makes events of one listener out of notifications.
#[derive(Debug, Clone)]
pub(super) struct Encoder {
    pub names: Names,
    pub hostnames: HashMap<IpAddr, String>,
    pub trust_agent_address: bool,
}

/// Where a notification came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    /// IPv4 addresses as such, not mapped into IPv6.
    pub source: IpAddr,
    /// RFC 3339.
    pub received_at: &'a str,
    /// `1`, `2c` or `3`.
    pub version: &'static str,
    pub inform: bool,
    pub v3: Option<V3Origin<'a>>,
}

/// What only SNMPv3 says.
#[derive(Debug, Clone, Copy)]
pub(super) struct V3Origin<'a> {
    pub user: &'a str,
    /// The engine that the notification is of.
    pub engine_id: &'a [u8],
    pub context: &'a [u8],
}

#[derive(Serialize)]
struct Object<'a> {
    hostname: &'a str,
    message: String,
    timestamp: &'a str,
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    syslog_severity: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<&'static str>,
    trap_oid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trap_name: Option<&'a str>,
    snmp_version: &'static str,
    notification: &'static str,
    source_ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enterprise: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uptime_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snmp_user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<String>,
    varbinds: Vec<Item<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

#[derive(Serialize)]
struct Item<'a> {
    oid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    r#type: &'static str,
    value: Json<'a>,
    /// `hex` for octets that are no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Json<'a> {
    Signed(i64),
    Unsigned(u64),
    Borrowed(&'a str),
    Text(String),
    Null,
}

impl Encoder {
    /// Appends the event as one JSON object.
    pub(super) fn encode(&self, notification: &Notification<'_>, origin: &Origin<'_>, out: &mut Vec<u8>) {
        let n = notification;
        let agent = n.agent_address.map(IpAddr::V4);
        // 127.0.0.1 is what an agent says that does not know its own address.
        let device = agent.filter(|a| self.trust_agent_address && !a.is_loopback()).unwrap_or(origin.source);
        let device_text = device.to_string();
        let hostname = self.hostnames.get(&device).unwrap_or(&device_text);
        let relayed = device != origin.source;
        let relay = relayed.then(|| match self.hostnames.get(&origin.source) {
            Some(name) => name.clone(),
            None => origin.source.to_string(),
        });
        let carried = n.varbinds.iter().find_map(|v| match v.value {
            Value::Integer(number) => carried_severity(&v.oid, number),
            _ => None,
        });
        let severity: Option<Severity> = carried.or_else(|| self.names.severity(&n.trap_oid));
        let varbinds: Vec<Item<'_>> = n.varbinds.iter().map(|v| self.item(v)).collect();
        let (message, cut) = self.message(n, &varbinds);
        let object = Object {
            hostname,
            message,
            timestamp: origin.received_at,
            source: "snmp",
            syslog_severity: severity.map(Severity::code),
            severity: severity.map(Severity::as_str),
            trap_oid: &n.trap_oid,
            trap_name: self.names.exact(&n.trap_oid),
            snmp_version: origin.version,
            notification: if origin.inform { "inform" } else { "trap" },
            source_ip: origin.source.to_string(),
            relay,
            agent_address: agent.filter(|a| *a != origin.source).map(|a| a.to_string()),
            enterprise: n.enterprise.as_deref(),
            uptime_ms: n.uptime.map(|ticks| ticks * 10),
            snmp_user: origin.v3.map(|v3| v3.user),
            engine_id: origin.v3.map(|v3| hex(v3.engine_id)),
            context: origin.v3.filter(|v3| !v3.context.is_empty()).map(|v3| lossy(v3.context)),
            varbinds,
            truncated: n.truncated || cut,
        };
        // Strings, numbers and a list: nothing that JSON cannot say, and a Vec takes all bytes.
        serde_json::to_writer(out, &object).expect("an event is always JSON");
    }

    fn item<'a>(&self, varbind: &'a Varbind<'a>) -> Item<'a> {
        let mut encoding = None;
        let (r#type, value) = match &varbind.value {
            Value::Integer(number) => ("Integer", Json::Signed(*number)),
            Value::OctetString(bytes) => match text(bytes) {
                Some(text) => ("OctetString", Json::Borrowed(text)),
                None => {
                    encoding = Some("hex");
                    ("OctetString", Json::Text(hex(bytes)))
                }
            },
            Value::Null => ("Null", Json::Null),
            Value::ObjectIdentifier(oid) => ("ObjectIdentifier", Json::Borrowed(oid)),
            Value::IpAddress(address) => ("IpAddress", Json::Text(address.to_string())),
            Value::Counter32(number) => ("Counter32", Json::Unsigned(*number)),
            Value::Gauge32(number) => ("Gauge32", Json::Unsigned(*number)),
            Value::TimeTicks(number) => ("TimeTicks", Json::Unsigned(*number)),
            Value::Opaque(bytes) => {
                encoding = Some("hex");
                ("Opaque", Json::Text(hex(bytes)))
            }
            Value::Counter64(number) => ("Counter64", Json::Unsigned(*number)),
            Value::NoSuchObject => ("noSuchObject", Json::Null),
            Value::NoSuchInstance => ("noSuchInstance", Json::Null),
            Value::EndOfMibView => ("endOfMibView", Json::Null),
        };
        Item { oid: &varbind.oid, name: self.names.of(&varbind.oid), r#type, value, encoding }
    }

    /// `linkDown: ifIndex.3 = 3, ifOperStatus.3 = down(2)` on one line; and whether it was cut.
    fn message(&self, notification: &Notification<'_>, varbinds: &[Item<'_>]) -> (String, bool) {
        let mut message = self.names.of(&notification.trap_oid).unwrap_or_else(|| notification.trap_oid.clone());
        for (i, item) in varbinds.iter().enumerate() {
            message.push_str(if i == 0 { ": " } else { ", " });
            message.push_str(item.name.as_deref().unwrap_or(item.oid));
            message.push_str(" = ");
            let hex_mark = if item.encoding.is_some() { "0x" } else { "" };
            let _ = match &item.value {
                Json::Signed(number) => match label(item.oid, *number) {
                    Some(word) => write!(message, "{word}({number})"),
                    None => write!(message, "{number}"),
                },
                Json::Unsigned(number) => write!(message, "{number}"),
                Json::Borrowed(text) => {
                    message.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
                    Ok(())
                }
                Json::Text(text) => write!(message, "{hex_mark}{text}"),
                Json::Null => write!(message, "{}", item.r#type),
            };
            if message.len() > MESSAGE_MAX {
                message.truncate(message.floor_char_boundary(MESSAGE_MAX));
                return (message, true);
            }
        }
        (message, false)
    }
}

/// Octets that are text: UTF-8 without control characters but white space. Agents written in C send
/// a zero behind it.
fn text(bytes: &[u8]) -> Option<&str> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        // Cut at our bound, inside a character.
        Err(e) if e.error_len().is_none() && bytes.len() == VALUE_MAX => {
            std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return None,
    };
    text.chars().all(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r')).then_some(text)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(255)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Tree, json};
    use std::net::Ipv4Addr;

    fn encoder() -> Encoder {
        Encoder { names: Names::default(), hostnames: HashMap::new(), trust_agent_address: false }
    }

    fn varbind<'a>(oid: &str, value: Value<'a>) -> Varbind<'a> {
        Varbind { oid: oid.to_owned(), value }
    }

    fn link_down<'a>(varbinds: Vec<Varbind<'a>>) -> Notification<'a> {
        let trap_oid = "1.3.6.1.6.3.1.1.5.3".to_owned();
        Notification { trap_oid, uptime: Some(100), varbinds, ..Notification::default() }
    }

    fn event(encoder: &Encoder, notification: &Notification<'_>) -> Tree {
        let origin = Origin {
            source: "192.0.2.7".parse().unwrap(),
            received_at: "2026-11-22T10:00:00.000000Z",
            version: "2c",
            inform: false,
            v3: None,
        };
        let mut out = Vec::new();
        encoder.encode(notification, &origin, &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_trap_of_a_device_is_an_event_of_that_device() {
        let found = event(
            &encoder(),
            &link_down(vec![
                varbind("1.3.6.1.2.1.2.2.1.1.3", Value::Integer(3)),
                varbind("1.3.6.1.2.1.2.2.1.8.3", Value::Integer(2)),
                varbind("1.3.6.1.2.1.2.2.1.2.3", Value::OctetString(b"Gi0/3\n\"x\"\0")),
                varbind("1.3.6.1.2.1.2.2.1.6.3", Value::OctetString(&[0, 0x1b, 0xff])),
                varbind("1.3.6.1.4.1.8.1", Value::Counter64(u64::MAX)),
                varbind("1.3.6.1.4.1.8.2", Value::NoSuchObject),
            ]),
        );
        let expected = json!({
            "hostname": "192.0.2.7",
            "message": "linkDown: ifIndex.3 = 3, ifOperStatus.3 = down(2), ifDescr.3 = Gi0/3 \"x\", \
                        ifPhysAddress.3 = 0x001bff, 1.3.6.1.4.1.8.1 = 18446744073709551615, \
                        1.3.6.1.4.1.8.2 = noSuchObject",
            "timestamp": "2026-11-22T10:00:00.000000Z",
            "source": "snmp",
            "syslog_severity": 3,
            "severity": "err",
            "trap_oid": "1.3.6.1.6.3.1.1.5.3",
            "trap_name": "linkDown",
            "snmp_version": "2c",
            "notification": "trap",
            "source_ip": "192.0.2.7",
            "uptime_ms": 1_000,
            "varbinds": [
                {"oid": "1.3.6.1.2.1.2.2.1.1.3", "name": "ifIndex.3", "type": "Integer", "value": 3},
                {"oid": "1.3.6.1.2.1.2.2.1.8.3", "name": "ifOperStatus.3", "type": "Integer", "value": 2},
                {"oid": "1.3.6.1.2.1.2.2.1.2.3", "name": "ifDescr.3", "type": "OctetString", "value": "Gi0/3\n\"x\""},
                {"oid": "1.3.6.1.2.1.2.2.1.6.3", "name": "ifPhysAddress.3", "type": "OctetString",
                 "value": "001bff", "encoding": "hex"},
                {"oid": "1.3.6.1.4.1.8.1", "type": "Counter64", "value": u64::MAX},
                {"oid": "1.3.6.1.4.1.8.2", "type": "noSuchObject", "value": null},
            ],
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn the_agent_is_the_host_only_where_that_is_trusted() {
        let mut notification = link_down(vec![]);
        notification.agent_address = Some(Ipv4Addr::new(10, 0, 0, 9));
        let found = event(&encoder(), &notification);
        assert_eq!((&found["hostname"], &found["agent_address"]), (&json!("192.0.2.7"), &json!("10.0.0.9")));
        assert_eq!(found.get("relay"), None);
        let mut trusting = Encoder { trust_agent_address: true, ..encoder() };
        let found = event(&trusting, &notification);
        assert_eq!((&found["hostname"], &found["relay"]), (&json!("10.0.0.9"), &json!("192.0.2.7")));
        trusting.hostnames.insert("10.0.0.9".parse().unwrap(), "core-sw1".to_owned());
        trusting.hostnames.insert("192.0.2.7".parse().unwrap(), "proxy1".to_owned());
        let found = event(&trusting, &notification);
        assert_eq!((&found["hostname"], &found["relay"]), (&json!("core-sw1"), &json!("proxy1")));
        assert_eq!(found["source_ip"], "192.0.2.7");
        notification.agent_address = Some(Ipv4Addr::LOCALHOST);
        assert_eq!(event(&trusting, &notification)["hostname"], "proxy1");
    }

    #[test]
    fn severities_come_from_where_there_is_one() {
        let mut notification = link_down(vec![]);
        notification.trap_oid = "1.3.6.1.4.1.9.9.41.2.0.1".to_owned();
        assert_eq!(event(&encoder(), &notification).get("syslog_severity"), None);
        notification.varbinds = vec![varbind("1.3.6.1.4.1.9.9.41.1.2.3.1.3.7", Value::Integer(3))];
        let found = event(&encoder(), &notification);
        assert_eq!((&found["syslog_severity"], &found["severity"]), (&json!(2), &json!("crit")));
    }

    #[test]
    fn an_event_is_bounded() {
        let long = "ж".repeat(VALUE_MAX / 2);
        let varbinds = (0..256).map(|i| varbind(&format!("1.3.{i}"), Value::OctetString(long.as_bytes()))).collect();
        let found = event(&encoder(), &link_down(varbinds));
        assert!(found["message"].as_str().unwrap().len() <= MESSAGE_MAX);
        assert_eq!(found["truncated"], true);
        // A value cut inside a character is still text.
        let mut cut = vec![b'x'];
        cut.extend_from_slice(&long.as_bytes()[..VALUE_MAX - 1]);
        let found = event(&encoder(), &link_down(vec![varbind("1.3.1", Value::OctetString(&cut))]));
        assert_eq!(found["varbinds"][0].get("encoding"), None);
    }
}
