//! A gateway over a control plane in memory.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test helper")]

pub mod raw;

use async_trait::async_trait;
use connectors::inputs::contract::RecordingSink;
use connectors::inputs::grpc::{
    Desk, GatewayConfig, GatewayObserver, Identity, Login, Pages, Refusal, Session, TlsSource, TurnedAway, bind, harden,
};
use runtime::{Clock, Stopper, SystemClock};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use testkit::agents::{Agent, Authority, Certified};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use wire::{
    AuthRequest, BatchAck, EnrollRequest, EnrollResponse, Hello, MitigateRequest, MitigateResponse, Status, Welcome,
};

/// Of the organisation `acme`, for the host `web`, which old agents call `x7`.
pub const TOKEN: &str = "sm_acme_1_x7";
pub const DEMO_TOKEN: &str = "sm_tok_demo123";

/// What the control plane remembers.
#[derive(Default)]
pub struct Memory {
    pub logins: Vec<AuthRequest>,
    pub hellos: Vec<Hello>,
    pub statuses: Vec<Status>,
    pub acked: BTreeMap<(String, u64), u64>,
    pub answered: Vec<(Identity, MitigateResponse)>,
    pub revoked: BTreeSet<String>,
    pub enrolled: Vec<EnrollRequest>,
    pub renewed: Vec<Identity>,
    pub heard: usize,
    pub open: usize,
    pub turned_away: Vec<TurnedAway>,
    pub connections: i64,
    /// By host, with who gets them.
    commands: BTreeMap<String, Mailbox>,
    /// Logins fail for another reason than their token.
    pub is_down: bool,
    /// A server that lost its memory of what it acknowledged.
    pub forgets_acks: bool,
}

#[derive(Default)]
struct Mailbox {
    waiting: Vec<MitigateRequest>,
    receiver: Option<mpsc::Sender<MitigateRequest>>,
}

#[derive(Clone, Default)]
pub struct FakeDesk(Arc<Mutex<Memory>>);

pub fn identity(org: &str, agent: &str, host: &str) -> Identity {
    Identity { org: org.parse().unwrap(), agent: agent.into(), host: host.into(), alias: None, any_host: false }
}

impl FakeDesk {
    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap()
    }

    /// Gives a command to a host, now or when it asks.
    pub fn command(&self, host: &str, request_id: &str) {
        let mut memory = self.memory();
        let mailbox = memory.commands.entry(host.to_owned()).or_default();
        let request = MitigateRequest { request_id: request_id.into(), host_id: host.into(), ..Default::default() };
        let sent = mailbox.receiver.as_ref().map(|receiver| receiver.try_send(request.clone()));
        if !matches!(sent, Some(Ok(()))) {
            mailbox.waiting.push(request);
        }
    }

    pub fn revoke(&self, agent: &str) {
        self.memory().revoked.insert(agent.to_owned());
    }
}

#[async_trait]
impl Desk for FakeDesk {
    async fn authenticate(&self, request: AuthRequest, _: SocketAddr) -> Result<Login, Refusal> {
        let mut memory = self.memory();
        let identity = match (request.org_id.as_str(), request.token.as_str()) {
            ("demo", DEMO_TOKEN) => Identity { any_host: true, ..identity("demo", "agt_demo", "demo") },
            ("acme", TOKEN) => Identity { alias: Some("x7".into()), ..identity("acme", "agt_web", "web") },
            ("beta", "sm_beta_1_b") => identity("beta", "agt_beta", "b"),
            _ => return Err(Refusal::Credentials("Invalid org_id or token")),
        };
        if memory.is_down {
            return Err(Refusal::Later { after: Duration::from_secs(7), reason: "the catalog is away" });
        }
        let registered = !request.hostname.is_empty() && !request.ip_address.is_empty();
        memory.logins.push(request);
        Ok(Login { identity, registered })
    }

