//! One connection of HTTP/2: its identity, its calls, and whether its other end lives.

use super::gate::{self, Gate, Gated};
use super::messages::{Answer, Budget, MessageLimits, Messages};
use super::status::{Code, Status};
use super::throttle::Throttle;
use super::turns::Turns;
use super::{Desk, GatewayConfig, GatewayObserver, Identity, Pages, TurnedAway, pages};
use crate::inputs::Sink;
use bytes::Bytes;
use h2::Ping;
use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use http::{Method, Request, header};
use model::RejectReason;
use runtime::{Clock, Stop};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use wire::method;

/// Calls that are open at once on a connection: an old agent has two, ours one.
const CALLS_MAX: u32 = 16;
/// What a client may send on a stream before we read it…
const STREAM_WINDOW: u32 = 64 << 10;
/// …and on all streams of a connection: one that is not read does not stop the others.
const CONNECTION_WINDOW: u32 = 256 << 10;
/// What small frames of data may cost beyond their bytes before they are read: 256 each, less their length. It is
/// enough for a window full of heartbeats, each in a frame of its own, while the queue takes nothing.
const FRAMES_COST: usize = 512 << 10;
/// What may wait to be sent on a connection.
const SEND_BUFFER: usize = 64 << 10;
const HEADERS_BYTES_MAX: u32 = 8 << 10;
/// Calls that the client takes back before they are looked at, and that we refuse: more is an attack.
const RESETS_MAX: usize = 20;
const REFUSALS_MAX: usize = 100;
/// What streams get beyond the grace to say that it is over.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// What all connections share.
pub(super) struct Hub {
    pub config: GatewayConfig,
    pub sink: Arc<dyn Sink>,
    pub desk: Arc<dyn Desk>,
    pub pages: Option<Arc<dyn Pages>>,
    pub observer: Arc<dyn GatewayObserver>,
    pub clock: Arc<dyn Clock>,
    /// Streams come to their end.
    pub stop: Stop,
    /// They had time for it.
    pub end: Stop,
    pub throttle: Mutex<Throttle>,
    pub turns: Turns,
    pub budget: Budget,
}

impl Hub {
    pub(super) async fn grace_is_over(&self) {
        self.end.requested().await;
    }

    pub(super) fn throttle(&self) -> std::sync::MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A clock for what is looked at every so often, on each stream at another moment.
    pub(super) fn ticks(&self, every: Duration) -> tokio::time::Interval {
        let mut ticks = interval_at(Instant::now() + every.mul_f64(fastrand::f64()), every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }
}

/// A connection, as its calls see it.
pub(super) struct Line {
    pub hub: Arc<Hub>,
    pub peer: SocketAddr,
    /// Shown in the handshake.
    certificate: Option<Bytes>,
    certified: OnceCell<Identity>,
    login: Mutex<Option<Identity>>,
}

impl Line {
    pub(super) fn new(hub: Arc<Hub>, peer: SocketAddr, certificate: Option<Bytes>) -> Self {
        Self { hub, peer, certificate, certified: OnceCell::new(), login: Mutex::default() }
    }

    /// Who speaks: whose certificate the connection shows, else who logged in last. A certificate that is good for
    /// nothing leaves room for a login.
    pub(super) async fn who(&self) -> Result<Identity, Status> {
        let refused = match self.certified().await {
            Some(Ok(who)) => return Ok(who),
            Some(Err(refused)) => refused,
            None => Status::NOBODY,
        };
        let login = self.login.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let who = login.ok_or(refused)?;
        self.hub.desk.check(&who)?;
        Ok(who)
    }

    /// Whose certificate the connection shows, if any.
    pub(super) async fn certified(&self) -> Option<Result<Identity, Status>> {
        let certificate = self.certificate.as_ref()?;
        let identify = async || self.hub.desk.identify(certificate).await;
        Some(match self.certified.get_or_try_init(identify).await {
            Ok(who) => self.hub.desk.check(who).map(|()| who.clone()).map_err(Status::from),
            Err(refusal) => Err(refusal.into()),
        })
    }

    /// A good login; a bad one changes nothing.
    pub(super) fn logged_in(&self, who: Identity) {
        *self.login.lock().unwrap_or_else(PoisonError::into_inner) = Some(who);
    }

    pub(super) fn limits(&self) -> MessageLimits {
        let config = &self.hub.config;
        MessageLimits {
            bytes_max: config.message_bytes_max,
            timeout: config.message_timeout,
            budget: self.hub.budget.clone(),
        }
    }

