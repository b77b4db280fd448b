//! Who is believed: certificates, versions, plaintext; and plain requests on the same port.
#![allow(clippy::unwrap_used, reason = "a test and its helpers")]

mod grpc_support;

use async_trait::async_trait;
use bytes::Bytes;
use connectors::inputs::grpc::{GatewayConfig, PageBody, Pages, TurnedAway};
use grpc_support::{DEMO_TOKEN, Gateway, TOKEN, config, now_ms};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use model::RejectReason;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use testkit::agents::{Agent, Authority, Certified, SERVER_NAME, log_event, record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Code;
use wire::{EnrollRequest, Record, record as kind};

fn secure() -> GatewayConfig {
    GatewayConfig { plaintext: false, ..config() }
}

/// Whether a session comes about. In TLS 1.3 a client hears of its refusal only after its own handshake.
async fn gets_in(gateway: &Gateway, shows: Option<&Certified>) -> Result<(), String> {
    let agent = gateway.encrypted(shows).await.map_err(|error| error.to_string())?;
    let mut session = agent.session(1).await.map_err(|status| format!("{:?}", status.code()))?;
    session.send(1, now_ms(), vec![record("in")]).await;
    session.acked().await.map(drop).map_err(|status| status.to_string())
}

#[tokio::test]
async fn only_the_right_certificate_opens_a_session() {
    let gateway = Gateway::start_with(secure(), None);
    gets_in(&gateway, Some(&gateway.authority.agent("acme", "agt_web"))).await.unwrap();
    assert_eq!(gets_in(&gateway, None).await.unwrap_err(), "Unauthenticated");
    assert!(gets_in(&gateway, Some(&Authority::new().agent("acme", "agt_web"))).await.is_err(), "another authority's");
    assert!(gets_in(&gateway, Some(&gateway.authority.expired_agent("acme", "agt_web"))).await.is_err(), "expired");
    gateway.until("two handshakes fail", |m| m.turned_away == [TurnedAway::Handshake; 2]).await;
    assert_eq!(gateway.sink.rejected(RejectReason::Malformed), 2);
    assert_eq!(gateway.sink.messages(), ["in"]);
}

#[tokio::test]
async fn a_certificate_speaks_for_its_own_organisation_only() {
    let gateway = Gateway::start_with(secure(), None);
    let agent = gateway.encrypted(Some(&gateway.authority.agent("beta", "agt_bbb"))).await.unwrap();
    let mut session = agent.session(1).await.unwrap();
    let forged = Record { body: Some(kind::Body::Log(log_event("acme", "web", "forged"))) };
    session.send(1, now_ms(), vec![forged, record("own")]).await;
    assert_eq!(session.acked().await.unwrap(), 2);
    let status = agent.stream_events(vec![log_event("acme", "web", "forged too"), log_event("beta", "", "own too")]);
    status.await.unwrap();
    assert_eq!(gateway.sink.messages(), ["own", "own too"]);
    assert!(gateway.sink.recorded().events.iter().all(|event| event.org.as_str() == "beta"));
    assert_eq!(gateway.sink.rejected(RejectReason::Unauthorized), 2);
}

#[tokio::test]
async fn nothing_older_than_tls_1_3_is_spoken() {
    let gateway = Gateway::start_with(secure(), None);
    let certificate = gateway.authority.agent("acme", "agt_web");
    let old = gateway.authority.client_config(&[&rustls::version::TLS12], Some(&certificate));
    assert!(Agent::encrypted(gateway.address, old).await.is_err());
    gateway.until("the handshake fails", |m| m.turned_away == [TurnedAway::Handshake]).await;
}

#[tokio::test]
async fn plaintext_is_not_served_unless_it_is_switched_on() {
    let gateway = Gateway::start_with(secure(), None);
    let attempt = async { Agent::plain(gateway.address).await.ok()?.authenticate("demo", DEMO_TOKEN).await.ok() };
    assert_eq!(attempt.await, None);
    gateway.until("it is counted", |m| m.turned_away.contains(&TurnedAway::Plaintext)).await;
    assert!(gateway.sink.rejected(RejectReason::Unsupported) > 0);
    assert!(gateway.desk.memory().logins.is_empty());
    // A token is taken over TLS, and from old agents that cannot show more.
    let agent = gateway.encrypted(None).await.unwrap();
    assert!(agent.authenticate("acme", TOKEN).await.unwrap().authenticated);
    agent.stream_events(vec![log_event("acme", "x7", "over TLS")]).await.unwrap();
    assert_eq!(gateway.sink.messages(), ["over TLS"]);
}

#[tokio::test]
async fn a_certificate_is_had_for_a_token_and_renewed_by_itself() {
    let gateway = Gateway::start_with(secure(), None);
    let stranger = gateway.encrypted(None).await.unwrap();
    let request = EnrollRequest { token: TOKEN.into(), csr_der: vec![1], ..EnrollRequest::default() };
    let answer = stranger.enrol(request.clone()).await.unwrap();
    assert_eq!((&*answer.agent_id, gateway.desk.memory().enrolled.len()), ("agt_web", 1));
    let wrong = stranger.enrol(EnrollRequest { token: "sm_acme_1_no".into(), ..request.clone() }).await.unwrap_err();
    assert_eq!(wrong.code(), Code::Unauthenticated);
    let wrong = stranger.enrol(EnrollRequest { csr_der: Vec::new(), ..request }).await.unwrap_err();
    assert_eq!((wrong.code(), wrong.message()), (Code::InvalidArgument, "no certificate request"));
    assert_eq!(stranger.renew(vec![1]).await.unwrap_err().code(), Code::Unauthenticated);
    let agent = gateway.certified().await;
    assert_eq!(agent.renew(vec![1]).await.unwrap().agent_id, "agt_web");
    assert_eq!(&*gateway.desk.memory().renewed[0].agent, "agt_web");
}

struct Folder;

#[async_trait]
impl Pages for Folder {
    async fn get(&self, head: Parts, peer: SocketAddr) -> Response<PageBody> {
        assert!(peer.ip().is_loopback());
        let body = match head.uri.path() {
            "/sm-agent-linux-amd64" => vec![7; 1 << 20],
            path => path.as_bytes().to_vec(),
        };
        let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
        Response::builder().header("content-type", "application/octet-stream").body(body).unwrap()
    }
}

async fn connect(gateway: &Gateway, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
    let mut client = gateway.authority.client_config(&[&rustls::version::TLS13], None);
    client.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    connect_by(gateway, Arc::new(client)).await
}

async fn connect_by(gateway: &Gateway, client: Arc<rustls::ClientConfig>) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(gateway.address).await.unwrap();
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    TlsConnector::from(client).connect(name, tcp).await.unwrap()
}