    async fn enrol(&self, request: EnrollRequest, _: SocketAddr) -> Result<EnrollResponse, Refusal> {
        match request.token.as_str() {
            TOKEN if request.csr_der.is_empty() => Err(Refusal::Invalid("no certificate request")),
            TOKEN => {
                self.memory().enrolled.push(request);
                Ok(EnrollResponse { agent_id: "agt_web".into(), ..EnrollResponse::default() })
            }
            _ => Err(Refusal::Credentials("the token is wrong, used up or expired")),
        }
    }

    async fn renew(&self, who: &Identity, _: &[u8]) -> Result<EnrollResponse, Refusal> {
        self.memory().renewed.push(who.clone());
        Ok(EnrollResponse { agent_id: who.agent.as_ref().to_owned(), ..EnrollResponse::default() })
    }

    async fn identify(&self, certificate_der: &[u8]) -> Result<Identity, Refusal> {
        let text = String::from_utf8_lossy(certificate_der);
        let mark = "urn:muttd:agent:";
        let from = text.find(mark).ok_or(Refusal::Credentials("not the certificate of an agent"))? + mark.len();
        let is_ours = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == ':';
        let name: String = text[from..].chars().take_while(|c| is_ours(*c)).collect();
        let (org, agent) = name.split_once(':').unwrap();
        // What follows in the certificate may look like more of the name.
        let agent = &agent[..agent.len().min("agt_web".len())];
        let who = identity(org, agent, agent.trim_start_matches("agt_"));
        self.check(&who).map(|()| who)
    }

    fn check(&self, who: &Identity) -> Result<(), Refusal> {
        if self.memory().revoked.contains(&*who.agent) {
            return Err(Refusal::Credentials("this agent is revoked"));
        }
        Ok(())
    }

    fn open(&self, who: &Identity, hello: &Hello, _: SocketAddr) -> Box<dyn Session> {
        let mut memory = self.memory();
        memory.open += 1;
        memory.hellos.push(hello.clone());
        Box::new(FakeSession { desk: self.clone(), who: who.clone(), epoch: hello.spool_epoch })
    }

    fn heard(&self, _: &Identity) {
        self.memory().heard += 1;
    }

    fn commands(&self, who: &Identity) -> mpsc::Receiver<MitigateRequest> {
        let (sender, receiver) = mpsc::channel(16);
        let mut memory = self.memory();
        let mailbox = memory.commands.entry(who.host.as_ref().to_owned()).or_default();
        for request in mailbox.waiting.drain(..) {
            sender.try_send(request).unwrap();
        }
        mailbox.receiver = Some(sender);
        receiver
    }

    fn answered(&self, who: &Identity, response: MitigateResponse) {
        self.memory().answered.push((who.clone(), response));
    }
}

struct FakeSession {
    desk: FakeDesk,
    who: Identity,
    epoch: u64,
}

impl FakeSession {
    fn spool(&self) -> (String, u64) {
        (self.who.agent.as_ref().to_owned(), self.epoch)
    }
}

impl Session for FakeSession {
    fn welcome(&self) -> Welcome {
        let memory = self.desk.memory();
        let through = memory.acked.get(&self.spool()).filter(|_| !memory.forgets_acks);
        Welcome {
            server_time_unix_ms: SystemClock.now().millis(),
            heartbeat_interval_seconds: 30,
            acked: through.map(|through_seq| BatchAck { epoch: self.epoch, through_seq: *through_seq }),
            policy: None,
        }
    }

    fn heard(&mut self) -> Result<(), Refusal> {
        self.desk.check(&self.who)
    }

    fn acked(&mut self, ack: BatchAck) {
        assert_eq!(ack.epoch, self.epoch);
        self.desk.memory().acked.insert(self.spool(), ack.through_seq);
    }

    fn status(&mut self, status: Status) {
        self.desk.memory().statuses.push(status);
    }
}

impl Drop for FakeSession {
    fn drop(&mut self) {
        self.desk.memory().open -= 1;
    }
}

impl GatewayObserver for FakeDesk {
    fn connections(&self, change: i64) {
        self.memory().connections += change;
    }
    fn turned_away(&self, why: TurnedAway) {
        self.memory().turned_away.push(why);
    }
}

