//! SNMPv3 messages: RFC 3412 (message processing) and RFC 3414 (user-based security).
//!
//! Of a trap the sender is the authoritative engine: its name and clock are in the message, and
//! what is remembered of them tells replays. Of an inform we are: the sender first asks for our
//! name and clock (discovery), and learns from our reports what it got wrong. Pure: time comes in,
//! answers go out.

use super::ber::{self, Malformed, Reader};
use super::crypto::{self, AuthProtocol, Key, PrivProtocol};
use super::engine::{BOOTS_MAX, ID_OCTETS, Identity};
use super::pdu::{self, Inform, Notification, Pdu};
use super::users::{Level, LocalKeys, Senders, Users};
use model::RejectReason;
use std::time::Duration;

/// Counters of RFC 3414 §5: each a report's name and its count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stat {
    UnsupportedSecLevels = 1,
    NotInTimeWindows,
    UnknownUserNames,
    UnknownEngineIds,
    WrongDigests,
    DecryptionErrors,
}

const USM: i64 = 3;
const FLAG_AUTH: u8 = 1;
const FLAG_PRIV: u8 = 2;
const FLAG_REPORTABLE: u8 = 4;
const WINDOW_S: u32 = 150;
/// What we say we can take.
const MAX_SIZE: i64 = 65_507;

/// A message that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// `None` for the steps of discovery, which are no failures.
    pub reject: Option<(RejectReason, &'static str)>,
    /// What to tell the sender.
    pub report: Option<Vec<u8>>,
}

impl Refusal {
    fn silent(reason: RejectReason, detail: &'static str) -> Self {
        Self { reject: Some((reason, detail)), report: None }
    }
}

impl From<Malformed> for Refusal {
    fn from(bad: Malformed) -> Self {
        Self::silent(RejectReason::Malformed, bad.0)
    }
}

/// A notification that is authentic as far as its user is.
pub(super) struct Secured<'a> {
    pub user: &'a str,
    pub engine_id: &'a [u8],
    pub context: &'a [u8],
    pub notification: Notification<'a>,
    /// The PDU's bytes; the same for a repeated inform.
    pub pdu: &'a [u8],
    /// For an inform, once it is kept.
    pub response: Option<Vec<u8>>,
}

/// The state of SNMPv3 at one listener.
#[derive(Debug)]
pub(super) struct Usm {
    identity: Identity,
    users: Users,
    senders: Senders,
    stats: [u32; 7],
    /// Counts up from a random start: no two messages of ours have the same.
    salt: u64,
}

/// What stands before the data.
struct Header<'a> {
    id: u32,
    level: Level,
    reportable: bool,
    engine_id: &'a [u8],
    boots: u32,
    time: u32,
    user: &'a [u8],
    digest: &'a [u8],
    digest_at: usize,
    salt: &'a [u8],
}

impl Usm {
    pub(super) fn new(identity: Identity, users: Users, salt: u64) -> Self {
        Self { identity, users, senders: Senders::default(), stats: [0; 7], salt }
    }

    pub(super) fn engine_id(&self) -> &[u8] {
        &self.identity.id
    }

