//! The connection to the control plane: gRPC, over TLS 1.3 or, for servers without it, plainly.
//!
//! A connection is a task; what it brings comes with the connection's number, so nothing of one that was given up is
//! taken for news of the next. It decides nothing.

mod identity;
mod tls;

pub use identity::{Identity, IdentityError, times};
pub use runtime::trust::{Judge, OWN_NAME, Word};
pub use tls::{TlsError, connector, judge, server_name};

use crate::host::Host;
use crate::settings::Settings;
use agent_core::Failure;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use runtime::tls::tls_error;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use wire::{
    AgentMessage, AuthRequest, AuthResponse, EnrollRequest, EnrollResponse, RenewRequest, ServerMessage, method,
};

/// Messages on their way out; the window of batches is smaller.
const OUT_MAX: usize = 16;
const CONNECT_MAX: Duration = Duration::from_secs(10);
const CALL_MAX: Duration = Duration::from_secs(20);
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// What a connection brings.
#[derive(Debug)]
pub enum News {
    /// It stands; messages go in here.
    Up(mpsc::Sender<AgentMessage>, Channel),
    Message(ServerMessage),
    /// The end, and why.
    Down(Failure, String),
}

/// How to get there, and as whom.
#[derive(Clone)]
pub struct Target {
    pub settings: Arc<Settings>,
    pub host: Arc<Host>,
    pub capabilities: Arc<Vec<String>>,
    pub identity: Identity,
}

/// A failure with its words.
type Failed = (Failure, String);