#[tokio::test]
async fn plain_requests_are_answered_on_the_same_port() {
    let gateway = Gateway::start_with(secure(), Some(Arc::new(Folder)));
    for alpn in [&[&b"http/1.1"[..]][..], &[]] {
        for (request, status, len) in [
            ("GET /ca.pem HTTP/1.1", "HTTP/1.1 200 OK", 7),
            ("GET /sm-agent-linux-amd64 HTTP/1.1", "HTTP/1.1 200 OK", 1 << 20),
            ("HEAD /sm-agent-linux-amd64 HTTP/1.1", "HTTP/1.1 200 OK", 0),
            ("POST /ca.pem HTTP/1.1", "HTTP/1.1 405 Method Not Allowed", 0),
        ] {
            let mut tls = connect(&gateway, alpn).await;
            tls.write_all(format!("{request}\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            tls.read_to_end(&mut answer).await.unwrap();
            let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
            assert!(answer.starts_with(status.as_bytes()), "{request}: {}", String::from_utf8_lossy(&answer[..end]));
            assert_eq!(answer.len() - end, len, "{request}");
        }
    }
    // Who offers both gets HTTP/2.
    let tls = connect(&gateway, &[b"h2", b"http/1.1"]).await;
    let (mut send, connection) = h2::client::handshake(tls).await.unwrap();
    tokio::spawn(connection);
    for (method, path, status, len) in [
        ("GET", "/install.sh", StatusCode::OK, 11),
        ("GET", "/sm-agent-linux-amd64", StatusCode::OK, 1 << 20),
        ("HEAD", "/sm-agent-linux-amd64", StatusCode::OK, 0),
        ("PUT", "/ca.pem", StatusCode::METHOD_NOT_ALLOWED, 0),
    ] {
        let request = Request::builder().method(method).uri(format!("https://x{path}")).body(()).unwrap();
        let answer = send.send_request(request, true).unwrap().0.await.unwrap();
        assert_eq!(answer.status(), status, "{method} {path}");
        let mut body = answer.into_body();
        let mut found = 0;
        while let Some(chunk) = body.data().await {
            let chunk = chunk.unwrap();
            body.flow_control().release_capacity(chunk.len()).unwrap();
            found += chunk.len();
        }
        assert_eq!(found, len, "{method} {path}");
    }
}

#[tokio::test]
async fn a_gateway_without_pages_has_none() {
    let gateway = Gateway::start_with(secure(), None);
    let mut tls = connect(&gateway, &[b"http/1.1"]).await;
    tls.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tls.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[tokio::test]
async fn every_connection_shows_its_certificate_anew() {
    let gateway = Gateway::start_with(secure(), Some(Arc::new(Folder)));
    let client = Arc::new(gateway.authority.client_config(&[&rustls::version::TLS13], None));
    for _ in 0..3 {
        let mut tls = connect_by(&gateway, Arc::clone(&client)).await;
        let _ = tls.read_u8().await;
        assert_eq!(tls.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn a_new_certificate_counts_from_the_next_handshake_on() {
    let gateway = Gateway::start_with(secure(), None);
    let mut open = gateway.certified().await.session(1).await.unwrap();
    let next = Authority::new();
    gateway.tls.replace(&next);
    assert!(gateway.encrypted(None).await.is_err(), "who does not know the new authority does not believe it");
    let client = next.client_config(&[&rustls::version::TLS13], Some(&next.agent("acme", "agt_web")));
    let mut session = Agent::encrypted(gateway.address, client).await.unwrap().session(2).await.unwrap();
    for (session, message) in [(&mut session, "new"), (&mut open, "old")] {
        session.send(1, now_ms(), vec![record(message)]).await;
        assert_eq!(session.acked().await.unwrap(), 1);
    }
    assert_eq!(gateway.sink.messages(), ["new", "old"]);
}
