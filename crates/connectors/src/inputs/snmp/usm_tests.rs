use super::*;
use crate::inputs::snmp::SnmpUser;
use runtime::Secret;

const OURS: &[u8] = b"our engine";
const THEIRS: &[u8] = b"their engine";

fn config(name: &str, auth: Option<AuthProtocol>, privacy: Option<PrivProtocol>) -> SnmpUser {
    SnmpUser {
        name: name.to_owned(),
        engine_id: None,
        auth: auth.map(|p| (p, Secret::new("auth-passphrase"))),
        privacy: privacy.map(|p| (p, Secret::new("priv-passphrase"))),
    }
}

fn usm(users: &[SnmpUser]) -> Usm {
    let identity = Identity { id: OURS.to_vec(), boots: 7 };
    Usm::new(identity, Users::new(users, OURS).unwrap(), 1)
}

/// A sender of messages.
struct Sender {
    engine: &'static [u8],
    user: &'static str,
    keys: LocalKeys,
    clock: (u32, u32),
    reportable: bool,
    pdu: u8,
}

impl Sender {
    fn new(user: &'static str, auth: Option<AuthProtocol>, privacy: Option<PrivProtocol>) -> Self {
        let users = Users::new(&[config(user, auth, privacy)], THEIRS).unwrap();
        let keys = users.find(user.as_bytes(), THEIRS).unwrap().1.own.clone();
        Self { engine: THEIRS, user, keys, clock: (3, 1_000), reportable: false, pdu: pdu::TRAP }
    }

    fn to_us(user: &'static str, auth: Option<AuthProtocol>, privacy: Option<PrivProtocol>) -> Self {
        let users = Users::new(&[config(user, auth, privacy)], OURS).unwrap();
        let keys = users.find(user.as_bytes(), OURS).unwrap().1.own.clone();
        Self { engine: OURS, user, keys, clock: (7, 0), reportable: true, pdu: pdu::INFORM }
    }

    fn message(&self) -> Vec<u8> {
        let mut scoped = Vec::new();
        ber::element(&mut scoped, ber::SEQUENCE, |scoped| {
            ber::octets(scoped, ber::OCTET_STRING, self.engine);
            ber::octets(scoped, ber::OCTET_STRING, b"ctx");
            ber::element(scoped, self.pdu, |pdu| {
                for value in [42, 0, 0] {
                    ber::integer(pdu, ber::INTEGER, value);
                }
                ber::element(pdu, ber::SEQUENCE, |list| {
                    ber::element(list, ber::SEQUENCE, |binding| {
                        ber::oid(binding, &[1, 3, 6, 1, 6, 3, 1, 1, 4, 1, 0]);
                        ber::oid(binding, &[1, 3, 6, 1, 4, 1, 8]);
                    });
                });
            });
        });
        let message = write_message(77, self.engine, self.clock, self.user.as_bytes(), &self.keys, 5, scoped);
        if self.reportable { reportable(message, &self.keys) } else { message }
    }
}

/// Sets the flag, and signs again.
fn reportable(mut message: Vec<u8>, keys: &LocalKeys) -> Vec<u8> {
    let mut body = Reader::new(&message).expect(ber::SEQUENCE, "").unwrap();
    body.integer("").unwrap();
    let mut global = body.clone().expect(ber::SEQUENCE, "").unwrap();
    global.integer("").unwrap();
    global.integer("").unwrap();
    let at = global.expect(ber::OCTET_STRING, "").unwrap().position();
    message[at] |= FLAG_REPORTABLE;
    if let (Some((protocol, key)), Some(digest)) = (&keys.auth, digest_position(&message)) {
        message[digest..digest + protocol.digest_len()].fill(0);
        crypto::sign(*protocol, key, &mut message, digest);
    }
    message
}

fn take(usm: &mut Usm, message: &[u8], seconds: u64) -> Result<(String, Option<Vec<u8>>), Refusal> {
    let mut body = Reader::new(message).expect(ber::SEQUENCE, "").unwrap();
    assert_eq!(body.integer(""), Ok(3));
    usm.take(message, body, Duration::from_secs(seconds), |secured| {
        assert_eq!(secured.context, b"ctx");
        (format!("{} {}", secured.user, secured.notification.trap_oid), secured.response)
    })
}

fn reason(taken: Result<(String, Option<Vec<u8>>), Refusal>) -> Option<RejectReason> {
    taken.unwrap_err().reject.map(|(reason, _)| reason)
}

