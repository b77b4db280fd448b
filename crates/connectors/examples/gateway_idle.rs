//! What an idle session costs: `cargo run --release -p connectors --example gateway_idle -- <sessions> [tls]`.
//!
//! The gateway is this process, the agents are another; each agent has a connection of its own, a login and a session.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for measuring")]

use async_trait::async_trait;
use connectors::inputs::contract::RecordingSink;
use connectors::inputs::grpc::{
    Desk, GatewayConfig, GatewayObserver, Identity, Login, Refusal, Session, TlsSource, bind, harden,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use testkit::agents::{Agent, Authority};
use tokio::sync::mpsc;
use wire::{
    AuthRequest, BatchAck, EnrollRequest, EnrollResponse, Hello, MitigateRequest, MitigateResponse, Status, Welcome,
};

struct Anybody;

#[async_trait]
impl Desk for Anybody {
    async fn authenticate(&self, request: AuthRequest, _: SocketAddr) -> Result<Login, Refusal> {
        let host: Arc<str> = request.token.into();
        let identity = Identity {
            org: request.org_id.parse().map_err(|_| Refusal::Credentials("no organisation"))?,
            agent: format!("agt_{host}").into(),
            host,
            alias: None,
            any_host: false,
        };
        Ok(Login { identity, registered: false })
    }
    async fn enrol(&self, _: EnrollRequest, _: SocketAddr) -> Result<EnrollResponse, Refusal> {
        Err(Refusal::Invalid("not here"))
    }
    async fn renew(&self, _: &Identity, _: &[u8]) -> Result<EnrollResponse, Refusal> {
        Err(Refusal::Invalid("not here"))
    }
    async fn identify(&self, _: &[u8]) -> Result<Identity, Refusal> {
        Err(Refusal::Invalid("not here"))
    }
    fn check(&self, _: &Identity) -> Result<(), Refusal> {
        Ok(())
    }
    fn open(&self, _: &Identity, _: &Hello, _: SocketAddr) -> Box<dyn Session> {
        Box::new(Quiet)
    }
    fn heard(&self, _: &Identity) {}
    fn commands(&self, _: &Identity) -> mpsc::Receiver<MitigateRequest> {
        mpsc::channel(1).1
    }
    fn answered(&self, _: &Identity, _: MitigateResponse) {}
}

struct Quiet;

impl Session for Quiet {
    fn welcome(&self) -> Welcome {
        Welcome::default()
    }
    fn heard(&mut self) -> Result<(), Refusal> {
        Ok(())
    }
    fn acked(&mut self, _: BatchAck) {}
    fn status(&mut self, _: Status) {}
}

#[derive(Default)]
struct Sessions(AtomicI64);

impl GatewayObserver for Sessions {
    fn sessions(&self, change: i64) {
        self.0.fetch_add(change, Ordering::Relaxed);
    }
}

struct Fixed(Arc<rustls::ServerConfig>);

impl TlsSource for Fixed {
    fn current(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.0)
    }
}

/// Believes every server: what is measured is the other side.
#[derive(Debug)]
struct Believes(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Believes {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

async fn agents(to: SocketAddr, n: usize, tls: bool) {
    let provider = runtime::tls::provider();
    let mut client = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believes(provider)))
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let mut open = Vec::new();
    for i in 0..n {
        let agent = if tls { Agent::encrypted(to, client.clone()).await } else { Agent::plain(to).await }.unwrap();
        agent.authenticate("acme", &format!("h{i}")).await.unwrap();
        let session = agent.session(1).await.unwrap();
        open.push((agent, session));
    }
    std::future::pending::<()>().await;
}

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [of, to, n, tls] = args.as_slice()
        && of == "agents"
    {
        return agents(to.parse().unwrap(), n.parse().unwrap(), tls == "true").await;
    }
    let n: i64 = args.first().and_then(|n| n.parse().ok()).unwrap_or(1_000);
    let tls = args.get(1).is_some_and(|arg| arg == "tls");
    let mut server = Authority::new().server_config();
    harden(&mut server);
    let gateway = bind(GatewayConfig {
        addresses: vec![([127, 0, 0, 1], 0).into()],
        plaintext: true,
        ..GatewayConfig::default()
    })
    .unwrap();
    let to = gateway.addresses()[0];
    println!("{to}, at most {} connections", gateway.connections_max());
    let (_stopper, stop) = runtime::Stopper::new();
    let sessions = Arc::new(Sessions::default());
    let source: Arc<dyn TlsSource> = Arc::new(Fixed(Arc::new(server)));
    let clock = Arc::new(runtime::SystemClock);
    let run = gateway.run(RecordingSink::new(), Arc::new(Anybody), Some(source), None, sessions.clone(), clock, stop);
    tokio::spawn(run);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = rss_kib();
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["agents", &to.to_string(), &n.to_string(), if tls { "true" } else { "false" }])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    while sessions.0.load(Ordering::Relaxed) < n {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for seconds in [1, 35] {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let per = (rss_kib() - before) as f64 / n as f64;
        println!("{n} sessions, tls {tls}, {seconds} s idle: {per:.1} KiB each, {:.0} per GiB", 1_048_576.0 / per);
    }
    let _ = child.kill().await;
}
