use super::*;
use crate::inputs::snmp::engine::Identity;
use crate::inputs::snmp::names::Names;
use crate::inputs::snmp::users::Users;
use crate::inputs::snmp::{AuthProtocol, PrivProtocol, SnmpUser};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

fn reception() -> Reception {
    let user = SnmpUser {
        name: "u".to_owned(),
        engine_id: None,
        auth: Some((AuthProtocol::Md5, Secret::new("12345678"))),
        privacy: Some((PrivProtocol::Des, Secret::new("12345678"))),
    };
    let plain = SnmpUser { name: "plain".to_owned(), engine_id: None, auth: None, privacy: None };
    let users = Users::new(&[user, plain], b"our engine").unwrap();
    Reception {
        communities: vec![Secret::new("s3cret"), Secret::new("other")],
        usm: Some(Usm::new(Identity { id: b"our engine".to_vec(), boots: 1 }, users, 0)),
        encoder: Encoder { names: Names::default(), hostnames: HashMap::new(), trust_agent_address: false },
    }
}

fn arrival() -> Arrival<'static> {
    let peer = "[::ffff:192.0.2.7]:5000".parse().unwrap();
    Arrival { peer, received_at: "2026-11-22T10:00:00Z", now: Duration::from_secs(1) }
}

fn v2(community: &[u8], tag: u8) -> Vec<u8> {
    let mut out = Vec::new();
    ber::element(&mut out, ber::SEQUENCE, |message| {
        ber::integer(message, ber::INTEGER, 1);
        ber::octets(message, ber::OCTET_STRING, community);
        ber::element(message, tag, |pdu| {
            for value in [42, 0, 0] {
                ber::integer(pdu, ber::INTEGER, value);
            }
            ber::element(pdu, ber::SEQUENCE, |list| {
                ber::element(list, ber::SEQUENCE, |binding| {
                    ber::oid(binding, &[1, 3, 6, 1, 6, 3, 1, 1, 4, 1, 0]);
                    ber::oid(binding, &[1, 3, 6, 1, 6, 3, 1, 1, 5, 1]);
                });
                ber::element(list, ber::SEQUENCE, |binding| {
                    ber::oid(binding, &[1, 3, 6, 1, 2, 1, 1, 5, 0]);
                    ber::octets(binding, ber::OCTET_STRING, b"name");
                });
            });
        });
    });
    out
}

fn v3() -> Vec<u8> {
    let mut out = Vec::new();
    ber::element(&mut out, ber::SEQUENCE, |message| {
        ber::integer(message, ber::INTEGER, 3);
        ber::element(message, ber::SEQUENCE, |h| {
            ber::integer(h, ber::INTEGER, 9);
            ber::integer(h, ber::INTEGER, 65_507);
            ber::octets(h, ber::OCTET_STRING, &[0]);
            ber::integer(h, ber::INTEGER, 3);
        });
        let mut parameters = Vec::new();
        ber::element(&mut parameters, ber::SEQUENCE, |p| {
            ber::octets(p, ber::OCTET_STRING, b"their engine");
            ber::integer(p, ber::INTEGER, 1);
            ber::integer(p, ber::INTEGER, 1);
            ber::octets(p, ber::OCTET_STRING, b"plain");
            ber::octets(p, ber::OCTET_STRING, b"");
            ber::octets(p, ber::OCTET_STRING, b"");
        });
        ber::octets(message, ber::OCTET_STRING, &parameters);
        ber::element(message, ber::SEQUENCE, |scoped| {
            ber::octets(scoped, ber::OCTET_STRING, b"their engine");
            ber::octets(scoped, ber::OCTET_STRING, b"");
            let community = v2(b"", pdu::TRAP);
            let mut inner = Reader::new(&community).expect(ber::SEQUENCE, "").unwrap();
            inner.integer("").unwrap();
            inner.octets("").unwrap();
            scoped.extend_from_slice(inner.rest());
        });
    });
    out
}

fn decide(datagram: &[u8]) -> (Decision, Vec<u8>) {
    let mut out = Vec::new();
    let decision = reception().take(datagram, &arrival(), &mut out);
    (decision, out)
}