/// The name of the counter that a report carries, by its number.
fn reported(refusal: &Refusal) -> u8 {
    let report = refusal.report.as_ref().expect("a report");
    let prefix = [0x2b, 6, 1, 6, 3, 15, 1, 1];
    let at = report.windows(prefix.len()).position(|w| w == prefix).expect("a counter of usmStats");
    report[at + prefix.len()]
}

const AUTH: Option<AuthProtocol> = Some(AuthProtocol::Sha256);
const PRIV: Option<PrivProtocol> = Some(PrivProtocol::Aes256);

#[test]
fn traps_of_every_level_and_protocol_are_taken() {
    for auth in AuthProtocol::ALL.map(Some).into_iter().chain([None]) {
        for privacy in PrivProtocol::ALL.map(Some).into_iter().chain([None]) {
            if auth.is_none() && privacy.is_some() {
                continue;
            }
            let mut usm = usm(&[config("u", auth, privacy)]);
            let message = Sender::new("u", auth, privacy).message();
            let taken = take(&mut usm, &message, 10);
            assert_eq!(taken, Ok(("u 1.3.6.1.4.1.8".to_owned(), None)), "{auth:?} {privacy:?}");
        }
    }
}

#[test]
fn a_wrong_passphrase_is_told_from_a_wrong_user_and_a_wrong_level() {
    let mut usm = usm(&[config("u", AUTH, PRIV), config("plain", None, None)]);
    assert_eq!(reason(take(&mut usm, &Sender::new("x", AUTH, PRIV).message(), 0)), Some(RejectReason::UnknownUser));
    assert_eq!(reason(take(&mut usm, &Sender::new("u", AUTH, None).message(), 0)), Some(RejectReason::Unauthorized));
    assert_eq!(reason(take(&mut usm, &Sender::new("u", None, None).message(), 0)), Some(RejectReason::Unauthorized));
    assert_eq!(reason(take(&mut usm, &Sender::new("plain", AUTH, None).message(), 0)), Some(RejectReason::Unsupported));
    let other = Sender::new("u", Some(AuthProtocol::Sha512), PRIV);
    assert_eq!(reason(take(&mut usm, &other.message(), 0)), Some(RejectReason::WrongDigest));
    let mut wrong = Sender::new("u", AUTH, PRIV);
    wrong.keys.privacy = Sender::new("u", Some(AuthProtocol::Md5), PRIV).keys.privacy;
    assert_eq!(reason(take(&mut usm, &wrong.message(), 0)), Some(RejectReason::DecryptionFailed));
    let mut message = Sender::new("u", AUTH, PRIV).message();
    let last = message.len() - 1;
    message[last] ^= 1;
    assert_eq!(reason(take(&mut usm, &message, 0)), Some(RejectReason::WrongDigest), "one bit is enough");
}

#[test]
fn a_replayed_trap_is_refused_and_so_is_one_from_before_a_reboot() {
    let mut usm = usm(&[config("u", AUTH, None)]);
    let mut sender = Sender::new("u", AUTH, None);
    let first = sender.message();
    assert!(take(&mut usm, &first, 0).is_ok());
    assert!(take(&mut usm, &first, 150).is_ok(), "within the window it may be late");
    assert_eq!(reason(take(&mut usm, &first, 151)), Some(RejectReason::NotInTimeWindow));
    sender.clock = (4, 1);
    assert!(take(&mut usm, &sender.message(), 152).is_ok());
    assert_eq!(reason(take(&mut usm, &first, 152)), Some(RejectReason::NotInTimeWindow));
}

#[test]
fn discovery_tells_our_name_and_clock_and_counts_as_no_failure() {
    let mut usm = usm(&[config("u", AUTH, None)]);
    let mut probe = Sender::new("nobody", None, None);
    probe.user = "";
    probe.engine = b"";
    probe.reportable = true;
    probe.pdu = pdu::GET;
    let message = probe.message();
    let refusal = take(&mut usm, &message, 33).unwrap_err();
    assert_eq!((refusal.reject, reported(&refusal)), (None, 4));
    let report = refusal.report.unwrap();
    let mut body = Reader::new(&report).expect(ber::SEQUENCE, "").unwrap();
    body.integer("").unwrap();
    let header = read_header(&mut body).ok().unwrap();
    assert_eq!((header.id, header.engine_id, header.boots, header.time), (77, OURS, 7, 33));
    assert_eq!(scoped_request_id(&body), Some(42), "the request-id of the probe");
    probe.reportable = false;
    assert_eq!(take(&mut usm, &probe.message(), 33).unwrap_err().report, None, "who wants no report gets none");
}

