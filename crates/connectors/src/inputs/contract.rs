//! What every input promises, as a suite that each input runs on its real sockets.
//!
//! An input gives a [`Subject`]: how to start it and how to speak its protocol, well and badly.
//! [`all`] does the rest. The sink is a [`RecordingSink`]: it keeps what it is given, and refuses
//! or holds on demand.

use super::{Accepted, NewEvent, Refused, Reject, Sink};
use async_trait::async_trait;
use model::{Durability, EventId, EventIdSource, InputKind, RejectReason, Timestamp};
use runtime::{Stop, Stopper};
use serde_json::{Map, Value};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// `run` has to end this soon after its stop.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// A listener that runs.
pub struct Running {
    pub address: SocketAddr,
    pub task: JoinHandle<()>,
}

/// What a client knows about the messages it sent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Acknowledged: must be in the sink.
    pub acknowledged: usize,
    /// Refused in the protocol's own words: the client still has them.
    pub refused: usize,
    /// Neither; the protocol has no answers.
    pub unanswered: usize,
}

/// What the contract needs to know of one input.
#[async_trait]
pub trait Subject: Send + Sync {
    /// Binds to port 0 of the loopback interface and runs.
    async fn start(&self, sink: Arc<dyn Sink>, stop: Stop) -> Running;

    /// Sends each text as the `message` of one event, as one good client, and returns when the
    /// protocol lets it (a client with backpressure may wait for the sink).
    async fn send(&self, to: SocketAddr, messages: &[String]) -> Sent;

    /// The `message` of the event that a text becomes; where the protocol says more than the text.
    fn arrives_as(&self, text: &str) -> String {
        text.to_owned()
    }

    /// Throws bytes at the listener as one bad client and goes away.
    async fn throw(&self, to: SocketAddr, bytes: &[u8]);

    /// Inputs that the listener must count as rejected, once each, when thrown alone.
    fn malformed(&self) -> Vec<Vec<u8>>;
}

/// Runs the whole contract.
pub async fn all(subject: &dyn Subject) {
    what_is_sent_arrives_once(subject).await;
    rejects_are_counted(subject).await;
    hostile_bytes_never_end_the_listener(subject).await;
    a_bad_client_harms_no_neighbour(subject).await;
    a_full_sink_loses_nothing_silently(subject).await;
    it_ends_soon_after_its_stop(subject).await;
}

async fn what_is_sent_arrives_once(subject: &dyn Subject) {
    let (sink, running, stopper) = start(subject).await;
    let messages = numbered("arrives", 500);
    let sent = subject.send(running.address, &messages).await;
    assert_eq!(sent.refused, 0, "an idle sink refuses nobody");
    sink.wait_for_events(500).await;
    end(running, &stopper).await;
    let mut found = sink.messages();
    found.sort();
    let mut expected = arriving(subject, &messages);
    expected.sort();
    assert_eq!(found, expected);
    sink.assert_sound();
}

async fn rejects_are_counted(subject: &dyn Subject) {
    let (sink, running, stopper) = start(subject).await;
    for (i, bytes) in subject.malformed().iter().enumerate() {
        subject.throw(running.address, bytes).await;
        sink.wait_until("the reject is counted", |s| s.rejects.len() > i).await;
        assert_eq!(sink.rejects().len(), i + 1, "once: {:?}", String::from_utf8_lossy(bytes));
    }
    for (_, detail) in sink.rejects() {
        assert!(!detail.is_empty(), "a reject says why");
    }
    end(running, &stopper).await;
}

async fn hostile_bytes_never_end_the_listener(subject: &dyn Subject) {
    let (sink, running, stopper) = start(subject).await;
    let mut random = Random(0x5eed);
    for _ in 0..60 {
        let bytes = random.hostile();
        subject.throw(running.address, &bytes).await;
    }
    assert!(!running.task.is_finished(), "the listener survives");
    let messages = numbered("after-hostile", 10);
    subject.send(running.address, &messages).await;
    let messages = arriving(subject, &messages);
    sink.wait_until("good events arrive after hostile bytes", |s| {
        messages.iter().all(|m| s.messages().any(|found| found == *m))
    })
    .await;
    end(running, &stopper).await;
    sink.assert_sound();
}

