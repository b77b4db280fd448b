//! Serving HTTP/1.1, in clear or over TLS, with bounds: connections, handshake and header time, and a
//! drain at the end.

use crate::Stop;
use crate::tls::TlsFiles;
use axum::Router;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::{Service as HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// Bounds of one listener.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// More connections wait in the kernel's backlog.
    pub connections_max: usize,
    /// Longest time a client may take for its request head.
    pub header_timeout: Duration,
    /// Longest time given to open requests once a stop is asked for.
    pub drain: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self { connections_max: 4_096, header_timeout: Duration::from_secs(15), drain: Duration::from_secs(10) }
    }
}

/// Longest time of a TLS handshake; the connection counts against the bound meanwhile.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The client's address, as a request extension.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Binds with address reuse, so that a restart does not wait for old connections.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1_024)?;
    TcpListener::from_std(socket.into())
}

/// A second handle of a listener: who stops serving the one leaves the address bound by the other.
pub fn share(listener: &TcpListener) -> std::io::Result<TcpListener> {
    TcpListener::from_std(socket2::SockRef::from(listener).try_clone()?.into())
}

/// Serves a router; each request carries its [`Peer`] as an extension. See [`serve_with`].
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<TlsFiles>>,
    router: Router,
    limits: HttpLimits,
    stop: Stop,
) -> bool {
    let service = |peer| {
        let router = router.clone();
        service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            router.clone().oneshot(request)
        })
    };
    serve_with(listener, tls, service, limits, stop).await
}

/// Serves until stopped, then lets open requests end within `limits.drain`. Returns whether all did.
/// `service` makes what answers the requests of one connection. With `tls`, nothing is answered in
/// clear.
pub async fn serve_with<S, B>(
    listener: TcpListener,
    tls: Option<Arc<TlsFiles>>,
    service: impl Fn(SocketAddr) -> S,
    limits: HttpLimits,
    stop: Stop,
) -> bool
where
    S: HttpService<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let graceful = GracefulShutdown::new();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let slot = tokio::select! {
            () = stop.requested() => break,
            slot = Arc::clone(&slots).acquire_owned() => slot.expect("the semaphore is never closed"),
        };
        let (stream, peer) = tokio::select! {
            () = stop.requested() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or the client is gone already: neither ends the service.
                    tracing::debug!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let (watcher, service) = (graceful.watcher(), service(peer));
        let tls = tls.as_ref().map(|files| TlsAcceptor::from(files.current()));
        let stop = stop.clone();
        connections.spawn(async move {
            match tls {
                None => answer(stream, service, limits, watcher).await,
                Some(acceptor) => {
                    let shaken = tokio::select! {
                        shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => shaken,
                        () = stop.requested() => return,
                    };
                    match shaken {
                        Ok(Ok(stream)) => answer(stream, service, limits, watcher).await,
                        Ok(Err(error)) => tracing::debug!(%error, peer.address = %peer, "a TLS handshake failed"),
                        Err(_) => tracing::debug!(peer.address = %peer, "a TLS handshake took too long"),
                    }
                }
            }
            drop(slot);
        });
    }
    drop(listener);
    let clean = tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_ok();
    connections.abort_all();
    while connections.join_next().await.is_some() {}
    clean
}

/// Answers the requests of one connection.
async fn answer<I, S, B>(stream: I, service: S, limits: HttpLimits, watcher: Watcher)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let mut server = hyper::server::conn::http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(64)
        .keep_alive(true)
        .writev(false);
    if let Err(error) = watcher.watch(server.serve_connection(TokioIo::new(stream), service)).await {
        tracing::trace!(%error, "connection ended early");
    }
}