    pub(super) fn reject(&self, reason: RejectReason, detail: &str, sample: &[u8]) {
        self.hub.reject(reason, detail, self.peer, sample);
    }
}

/// Serves a connection up to its end, and until what it sent is worked.
pub(super) async fn serve<I: AsyncRead + AsyncWrite + Unpin>(io: I, line: Arc<Line>) {
    let hub = Arc::clone(&line.hub);
    let (io, gate) = gate::gated(io);
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(CALLS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(FRAMES_COST)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_concurrent_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(Some(REFUSALS_MAX))
        .handshake(io);
    // Until the preface is there, the gate stays shut: who leaves before it is found out by the time.
    let connection = match timeout(hub.config.handshake_timeout, gate.handshake(handshake)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return turned_away(&line, TurnedAway::Protocol, &format!("not HTTP/2: {error}")),
        Err(_) => return turned_away(&line, TurnedAway::TooSlow, "the connection did not begin with HTTP/2 in time"),
    };
    let mut calls = JoinSet::new();
    let end = drive(connection, &gate, &line, &mut calls).await;
    match end {
        Ok(()) => {}
        Err(End::Dead) => hub.observer.turned_away(TurnedAway::Dead),
        Err(End::Protocol(error)) => turned_away(&line, TurnedAway::Protocol, &format!("broken HTTP/2: {error}")),
    }
    // Who is gone may have sent what is not stored yet.
    let finish = async {
        tokio::select! {
            () = async { while calls.join_next().await.is_some() {} } => {}
            () = async { hub.grace_is_over().await; tokio::time::sleep(LAST_WORDS).await } => {}
        }
    };
    finish.await;
    calls.shutdown().await;
}

fn turned_away(line: &Line, why: TurnedAway, detail: &str) {
    line.hub.observer.turned_away(why);
    line.reject(RejectReason::Malformed, detail, b"");
}

enum End {
    Dead,
    Protocol(h2::Error),
}

/// Polls the connection, and gives each call a task.
async fn drive<I: AsyncRead + AsyncWrite + Unpin>(
    mut connection: Connection<Gated<I>, Bytes>,
    gate: &Gate,
    line: &Arc<Line>,
    calls: &mut JoinSet<()>,
) -> Result<(), End> {
    let hub = &line.hub;
    let mut pings = connection.ping_pong();
    let mut is_pinged = false;
    let mut ticks = hub.ticks(hub.config.keepalive);
    let mut idle_since = Some(Instant::now());
    let mut stop = std::pin::pin!(hub.stop.requested());
    let mut end = std::pin::pin!(async {
        hub.grace_is_over().await;
        tokio::time::sleep(LAST_WORDS).await;
    });
    let mut is_stopping = false;
    loop {
        // Cancel safe, all of them.
        tokio::select! {
            accepted = gate.accept(&mut connection) => match accepted {
                Some(Ok((request, respond))) => {
                    idle_since = None;
                    calls.spawn(call(Arc::clone(line), request, respond));
                }
                Some(Err(error)) if error.is_io() || error.is_go_away() && error.is_remote() => return Ok(()),
                Some(Err(error)) => return Err(End::Protocol(error)),
                None => return Ok(()),
            },
            Some(_) = calls.join_next() => {
                if calls.is_empty() {
                    idle_since = Some(Instant::now());
                }
            }
            Some(pong) = pong(&mut pings), if is_pinged => is_pinged = pong.is_err(),
            _ = ticks.tick() => {
                if is_pinged {
                    return Err(End::Dead);
                }
                if idle_since.is_some_and(|since| since.elapsed() >= hub.config.idle_timeout) {
                    connection.graceful_shutdown();
                }
                is_pinged = pings.as_mut().is_some_and(|pings| pings.send_ping(Ping::opaque()).is_ok());
            }
            () = &mut stop, if !is_stopping => {
                is_stopping = true;
                connection.graceful_shutdown();
            }
            () = &mut end, if is_stopping => return Ok(()),
        }
    }
}

async fn pong(pings: &mut Option<h2::PingPong>) -> Option<Result<h2::Pong, h2::Error>> {
    let pings = pings.as_mut()?;
    Some(poll_fn(|cx| pings.poll_pong(cx)).await)
}

/// One call, from its head on.
async fn call(line: Arc<Line>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let (head, body) = request.into_parts();
    let kind = head.headers.get(header::CONTENT_TYPE);
    if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return pages::answer(&line, head, respond).await;
    }
    let answer = Answer::new(respond);
    if head.method != Method::POST {
        return answer.end(&Status::new(Code::InvalidArgument, "gRPC calls are posted"));
    }
    let messages = Messages::new(body, line.limits());
    match head.uri.path() {
        method::AUTHENTICATE => line.authenticate(messages, answer).await,
        method::ENROLL => line.enrol(messages, answer).await,
        method::RENEW => line.renew(messages, answer).await,
        method::STREAM_EVENTS => line.stream_events(messages, answer).await,
        method::RECEIVE_COMMANDS => line.receive_commands(messages, answer).await,
        method::SESSION => line.session(messages, answer).await,
        _ => answer.end(&Status::new(Code::Unimplemented, "there is no such call")),
    }
}