async fn a_bad_client_harms_no_neighbour(subject: &dyn Subject) {
    let (sink, running, stopper) = start(subject).await;
    let messages = numbered("neighbour", 200);
    let bad = async {
        let mut random = Random(7);
        for bytes in subject.malformed().iter().cycle().take(10) {
            subject.throw(running.address, bytes).await;
            subject.throw(running.address, &random.hostile()).await;
        }
    };
    let good = async {
        for part in messages.chunks(20) {
            assert_eq!(subject.send(running.address, part).await.refused, 0);
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(bad, good);
    let messages = arriving(subject, &messages);
    sink.wait_until("everything of the good client arrives", |s| {
        messages.iter().all(|m| s.messages().filter(|found| found == m).count() == 1)
    })
    .await;
    end(running, &stopper).await;
}

async fn a_full_sink_loses_nothing_silently(subject: &dyn Subject) {
    let (sink, running, stopper) = start(subject).await;
    sink.refuse(RejectReason::QueueFull, Duration::from_millis(20));
    let messages = numbered("full", 300);
    let address = running.address;
    let (sent, ()) = tokio::join!(subject.send(address, &messages), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(sink.messages().len(), 0, "nothing goes past a sink that refuses");
        sink.take();
    });
    sink.wait_until("acknowledged events are in the sink", |s| {
        let known = s.messages().count() + s.rejects.len() + usize::try_from(s.lost).unwrap_or(usize::MAX);
        known >= sent.acknowledged + sent.unanswered
    })
    .await;
    end(running, &stopper).await;
    let mut found = sink.messages();
    let all = found.len();
    found.sort();
    found.dedup();
    assert_eq!(found.len(), all, "nothing twice");
    let counted = sink.rejects().len() + usize::try_from(sink.lost()).unwrap_or(usize::MAX);
    assert!(found.len() >= sent.acknowledged, "{} of {sent:?}", found.len());
    assert!(found.len() + counted >= sent.acknowledged + sent.unanswered, "{} and {counted} of {sent:?}", found.len());
}

async fn it_ends_soon_after_its_stop(subject: &dyn Subject) {
    let (sink, running, stopper) = start(subject).await;
    let messages = numbered("stop", 100);
    let sent = subject.send(running.address, &messages).await;
    end(running, &stopper).await;
    let counted = sink.rejects().len() + usize::try_from(sink.lost()).unwrap_or(usize::MAX);
    assert!(sink.messages().len() >= sent.acknowledged);
    assert!(sink.messages().len() + counted >= sent.acknowledged + sent.unanswered, "what was read is handed over");

    let (sink, running, stopper) = start(subject).await;
    sink.refuse(RejectReason::QueueFull, Duration::from_secs(60));
    tokio::select! {
        _ = subject.send(running.address, &messages) => {}
        () = tokio::time::sleep(Duration::from_millis(300)) => {}
    }
    end(running, &stopper).await;
}

async fn start(subject: &dyn Subject) -> (Arc<RecordingSink>, Running, Stopper) {
    let sink = RecordingSink::new();
    let (stopper, stop) = Stopper::new();
    let running = subject.start(Arc::clone(&sink) as Arc<dyn Sink>, stop).await;
    (sink, running, stopper)
}

async fn end(running: Running, stopper: &Stopper) {
    assert!(!running.task.is_finished(), "it runs until it is stopped");
    stopper.stop();
    let ended = tokio::time::timeout(STOP_WITHIN, running.task).await;
    ended.expect("it ends soon after its stop").expect("it does not panic");
}

fn numbered(what: &str, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{what} {i:05}")).collect()
}

fn arriving(subject: &dyn Subject, messages: &[String]) -> Vec<String> {
    messages.iter().map(|text| subject.arrives_as(text)).collect()
}

/// What a sink was given.
#[derive(Debug, Default)]
pub struct Recorded {
    pub events: Vec<NewEvent>,
    pub rejects: Vec<(RejectReason, String)>,
    pub lost: u64,
    /// Batches accepted.
    pub batches: usize,
}

impl Recorded {
    /// The `message` of each event.
    pub fn messages(&self) -> impl Iterator<Item = String> + '_ {
        self.events.iter().map(|e| match object(e).get("message") {
            Some(Value::String(text)) => text.clone(),
            other => format!("{other:?}"),
        })
    }
}

fn object(event: &NewEvent) -> Map<String, Value> {
    serde_json::from_slice(&event.object).expect("an event is a JSON object")
}

#[derive(Debug, Clone)]
enum Mood {
    Take,
    Refuse(Refused),
    Hold,
}

/// A sink in memory that says yes, says no, or says nothing.
pub struct RecordingSink {
    recorded: Mutex<Recorded>,
    changed: watch::Sender<()>,
    mood: watch::Sender<Mood>,
    ids: EventIdSource,
    refusals: AtomicU64,
}

