//! Notifications of SNMPv1 (RFC 1157 §4.1.6) and of SNMPv2 (RFC 3416 §3): pure.

use super::ber::{self, Malformed, Reader};
use std::net::Ipv4Addr;

/// Variable bindings kept of one notification; the others are left out and the event says so.
pub(super) const VARBINDS_MAX: usize = 256;
/// Octets kept of one value.
pub(super) const VALUE_MAX: usize = 8 << 10;

const SYS_UP_TIME: &str = "1.3.6.1.2.1.1.3.0";
const TRAP_OID: &str = "1.3.6.1.6.3.1.1.4.1.0";
/// RFC 3584 §3.1: generic traps 0 to 5 are `snmpTraps.1` to `snmpTraps.6`.
const GENERIC: &str = "1.3.6.1.6.3.1.1.5";
/// What proxies add (RFC 3584 §3.1).
const TRAP_ADDRESS: &str = "1.3.6.1.6.3.18.1.3.0";
const TRAP_COMMUNITY: &str = "1.3.6.1.6.3.18.1.4.0";
const TRAP_ENTERPRISE: &str = "1.3.6.1.6.3.1.1.4.3.0";

#[cfg(test)]
pub(super) const GET: u8 = 0xa0;
pub(super) const RESPONSE: u8 = 0xa2;
pub(super) const TRAP_V1: u8 = 0xa4;
pub(super) const INFORM: u8 = 0xa6;
pub(super) const TRAP: u8 = 0xa7;
pub(super) const REPORT: u8 = 0xa8;

/// A value as it came.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Integer(i64),
    OctetString(&'a [u8]),
    Null,
    ObjectIdentifier(String),
    IpAddress(Ipv4Addr),
    Counter32(u64),
    Gauge32(u64),
    TimeTicks(u64),
    Opaque(&'a [u8]),
    Counter64(u64),
    NoSuchObject,
    NoSuchInstance,
    EndOfMibView,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Varbind<'a> {
    /// Dotted, without a leading dot.
    pub oid: String,
    pub value: Value<'a>,
}

/// A notification of any version, told in SNMPv2's terms.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Notification<'a> {
    pub trap_oid: String,
    /// Hundredths of a second.
    pub uptime: Option<u64>,
    /// SNMPv1's enterprise, or snmpTrapEnterprise.0.
    pub enterprise: Option<String>,
    /// SNMPv1's agent-addr, or snmpTrapAddress.0: who made it, if a relay passed it on.
    pub agent_address: Option<Ipv4Addr>,
    /// Without sysUpTime.0, snmpTrapOID.0 and snmpTrapCommunity.0.
    pub varbinds: Vec<Varbind<'a>>,
    /// Something was left out or cut.
    pub truncated: bool,
}

/// An InformRequest's other half: what its Response repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inform<'a> {
    pub request_id: i64,
    /// The variable bindings as they came, with their SEQUENCE.
    pub varbinds: &'a [u8],
}

/// What a PDU is to us.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Pdu<'a> {
    Trap(Notification<'a>),
    Inform(Notification<'a>, Inform<'a>),
    /// Sound, but no notification; its tag.
    Other(u8),
}

/// Reads the PDU of an SNMPv1 message.
pub(super) fn read_v1<'a>(message: &mut Reader<'a>) -> Result<Pdu<'a>, Malformed> {
    let (tag, mut pdu) = message.element()?;
    if tag != TRAP_V1 {
        return Ok(Pdu::Other(tag));
    }
    let enterprise = pdu.expect(ber::OID, "a trap without its enterprise")?.oid()?;
    let agent = address(&pdu.expect(ber::IP_ADDRESS, "a trap without its agent-addr")?)?;
    let generic = pdu.natural("a trap without its generic-trap")?;
    let specific = pdu.integer("a trap without its specific-trap")?;
    let uptime = pdu.expect(ber::TIME_TICKS, "a trap without its time-stamp")?.unsigned(32)?;
    let trap_oid = match generic {
        0..=5 => format!("{GENERIC}.{}", generic + 1),
        // A negative specific-trap is nonsense that occurs; its 32 bits are kept.
        6 => format!("{enterprise}.0.{}", specific as u32),
        _ => return Err(Malformed("a generic-trap beyond 6")),
    };
    let mut notification = Notification { trap_oid, uptime: Some(uptime), ..Notification::default() };
    read_varbinds(&mut pdu, &mut notification)?;
    notification.enterprise = Some(enterprise);
    notification.agent_address = Some(agent).filter(|a| !a.is_unspecified()).or(notification.agent_address);
    Ok(Pdu::Trap(notification))
}

