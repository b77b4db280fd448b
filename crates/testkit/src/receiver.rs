//! A receiver of HTTP requests on 127.0.0.1 that behaves as told, remembers what came, and can go
//! down and come up again on the same port.

use crate::http::{self, Parsed};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, JoinSet};

/// What a receiver does with a request it has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers, and keeps the connection.
    Answer { status: u16, headers: Vec<(String, String)>, body: String },
    /// Never answers; ends when the client gives up.
    Hang,
    /// Answers 200 with a body that never ends and never pauses.
    EndlessBody,
    /// Announces a 200 with a body, sends part of it and closes.
    CloseMidResponse,
    /// Closes without a byte.
    Close,
    /// Answers something that is not HTTP, then closes.
    Garbage,
}

impl Behaviour {
    /// 200 `{"ok":true}`.
    pub fn accept() -> Self {
        Self::answer(200, r#"{"ok":true}"#)
    }
    /// `status` without a body.
    pub fn status(status: u16) -> Self {
        Self::answer(status, "")
    }
    /// `status` with a body.
    pub fn answer(status: u16, body: impl Into<String>) -> Self {
        Self::Answer { status, headers: Vec::new(), body: body.into() }
    }
    /// `status` with `Retry-After`: seconds or an HTTP date.
    pub fn retry_after(status: u16, value: impl Into<String>) -> Self {
        Self::status(status).with_header("Retry-After", value)
    }
    /// 302 to `location`.
    pub fn redirect(location: impl Into<String>) -> Self {
        Self::status(302).with_header("Location", location)
    }
    /// Adds a header to an `Answer`; panics on the others, which have none.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let Self::Answer { headers, .. } = &mut self else {
            panic!("{self:?} has no headers");
        };
        headers.push((name.into(), value.into()));
        self
    }

    fn answered(&self) -> Option<u16> {
        match self {
            Self::Answer { status, .. } => Some(*status),
            Self::EndlessBody => Some(200),
            Self::Hang | Self::CloseMidResponse | Self::Close | Self::Garbage => None,
        }
    }
}

/// A request that came, whole.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case, in the order of the wire.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub arrived: Instant,
    /// Number of the connection, from 1 in the order of their accepting.
    pub connection: u64,
    /// The whole answer it is given; `None` where the behaviour gives none.
    pub answered: Option<u16>,
}

impl Request {
    /// The first header of that name, any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
    /// The body as JSON; panics when it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e} in the body {:?}", String::from_utf8_lossy(&self.body)))
    }
    /// What repeats of one delivery share: `Idempotency-Key`, or `webhook-id`.
    pub fn idempotency_key(&self) -> Option<&str> {
        self.header("idempotency-key").or_else(|| self.header("webhook-id"))
    }
}