impl RecordingSink {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            recorded: Mutex::default(),
            changed: watch::channel(()).0,
            mood: watch::channel(Mood::Take).0,
            ids: EventIdSource::new(1),
            refusals: AtomicU64::new(0),
        })
    }

    /// From now on everything is accepted, what is held too.
    pub fn take(&self) {
        self.mood.send_replace(Mood::Take);
    }
    /// From now on everything is refused.
    pub fn refuse(&self, reason: RejectReason, retry_after: Duration) {
        self.mood.send_replace(Mood::Refuse(Refused { reason, retry_after, queue_depth: 10, queue_limit: 10 }));
    }
    /// From now on nobody gets an answer.
    pub fn hold(&self) {
        self.mood.send_replace(Mood::Hold);
    }

    pub fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().expect("no test panics while it looks")
    }
    pub fn messages(&self) -> Vec<String> {
        self.recorded().messages().collect()
    }
    pub fn objects(&self) -> Vec<Map<String, Value>> {
        self.recorded().events.iter().map(object).collect()
    }
    pub fn rejects(&self) -> Vec<(RejectReason, String)> {
        self.recorded().rejects.clone()
    }
    pub fn rejected(&self, reason: RejectReason) -> usize {
        self.recorded().rejects.iter().filter(|(r, _)| *r == reason).count()
    }
    pub fn lost(&self) -> u64 {
        self.recorded().lost
    }
    /// How often a batch was refused.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::SeqCst)
    }

    pub async fn wait_for_events(&self, n: usize) {
        self.wait_until(&format!("{n} events arrive"), |r| r.events.len() >= n).await;
    }

    /// Waits until what was recorded is as asked; fails the test with `what` after a long time.
    pub async fn wait_until(&self, what: &str, mut asked: impl FnMut(&Recorded) -> bool) {
        let mut changes = self.changed.subscribe();
        let waited = tokio::time::timeout(PATIENCE, async {
            while !asked(&self.recorded()) {
                let _ = changes.changed().await;
            }
        });
        if waited.await.is_err() {
            let recorded = self.recorded();
            panic!(
                "in vain: {what}; {} events, {} lost, rejects: {:?}",
                recorded.events.len(),
                recorded.lost,
                recorded.rejects.iter().take(5).collect::<Vec<_>>()
            );
        }
    }

    /// Every event is what [`NewEvent::object`] promises.
    pub fn assert_sound(&self) {
        for event in &self.recorded().events {
            assert!(event.object.starts_with(b"{") && event.object.ends_with(b"}"), "{:?}", event.object);
            let object = object(event);
            assert!(object.keys().all(|k| !k.starts_with('_')), "{object:?}");
            assert!(object.get("hostname").is_some_and(|h| h != ""), "{object:?}");
        }
    }

    fn record(&self, change: impl FnOnce(&mut Recorded)) {
        change(&mut self.recorded());
        self.changed.send_replace(());
    }
}

#[async_trait]
impl Sink for RecordingSink {
    async fn admit(&self, _: u32, _: u32) -> Result<(), Refused> {
        Ok(())
    }

    fn room(&self) -> Result<(), Refused> {
        match &*self.mood.borrow() {
            Mood::Refuse(refused) => Err(refused.clone()),
            Mood::Take | Mood::Hold => Ok(()),
        }
    }

    async fn accept(&self, batch: Vec<NewEvent>, _: Durability) -> Result<Accepted, Refused> {
        let mut mood = self.mood.subscribe();
        let held = mood.wait_for(|m| !matches!(m, Mood::Hold)).await.map(|m| m.clone());
        if let Ok(Mood::Refuse(refused)) = held {
            self.refusals.fetch_add(1, Ordering::SeqCst);
            return Err(refused);
        }
        let ids: Vec<EventId> =
            batch.iter().map(|event| event.id.unwrap_or_else(|| self.ids.next(Timestamp::from_secs(1)))).collect();
        let queue_depth = ids.len() as u64;
        self.record(|r| {
            r.events.extend(batch);
            r.batches += 1;
        });
        Ok(Accepted { ids, queue_depth })
    }

    fn reject(&self, reject: Reject<'_>) {
        self.record(|r| r.rejects.push((reject.reason, reject.detail.to_owned())));
    }

    fn lost(&self, _: InputKind, n: u64) {
        self.record(|r| r.lost += n);
    }
}

/// A seeded source of hostile bytes (xorshift): the same in every run.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }

    /// Noise, and pieces of protocols with noise between them.
    pub fn hostile(&mut self) -> Vec<u8> {
        const PIECES: [&[u8]; 16] = [
            b"GET / HTTP/1.1\r\n",
            b"POST /ingest HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
            b"{\"a\":",
            b"[[[[[[[[",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"<34>1 ",
            b"<",
            b"99999999999 <",
            b"5 <1>",
            b"\0\0\0\0",
            b"\n",
            b"\r\n\r\n",
            b"\xff\xfe\xfd",
            b"[a b=\"",
            b"\\\\\\\\",
            b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ];
        let mut out = Vec::new();
        for _ in 0..self.below(30) {
            if self.below(2) == 0 {
                out.extend_from_slice(PIECES[self.below(PIECES.len())]);
            } else {
                let n = self.below(200);
                out.extend((0..n).map(|_| self.below(256) as u8));
            }
        }
        out
    }
}
