//! Serving HTTP/1.1 with bounds: connections, header time, body time, and a drain at the end.

use crate::Stop;
use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
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

/// Serves until stopped, then lets open requests end within `limits.drain`. Returns whether all did.
pub async fn serve(listener: TcpListener, router: Router, limits: HttpLimits, stop: Stop) -> bool {
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
        let service = router.clone().map_request(move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            request.map(axum::body::Body::new)
        });
        let mut server = hyper::server::conn::http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_headers(64).keep_alive(true);
        let connection =
            graceful.watch(server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)));
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "connection ended early");
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