/// Reads the PDU of an SNMPv2c message or of a scoped PDU.
pub(super) fn read_v2<'a>(message: &mut Reader<'a>) -> Result<Pdu<'a>, Malformed> {
    let (tag, mut pdu) = message.element()?;
    if tag != TRAP && tag != INFORM {
        return Ok(Pdu::Other(tag));
    }
    let request_id = pdu.integer("a notification without its request-id")?;
    pdu.integer("a notification without its error-status")?;
    pdu.integer("a notification without its error-index")?;
    let mut notification = Notification::default();
    let varbinds = pdu.rest();
    read_varbinds(&mut pdu, &mut notification)?;
    if notification.trap_oid.is_empty() {
        return Err(Malformed("a notification without snmpTrapOID.0"));
    }
    let inform = Inform { request_id, varbinds: &varbinds[..varbinds.len() - pdu.rest().len()] };
    Ok(if tag == TRAP { Pdu::Trap(notification) } else { Pdu::Inform(notification, inform) })
}

/// The request-id of a PDU in the clear, whatever PDU it is.
pub(super) fn request_id(pdu: &Reader<'_>) -> Option<i64> {
    let (_, mut content) = pdu.clone().element().ok()?;
    content.integer("").ok()
}

fn read_varbinds<'a>(pdu: &mut Reader<'a>, into: &mut Notification<'a>) -> Result<(), Malformed> {
    let mut list = pdu.expect(ber::SEQUENCE, "a notification without its variable bindings")?;
    while !list.is_empty() {
        let mut binding = list.expect(ber::SEQUENCE, "a variable binding that is no SEQUENCE")?;
        let oid = binding.expect(ber::OID, "a variable binding without a name")?.oid()?;
        let (value, cut) = value(&mut binding)?;
        match (oid.as_str(), value) {
            (TRAP_OID, Value::ObjectIdentifier(trap)) if into.trap_oid.is_empty() => into.trap_oid = trap,
            (SYS_UP_TIME, Value::TimeTicks(ticks)) if into.uptime.is_none() => into.uptime = Some(ticks),
            // A secret, and an event is no place for it.
            (TRAP_COMMUNITY, _) => {}
            (name, value) => {
                match (name, &value) {
                    (TRAP_ADDRESS, Value::IpAddress(address)) if !address.is_unspecified() => {
                        into.agent_address = Some(*address);
                    }
                    (TRAP_ENTERPRISE, Value::ObjectIdentifier(enterprise)) => {
                        into.enterprise = Some(enterprise.clone());
                    }
                    _ => {}
                }
                if into.varbinds.len() < VARBINDS_MAX {
                    into.varbinds.push(Varbind { oid, value });
                    into.truncated |= cut;
                } else {
                    into.truncated = true;
                }
            }
        }
    }
    Ok(())
}

