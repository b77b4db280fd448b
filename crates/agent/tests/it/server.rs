//! A control plane that keeps what it gets in memory, and can be ended and begun again on its port.

use http::{Request as HttpRequest, Response as HttpResponse};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService};
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use wire::{
    AgentMessage, AuthRequest, AuthResponse, BatchAck, EnrollRequest, EnrollResponse, Hello, Record, RenewRequest,
    ServerMessage, Welcome, agent_message, method, record, server_message,
};

/// What the server remembers, whatever becomes of its connections.
#[derive(Default)]
pub struct Memory {
    /// (epoch, number) → time of the first sending, record. In order of arrival, the first of each.
    pub records: BTreeMap<(u64, u64), (i64, Record)>,
    pub order: Vec<(u64, u64)>,
    /// As `order`: when.
    pub arrivals: Vec<std::time::Instant>,
    pub batches: u64,
    pub repeated: u64,
    /// A number that came with another time or another content.
    pub conflicts: Vec<String>,
    pub hellos: Vec<Hello>,
    pub logins: Vec<AuthRequest>,
    pub statuses: Vec<wire::Status>,
    pub enrolled: u64,
    pub renewed: u64,
    /// Connections that showed a certificate.
    pub certified: u64,
    pub refuses_tokens: bool,
    pub forgets_acks: bool,
    /// Takes batches and says nothing.
    pub is_silent: bool,
    /// 0: 30.
    pub heartbeat_seconds: i64,
    /// 0: long from now.
    pub server_time_unix_ms: i64,
    pub unknown_calls: u64,
}

impl Memory {
    /// Messages of a stream in the order in which they came for the first time.
    pub fn messages(&self, stream: &str) -> Vec<String> {
        let message = |key| match &self.records.get(key)?.1.body {
            Some(record::Body::Log(log)) if log.stream == stream => Some(log.message.clone()),
            _ => None,
        };
        self.order.iter().filter_map(message).collect()
    }
}

pub type Ca = Arc<dyn Fn(&[u8]) -> EnrollResponse + Send + Sync>;

#[derive(Clone)]
pub struct Server {
    pub memory: Arc<Mutex<Memory>>,
    pub address: SocketAddr,
    tls: Option<tokio_rustls::TlsAcceptor>,
    ca: Option<Ca>,
    running: Arc<Mutex<Option<tokio::task::JoinHandle<()>>>>,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(None, None).await
    }

    pub async fn start_with(tls: Option<Arc<rustls::ServerConfig>>, ca: Option<Ca>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            memory: Arc::default(),
            address: listener.local_addr().unwrap(),
            tls: tls.map(tokio_rustls::TlsAcceptor::from),
            ca,
            running: Arc::default(),
        };
        server.serve(listener);
        server
    }

    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }

    fn serve(&self, listener: TcpListener) {
        let server = self.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let server = server.clone();
                connections.spawn(async move { server.connection(tcp).await });
            }
        });
        *self.running.lock().unwrap() = Some(task);
    }

    async fn connection(self, tcp: TcpStream) {
        let io: Box<dyn Io> = match &self.tls {
            None => Box::new(tcp),
            Some(acceptor) => match acceptor.accept(tcp).await {
                Ok(tls) => {
                    self.memory().certified += u64::from(tls.get_ref().1.peer_certificates().is_some());
                    Box::new(tls)
                }
                Err(_) => return,
            },
        };
        let once = tokio_stream::iter([Ok::<_, std::io::Error>(Wrapped(io))]);
        let service = Ingest { server: self, is_known: Arc::default() };
        let _ = tonic::transport::Server::builder().add_service(service).serve_with_incoming(once).await;
        // The connections go on by themselves until this task is gone.
        std::future::pending::<()>().await;
    }

    /// Ends it with all its connections; what it remembers stays.
    pub async fn stop(&self) {
        let task = self.running.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }

    pub async fn again(&self) {
        self.stop().await;
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        };
        self.serve(listener);
    }

    /// Waits until it is so.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Memory) -> bool) {
        for _ in 0..1_200 {
            if is_so(&self.memory()) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("a minute went by without {what}");
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

struct Wrapped(Box<dyn Io>);

impl Connected for Wrapped {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Wrapped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wrapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// One connection: who showed a token on it is known on it.
#[derive(Clone)]
struct Ingest {
    server: Server,
    is_known: Arc<Mutex<bool>>,
}

impl NamedService for Ingest {
    const NAME: &'static str = "proto.AgentIngest";
}

type Answer = Pin<Box<dyn Future<Output = Result<HttpResponse<Body>, Infallible>> + Send>>;

impl tower::Service<HttpRequest<Body>> for Ingest {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Answer {
        let ingest = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                method::AUTHENTICATE => {
                    let call = tower::service_fn(move |request: Request<AuthRequest>| {
                        let answer = ingest.authenticate(request.into_inner());
                        async move { Ok(Response::new(answer)) }
                    });
                    Grpc::new(ProstCodec::default()).unary(call, request).await
                }
                method::ENROLL if ingest.server.ca.is_some() => {
                    let call = tower::service_fn(move |request: Request<EnrollRequest>| {
                        let answer = ingest.enroll(&request.into_inner());
                        async move { answer.map(Response::new) }
                    });
                    Grpc::new(ProstCodec::default()).unary(call, request).await
                }
                method::RENEW if ingest.server.ca.is_some() => {
                    let call = tower::service_fn(move |request: Request<RenewRequest>| {
                        ingest.server.memory().renewed += 1;
                        let answer = ingest.server.ca.as_ref().unwrap()(&request.into_inner().csr_der);
                        async move { Ok::<_, Status>(Response::new(answer)) }
                    });
                    Grpc::new(ProstCodec::default()).unary(call, request).await
                }
                method::SESSION => {
                    let call = tower::service_fn(move |request: Request<Streaming<AgentMessage>>| {
                        let answer = ingest.session(request.into_inner());
                        async move { answer.map(Response::new) }
                    });
                    Grpc::new(ProstCodec::default()).streaming(call, request).await
                }
                _ => {
                    ingest.server.memory().unknown_calls += 1;
                    Status::unimplemented("not here").into_http()
                }
            })
        })
    }
}