    /// Takes one message: `message` ends where its outer SEQUENCE does, `body` stands behind the
    /// version. `now` counts from our start. What `then` makes of the notification is returned.
    pub(super) fn take<T>(
        &mut self,
        message: &[u8],
        mut body: Reader<'_>,
        now: Duration,
        then: impl FnOnce(Secured<'_>) -> T,
    ) -> Result<T, Refusal> {
        let header = read_header(&mut body)?;
        let clear_id = || if header.level == Level::Encrypted { None } else { scoped_request_id(&body) };
        let own = header.engine_id == self.identity.id;
        if !own && (header.reportable || !ID_OCTETS.contains(&header.engine_id.len())) {
            // Discovery, or an inform of somebody who takes us for another engine.
            let known = "addressed to another engine";
            let reject = (!header.engine_id.is_empty()).then_some((RejectReason::Unsupported, known));
            let report = self.report(Stat::UnknownEngineIds, &header, clear_id(), None, now);
            return Err(Refusal { reject, report });
        }
        let Some((index, user)) = self.users.find(header.user, header.engine_id) else {
            let report = self.report(Stat::UnknownUserNames, &header, clear_id(), None, now);
            return Err(Refusal { reject: Some((RejectReason::UnknownUser, "an unknown SNMPv3 user")), report });
        };
        if header.level > user.level {
            let report = self.report(Stat::UnsupportedSecLevels, &header, clear_id(), None, now);
            let detail = "a security level that the user has no keys for";
            return Err(Refusal { reject: Some((RejectReason::Unsupported, detail)), report });
        }
        if header.level < user.level {
            let detail = "a security level below the user's";
            return Err(Refusal::silent(RejectReason::Unauthorized, detail));
        }
        let name = user.name.clone();
        let known = if own {
            Some(user.own.clone())
        } else {
            self.senders.get(header.engine_id, index).map(|s| s.keys.clone())
        };
        let mut keys = LocalKeys { auth: None, privacy: None };
        if header.level >= Level::Authentic {
            let auth = match &known {
                Some(known) => known.auth.clone(),
                None => user.local_auth(header.engine_id),
            };
            let authentic = auth.as_ref().is_some_and(|(protocol, key)| {
                crypto::verify(*protocol, key, message, header.digest_at, header.digest)
            });
            if !authentic {
                let report = self.report(Stat::WrongDigests, &header, clear_id(), None, now);
                let detail = "the digest is not the user's: a wrong passphrase or protocol, or a forgery";
                return Err(Refusal { reject: Some((RejectReason::WrongDigest, detail)), report });
            }
            keys = match known {
                Some(known) => known,
                None => user.local_keys(auth, header.engine_id),
            };
            self.check_time(&header, own, index, &keys, now, clear_id())?;
        }
        let decrypted;
        let mut scoped = if header.level == Level::Encrypted {
            let cipher_text = body.octets("an encrypted message whose data is not encrypted")?;
            let text = keys.privacy.as_ref().and_then(|(protocol, key)| {
                crypto::decrypt(*protocol, key, (header.boots, header.time), header.salt, cipher_text).ok()
            });
            match text {
                Some(text) => decrypted = text,
                None => return Err(self.undecipherable(&header, now)),
            }
            match Reader::new(&decrypted).expect(ber::SEQUENCE, "") {
                Ok(scoped) => scoped,
                Err(_) => return Err(self.undecipherable(&header, now)),
            }
        } else {
            body.expect(ber::SEQUENCE, "a message without its scoped PDU")?
        };
        let secured = read_scoped(&mut scoped, &header, &name);
        let (mut secured, inform) = match secured {
            Ok(read) => read,
            // A wrong key that happened to give a SEQUENCE.
            Err(bad) if bad.reject.is_some_and(|(r, _)| r == RejectReason::Malformed) && keys.privacy.is_some() => {
                return Err(self.undecipherable(&header, now));
            }
            Err(bad) => return Err(bad),
        };
        if let Some((inform, context_engine)) = inform {
            if !own {
                return Err(Refusal::silent(RejectReason::Unsupported, "an inform that does not let us answer"));
            }
            let mut response = Vec::new();
            ber::element(&mut response, ber::SEQUENCE, |scoped| {
                ber::octets(scoped, ber::OCTET_STRING, context_engine);
                ber::octets(scoped, ber::OCTET_STRING, secured.context);
                pdu::write_response(scoped, &inform);
            });
            secured.response = Some(self.wrap(header.id, header.user, &keys, now, response));
        }
        Ok(then(secured))
    }

    fn check_time(
        &mut self,
        header: &Header<'_>,
        own: bool,
        user: usize,
        keys: &LocalKeys,
        now: Duration,
        clear_id: Option<i64>,
    ) -> Result<(), Refusal> {
        let detail = "its time is not now: a replay, or a sender that lost its clock";
        if own {
            let ours = engine_time(now);
            if self.identity.boots < BOOTS_MAX
                && header.boots == self.identity.boots
                && header.time.abs_diff(ours) <= WINDOW_S
            {
                return Ok(());
            }
            // Zeros are how a sender asks what time it is (RFC 3414 §4).
            let asks = header.boots == 0 && header.time == 0;
            let signed = LocalKeys { auth: keys.auth.clone(), privacy: None };
            let report = self.report(Stat::NotInTimeWindows, header, clear_id, Some(&signed), now);
            let reject = (!asks).then_some((RejectReason::NotInTimeWindow, detail));
            return Err(Refusal { reject, report });
        }
        if self.senders.timely(header.engine_id, user, (header.boots, header.time), now, || keys.clone()) {
            return Ok(());
        }
        self.count(Stat::NotInTimeWindows);
        Err(Refusal::silent(RejectReason::NotInTimeWindow, detail))
    }

    fn undecipherable(&mut self, header: &Header<'_>, now: Duration) -> Refusal {
        let report = self.report(Stat::DecryptionErrors, header, None, None, now);
        let detail = "it does not decrypt: a wrong privacy passphrase or protocol";
        Refusal { reject: Some((RejectReason::DecryptionFailed, detail)), report }
    }

    fn count(&mut self, stat: Stat) -> u32 {
        let count = &mut self.stats[stat as usize];
        *count = count.wrapping_add(1); // a Counter32
        *count
    }

    /// A report for a sender that can use one.
    fn report(
        &mut self,
        stat: Stat,
        header: &Header<'_>,
        request_id: Option<i64>,
        keys: Option<&LocalKeys>,
        now: Duration,
    ) -> Option<Vec<u8>> {
        let count = self.count(stat);
        if !header.reportable {
            return None;
        }
        let name = [1, 3, 6, 1, 6, 3, 15, 1, 1, stat as u32, 0];
        let mut scoped = Vec::new();
        ber::element(&mut scoped, ber::SEQUENCE, |scoped| {
            ber::octets(scoped, ber::OCTET_STRING, &self.identity.id);
            ber::octets(scoped, ber::OCTET_STRING, b"");
            pdu::write_report(scoped, request_id.unwrap_or(0), &name, count);
        });
        let none = LocalKeys { auth: None, privacy: None };
        Some(self.wrap(header.id, header.user, keys.unwrap_or(&none), now, scoped))
    }

    /// A message of ours around a scoped PDU, at the level that the keys give.
    fn wrap(&mut self, id: u32, user: &[u8], keys: &LocalKeys, now: Duration, scoped: Vec<u8>) -> Vec<u8> {
        let clock = (self.identity.boots, engine_time(now));
        self.salt = self.salt.wrapping_add(1);
        write_message(id, &self.identity.id, clock, user, keys, self.salt, scoped)
    }
}

fn engine_time(now: Duration) -> u32 {
    u32::try_from(now.as_secs()).unwrap_or(BOOTS_MAX).min(BOOTS_MAX)
}

/// A message at the level that the keys give.
fn write_message(
    id: u32,
    engine_id: &[u8],
    clock: (u32, u32),
    user: &[u8],
    keys: &LocalKeys,
    salt: u64,
    scoped: Vec<u8>,
) -> Vec<u8> {
    let auth = keys.auth.as_ref();
    let privacy = keys.privacy.as_ref();
    let digest_len = auth.map_or(0, |(protocol, _): &(AuthProtocol, Key)| protocol.digest_len());
    let salt = match privacy {
        Some((PrivProtocol::Des, _)) => (u64::from(clock.0) << 32 | salt & 0xffff_ffff).to_be_bytes(),
        _ => salt.to_be_bytes(),
    };
    let mut parameters = Vec::new();
    ber::element(&mut parameters, ber::SEQUENCE, |p| {
        ber::octets(p, ber::OCTET_STRING, engine_id);
        ber::integer(p, ber::INTEGER, i64::from(clock.0));
        ber::integer(p, ber::INTEGER, i64::from(clock.1));
        ber::octets(p, ber::OCTET_STRING, user);
        ber::octets(p, ber::OCTET_STRING, &vec![0; digest_len]);
        ber::octets(p, ber::OCTET_STRING, if privacy.is_some() { &salt } else { b"" });
    });
    let flags = if auth.is_some() { FLAG_AUTH } else { 0 } | if privacy.is_some() { FLAG_PRIV } else { 0 };
    let mut message = Vec::new();
    ber::element(&mut message, ber::SEQUENCE, |m| {
        ber::integer(m, ber::INTEGER, 3);
        ber::element(m, ber::SEQUENCE, |h| {
            ber::integer(h, ber::INTEGER, i64::from(id));
            ber::integer(h, ber::INTEGER, MAX_SIZE);
            ber::octets(h, ber::OCTET_STRING, &[flags]);
            ber::integer(h, ber::INTEGER, USM);
        });
        ber::octets(m, ber::OCTET_STRING, &parameters);
        match privacy {
            Some((protocol, key)) => {
                ber::octets(m, ber::OCTET_STRING, &crypto::encrypt(*protocol, key, clock, salt, scoped));
            }
            None => m.extend_from_slice(&scoped),
        }
    });
    if let Some((protocol, key)) = auth
        && let Some(at) = digest_position(&message)
    {
        crypto::sign(*protocol, key, &mut message, at);
    }
    message
}

/// Where a message of ours has room for its digest.
fn digest_position(message: &[u8]) -> Option<usize> {
    let mut body = Reader::new(message).expect(ber::SEQUENCE, "").ok()?;
    body.integer("").ok()?;
    Some(read_header(&mut body).ok()?.digest_at)
}

fn read_header<'a>(body: &mut Reader<'a>) -> Result<Header<'a>, Refusal> {
    let mut global = body.expect(ber::SEQUENCE, "an SNMPv3 message without its header")?;
    let id = global.natural("an SNMPv3 header without msgID")?;
    global.natural("an SNMPv3 header without msgMaxSize")?;
    let flags = match global.octets("an SNMPv3 header without msgFlags")? {
        [flags] => *flags,
        _ => return Err(Malformed("msgFlags that are not one octet").into()),
    };
    if global.integer("an SNMPv3 header without msgSecurityModel")? != USM {
        return Err(Refusal::silent(RejectReason::Unsupported, "a security model other than the user-based one"));
    }
    let level = match (flags & FLAG_AUTH != 0, flags & FLAG_PRIV != 0) {
        (false, false) => Level::Open,
        (true, false) => Level::Authentic,
        (true, true) => Level::Encrypted,
        (false, true) => return Err(Malformed("privacy without authentication").into()),
    };
    let mut parameters = body.expect(ber::OCTET_STRING, "an SNMPv3 message without security parameters")?;
    let mut parameters = parameters.expect(ber::SEQUENCE, "security parameters that are no SEQUENCE")?;
    let engine_id = parameters.octets("security parameters without an engine")?;
    let boots = parameters.natural("security parameters without boots")?;
    let time = parameters.natural("security parameters without time")?;
    let user = parameters.octets("security parameters without a user")?;
    let digest = parameters.expect(ber::OCTET_STRING, "security parameters without a digest")?;
    let salt = parameters.octets("security parameters without a salt")?;
    if user.len() > 32 || engine_id.len() > 32 {
        return Err(Malformed("a user or an engine of more than 32 octets").into());
    }
    Ok(Header {
        id,
        level,
        reportable: flags & FLAG_REPORTABLE != 0,
        engine_id,
        boots,
        time,
        user,
        digest: digest.rest(),
        digest_at: digest.position(),
        salt,
    })
}

