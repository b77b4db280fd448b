//! TLS 1.3, the enrolment, and who is not believed.

use crate::server::{Ca, Server};
use crate::{Agent, append, file_in, log_of, until_said};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use std::path::Path;
use std::sync::Arc;
use wire::EnrollResponse;

/// What control planes are called by their own authority.
const OWN_NAME: &str = "control-plane.muttd";

pub struct Authority {
    pem: String,
    der: Vec<u8>,
    issuer: Arc<Issuer<'static, KeyPair>>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().to_vec());
        Self { pem, der, issuer: Arc::new(Issuer::new(params, key)) }
    }

    /// The token of a control plane with this authority.
    pub fn token(&self) -> String {
        let hash = <sha2::Sha256 as sha2::Digest>::digest(&self.der);
        let hex: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sm_acme_1_secret.{hex}")
    }

    pub fn server(&self) -> Arc<rustls::ServerConfig> {
        self.server_with("127.0.0.1", &rustls::version::TLS13, |_| {})
    }

    fn server_with(
        &self,
        name: &str,
        version: &'static rustls::SupportedProtocolVersion,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Arc<rustls::ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.der.clone().into()).unwrap();
        let provider = runtime::tls::provider();
        let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(
                vec![certificate.der().clone(), self.der.clone().into()],
                rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }

    /// Signs what it is asked; the certificates are to be renewed at that time.
    pub fn ca(&self, renew_after_unix_s: i64) -> Ca {
        let (issuer, der) = (self.issuer.clone(), self.der.clone());
        Arc::new(move |csr| {
            let request = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
            let certificate = request.signed_by(&issuer).unwrap();
            EnrollResponse {
                agent_id: "agt_1".to_owned(),
                certificate_chain_der: vec![certificate.der().to_vec()],
                ca_bundle_der: vec![der.clone()],
                not_after_unix_s: 4_000_000_000,
                renew_after_unix_s,
            }
        })
    }

    fn write(&self, dir: &Path) -> String {
        let path = dir.join("ca.pem");
        std::fs::write(&path, &self.pem).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_enrols_once_and_shows_its_certificate_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let server = Server::start_with(Some(authority.server()), Some(authority.ca(3_900_000_000))).await;
    let ca = authority.write(dir.path());
    let agent = Agent::start(&server, dir.path(), &["-tls", "-ca", &ca]);
    server.until("a heartbeat", |memory| memory.messages("heartbeat").len() == 1).await;
    assert_eq!(agent.terminate().await, Some(0));
    let key = std::fs::read(dir.path().join("data/identity/key.pem")).unwrap();
    let agent = Agent::start(&server, dir.path(), &["-tls", "-ca", &ca]);
    server.until("another heartbeat", |memory| memory.messages("heartbeat").len() == 2).await;
    drop(agent);
    let memory = server.memory();
    assert_eq!((memory.enrolled, memory.certified, memory.renewed), (1, 2, 0), "{}", log_of(dir.path()));
    assert!(memory.logins.is_empty(), "the token is for enrolment only");
    assert_eq!(std::fs::read(dir.path().join("data/identity/key.pem")).unwrap(), key);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_shown_by_another_connection_and_nothing_is_lost_or_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let server = Server::start_with(Some(authority.server()), Some(authority.ca(1))).await;
    let ca = authority.write(dir.path());
    let (path, name) = file_in(dir.path(), "app.log");
    append(&path, "");
    let args = ["-tls", "-ca", &ca, "-file", &name];
    let agent = Agent::start(&server, dir.path(), &args);
    server.until("a heartbeat", |memory| memory.messages("heartbeat").len() == 1).await;
    agent.kill();
    let key = std::fs::read(dir.path().join("data/identity/key.pem")).unwrap();
    // Written all the time, also while it changes over.
    let writer = std::thread::spawn(move || {
        for n in 0..400 {
            append(&path, &format!("line {n}\n"));
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    });
    let agent = Agent::start(&server, dir.path(), &args);
    server.until("a renewal", |memory| memory.renewed == 1).await;
    server.until("another connection", |memory| memory.hellos.len() == 3).await;
    writer.join().unwrap();
    server.until("all lines", |memory| memory.messages("file").len() == 400).await;
    assert_eq!(agent.terminate().await, Some(0));
    let memory = server.memory();
    let expected: Vec<String> = (0..400).map(|n| format!("line {n}")).collect();
    assert_eq!(memory.messages("file"), expected);
    assert_eq!((memory.repeated, memory.certified, memory.enrolled), (0, 3, 1));
    assert!(!log_of(dir.path()).contains("not connected"), "{}", log_of(dir.path()));
    assert_eq!(std::fs::read(dir.path().join("data/identity/key.pem")).unwrap(), key);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_over_is_asked_for_again_and_meanwhile_all_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let good = authority.ca(3_900_000_000);
    let over: Ca = Arc::new(move |csr| EnrollResponse { not_after_unix_s: 1_000_000_000, ..good(csr) });
    let server = Server::start_with(Some(authority.server()), Some(over)).await;
    let (path, name) = file_in(dir.path(), "app.log");
    append(&path, "");
    let token = authority.token();
    let args = ["-token", &token, "-file", &name];
    let agent = Agent::start(&server, dir.path(), &args);
    server.until("a heartbeat", |memory| memory.messages("heartbeat").len() == 1).await;
    agent.kill();
    server.memory().refuses_tokens = true;
    let mut agent = Agent::start(&server, dir.path(), &args);
    until_said(dir.path(), "no certificate was given; trying again failure=Unauthenticated", 1).await;
    append(&path, "kept\n");
    assert!(agent.is_alive());
    assert_eq!(agent.terminate().await, Some(0));
    server.memory().refuses_tokens = false;
    let agent = Agent::start(&server, dir.path(), &args);
    server.until("the line", |memory| memory.messages("file") == ["kept"]).await;
    drop(agent);
    assert_eq!(server.memory().enrolled, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_another_authority_gets_nothing_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new(), Authority::new());
    let server = Server::start_with(Some(authority.server()), Some(authority.ca(3_900_000_000))).await;
    let mut agent = Agent::start(&server, dir.path(), &["-tls", "-ca", &other.write(dir.path())]);
    until_said(dir.path(), "Untrusted", 1).await;
    assert!(agent.is_alive());
    assert_eq!(agent.terminate().await, Some(0));
    let memory = server.memory();
    assert_eq!((memory.enrolled, memory.logins.len(), memory.hellos.len()), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_gives_no_certificates_is_shown_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let server = Server::start_with(Some(authority.server()), None).await;
    let agent = Agent::start(&server, dir.path(), &["-tls", "-ca", &authority.write(dir.path())]);
    server.until("a heartbeat", |memory| memory.messages("heartbeat").len() == 1).await;
    assert_eq!(agent.terminate().await, Some(0));
    assert_eq!(server.memory().logins.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_with_a_fingerprint_is_all_that_an_enrolment_needs() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let config = authority.server_with(OWN_NAME, &rustls::version::TLS13, |_| {});
    let server = Server::start_with(Some(config), Some(authority.ca(3_900_000_000))).await;
    let agent = Agent::start(&server, dir.path(), &["-token", &authority.token()]);
    server.until("a heartbeat", |memory| memory.messages("heartbeat").len() == 1).await;
    assert_eq!(agent.terminate().await, Some(0));
    // Enrolled, it believes whom it was given, whatever token there is.
    let agent = Agent::start(&server, dir.path(), &["-tls", "-token", &Authority::new().token()]);
    server.until("another heartbeat", |memory| memory.messages("heartbeat").len() == 2).await;
    assert_eq!(agent.terminate().await, Some(0));
    let memory = server.memory();
    assert_eq!((memory.enrolled, memory.certified), (1, 2), "{}", log_of(dir.path()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_believed_never_sees_the_token() {
    let (authority, other) = (Authority::new(), Authority::new());
    let tls13 = &rustls::version::TLS13;
    let good = |_: &mut CertificateParams| {};
    let expired = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    for (what, config, token, ca, said) in [
        ("fingerprint", authority.server_with(OWN_NAME, tls13, good), other.token(), None, "no certificate with the"),
        ("name", authority.server_with(OWN_NAME, tls13, good), "sm_acme_1_secret".to_owned(), Some(&authority), "name"),
        ("expired", authority.server_with(OWN_NAME, tls13, expired), authority.token(), None, "expired"),
        (
            "TLS 1.2",
            authority.server_with(OWN_NAME, &rustls::version::TLS12, good),
            authority.token(),
            None,
            "ProtocolVersion",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start_with(Some(config), Some(authority.ca(3_900_000_000))).await;
        let ca = ca.map(|authority| authority.write(dir.path()));
        let args: Vec<&str> = ca.iter().flat_map(|ca| ["-ca", ca]).chain(["-tls", "-token", &token]).collect();
        let mut agent = Agent::start(&server, dir.path(), &args);
        until_said(dir.path(), "failure=Untrusted", 1).await;
        assert!(log_of(dir.path()).contains(said), "{what}: {}", log_of(dir.path()));
        assert!(agent.is_alive(), "{what}");
        let memory = server.memory();
        assert_eq!((memory.enrolled, memory.logins.len(), memory.hellos.len()), (0, 0, 0), "{what}");
    }
}