#[test]
fn an_inform_is_answered_at_its_own_level() {
    for (auth, privacy) in
        [(None, None), (AUTH, None), (AUTH, PRIV), (Some(AuthProtocol::Md5), Some(PrivProtocol::Des))]
    {
        let mut usm = usm(&[config("u", auth, privacy)]);
        let sender = Sender::to_us("u", auth, privacy);
        let (_, response) = take(&mut usm, &sender.message(), 20).unwrap();
        let response = response.expect("an inform has a response");
        let mut body = Reader::new(&response).expect(ber::SEQUENCE, "").unwrap();
        body.integer("").unwrap();
        let header = read_header(&mut body).ok().unwrap();
        assert_eq!((header.id, header.engine_id, header.user, header.time), (77, OURS, &b"u"[..], 20));
        if let Some((protocol, key)) = &sender.keys.auth {
            assert!(crypto::verify(*protocol, key, &response, header.digest_at, header.digest));
        }
        let decrypted;
        let mut scoped = match &sender.keys.privacy {
            None => body.expect(ber::SEQUENCE, "").unwrap(),
            Some((protocol, key)) => {
                let cipher_text = body.octets("").unwrap();
                decrypted = crypto::decrypt(*protocol, key, (7, 20), header.salt, cipher_text).unwrap();
                Reader::new(&decrypted).expect(ber::SEQUENCE, "").unwrap()
            }
        };
        assert_eq!((scoped.octets(""), scoped.octets("")), (Ok(OURS), Ok(&b"ctx"[..])));
        assert_eq!(pdu::request_id(&scoped), Some(42));
        assert_eq!(pdu::read_v2(&mut scoped), Ok(Pdu::Other(pdu::RESPONSE)));
    }
}

#[test]
fn an_inform_of_another_time_is_told_ours_in_an_authentic_report() {
    let mut usm = usm(&[config("u", AUTH, PRIV)]);
    let mut sender = Sender::to_us("u", AUTH, PRIV);
    for (clock, seconds, expected) in [
        ((7, 150), 0, None),
        ((7, 151), 0, Some(Some(RejectReason::NotInTimeWindow))),
        ((6, 0), 0, Some(Some(RejectReason::NotInTimeWindow))),
        ((7, 0), 151, Some(Some(RejectReason::NotInTimeWindow))),
        ((0, 0), 151, Some(None)),
    ] {
        sender.clock = clock;
        let taken = take(&mut usm, &sender.message(), seconds);
        let Some(expected) = expected else {
            assert!(taken.is_ok(), "{clock:?}");
            continue;
        };
        let refusal = taken.unwrap_err();
        assert_eq!((refusal.reject.map(|(r, _)| r), reported(&refusal)), (expected, 2), "{clock:?}");
        let report = refusal.report.unwrap();
        let mut body = Reader::new(&report).expect(ber::SEQUENCE, "").unwrap();
        body.integer("").unwrap();
        let header = read_header(&mut body).ok().unwrap();
        assert_eq!(header.level, Level::Authentic);
        let (protocol, key) = sender.keys.auth.as_ref().unwrap();
        assert!(crypto::verify(*protocol, key, &report, header.digest_at, header.digest));
    }
}

#[test]
fn each_failure_of_an_inform_is_reported_by_its_own_counter() {
    let mut usm = usm(&[config("u", AUTH, PRIV), config("plain", None, None)]);
    let mut wrong_key = Sender::to_us("u", AUTH, PRIV);
    wrong_key.keys.privacy = Sender::to_us("u", Some(AuthProtocol::Md5), PRIV).keys.privacy;
    let mut elsewhere = Sender::to_us("u", AUTH, PRIV);
    elsewhere.engine = THEIRS;
    for (sender, reason, counter) in [
        (Sender::to_us("plain", AUTH, None), RejectReason::Unsupported, 1),
        (Sender::to_us("x", AUTH, None), RejectReason::UnknownUser, 3),
        (elsewhere, RejectReason::Unsupported, 4),
        (Sender::to_us("u", Some(AuthProtocol::Sha512), PRIV), RejectReason::WrongDigest, 5),
        (wrong_key, RejectReason::DecryptionFailed, 6),
    ] {
        let refusal = take(&mut usm, &sender.message(), 0).unwrap_err();
        assert_eq!((refusal.reject.map(|(r, _)| r), reported(&refusal)), (Some(reason), counter));
    }
    let mut get = Sender::to_us("plain", None, None);
    get.pdu = pdu::GET;
    assert_eq!(reason(take(&mut usm, &get.message(), 0)), Some(RejectReason::Unsupported));
}
