//! One datagram: which version, whose, and what to do with it. Pure.

use super::ber::{self, Reader};
use super::event::{Encoder, Origin, V3Origin};
use super::pdu::{self, Notification, Pdu};
use super::usm::{Refusal, Usm};
use model::RejectReason;
use runtime::Secret;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Octets of a refused datagram that are worth keeping.
const SAMPLE_MAX: usize = 1_024;

/// What tells a repeated inform from a new one.
pub(super) type InformKey = [u8; 32];

/// What to do about a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// A trap; its event was appended.
    Trap,
    /// An inform; its event was appended. The response is for when the event is kept.
    Inform { key: InformKey, response: Vec<u8> },
    /// Nothing was appended.
    Refused(Refusal),
}

/// When and from where a datagram came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub peer: SocketAddr,
    /// RFC 3339.
    pub received_at: &'a str,
    /// Since our engine started.
    pub now: Duration,
}

/// Everything that turns datagrams into events.
#[derive(Debug)]
pub(super) struct Reception {
    pub communities: Vec<Secret>,
    /// `None` without users: then SNMPv3 is not spoken.
    pub usm: Option<Usm>,
    pub encoder: Encoder,
}

impl Reception {
    pub(super) fn take(&mut self, datagram: &[u8], arrival: &Arrival<'_>, out: &mut Vec<u8>) -> Decision {
        match self.read(datagram, arrival, out) {
            Ok(decision) => decision,
            Err(refusal) => Decision::Refused(refusal),
        }
    }

    fn read(&mut self, datagram: &[u8], arrival: &Arrival<'_>, out: &mut Vec<u8>) -> Result<Decision, Refusal> {
        let mut reader = Reader::new(datagram);
        let mut body = reader.expect(ber::SEQUENCE, "it is no SNMP message")?;
        let end = body.end(); // what stands behind the message is padding
        let version = body.integer("an SNMP message without its version")?;
        match version {
            0 | 1 => self.community_message(version, body, arrival, out),
            3 => {
                let Some(usm) = &mut self.usm else {
                    return Err(refused(RejectReason::UnknownUser, "SNMPv3, and no user is configured"));
                };
                let encoder = &self.encoder;
                usm.take(&datagram[..end], body, arrival.now, |secured| {
                    let v3 = V3Origin { user: secured.user, engine_id: secured.engine_id, context: secured.context };
                    let inform = secured.response.is_some();
                    let origin = Origin { v3: Some(v3), inform, ..origin(arrival, "3") };
                    encoder.encode(&secured.notification, &origin, out);
                    match secured.response {
                        Some(response) => {
                            let key = inform_key(arrival.peer, secured.user.as_bytes(), secured.pdu);
                            Decision::Inform { key, response }
                        }
                        None => Decision::Trap,
                    }
                })
            }
            _ => Err(refused(RejectReason::Unsupported, "a version of SNMP that there is not")),
        }
    }

    fn community_message(
        &self,
        version: i64,
        mut body: Reader<'_>,
        arrival: &Arrival<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Decision, Refusal> {
        let community = body.octets("an SNMP message without its community")?;
        // All are compared, each in constant time, so that time tells nothing about any.
        let known = self.communities.iter().fold(false, |known, one| known | one.matches(community));
        if !known {
            return Err(refused(RejectReason::UnknownCommunity, "a community that is not configured"));
        }
        let pdu = body.rest();
        let (read, name) = match version {
            0 => (pdu::read_v1(&mut body)?, "1"),
            _ => (pdu::read_v2(&mut body)?, "2c"),
        };
        let mut encode = |notification: &Notification<'_>, inform| {
            let origin = Origin { inform, ..origin(arrival, name) };
            self.encoder.encode(notification, &origin, out);
        };
        match read {
            Pdu::Trap(notification) => {
                encode(&notification, false);
                Ok(Decision::Trap)
            }
            Pdu::Inform(notification, inform) => {
                encode(&notification, true);
                let mut response = Vec::new();
                ber::element(&mut response, ber::SEQUENCE, |message| {
                    ber::integer(message, ber::INTEGER, version);
                    ber::octets(message, ber::OCTET_STRING, community);
                    pdu::write_response(message, &inform);
                });
                Ok(Decision::Inform { key: inform_key(arrival.peer, community, pdu), response })
            }
            Pdu::Other(_) => Err(refused(RejectReason::Unsupported, "neither a trap nor an inform")),
        }
    }

    /// What may be kept of a refused datagram: its beginning without its community, and without
    /// anything that reads like one of ours.
    pub(super) fn sample<'a>(&self, datagram: &'a [u8]) -> Cow<'a, [u8]> {
        let mut sample = Cow::Borrowed(&datagram[..datagram.len().min(SAMPLE_MAX)]);
        if let Some(span) = community_span(&sample) {
            sample.to_mut()[span].fill(b'*');
        }
        for community in &self.communities {
            let text = community.expose().as_bytes();
            if text.is_empty() {
                continue;
            }
            let mut from = 0;
            while let Some(at) = sample[from..].windows(text.len()).position(|w| w == text) {
                sample.to_mut()[from + at..from + at + text.len()].fill(b'*');
                from += at + text.len();
            }
        }
        sample
    }
}

fn refused(reason: RejectReason, detail: &'static str) -> Refusal {
    Refusal { reject: Some((reason, detail)), report: None }
}

fn origin<'a>(arrival: &Arrival<'a>, version: &'static str) -> Origin<'a> {
    // `::ffff:10.0.0.1` is 10.0.0.1
    let source: IpAddr = arrival.peer.ip().to_canonical();
    Origin { source, received_at: arrival.received_at, version, inform: false, v3: None }
}

fn inform_key(peer: SocketAddr, who: &[u8], pdu: &[u8]) -> InformKey {
    let mut hash = Sha256::new();
    hash.update(format!("{peer} {} ", who.len()));
    hash.update(who);
    hash.update(pdu);
    hash.finalize().into()
}

/// Where the community stands in bytes that begin like a message with one, whatever version they claim
/// and however broken they are behind it. In version 3 there is no text behind the version.
fn community_span(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let skip_length = |at: usize| {
        let first = usize::from(*bytes.get(at)?);
        Some(if first < 0x80 { (at + 1, first) } else { (at + 1 + (first & 0x7f), usize::MAX) })
    };
    let (version, _) = (*bytes.first()? == ber::SEQUENCE).then(|| skip_length(1))??;
    if *bytes.get(version)? != ber::INTEGER {
        return None;
    }
    let (number, octets) = skip_length(version + 1)?;
    let community = number.checked_add(octets)?;
    if *bytes.get(community)? != ber::OCTET_STRING {
        return None;
    }
    let (start, length) = skip_length(community + 1)?;
    let end = start.saturating_add(length).min(bytes.len());
    (start <= end).then_some(start..end)
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