fn value<'a>(binding: &mut Reader<'a>) -> Result<(Value<'a>, bool), Malformed> {
    let (tag, content) = binding.element()?;
    let bounded = || {
        let bytes = content.rest();
        &bytes[..bytes.len().min(VALUE_MAX)]
    };
    let value = match tag {
        ber::INTEGER => Value::Integer(content.signed()?),
        ber::OCTET_STRING => Value::OctetString(bounded()),
        ber::NULL => Value::Null,
        ber::OID => Value::ObjectIdentifier(content.oid()?),
        ber::IP_ADDRESS => Value::IpAddress(address(&content)?),
        ber::COUNTER32 => Value::Counter32(content.unsigned(32)?),
        ber::GAUGE32 => Value::Gauge32(content.unsigned(32)?),
        ber::TIME_TICKS => Value::TimeTicks(content.unsigned(32)?),
        ber::OPAQUE => Value::Opaque(bounded()),
        ber::COUNTER64 => Value::Counter64(content.unsigned(64)?),
        ber::NO_SUCH_OBJECT => Value::NoSuchObject,
        ber::NO_SUCH_INSTANCE => Value::NoSuchInstance,
        ber::END_OF_MIB_VIEW => Value::EndOfMibView,
        _ => return Err(Malformed("a value of a type that SNMP does not have")),
    };
    let cut = matches!(value, Value::OctetString(_) | Value::Opaque(_)) && content.rest().len() > VALUE_MAX;
    Ok((value, cut))
}

fn address(content: &Reader<'_>) -> Result<Ipv4Addr, Malformed> {
    match content.rest() {
        [a, b, c, d] => Ok(Ipv4Addr::new(*a, *b, *c, *d)),
        _ => Err(Malformed("an IpAddress that has not four octets")),
    }
}

/// Appends the Response that acknowledges an inform (RFC 3416 §4.2.7).
pub(super) fn write_response(out: &mut Vec<u8>, inform: &Inform<'_>) {
    ber::element(out, RESPONSE, |pdu| {
        ber::integer(pdu, ber::INTEGER, inform.request_id);
        ber::integer(pdu, ber::INTEGER, 0);
        ber::integer(pdu, ber::INTEGER, 0);
        pdu.extend_from_slice(inform.varbinds);
    });
}