#[derive(Debug)]
struct State {
    script: VecDeque<Behaviour>,
    default: Behaviour,
    /// For HEAD requests, which probes use; `None`: as for the others.
    head: Option<Behaviour>,
    latency: Duration,
    requests: Vec<Request>,
    connections: u64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Told after every recorded request.
    arrived: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

#[derive(Debug)]
enum Door {
    Up {
        stop: oneshot::Sender<()>,
        task: JoinHandle<()>,
    },
    /// Bound and not listening: connections are refused, and nobody else gets the port.
    Down(TcpSocket),
    Stopped,
}

/// An HTTP receiver; ends when dropped. Accepts everything until told otherwise.
#[derive(Debug)]
pub struct Receiver {
    addr: SocketAddr,
    shared: Arc<Shared>,
    door: Mutex<Door>,
}

impl Receiver {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("127.0.0.1 has a free port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let state = State {
            script: VecDeque::new(),
            default: Behaviour::accept(),
            head: None,
            latency: Duration::ZERO,
            requests: Vec::new(),
            connections: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), arrived: Notify::new() });
        let door = Mutex::new(serve(listener, Arc::clone(&shared)));
        Self { addr, shared, door }
    }

    /// `http://127.0.0.1:<port>/events`
    pub fn url(&self) -> String {
        format!("http://{}/events", self.addr)
    }
    /// Where it listens, also while it is down.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on every request gets `behaviour`; forgets the rest of a script.
    pub fn set(&self, behaviour: Behaviour) {
        let mut state = self.shared.state();
        state.script.clear();
        state.default = behaviour;
    }
    /// The next requests get these behaviours in turn, then those after get what [`set`](Self::set)
    /// said. Added to what is left of an earlier script.
    pub fn script(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.shared.state().script.extend(behaviours);
    }
    /// HEAD requests (probes) get `behaviour` and no longer use up the script; `None`: as others.
    pub fn set_head(&self, behaviour: Option<Behaviour>) {
        self.shared.state().head = behaviour;
    }
    /// Waits this long between a request and its answer.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.state().latency = latency;
    }

    /// Every request that came, in the order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }
    /// The POST requests: what channels deliver, without probes.
    pub fn deliveries(&self) -> Vec<Request> {
        let state = self.shared.state();
        state.requests.iter().filter(|r| r.method == "POST").cloned().collect()
    }
    /// The bodies of the [`deliveries`](Self::deliveries); panics where one is not JSON.
    pub fn bodies_json(&self) -> Vec<serde_json::Value> {
        self.deliveries().iter().map(Request::json).collect()
    }
    /// The different idempotency keys of all deliveries.
    pub fn distinct_ids(&self) -> BTreeSet<String> {
        ids(&self.deliveries(), |_| true)
    }
    /// The different idempotency keys of deliveries that were answered 2xx: what the receiver has.
    pub fn accepted_ids(&self) -> BTreeSet<String> {
        ids(&self.deliveries(), |r| r.answered.is_some_and(|status| (200..300).contains(&status)))
    }
    /// TCP connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.state().connections
    }
    /// Forgets the requests; connections keep their count.
    pub fn forget(&self) {
        self.shared.state().requests.clear();
    }

    /// Waits for `n` deliveries in all and returns them; panics when fewer came in time.
    pub async fn wait_for(&self, n: usize, timeout: Duration) -> Vec<Request> {
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            let arrived = self.shared.arrived.notified();
            let deliveries = self.deliveries();
            if deliveries.len() >= n {
                return deliveries;
            }
            if tokio::time::timeout_at(deadline, arrived).await.is_err() {
                panic!("{} of {n} deliveries came within {timeout:?}", deliveries.len());
            }
        }
    }

    /// Closes every connection and refuses new ones. The port stays ours. Returns when it is so.
    pub async fn go_down(&self) {
        if self.close().await {
            *self.door() = Door::Down(hold(self.addr));
        }
    }
    /// Listens again, on the same port; nothing happens when it is not down.
    pub fn come_up(&self) {
        let mut door = self.door();
        match std::mem::replace(&mut *door, Door::Stopped) {
            Door::Down(socket) => {
                let listener = socket.listen(1024).expect("a port that we hold can be listened on");
                *door = serve(listener, Arc::clone(&self.shared));
            }
            other @ (Door::Up { .. } | Door::Stopped) => *door = other,
        }
    }
    /// Ends for good and gives the port back; what came can still be asked for.
    pub async fn stop(&self) {
        self.close().await;
    }

    fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().expect("no holder of this lock panics")
    }

    /// Whether it was up.
    async fn close(&self) -> bool {
        let door = std::mem::replace(&mut *self.door(), Door::Stopped);
        match door {
            Door::Up { stop, task } => {
                let _ = stop.send(());
                let _ = task.await;
                true
            }
            Door::Down(_) | Door::Stopped => false,
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Ok(door) = self.door.get_mut()
            && let Door::Up { task, .. } = door
        {
            task.abort();
        }
    }
}

fn ids(requests: &[Request], wanted: impl Fn(&Request) -> bool) -> BTreeSet<String> {
    requests.iter().filter(|r| wanted(r)).filter_map(|r| r.idempotency_key().map(str::to_owned)).collect()
}

/// Binds without listening.
fn hold(addr: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket.set_reuseaddr(true).expect("the option exists");
    socket.bind(addr).expect("the port was ours a moment ago");
    socket
}

fn serve(listener: TcpListener, shared: Arc<Shared>) -> Door {
    let (stop, mut stopped) = oneshot::channel();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let number = {
                        let mut state = shared.state();
                        state.connections += 1;
                        state.connections
                    };
                    connections.spawn(connection(stream, number, Arc::clone(&shared)));
                }
                Some(_) = connections.join_next() => {}
            }
        }
        connections.shutdown().await;
    });
    Door::Up { stop, task }
}

/// Serves one connection until a behaviour or the peer ends it.
async fn connection(mut stream: TcpStream, number: u64, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = BytesMut::new();
    while let Some(parsed) = http::read_request(&mut stream, &mut buffer).await {
        let head_only = parsed.method == "HEAD";
        let (behaviour, latency) = record(parsed, number, &shared);
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let keep = behave(&behaviour, &mut stream, head_only).await;
        if !keep {
            return;
        }
    }
}