/// Certificates that can be changed.
pub struct Tls(Mutex<Arc<rustls::ServerConfig>>);

impl Tls {
    pub fn new(authority: &Authority) -> Self {
        Self(Mutex::new(hardened(authority)))
    }

    /// From the next handshake on.
    pub fn replace(&self, authority: &Authority) {
        *self.0.lock().unwrap() = hardened(authority);
    }
}

fn hardened(authority: &Authority) -> Arc<rustls::ServerConfig> {
    let mut config = authority.server_config();
    harden(&mut config);
    Arc::new(config)
}

impl TlsSource for Tls {
    fn current(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.0.lock().unwrap())
    }
}

/// A gateway that runs.
pub struct Gateway {
    pub address: SocketAddr,
    pub sink: Arc<RecordingSink>,
    pub desk: FakeDesk,
    pub authority: Arc<Authority>,
    pub tls: Arc<Tls>,
    pub stopper: Stopper,
    pub task: JoinHandle<()>,
}

pub fn config() -> GatewayConfig {
    GatewayConfig {
        addresses: vec![([127, 0, 0, 1], 0).into()],
        plaintext: true,
        check_every: Duration::from_millis(100),
        ..GatewayConfig::default()
    }
}

impl Gateway {
    pub fn start() -> Self {
        Self::start_with(config(), None)
    }

    pub fn start_with(config: GatewayConfig, pages: Option<Arc<dyn Pages>>) -> Self {
        let sink = RecordingSink::new();
        let (stopper, stop) = Stopper::new();
        let (desk, authority) = (FakeDesk::default(), Arc::new(Authority::new()));
        let tls = Arc::new(Tls::new(&authority));
        let (address, task) = run(config, sink.clone(), &desk, tls.clone(), pages, stop);
        Self { address, sink, desk, authority, tls, stopper, task }
    }

    pub async fn plain(&self) -> Agent {
        Agent::plain(self.address).await.unwrap()
    }

    /// An old agent of `acme`, logged in.
    pub async fn logged_in(&self) -> Agent {
        let agent = self.plain().await;
        assert!(agent.authenticate("acme", TOKEN).await.unwrap().authenticated);
        agent
    }

    /// Shows a certificate, or none.
    pub async fn encrypted(&self, shows: Option<&Certified>) -> Result<Agent, tonic::transport::Error> {
        let config = self.authority.client_config(&[&rustls::version::TLS13], shows);
        Agent::encrypted(self.address, config).await
    }

    /// An agent of `acme` with its certificate.
    pub async fn certified(&self) -> Agent {
        self.encrypted(Some(&self.authority.agent("acme", "agt_web"))).await.unwrap()
    }

    /// Waits until the control plane remembers it so.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Memory) -> bool) {
        let so = testkit::wait_until(Duration::from_secs(30), || is_so(&self.desk.memory())).await;
        assert!(so, "in vain: {what}");
    }

    /// Stops it, and panics where that takes long.
    pub async fn stop(self) -> (Arc<RecordingSink>, FakeDesk) {
        self.stopper.stop();
        tokio::time::timeout(Duration::from_secs(5), self.task).await.expect("it ends in time").unwrap();
        (self.sink, self.desk)
    }
}

pub fn run(
    config: GatewayConfig,
    sink: Arc<dyn connectors::inputs::Sink>,
    desk: &FakeDesk,
    tls: Arc<Tls>,
    pages: Option<Arc<dyn Pages>>,
    stop: runtime::Stop,
) -> (SocketAddr, JoinHandle<()>) {
    let gateway = bind(config).unwrap();
    let address = gateway.addresses()[0];
    let tls: Arc<dyn TlsSource> = tls;
    let (desk, observer) = (Arc::new(desk.clone()), Arc::new(desk.clone()));
    (address, tokio::spawn(gateway.run(sink, desk, Some(tls), pages, observer, Arc::new(SystemClock), stop)))
}

/// Milliseconds since the epoch, as a server tells its agents.
pub fn now_ms() -> i64 {
    SystemClock.now().millis()
}