fn reason(datagram: &[u8]) -> RejectReason {
    match decide(datagram) {
        (Decision::Refused(Refusal { reject: Some((reason, _)), .. }), event) if event.is_empty() => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn versions_and_communities_are_told_apart() {
    let (decision, event) = decide(&v2(b"other", pdu::TRAP));
    assert_eq!(decision, Decision::Trap);
    let event: serde_json::Value = serde_json::from_slice(&event).unwrap();
    assert_eq!((&event["hostname"], &event["message"]), (&"192.0.2.7".into(), &"coldStart: sysName.0 = name".into()));
    assert_eq!(decide(&v3()).0, Decision::Trap);
    assert_eq!(reason(&v2(b"public", pdu::TRAP)), RejectReason::UnknownCommunity);
    assert_eq!(reason(&v2(b"s3cret!", pdu::TRAP)), RejectReason::UnknownCommunity);
    assert_eq!(reason(&v2(b"", pdu::TRAP)), RejectReason::UnknownCommunity);
    assert_eq!(reason(&v2(b"s3cret", pdu::GET)), RejectReason::Unsupported);
    assert_eq!(reason(b"<13>syslog at the wrong door"), RejectReason::Malformed);
    let mut unknown = v2(b"s3cret", pdu::TRAP);
    unknown[4] = 2;
    assert_eq!(reason(&unknown), RejectReason::Unsupported);
    let padded = [v2(b"s3cret", pdu::TRAP), vec![0; 9]].concat();
    assert_eq!(decide(&padded).0, Decision::Trap, "padding behind a message is none of it");
}

#[test]
fn without_users_nothing_of_version_three_is_taken() {
    let mut reception = Reception { usm: None, ..reception() };
    let decision = reception.take(&v3(), &arrival(), &mut Vec::new());
    assert!(matches!(
        decision,
        Decision::Refused(Refusal { reject: Some((RejectReason::UnknownUser, _)), report: None })
    ));
}

#[test]
fn the_response_to_an_inform_repeats_it() {
    let inform = v2(b"s3cret", pdu::INFORM);
    let (Decision::Inform { key, response }, _) = decide(&inform) else { panic!() };
    let mut expected = inform.clone();
    let at = expected.iter().position(|b| *b == pdu::INFORM).unwrap();
    expected[at] = pdu::RESPONSE;
    assert_eq!(response, expected);
    let (Decision::Inform { key: again, .. }, _) = decide(&inform) else { panic!() };
    assert_eq!(key, again);
    let mut other = inform;
    let last = other.len() - 1;
    other[last] ^= 1;
    let (Decision::Inform { key: changed, .. }, _) = decide(&other) else { panic!() };
    assert_ne!(key, changed);
}

#[test]
fn no_community_is_in_a_sample() {
    let reception = reception();
    for datagram in [v2(b"s3cret", pdu::TRAP), v2(b"public", pdu::TRAP), v2(&[b'p'; 200], pdu::TRAP)] {
        for cut in [datagram.len(), 30] {
            let sample = reception.sample(&datagram[..cut]);
            assert_eq!(sample.len(), cut);
            for secret in [&b"s3cret"[..], b"public", b"pppp"] {
                assert!(!sample.windows(secret.len()).any(|w| w == secret), "{sample:?}");
            }
        }
    }
    for version in [0, 2, 3, 5, 255] {
        let mut datagram = v2(b"public", pdu::TRAP);
        let at = datagram.windows(3).position(|w| w == [ber::INTEGER, 1, 1]).unwrap();
        datagram[at + 2] = version;
        let sample = reception.sample(&datagram);
        assert!(!sample.windows(6).any(|w| w == b"public"), "version {version}: {sample:?}");
    }
    let elsewhere = [b"broken ".to_vec(), b"s3cret".to_vec()].concat();
    assert_eq!(&*reception.sample(&elsewhere), b"broken ******");
    assert_eq!(reception.sample(&[0x30; 5_000]).len(), SAMPLE_MAX);
}

/// What is taken is JSON, and what is refused appends nothing.
fn sound(datagram: &[u8]) {
    static RECEPTION: LazyLock<Mutex<Reception>> = LazyLock::new(|| Mutex::new(reception()));
    let mut reception = RECEPTION.lock().unwrap();
    let mut out = Vec::new();
    let decision = reception.take(datagram, &arrival(), &mut out);
    match decision {
        Decision::Trap | Decision::Inform { .. } => {
            let event: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert!(event["message"].as_str().is_some_and(|m| !m.is_empty()));
            assert!(event["trap_oid"].as_str().is_some_and(|m| !m.is_empty()));
        }
        Decision::Refused(_) => assert_eq!(out, b""),
    }
    let _ = reception.sample(datagram);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        sound(&bytes);
    }

    #[test]
    fn mutated_messages_are_read_without_harm(
        which in 0..4usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        doubled in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = [v2(b"s3cret", pdu::TRAP), v2(b"s3cret", pdu::INFORM), v3(), v2(b"other", pdu::TRAP_V1)][which].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(at) = doubled {
            let tail = bytes[at.index(bytes.len())..].to_vec();
            bytes.extend(tail);
        }
        if let Some(at) = cut {
            bytes.truncate(at.index(bytes.len()));
        }
        sound(&bytes);
    }
}