type Read<'a> = (Secured<'a>, Option<(Inform<'a>, &'a [u8])>);

fn read_scoped<'a>(scoped: &mut Reader<'a>, header: &Header<'a>, user: &'a str) -> Result<Read<'a>, Refusal> {
    let context_engine = scoped.octets("a scoped PDU without its engine")?;
    let context = scoped.octets("a scoped PDU without its context")?;
    let pdu = scoped.rest();
    let (notification, inform) = match pdu::read_v2(scoped)? {
        Pdu::Trap(notification) => (notification, None),
        Pdu::Inform(notification, inform) => (notification, Some((inform, context_engine))),
        Pdu::Other(_) => {
            return Err(Refusal::silent(RejectReason::Unsupported, "neither a trap nor an inform"));
        }
    };
    // Of an inform the message's engine is ours; the notification's own is its context's.
    let engine_id = if inform.is_some() { context_engine } else { header.engine_id };
    let secured = Secured { user, engine_id, context, notification, pdu, response: None };
    Ok((secured, inform))
}

fn scoped_request_id(body: &Reader<'_>) -> Option<i64> {
    let mut scoped = body.clone().expect(ber::SEQUENCE, "").ok()?;
    scoped.octets("").ok()?;
    scoped.octets("").ok()?;
    pdu::request_id(&scoped)
}

#[cfg(test)]
#[path = "usm_tests.rs"]
mod tests;