/// Appends a Report of one counter.
pub(super) fn write_report(out: &mut Vec<u8>, request_id: i64, name: &[u32], count: u32) {
    ber::element(out, REPORT, |pdu| {
        ber::integer(pdu, ber::INTEGER, request_id);
        ber::integer(pdu, ber::INTEGER, 0);
        ber::integer(pdu, ber::INTEGER, 0);
        ber::element(pdu, ber::SEQUENCE, |list| {
            ber::element(list, ber::SEQUENCE, |binding| {
                ber::oid(binding, name);
                ber::integer(binding, ber::COUNTER32, i64::from(count));
            });
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trap_v1(generic: i64, specific: i64, agent: [u8; 4]) -> Vec<u8> {
        let mut out = Vec::new();
        ber::element(&mut out, TRAP_V1, |pdu| {
            ber::oid(pdu, &[1, 3, 6, 1, 4, 1, 9, 1]);
            ber::octets(pdu, ber::IP_ADDRESS, &agent);
            ber::integer(pdu, ber::INTEGER, generic);
            ber::integer(pdu, ber::INTEGER, specific);
            ber::integer(pdu, ber::TIME_TICKS, 4_200);
            ber::element(pdu, ber::SEQUENCE, |_| {});
        });
        out
    }

    fn notification(bytes: &[u8]) -> Notification<'_> {
        match read_v1(&mut Reader::new(bytes)).unwrap() {
            Pdu::Trap(notification) => notification,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn traps_of_version_one_get_the_names_of_version_two() {
        for (generic, specific, expected) in [
            (0, 0, "1.3.6.1.6.3.1.1.5.1"),
            (3, 7, "1.3.6.1.6.3.1.1.5.4"),
            (5, 0, "1.3.6.1.6.3.1.1.5.6"),
            (6, 42, "1.3.6.1.4.1.9.1.0.42"),
            (6, 0, "1.3.6.1.4.1.9.1.0.0"),
            (6, -1, "1.3.6.1.4.1.9.1.0.4294967295"),
        ] {
            let bytes = trap_v1(generic, specific, [10, 0, 0, 1]);
            let trap = notification(&bytes);
            assert_eq!(trap.trap_oid, expected);
            assert_eq!(trap.uptime, Some(4_200));
            assert_eq!(trap.enterprise.as_deref(), Some("1.3.6.1.4.1.9.1"));
            assert_eq!(trap.agent_address, Some(Ipv4Addr::new(10, 0, 0, 1)));
        }
        assert_eq!(notification(&trap_v1(0, 0, [0; 4])).agent_address, None, "no address is no address");
        assert!(read_v1(&mut Reader::new(&trap_v1(7, 0, [0; 4]))).is_err());
    }

    fn trap_v2(bindings: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        ber::element(&mut out, INFORM, |pdu| {
            for value in [99, 0, 0] {
                ber::integer(pdu, ber::INTEGER, value);
            }
            ber::element(pdu, ber::SEQUENCE, bindings);
        });
        out
    }

    fn bind(list: &mut Vec<u8>, name: &[u32], value: impl FnOnce(&mut Vec<u8>)) {
        ber::element(list, ber::SEQUENCE, |binding| {
            ber::oid(binding, name);
            value(binding);
        });
    }

    fn trap_oid(list: &mut Vec<u8>) {
        bind(list, &[1, 3, 6, 1, 6, 3, 1, 1, 4, 1, 0], |v| ber::oid(v, &[1, 3, 6, 1, 4, 1, 8, 5]));
    }

    #[test]
    fn a_community_in_the_bindings_is_left_out_and_the_address_is_found() {
        let bytes = trap_v2(|list| {
            trap_oid(list);
            bind(list, &[1, 3, 6, 1, 6, 3, 18, 1, 4, 0], |v| ber::octets(v, ber::OCTET_STRING, b"secret"));
            bind(list, &[1, 3, 6, 1, 6, 3, 18, 1, 3, 0], |v| ber::octets(v, ber::IP_ADDRESS, &[10, 0, 0, 9]));
        });
        let Ok(Pdu::Inform(trap, inform)) = read_v2(&mut Reader::new(&bytes)) else { panic!() };
        assert_eq!((trap.trap_oid.as_str(), trap.uptime), ("1.3.6.1.4.1.8.5", None));
        assert_eq!(trap.agent_address, Some(Ipv4Addr::new(10, 0, 0, 9)));
        assert_eq!(trap.varbinds.len(), 1);
        assert_eq!(inform.request_id, 99);
        let mut response = Vec::new();
        write_response(&mut response, &inform);
        assert_eq!(response[1..], bytes[1..], "the response repeats the request");
    }

    #[test]
    fn what_is_too_much_is_left_out_and_said() {
        let bytes = trap_v2(|list| {
            trap_oid(list);
            for i in 0..VARBINDS_MAX as u32 + 1 {
                bind(list, &[1, 3, i], |v| ber::integer(v, ber::INTEGER, 1));
            }
        });
        let Ok(Pdu::Inform(trap, _)) = read_v2(&mut Reader::new(&bytes)) else { panic!() };
        assert_eq!((trap.varbinds.len(), trap.truncated), (VARBINDS_MAX, true));
        let bytes = trap_v2(|list| {
            trap_oid(list);
            bind(list, &[1, 3, 1], |v| ber::octets(v, ber::OCTET_STRING, &[b'x'; VALUE_MAX + 1]));
        });
        let Ok(Pdu::Inform(trap, _)) = read_v2(&mut Reader::new(&bytes)) else { panic!() };
        assert_eq!(trap.varbinds[0].value, Value::OctetString(&[b'x'; VALUE_MAX]));
        assert!(trap.truncated);
    }

    #[test]
    fn a_notification_without_its_name_is_none() {
        let bytes = trap_v2(|_| {});
        assert_eq!(read_v2(&mut Reader::new(&bytes)), Err(Malformed("a notification without snmpTrapOID.0")));
        let mut get = bytes;
        get[0] = GET;
        assert_eq!(read_v2(&mut Reader::new(&get)), Ok(Pdu::Other(GET)));
    }
}