/// Notes the request together with what it gets, so that counts and scripts agree.
fn record(parsed: Parsed, connection: u64, shared: &Shared) -> (Behaviour, Duration) {
    let mut state = shared.state();
    let told = if parsed.method == "HEAD" { state.head.clone() } else { None };
    let behaviour = told.or_else(|| state.script.pop_front()).unwrap_or_else(|| state.default.clone());
    let Parsed { method, path, headers, body } = parsed;
    let answered = behaviour.answered();
    state.requests.push(Request { method, path, headers, body, arrived: Instant::now(), connection, answered });
    let latency = state.latency;
    drop(state);
    shared.arrived.notify_waiters();
    (behaviour, latency)
}

/// Whether the connection goes on.
async fn behave(behaviour: &Behaviour, stream: &mut TcpStream, head_only: bool) -> bool {
    match behaviour {
        Behaviour::Answer { status, headers, body } => {
            let bytes = http::answer(*status, headers, body.as_bytes(), head_only);
            stream.write_all(&bytes).await.is_ok()
        }
        Behaviour::Hang => {
            let mut rest = [0u8; 1024];
            while matches!(stream.read(&mut rest).await, Ok(n) if n > 0) {}
            false
        }
        Behaviour::EndlessBody => {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let mut going = stream.write_all(head).await.is_ok() && !head_only;
            while going {
                going = stream.write_all(b"10\r\n0123456789abcdef\r\n").await.is_ok();
            }
            false
        }
        Behaviour::CloseMidResponse => {
            let part = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"ok\":";
            let _ = stream.write_all(part).await;
            let _ = stream.shutdown().await;
            false
        }
        Behaviour::Close => false,
        Behaviour::Garbage => {
            let _ = stream.write_all(b"\x16\x03\x01\x00\xff this is not HTTP\r\n\r\n").await;
            let _ = stream.shutdown().await;
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One request over a connection of its own; what came back until the receiver had no more.
    async fn ask(addr: SocketAddr, method: &str, key: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(addr).await?;
        let request = format!("{method} /x HTTP/1.1\r\nIdempotency-Key: {key}\r\nContent-Length: 2\r\n\r\n{{}}");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = vec![0u8; 4096];
        let n = stream.read(&mut answer).await?;
        answer.truncate(n);
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    #[tokio::test]
    async fn a_script_runs_out_into_the_default_and_probes_can_be_apart() {
        let receiver = Receiver::start().await;
        receiver.script([Behaviour::status(500), Behaviour::Close]);
        receiver.set_head(Some(Behaviour::status(405)));
        assert!(ask(receiver.addr(), "HEAD", "p").await.unwrap().starts_with("HTTP/1.1 405 "));
        assert!(ask(receiver.addr(), "POST", "a").await.unwrap().starts_with("HTTP/1.1 500 "));
        assert_eq!(ask(receiver.addr(), "POST", "a").await.unwrap_or_default(), "");
        assert!(ask(receiver.addr(), "POST", "a").await.unwrap().ends_with(r#"{"ok":true}"#));
        let deliveries = receiver.wait_for(3, Duration::from_secs(5)).await;
        let answered: Vec<_> = deliveries.iter().map(|r| r.answered).collect();
        assert_eq!(answered, [Some(500), None, Some(200)]);
        assert_eq!((receiver.connections(), receiver.requests().len()), (4, 4));
        assert_eq!((receiver.distinct_ids().len(), receiver.accepted_ids().len()), (1, 1));
    }

    #[tokio::test]
    async fn an_outage_refuses_and_ends_on_the_same_port() {
        let receiver = Receiver::start().await;
        let mut open = TcpStream::connect(receiver.addr()).await.unwrap();
        ask(receiver.addr(), "POST", "a").await.unwrap();
        for _ in 0..3 {
            receiver.go_down().await;
            let refused = ask(receiver.addr(), "POST", "b").await.unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
            receiver.come_up();
            ask(receiver.addr(), "POST", "c").await.unwrap();
        }
        let mut byte = [0u8; 1];
        assert!(!matches!(open.read(&mut byte).await, Ok(n) if n > 0), "old connections were closed");
        assert_eq!(receiver.distinct_ids().len(), 2);
    }
}