/// With or without the fingerprint of an authority.
fn is_good(token: &str) -> bool {
    token.split('.').next() == Some("sm_acme_1_secret")
}

impl Ingest {
    fn authenticate(&self, request: AuthRequest) -> AuthResponse {
        let mut memory = self.server.memory();
        let authenticated = !memory.refuses_tokens && is_good(&request.token);
        *self.is_known.lock().unwrap() |= authenticated;
        memory.logins.push(request);
        let error_message = if authenticated { "" } else { "Invalid org_id or token" };
        AuthResponse { authenticated, error_message: error_message.into(), ..AuthResponse::default() }
    }

    fn enroll(&self, request: &EnrollRequest) -> Result<EnrollResponse, Status> {
        let mut memory = self.server.memory();
        if memory.refuses_tokens || !is_good(&request.token) {
            return Err(Status::unauthenticated("no"));
        }
        assert_eq!(request.hostname, "web");
        memory.enrolled += 1;
        drop(memory);
        Ok(self.server.ca.as_ref().unwrap()(&request.csr_der))
    }

    fn session(
        &self,
        mut stream: Streaming<AgentMessage>,
    ) -> Result<ReceiverStream<Result<ServerMessage, Status>>, Status> {
        if self.server.ca.is_none() && !*self.is_known.lock().unwrap() {
            return Err(Status::unauthenticated("authenticate first"));
        }
        let (out, answers) = mpsc::channel(64);
        let server = self.server.clone();
        tokio::spawn(async move {
            let mut epoch = 0;
            while let Ok(Some(message)) = stream.message().await {
                let body = match message.body {
                    Some(agent_message::Body::Hello(hello)) => {
                        epoch = hello.spool_epoch;
                        server_message::Body::Welcome(server.welcome(hello))
                    }
                    Some(agent_message::Body::Batch(batch)) => {
                        let ack = server.batch(epoch, batch);
                        if server.memory().is_silent {
                            continue;
                        }
                        server_message::Body::Ack(ack)
                    }
                    Some(agent_message::Body::Status(status)) => {
                        server.memory().statuses.push(status);
                        continue;
                    }
                    _ => continue,
                };
                if out.send(Ok(ServerMessage { body: Some(body) })).await.is_err() {
                    break;
                }
            }
        });
        Ok(ReceiverStream::new(answers))
    }
}

impl Server {
    fn welcome(&self, hello: Hello) -> Welcome {
        let mut memory = self.memory();
        let last = memory.records.range((hello.spool_epoch, 0)..=(hello.spool_epoch, u64::MAX)).next_back();
        let through_seq = last.map(|((_, seq), _)| *seq).filter(|_| !memory.forgets_acks && !memory.is_silent);
        let acked = through_seq.map(|through_seq| BatchAck { epoch: hello.spool_epoch, through_seq });
        memory.hellos.push(hello);
        let or = |set, default| if set == 0 { default } else { set };
        let server_time_unix_ms = or(memory.server_time_unix_ms, 1_800_000_000_000);
        let heartbeat_interval_seconds = or(memory.heartbeat_seconds, 30);
        Welcome { server_time_unix_ms, heartbeat_interval_seconds, acked, policy: None }
    }

    fn batch(&self, epoch: u64, batch: wire::Batch) -> BatchAck {
        let mut memory = self.memory();
        assert_eq!(batch.epoch, epoch);
        memory.batches += 1;
        let mut through_seq = batch.first_seq;
        for (seq, record) in (batch.first_seq..).zip(batch.records) {
            through_seq = seq;
            let value = (batch.sent_unix_ms, record);
            match memory.records.get(&(epoch, seq)) {
                Some(before) if *before == value => memory.repeated += 1,
                Some(before) => {
                    let why = format!("{epoch}/{seq}: {before:?} and {value:?}");
                    memory.conflicts.push(why);
                }
                None => {
                    memory.order.push((epoch, seq));
                    memory.arrivals.push(std::time::Instant::now());
                    memory.records.insert((epoch, seq), value);
                }
            }
        }
        BatchAck { epoch, through_seq }
    }
}
