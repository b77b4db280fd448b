use super::*;
use rcgen::{CertificateParams, KeyPair};
use runtime::ManualClock;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn config(dir: &Path) -> AuthorityConfig {
    AuthorityConfig {
        dir: dir.join("ca"),
        names: vec!["agents.example".to_owned()],
        server_files: None,
        agent_certificate: Duration::from_secs(1_000),
    }
}

fn open(dir: &Path) -> Authority {
    Authority::open(config(dir), Arc::new(ManualClock::new(NOW))).unwrap()
}

fn request(key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::new(vec!["other.example".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.serialize_request(key).unwrap().der().to_vec()
}

fn org() -> OrgId {
    "acme".parse().unwrap()
}

/// Whether a client that knows these roots believes what the gateway shows, under this name.
fn is_believed(roots: &[Vec<u8>], shown: &[CertificateDer<'_>], name: &str) -> bool {
    let mut store = rustls::RootCertStore::empty();
    for root in roots {
        store.add(root.clone().into()).unwrap();
    }
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(store), runtime::tls::provider()).build().unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW.secs().unsigned_abs()));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier.verify_server_cert(&shown[0], &shown[1..], &name, &[], now).is_ok()
}

/// What the gateway would show now.
fn shown(authority: &Authority) -> Vec<CertificateDer<'static>> {
    let kept = Kept::read(&authority.config.dir).unwrap();
    certificates::certify_server(&kept, &Names::of(&authority.config.names), NOW).unwrap().chain().to_vec()
}

#[test]
fn it_is_made_once_for_its_owner_only_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let file = kept::file_in(&dir.path().join("ca"));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = open(dir.path());
    assert_eq!(first.roots_pem(), again.roots_pem());
    assert_eq!(std::fs::read_dir(dir.path().join("ca")).unwrap().count(), 1, "nothing half made is left");
    let suffix = Authority::token_suffix(&first.config).unwrap().unwrap();
    assert!(suffix.len() == 32 && suffix.bytes().all(|b| b.is_ascii_hexdigit()));
}

#[test]
fn many_that_begin_at_once_have_one_root() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let roots: BTreeSet<String> = std::thread::scope(|scope| {
        let begun: Vec<_> = (0..8).map(|_| scope.spawn(move || open(path).roots_pem())).collect();
        begun.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(roots.len(), 1);
}

#[test]
fn a_request_gets_its_key_certified_and_nothing_that_it_wishes() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path());
    let key = KeyPair::generate().unwrap();
    let made = authority.certify(&request(&key), &org(), "agt_1").unwrap();
    assert_eq!(
        (made.ends_at, made.renew_at),
        (NOW.plus(Duration::from_secs(1_000)), NOW.plus(Duration::from_secs(500)))
    );
    let proven = authority.key_of(&request(&key)).unwrap();
    assert_eq!(authority.agent_of(&made.chain_der[0]), Some((org(), "agt_1".to_owned(), proven)));
    let (_, parsed) = x509_parser::parse_x509_certificate(&made.chain_der[0]).unwrap();
    assert!(!parsed.is_ca());
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any, "it cannot play the gateway");
    assert!(!is_believed(&made.bundle_der, &[made.chain_der[0].clone().into()], "other.example"));
}

#[test]
fn a_request_that_does_not_prove_its_key_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path());
    let mut forged = request(&KeyPair::generate().unwrap());
    *forged.last_mut().unwrap() ^= 1;
    for forged in [forged.as_slice(), b"no request"] {
        assert!(authority.certify(forged, &org(), "agt_1").is_err());
        assert!(authority.key_of(forged).is_none());
    }
}

#[test]
fn the_gateway_is_believed_by_its_names_and_by_the_one_that_all_have() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path());
    let roots = [authority.current().kept.root.to_vec()];
    for name in ["agents.example", "control-plane.muttd", "localhost", "127.0.0.1"] {
        assert!(is_believed(&roots, &shown(&authority), name), "{name}");
    }
    assert!(!is_believed(&roots, &shown(&authority), "other.example"));
}

#[test]
fn after_a_change_of_the_root_both_are_believed_until_the_old_one_is_retired() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path());
    let old = authority.current().kept.root.to_vec();
    authority.rotate().unwrap();
    let new = authority.current().kept.root.to_vec();
    assert_ne!(old, new);
    let chain = shown(&authority);
    assert!(is_believed(std::slice::from_ref(&old), &chain, "localhost"), "an agent of before");
    assert!(is_believed(std::slice::from_ref(&new), &chain, "localhost"), "an agent of after");
    for root in [&old, &new] {
        assert!(chain.iter().any(|der| der.as_ref() == root.as_slice()), "a fingerprint finds its root");
    }
    let made = authority.certify(&request(&KeyPair::generate().unwrap()), &org(), "agt_1").unwrap();
    assert_eq!(made.bundle_der, [new.clone(), old.clone()]);
    assert_eq!(authority.roots().unwrap().len(), 2);
    let elsewhere = open(dir.path());
    assert_eq!(elsewhere.roots_pem(), authority.roots_pem(), "another gateway of the same folder");
    assert!(authority.retire().unwrap() && !authority.retire().unwrap());
    assert!(!is_believed(&[old], &shown(&authority), "localhost"));
    assert!(is_believed(&[new], &shown(&authority), "localhost"));
}

#[test]
fn a_broken_file_says_which_it_is() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let file = kept::file_in(&dir.path().join("ca"));
    let text = std::fs::read_to_string(&file).unwrap();
    for (broken, why) in
        [(String::new(), "no key"), (text.replace("BEGIN C", "BEGIN X"), "PEM"), (text[..300].to_owned(), "")]
    {
        std::fs::write(&file, broken).unwrap();
        let error =
            format!("{:#}", Authority::open(config(dir.path()), Arc::new(ManualClock::new(NOW))).err().unwrap());
        assert!(error.contains("authority.pem") && error.contains(why), "{error}");
    }
}

#[test]
fn what_it_signs_can_be_checked_with_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path());
    let signature = authority.sign(b"binary").unwrap();
    let root = authority.current().kept.root.clone();
    let (_, parsed) = x509_parser::parse_x509_certificate(&root).unwrap();
    let key = rustls::crypto::ring::default_provider();
    let algorithm = key
        .signature_verification_algorithms
        .all
        .iter()
        .find(|a| a.verify_signature(&parsed.public_key().subject_public_key.data, b"binary", &signature).is_ok());
    assert!(algorithm.is_some());
    let bad = key
        .signature_verification_algorithms
        .all
        .iter()
        .any(|a| a.verify_signature(&parsed.public_key().subject_public_key.data, b"binarx", &signature).is_ok());
    assert!(!bad);
}
