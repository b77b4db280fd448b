//! What is no gRPC: plain requests, answered by whom the gateway was given.

use super::connection::{Hub, Line};
use super::messages::send_all;
use async_trait::async_trait;
use bytes::Bytes;
use h2::server::SendResponse;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

/// The body of an answer.
pub type PageBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Answers plain requests on the gateway's port: installers and what they fetch.
#[async_trait]
pub trait Pages: Send + Sync + 'static {
    /// `GET` and `HEAD` only; bodies of requests are not read.
    async fn get(&self, head: Parts, peer: SocketAddr) -> Response<PageBody>;
}

/// A download that takes longer is broken off.
const ANSWER_MAX: Duration = Duration::from_secs(600);
const HEADER_MAX: Duration = Duration::from_secs(15);
const HEADERS_MAX: usize = 64;
const BUFFER_BYTES: usize = 16 << 10;

/// A request over HTTP/2.
pub(super) async fn answer(line: &Line, head: Parts, mut respond: SendResponse<Bytes>) {
    let is_head = head.method == Method::HEAD;
    let (head, mut body) = page(&line.hub, head, line.peer).await.into_parts();
    let is_empty = is_head || body.is_end_stream();
    let Ok(mut stream) = respond.send_response(Response::from_parts(head, ()), is_empty) else { return };
    if is_empty {
        return;
    }
    let sent = timeout(ANSWER_MAX, async {
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.ok()?.into_data() else { continue };
            send_all(&mut stream, data, false).await.ok()?;
        }
        stream.send_data(Bytes::new(), true).ok()
    });
    if !matches!(sent.await, Ok(Some(()))) {
        stream.send_reset(h2::Reason::INTERNAL_ERROR);
    }
}

/// A connection of HTTP/1.1.
pub(super) async fn serve<I: AsyncRead + AsyncWrite + Unpin + Send>(io: I, hub: Arc<Hub>, peer: SocketAddr) {
    let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| {
        let hub = Arc::clone(&hub);
        async move { Ok::<_, Infallible>(page(&hub, request.into_parts().0, peer).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_MAX).max_headers(HEADERS_MAX).max_buf_size(BUFFER_BYTES);
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(io), service));
    let ended = timeout(ANSWER_MAX, async {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = hub.stop.requested() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = hub.grace_is_over() => Ok(()),
        }
    });
    if let Ok(Err(error)) = ended.await {
        tracing::trace!(%error, "connection ended early");
    }
}

async fn page(hub: &Hub, head: Parts, peer: SocketAddr) -> Response<PageBody> {
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    match &hub.pages {
        Some(pages) if is_read => pages.get(head, peer).await,
        Some(_) => nothing(StatusCode::METHOD_NOT_ALLOWED),
        None => nothing(StatusCode::NOT_FOUND),
    }
}

fn nothing(status: StatusCode) -> Response<PageBody> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}