impl Target {
    async fn channel(&self, shows_itself: bool) -> Result<Channel, Failed> {
        let local = |error: &(dyn std::error::Error + 'static)| (Failure::Untrusted, chain(error));
        let ingest = self.settings.ingest.clone();
        let secure = if self.settings.tls {
            let judge = tls::judge(&self.settings, &self.identity, !shows_itself).map_err(|e| local(&e))?;
            let connector = tls::connector(Arc::new(judge), &self.identity, shows_itself).map_err(|e| local(&e))?;
            Some((connector, tls::server_name(&ingest).map_err(|e| local(&e))?))
        } else {
            None
        };
        let endpoint = Endpoint::from_shared(format!("http://{ingest}"))
            .map_err(|error| (Failure::Unreachable, format!("`{ingest}` is no address: {error}")))?
            .connect_timeout(CONNECT_MAX)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(Duration::from_secs(20))
            .keep_alive_while_idle(true)
            .user_agent(concat!("sm-agent/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| (Failure::Unreachable, error.to_string()))?;
        let connect = tower::service_fn(move |_| {
            let (ingest, secure) = (ingest.clone(), secure.clone());
            async move { open(&ingest, secure).await }
        });
        endpoint.connect_with_connector(connect).await.map_err(|error| failed(&error))
    }

    /// A connection, up to its end.
    pub async fn run(self, number: u64, with_certificate: bool, news: mpsc::Sender<(u64, News)>) {
        let end = match self.session(number, with_certificate, &news).await {
            Ok(()) => (Failure::Unreachable, "the server ended the session".to_owned()),
            Err(failed) => failed,
        };
        // Nobody waits for it when the agent ends.
        let _ = news.send((number, News::Down(end.0, end.1))).await;
    }

    async fn session(
        &self,
        number: u64,
        with_certificate: bool,
        news: &mpsc::Sender<(u64, News)>,
    ) -> Result<(), Failed> {
        let channel = self.channel(with_certificate).await?;
        if !with_certificate {
            self.authenticate(channel.clone()).await?;
        }
        let (out, messages) = mpsc::channel(OUT_MAX);
        let gone = |_| (Failure::Unreachable, "nobody listens".to_owned());
        news.send((number, News::Up(out, channel.clone()))).await.map_err(gone)?;
        let mut grpc = Grpc::new(channel).max_decoding_message_size(wire::MESSAGE_BYTES_MAX);
        ready(&mut grpc).await?;
        let codec = ProstCodec::<AgentMessage, ServerMessage>::default();
        let request = Request::new(ReceiverStream::new(messages));
        let answer = grpc.streaming(request, PathAndQuery::from_static(method::SESSION), codec).await;
        let mut stream = answer.map_err(|status| refused(&status))?.into_inner();
        while let Some(message) = stream.message().await.map_err(|status| refused(&status))? {
            news.send((number, News::Message(message))).await.map_err(gone)?;
        }
        Ok(())
    }

    /// Shows the token. A refusal is an answer.
    async fn authenticate(&self, channel: Channel) -> Result<(), Failed> {
        let request = AuthRequest {
            org_id: self.settings.org.clone(),
            token: self.settings.token.expose().to_owned(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: self.settings.host.clone(),
            ip_address: self.host.ip_address.clone(),
            os_type: self.host.os_type.clone(),
            os_version: self.host.os_version.clone(),
            capabilities: self.capabilities.to_vec(),
        };
        let answer: AuthResponse = unary(channel, method::AUTHENTICATE, request).await?;
        if !answer.authenticated {
            let why = answer.error_message;
            return Err((Failure::Unauthenticated, format!("authentication rejected: {why}")));
        }
        tracing::info!("authenticated as {}/{}", self.settings.org, self.settings.host);
        Ok(())
    }

    /// Changes the token for a certificate.
    pub async fn enrol(&self) -> Result<agent_core::Certificate, Failed> {
        let request = EnrollRequest {
            token: self.settings.token.expose().to_owned(),
            csr_der: self.request()?,
            hostname: self.settings.host.clone(),
            machine_id: self.host.machine_id.clone(),
            boot_id: self.host.boot_id.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            os_type: self.host.os_type.clone(),
            os_version: self.host.os_version.clone(),
            ip_address: self.host.ip_address.clone(),
            capabilities: self.capabilities.to_vec(),
        };
        let channel = self.channel(false).await?;
        let answer: EnrollResponse = unary(channel, method::ENROLL, request).await?;
        self.keep(&answer)
    }

    /// Asks for the next certificate over the connection that shows the one there is.
    pub async fn renew(&self, channel: Channel) -> Result<agent_core::Certificate, Failed> {
        let request = RenewRequest { csr_der: self.request()? };
        let answer: EnrollResponse = unary(channel, method::RENEW, request).await?;
        self.keep(&answer)
    }

    fn request(&self) -> Result<Vec<u8>, Failed> {
        self.identity.request(&self.settings.host).map_err(|error| (Failure::Untrusted, chain(&error)))
    }

    fn keep(&self, answer: &EnrollResponse) -> Result<agent_core::Certificate, Failed> {
        self.identity.certified(answer).map_err(|error| (Failure::Protocol, chain(&error)))
    }
}

type Secure = Option<(tokio_rustls::TlsConnector, rustls_pki_types::ServerName<'static>)>;

/// Plain or encrypted, it is bytes.
trait Bytes: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Bytes for T {}

async fn open(ingest: &str, secure: Secure) -> std::io::Result<TokioIo<Box<dyn Bytes>>> {
    let tcp = TcpStream::connect(ingest).await?;
    tcp.set_nodelay(true)?;
    let io: Box<dyn Bytes> = match secure {
        Some((connector, name)) => Box::new(connector.connect(name, tcp).await?),
        None => Box::new(tcp),
    };
    Ok(TokioIo::new(io))
}

async fn ready(grpc: &mut Grpc<Channel>) -> Result<(), Failed> {
    grpc.ready().await.map_err(|error| failed(&error))
}

async fn unary<Q, A>(channel: Channel, path: &'static str, request: Q) -> Result<A, Failed>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(channel);
    ready(&mut grpc).await?;
    let call = grpc.unary(Request::new(request), PathAndQuery::from_static(path), ProstCodec::default());
    match tokio::time::timeout(CALL_MAX, call).await {
        Ok(answer) => Ok(answer.map_err(|status| refused(&status))?.into_inner()),
        Err(_) => Err((Failure::Unreachable, format!("no answer to {path} in {} s", CALL_MAX.as_secs()))),
    }
}

fn refused(status: &Status) -> Failed {
    let failure = match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => Failure::Unauthenticated,
        Code::Unimplemented => Failure::Unsupported,
        _ if is_about_trust(status) => Failure::Untrusted,
        _ => Failure::Unreachable,
    };
    (failure, format!("{:?}: {}", status.code(), chain(status)))
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Failed {
    (if is_about_trust(error) { Failure::Untrusted } else { Failure::Unreachable }, chain(error))
}

/// Whether one of the two did not believe the other's certificate. What merely broke is no question of trust.
fn is_about_trust(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_)) = tls_error(error) {
            return true;
        }
        next = error.source();
    }
    false
}

/// An error with its causes, on one line and not without end.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = words(error);
    let mut next = error.source();
    while let Some(error) = next {
        let cause = words(error);
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        next = error.source();
    }
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

fn words(error: &(dyn std::error::Error + 'static)) -> String {
    match tls_error(error) {
        // Shown by rustls as programmers see it.
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(ours))) => ours.to_string(),
        _ => error.to_string(),
    }
}
