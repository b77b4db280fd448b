//! `muttd agents test`: what the original's connectivity test did, with its words (contract security-manager §3.7):
//! connect, log in, send one event.

use anyhow::{Context, Result, bail};
use clap::Args;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use runtime::Clock;
use runtime::trust::{Fingerprint, Judge, look};
use rustls_pki_types::ServerName;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;
use wire::{Ack, AuthRequest, AuthResponse, LogEvent, method};

const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
#[command(
    after_help = "It logs in as old agents do, so the token must be one for them (`muttd admin token create --legacy`,\n\
    or the demonstration's). One for enrolment is told to be good and not tried further: `sm-agent doctor`\n\
    on the host tests the rest."
)]
pub struct TestArgs {
    /// Address of the gateway [default: localhost:9002; SM_INGEST_URL]
    #[arg(long, alias = "address", value_name = "HOST:PORT")]
    ingest: Option<String>,
    /// The organisation [default: from the token, else demo; SM_ORG_ID]
    #[arg(long)]
    org: Option<String>,
    /// The token; better in SM_TOKEN, where other users of the machine cannot read it [default: the demonstration's]
    #[arg(long)]
    token: Option<String>,
    /// Encrypt: on where the token names the gateway's authority, or with --ca
    #[arg(long)]
    tls: bool,
    /// Certificates of the authority to believe (PEM)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Speak as this host
    #[arg(long, default_value = "test-host")]
    host: String,
}

/// Runs it, each line as soon as it is true.
pub async fn run(args: TestArgs, out: &mut impl Write) -> Result<()> {
    let environment = runtime::config::environment();
    let given = |flag: Option<String>, variable: &str, otherwise: &str| {
        flag.or_else(|| environment.get(variable).filter(|value| !value.is_empty()).cloned())
            .unwrap_or_else(|| otherwise.to_owned())
    };
    let token = given(args.token, "SM_TOKEN", pipeline::fleet::DEMO_TOKEN);
    let found = look(&token).map_err(anyhow::Error::msg)?;
    let named = found.fingerprint;
    let org = given(args.org, "SM_ORG_ID", found.org.unwrap_or("demo"));
    let mut ingest = given(args.ingest, "SM_INGEST_URL", "localhost:9002");
    if !ingest.contains(':') {
        ingest.push_str(":9002");
    }
    writeln!(out, "🔗 Testing connection to remote ingest service")?;
    writeln!(out, "   Endpoint: {ingest}")?;
    writeln!(out, "   Org ID: {org}")?;
    writeln!(out, "   Token: {}…", token.chars().take(8).collect::<String>())?;
    writeln!(out)?;

    writeln!(out, "📡 Connecting to {ingest}...")?;
    let secure = if args.tls || args.ca.is_some() || named.is_some() {
        Some(connector(named, args.ca.as_deref())?)
    } else {
        None
    };
    let channel = tokio::time::timeout(DEADLINE, connect(&ingest, secure)).await.context("no answer in 10 s")??;

    writeln!(out, "🔐 Testing authentication...")?;
    let request = AuthRequest {
        org_id: org.clone(),
        token,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..AuthRequest::default()
    };
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.context("the gateway cannot be reached")?;
    let call = grpc.unary(
        Request::new(request),
        PathAndQuery::from_static(method::AUTHENTICATE),
        ProstCodec::<AuthRequest, AuthResponse>::default(),
    );
    let answer = tokio::time::timeout(DEADLINE, call).await.context("no answer in 10 s")?;
    let answer = answer.map_err(|status| anyhow::anyhow!("{}", status.message()))?.into_inner();
    if !answer.authenticated {
        bail!("authentication rejected: {}", answer.error_message);
    }
    writeln!(out, "✅ Authentication successful!")?;
    writeln!(out, "   Heartbeat interval: {} seconds", answer.heartbeat_interval_seconds)?;
    writeln!(out)?;

    writeln!(out, "🔄 Testing streaming connection...")?;
    let now = runtime::SystemClock.now();
    let event = LogEvent {
        org_id: org.clone(),
        host_id: args.host.clone(),
        ts_unix_ns: now.micros().saturating_mul(1_000),
        stream: "test".to_owned(),
        message: "Test message from remote connectivity test".to_owned(),
        labels: [("test", "true"), ("source", "remote-test")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        seq: 0,
    };
    grpc.ready().await.context("the connection is gone")?;
    let call = grpc.client_streaming(
        Request::new(tokio_stream::once(event)),
        PathAndQuery::from_static(method::STREAM_EVENTS),
        ProstCodec::<LogEvent, Ack>::default(),
    );
    let sent = tokio::time::timeout(DEADLINE, call).await.context("no answer in 10 s")?;
    sent.map_err(|status| anyhow::anyhow!("the test event was refused: {}", status.message()))?;
    writeln!(out, "✅ Test event sent successfully!")?;
    writeln!(out)?;
    writeln!(out, "🎉 All tests passed! Remote ingest service is working correctly.")?;
    writeln!(out, "   Connection, authentication and streaming work; the event is durable.")?;
    Ok(())
}

fn connector(named: Option<Fingerprint>, ca: Option<&std::path::Path>) -> Result<tokio_rustls::TlsConnector> {
    let judge = Judge::new(named, ca).context("no authority can be believed")?;
    let mut config = rustls::ClientConfig::builder_with_provider(runtime::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(judge))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)))
}

/// Plain or encrypted, it is bytes.
trait Bytes: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Bytes for T {}

async fn connect(ingest: &str, secure: Option<tokio_rustls::TlsConnector>) -> Result<Channel> {
    let name = ingest.rsplit_once(':').map_or(ingest, |(host, _)| host);
    let name = ServerName::try_from(name.trim_start_matches('[').trim_end_matches(']').to_owned())
        .with_context(|| format!("`{ingest}` is no address"))?;
    let address = ingest.to_owned();
    let open = tower::service_fn(move |_| {
        let (address, name, secure) = (address.clone(), name.clone(), secure.clone());
        async move {
            let tcp = TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            let io: Box<dyn Bytes> = match secure {
                Some(connector) => Box::new(connector.connect(name, tcp).await?),
                None => Box::new(tcp),
            };
            Ok::<_, std::io::Error>(TokioIo::new(io))
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{ingest}"))?;
    endpoint.connect_with_connector(open).await.map_err(|error| match distrust(&error) {
        Some(why) => anyhow::anyhow!("the gateway is not believed: {why}"),
        None => anyhow::Error::from(error).context("the gateway cannot be reached"),
    })
}

/// In words, where the gateway was reached and not believed.
fn distrust(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        match runtime::tls::tls_error(error) {
            Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(why))) => {
                return Some(why.0.to_string());
            }
            Some(other @ rustls::Error::InvalidCertificate(_)) => return Some(other.to_string()),
            _ => next = error.source(),
        }
    }
    None
}
