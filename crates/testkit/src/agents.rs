//! Agents for tests and benchmarks: clients of `proto.AgentIngest`, and an authority that gives them certificates.

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::crypto::CryptoProvider;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;
use wire::{
    Ack, AgentMessage, AuthRequest, AuthResponse, Batch, BatchAck, EnrollRequest, EnrollResponse, Hello, LogEvent,
    MitigateRequest, MitigateResponse, Record, RenewRequest, ServerMessage, agent_message, method, record,
    server_message,
};

/// The name by which agents check that they speak to a control plane.
pub const SERVER_NAME: &str = "control-plane.muttd";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

/// A certificate with its key.
pub struct Certified {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Certified {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let der = params.self_signed(&key).expect("an authority").der().clone();
        Self { issuer: Issuer::new(params, key), der }
    }

    fn signed(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Certified {
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let der = PrivateKeyDer::try_from(key.serialize_der()).expect("a key in DER");
        Certified { chain: vec![certificate.der().clone(), self.der.clone()], key: der }
    }

    /// As an agent has it: its organisation and id are in a URI.
    pub fn agent(&self, org: &str, agent: &str) -> Certified {
        self.signed(agent_params(org, agent), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// One whose time is over.
    pub fn expired_agent(&self, org: &str, agent: &str) -> Certified {
        let mut params = agent_params(org, agent);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 2, 1);
        self.signed(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// What a server with this authority speaks: TLS 1.3, certificates of clients where they have some.
    pub fn server_config(&self) -> rustls::ServerConfig {
        let params = CertificateParams::new(vec![SERVER_NAME.to_owned(), "127.0.0.1".to_owned()]).expect("names");
        let Certified { chain, key } = self.signed(params, ExtendedKeyUsagePurpose::ServerAuth);
        let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider())
            .allow_unauthenticated()
            .build()
            .expect("a verifier");
        rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .expect("a certificate that fits its key")
    }

    fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.der.clone()).expect("a root");
        roots
    }

    /// What a client that believes this authority speaks.
    pub fn client_config(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        shows: Option<&Certified>,
    ) -> rustls::ClientConfig {
        let builder = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(self.roots());
        let mut config = match shows.cloned() {
            Some(Certified { chain, key }) => builder.with_client_auth_cert(chain, key).expect("a key that fits"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

fn agent_params(org: &str, agent: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, agent);
    let uri = format!("urn:muttd:agent:{org}:{agent}").try_into().expect("a URI in ASCII");
    params.subject_alt_names = vec![SanType::URI(uri)];
    params
}

/// Whom agents of a control plane believe, when all that is known are its root certificates.
#[derive(Clone)]
pub struct Trust {
    roots: Arc<rustls::RootCertStore>,
}

impl Trust {
    /// Every certificate in a text of PEM sections.
    pub fn of_pem(text: &[u8]) -> Self {
        use rustls_pki_types::pem::PemObject;
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(text).filter_map(Result::ok));
        Self { roots: Arc::new(roots) }
    }

    /// TLS 1.3, with this certificate.
    pub fn client_config(&self, shows: Option<&Certified>) -> rustls::ClientConfig {
        let builder = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(Arc::clone(&self.roots));
        let mut config = match shows.cloned() {
            Some(Certified { chain, key }) => builder.with_client_auth_cert(chain, key).expect("a key that fits"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

/// A host that wants a certificate.
pub struct Enrolling {
    host: String,
    key: KeyPair,
}

impl Enrolling {
    pub fn new(host: &str) -> Self {
        Self { host: host.to_owned(), key: KeyPair::generate().expect("a key") }
    }

    /// What it asks, with this token.
    pub fn message(&self, token: &str) -> EnrollRequest {
        let csr = CertificateParams::default().serialize_request(&self.key).expect("a request");
        EnrollRequest {
            token: token.to_owned(),
            csr_der: csr.der().to_vec(),
            hostname: self.host.clone(),
            machine_id: format!("machine of {}", self.host),
            ..EnrollRequest::default()
        }
    }

    /// With what it was answered.
    pub fn certified(&self, answer: &EnrollResponse) -> Certified {
        let chain = answer.certificate_chain_der.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key in DER");
        Certified { chain, key }
    }
}

/// A connection of an agent. Clones use the same one.
#[derive(Clone)]
pub struct Agent {
    channel: Channel,
}

impl Agent {
    /// Without TLS.
    pub async fn plain(to: SocketAddr) -> Result<Self, tonic::transport::Error> {
        Self::over(to, move || async move { TcpStream::connect(to).await }).await
    }

    /// Over TLS; see [`Authority::client_config`].
    pub async fn encrypted(to: SocketAddr, config: rustls::ClientConfig) -> Result<Self, tonic::transport::Error> {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let open = move || {
            let connector = connector.clone();
            async move {
                let tcp = TcpStream::connect(to).await?;
                tcp.set_nodelay(true)?;
                connector.connect(ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?, tcp).await
            }
        };
        Self::over(to, open).await
    }

    async fn over<I, F>(
        to: SocketAddr,
        open: impl Fn() -> F + Clone + Send + 'static,
    ) -> Result<Self, tonic::transport::Error>
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
        F: Future<Output = io::Result<I>> + Send,
    {
        let connect = tower::service_fn(move |_| {
            let open = open.clone();
            async move { open().await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_shared(format!("http://{to}"))?;
        Ok(Self { channel: endpoint.connect_with_connector(connect).await? })
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }

    /// Any call of one message and one answer.
    pub async fn unary<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let path = PathAndQuery::from_static(path);
        let answer = self.ready().await?.unary(Request::new(request), path, ProstCodec::default()).await;
        Ok(answer?.into_inner())
    }

    pub async fn authenticate(&self, org: &str, token: &str) -> Result<AuthResponse, Status> {
        let request = AuthRequest { org_id: org.into(), token: token.into(), ..AuthRequest::default() };
        self.unary(method::AUTHENTICATE, request).await
    }

    pub async fn enrol(&self, request: EnrollRequest) -> Result<EnrollResponse, Status> {
        self.unary(method::ENROLL, request).await
    }

    pub async fn renew(&self, csr_der: Vec<u8>) -> Result<EnrollResponse, Status> {
        self.unary(method::RENEW, RenewRequest { csr_der }).await
    }

    /// Sends events and waits for the end.
    pub async fn stream_events(&self, events: Vec<LogEvent>) -> Result<Ack, Status> {
        let path = PathAndQuery::from_static(method::STREAM_EVENTS);
        let request = Request::new(tokio_stream::iter(events));
        let codec = ProstCodec::<LogEvent, Ack>::default();
        Ok(self.ready().await?.client_streaming(request, path, codec).await?.into_inner())
    }

    /// Opens a stream of events; its end is the second.
    pub async fn open_events(
        &self,
    ) -> Result<(mpsc::Sender<LogEvent>, tokio::task::JoinHandle<Result<Ack, Status>>), Status> {
        let (events, receiver) = mpsc::channel(64);
        let mut grpc = self.ready().await?;
        let ack = tokio::spawn(async move {
            let request = Request::new(ReceiverStream::new(receiver));
            let path = PathAndQuery::from_static(method::STREAM_EVENTS);
            let codec = ProstCodec::<LogEvent, Ack>::default();
            Ok(grpc.client_streaming(request, path, codec).await?.into_inner())
        });
        Ok((events, ack))
    }

    /// Opens the stream of commands.
    pub async fn receive_commands(
        &self,
    ) -> Result<(mpsc::Sender<MitigateResponse>, Streaming<MitigateRequest>), Status> {
        let (answers, receiver) = mpsc::channel(16);
        let request = Request::new(ReceiverStream::new(receiver));
        let path = PathAndQuery::from_static(method::RECEIVE_COMMANDS);
        let codec = ProstCodec::<MitigateResponse, MitigateRequest>::default();
        let commands = self.ready().await?.streaming(request, path, codec).await?;
        Ok((answers, commands.into_inner()))
    }

    /// Opens a session, without a word.
    pub async fn open_session(&self) -> Result<(mpsc::Sender<AgentMessage>, Streaming<ServerMessage>), Status> {
        let (out, receiver) = mpsc::channel(16);
        let request = Request::new(ReceiverStream::new(receiver));
        let path = PathAndQuery::from_static(method::SESSION);
        let codec = ProstCodec::<AgentMessage, ServerMessage>::default();
        let answers = self.ready().await?.streaming(request, path, codec).await?;
        Ok((out, answers.into_inner()))
    }

    /// Opens a session and greets.
    pub async fn session(&self, spool_epoch: u64) -> Result<AgentSession, Status> {
        let (out, answers) = self.open_session().await?;
        let mut session = AgentSession { epoch: spool_epoch, out, answers, welcome: wire::Welcome::default() };
        session.say(agent_message::Body::Hello(Hello { spool_epoch, first_unacked: 1, ..Hello::default() })).await;
        match session.hear().await? {
            server_message::Body::Welcome(welcome) => session.welcome = welcome,
            other => return Err(Status::internal(format!("no welcome but {other:?}"))),
        }
        Ok(session)
    }
}

/// A greeted session.
pub struct AgentSession {
    epoch: u64,
    out: mpsc::Sender<AgentMessage>,
    pub answers: Streaming<ServerMessage>,
    pub welcome: wire::Welcome,
}

impl AgentSession {
    /// Says something; where nobody listens, [`Self::hear`] says why.
    pub async fn say(&self, body: agent_message::Body) {
        let _ = self.out.send(AgentMessage { body: Some(body) }).await;
    }

    /// What the server says next.
    pub async fn hear(&mut self) -> Result<server_message::Body, Status> {
        let message = self.answers.message().await?;
        message.and_then(|message| message.body).ok_or_else(|| Status::cancelled("the session has ended"))
    }

    /// Sends a batch.
    pub async fn send(&self, first_seq: u64, sent_unix_ms: i64, records: Vec<Record>) {
        self.say(agent_message::Body::Batch(Batch { epoch: self.epoch, first_seq, sent_unix_ms, records })).await;
    }

    /// Waits for the next acknowledgement; up to which number.
    pub async fn acked(&mut self) -> Result<u64, Status> {
        match self.hear().await? {
            server_message::Body::Ack(BatchAck { epoch, through_seq }) if epoch == self.epoch => Ok(through_seq),
            other => Err(Status::internal(format!("no acknowledgement but {other:?}"))),
        }
    }

    /// Says that nothing more comes.
    pub fn half_close(self) -> Streaming<ServerMessage> {
        self.answers
    }
}

/// A log event of this message.
pub fn log_event(org: &str, host: &str, message: &str) -> LogEvent {
    LogEvent {
        org_id: org.into(),
        host_id: host.into(),
        ts_unix_ns: 1_767_225_600_000_000_000,
        stream: "file".into(),
        message: message.into(),
        ..LogEvent::default()
    }
}

/// A record of this message, from whoever's connection it is sent on.
pub fn record(message: &str) -> Record {
    Record { body: Some(record::Body::Log(log_event("", "", message))) }
}
