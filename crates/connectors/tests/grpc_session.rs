//! Sessions: what is acknowledged, what comes again, who may say what, and the end.
#![allow(clippy::unwrap_used, reason = "a test and its helpers")]

mod grpc_support;

use async_trait::async_trait;
use connectors::inputs::grpc::GatewayConfig;
use connectors::inputs::{Accepted, NewEvent, Refused, Reject, Sink};
use grpc_support::{FakeDesk, Gateway, Tls, config, now_ms, run};
use model::{Durability, InputKind, RejectReason};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use testkit::agents::{Agent, AgentSession, Authority, log_event, record};
use tonic::Code;
use wire::{MetricEvent, MitigateResponse, Record, Status, agent_message, record as kind, server_message};

fn log(org: &str, host: &str, message: &str) -> Record {
    Record { body: Some(kind::Body::Log(log_event(org, host, message))) }
}

fn records(messages: &[&str]) -> Vec<Record> {
    messages.iter().map(|text| record(text)).collect()
}

/// The status that a session ends with.
async fn end(session: &mut AgentSession) -> tonic::Status {
    loop {
        if let Err(status) = session.hear().await {
            return status;
        }
    }
}

#[tokio::test]
async fn a_batch_is_acknowledged_when_it_is_durable_and_not_before() {
    let gateway = Gateway::start();
    let agent = gateway.certified().await;
    let mut session = agent.session(7).await.unwrap();
    assert_eq!((session.welcome.heartbeat_interval_seconds, session.welcome.acked), (30, None));
    gateway.sink.hold();
    session.send(1, now_ms(), records(&["a", "b"])).await;
    session.send(3, now_ms(), records(&["c"])).await;
    assert!(tokio::time::timeout(Duration::from_millis(300), session.acked()).await.is_err());
    gateway.sink.take();
    assert_eq!(session.acked().await.unwrap(), 2);
    assert_eq!(session.acked().await.unwrap(), 3);
    assert_eq!(gateway.sink.messages(), ["a", "b", "c"]);
    let objects = gateway.sink.objects();
    assert!(objects.iter().all(|object| object["hostname"] == "web" && object["stream"] == "file"));
    assert!(gateway.sink.recorded().events.iter().all(|event| event.org.as_str() == "acme" && event.id.is_some()));
    assert_eq!(gateway.desk.memory().acked[&("agt_web".to_owned(), 7)], 3);
}

#[tokio::test]
async fn what_comes_again_is_acknowledged_again_and_stored_once() {
    let gateway = Gateway::start();
    let sent = now_ms();
    let mut session = gateway.certified().await.session(7).await.unwrap();
    session.send(1, sent, records(&["a", "b"])).await;
    assert_eq!(session.acked().await.unwrap(), 2);
    session.send(1, sent, records(&["a", "b"])).await;
    assert_eq!(session.acked().await.unwrap(), 2);
    // The acknowledgement was lost with the connection; the next batch overlaps.
    drop(session);
    let mut session = gateway.certified().await.session(7).await.unwrap();
    assert_eq!(session.welcome.acked.map(|acked| acked.through_seq), Some(2));
    session.send(2, sent, records(&["b", "c"])).await;
    assert_eq!(session.acked().await.unwrap(), 3);
    assert_eq!(gateway.sink.messages(), ["a", "b", "c"]);
    // A server without memory stores it again, under the same ids.
    gateway.desk.memory().forgets_acks = true;
    let mut session = gateway.certified().await.session(7).await.unwrap();
    session.send(1, sent, records(&["a", "b"])).await;
    assert_eq!(session.acked().await.unwrap(), 2);
    let recorded = gateway.sink.recorded();
    assert_eq!(recorded.events.len(), 5);
    assert_eq!(recorded.events[0].id, recorded.events[3].id);
    assert_eq!(recorded.events[0].object, recorded.events[3].object);
}

#[tokio::test]
async fn a_record_of_another_is_refused_alone() {
    let gateway = Gateway::start();
    let mut session = gateway.certified().await.session(7).await.unwrap();
    let nan = MetricEvent { name: "cpu_usage".into(), value: f64::NAN, ..MetricEvent::default() };
    let cpu = MetricEvent { name: "cpu_usage".into(), value: 45.5, unit: "%".into(), ..MetricEvent::default() };
    let batch = vec![
        record("a"),
        log("beta", "web", "of another organisation"),
        log("acme", "db", "of another host"),
        Record { body: None },
        Record { body: Some(kind::Body::Metric(nan)) },
        Record { body: Some(kind::Body::Metric(cpu)) },
        log("acme", "web", "z"),
    ];
    session.send(1, now_ms(), batch).await;
    assert_eq!(session.acked().await.unwrap(), 7);
    assert_eq!(gateway.sink.messages(), ["a", "cpu_usage: 45.5 %", "z"]);
    let reasons: Vec<_> = gateway.sink.rejects().into_iter().map(|(reason, _)| reason).collect();
    let expected =
        [RejectReason::Unauthorized, RejectReason::Unauthorized, RejectReason::Unsupported, RejectReason::Malformed];
    assert_eq!(reasons, expected);
    gateway.sink.assert_sound();
}

#[tokio::test]
async fn a_full_queue_holds_a_batch_and_then_sends_the_agent_away_with_nothing_lost() {
    let config = GatewayConfig { hold: Duration::from_millis(300), ..config() };
    let gateway = Gateway::start_with(config, None);
    let mut session = gateway.certified().await.session(7).await.unwrap();
    gateway.sink.refuse(RejectReason::QueueFull, Duration::from_millis(20));
    session.send(1, now_ms(), records(&["a"])).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    gateway.sink.take();
    assert_eq!(session.acked().await.unwrap(), 1, "a short fullness is waited for");

    gateway.sink.refuse(RejectReason::QueueFull, Duration::from_millis(20));
    session.send(2, now_ms(), vec![log("beta", "", "foreign"), record("b")]).await;
    session.send(4, now_ms(), records(&["c"])).await;
    // The foreign record will come again with its batch; it is counted when that is taken.
    assert_eq!(session.acked().await.unwrap(), 2);
    match session.hear().await.unwrap() {
        server_message::Body::RetryLater(later) => assert_eq!((later.after_ms, &*later.reason), (1_000, "queue_full")),
        other => panic!("{other:?}"),
    }
    gateway.sink.take();
    // What was behind it must not be acknowledged past the hole.
    assert_eq!(end(&mut session).await.code(), Code::Unavailable);
    assert_eq!(gateway.sink.messages(), ["a"]);
    let mut session = gateway.certified().await.session(7).await.unwrap();
    session.send(3, now_ms(), records(&["b"])).await;
    session.send(4, now_ms(), records(&["c"])).await;
    assert_eq!((session.acked().await.unwrap(), session.acked().await.unwrap()), (3, 4));
    assert_eq!(gateway.sink.messages(), ["a", "b", "c"]);
    assert_eq!(gateway.sink.rejected(RejectReason::Unauthorized), 1);
}

/// A queue of so many events, which somebody empties; it takes no event of over 1,000 bytes.
struct SmallQueue {
    limit: usize,
    depth: Mutex<usize>,
    kept: Mutex<Vec<NewEvent>>,
    rejected: Mutex<Vec<RejectReason>>,
}

#[async_trait]
impl Sink for SmallQueue {
    async fn admit(&self, _: u32, _: u32) -> Result<(), Refused> {
        Ok(())
    }
    fn room(&self) -> Result<(), Refused> {
        Ok(())
    }
    async fn accept(&self, batch: Vec<NewEvent>, _: Durability) -> Result<Accepted, Refused> {
        let mut depth = self.depth.lock().unwrap();
        let queue_limit = self.limit as u64;
        let refused = |reason| Refused { reason, retry_after: Duration::from_millis(1), queue_depth: 0, queue_limit };
        if batch.len() > self.limit || batch.iter().any(|event| event.object.len() > 1_000) {
            return Err(refused(RejectReason::TooLarge));
        }
        if *depth + batch.len() > self.limit {
            *depth = depth.saturating_sub(30);
            return Err(refused(RejectReason::QueueFull));
        }
        *depth += batch.len();
        let ids = batch.iter().filter_map(|event| event.id).collect();
        self.kept.lock().unwrap().extend(batch);
        Ok(Accepted { ids, queue_depth: *depth as u64 })
    }
    fn reject(&self, reject: Reject<'_>) {
        self.rejected.lock().unwrap().push(reject.reason);
    }
    fn lost(&self, _: InputKind, _: u64) {}
}

#[tokio::test]
async fn a_batch_larger_than_the_queue_goes_in_parts_and_what_can_never_be_taken_goes_alone() {
    let queue = SmallQueue { limit: 100, depth: Mutex::default(), kept: Mutex::default(), rejected: Mutex::default() };
    let (queue, authority) = (Arc::new(queue), Authority::new());
    let (_stopper, stop) = runtime::Stopper::new();
    let tls = Arc::new(Tls::new(&authority));
    let (to, _task) = run(config(), queue.clone(), &FakeDesk::default(), tls, None, stop);
    let client = authority.client_config(&[&rustls::version::TLS13], Some(&authority.agent("acme", "agt_web")));
    let mut session = Agent::encrypted(to, client).await.unwrap().session(1).await.unwrap();
    let large = "x".repeat(2_000);
    let batch = (0..1_000).map(|n| if n == 517 { record(&large) } else { record(&n.to_string()) }).collect();
    session.send(1, now_ms(), batch).await;
    assert_eq!(session.acked().await.unwrap(), 1_000);
    let numbers: Vec<u64> = queue.kept.lock().unwrap().iter().map(|event| event.id.unwrap().counter()).collect();
    assert_eq!(numbers, (1..=1_000).filter(|seq| *seq != 518).collect::<Vec<_>>(), "in order, and once each");
    assert_eq!(*queue.rejected.lock().unwrap(), [RejectReason::TooLarge]);
}

#[tokio::test]
async fn a_revoked_agent_is_heard_no_more_even_when_it_says_nothing() {
    let gateway = Gateway::start();
    let agent = gateway.certified().await;
    let mut idle = agent.session(7).await.unwrap();
    let mut busy = agent.session(8).await.unwrap();
    gateway.desk.revoke("agt_web");
    busy.send(1, now_ms(), records(&["after"])).await;
    assert_eq!(end(&mut busy).await.code(), Code::Unauthenticated);
    let status = tokio::time::timeout(Duration::from_secs(5), end(&mut idle)).await.expect("within five seconds");
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "this agent is revoked"));
    assert_eq!(gateway.sink.messages().len(), 0);
    // Neither on this connection nor on a new one.
    assert_eq!(agent.session(7).await.err().unwrap().code(), Code::Unauthenticated);
    assert_eq!(gateway.certified().await.session(7).await.err().unwrap().code(), Code::Unauthenticated);
    assert_eq!(agent.renew(vec![1]).await.unwrap_err().code(), Code::Unauthenticated);
    gateway.until("all sessions end", |memory| memory.open == 0).await;
}

#[tokio::test]
async fn the_session_of_a_dead_connection_ends_before_the_next_begins() {
    let gateway = Gateway::start();
    let old_agent = gateway.certified().await;
    let mut old = old_agent.session(7).await.unwrap();
    gateway.sink.hold();
    let sent = now_ms();
    old.send(1, sent, records(&["a"])).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let agent = gateway.certified().await;
    let (new, ()) = tokio::join!(agent.session(7), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        gateway.sink.take();
    });
    let mut new = new.unwrap();
    assert_eq!(new.welcome.acked.map(|acked| acked.through_seq), Some(1), "it waited for what the old one stored");
    assert_eq!(end(&mut old).await.code(), Code::Unavailable);
    new.send(1, sent, records(&["a"])).await;
    assert_eq!(new.acked().await.unwrap(), 1);
    assert_eq!(gateway.sink.messages(), ["a"]);
}

#[tokio::test]
async fn commands_heartbeats_and_answers_go_through_the_session() {
    let gateway = Gateway::start();
    gateway.desk.command("web", "before");
    let mut session = gateway.certified().await.session(7).await.unwrap();
    let command = |body| match body {
        server_message::Body::MitigateRequest(request) => request.request_id,
        other => panic!("{other:?}"),
    };
    assert_eq!(command(session.hear().await.unwrap()), "before");
    gateway.desk.command("web", "now");
    assert_eq!(command(session.hear().await.unwrap()), "now");
    let response = MitigateResponse { request_id: "now".into(), success: true, error_message: String::new() };
    session.say(agent_message::Body::MitigateResponse(response)).await;
    session.say(agent_message::Body::Status(Status { spool_records: 5, ..Status::default() })).await;
    gateway.until("both arrive", |m| m.answered.len() == 1 && m.statuses.len() == 1).await;
    {
        let memory = gateway.desk.memory();
        assert_eq!((&*memory.answered[0].0.agent, &*memory.answered[0].1.request_id), ("agt_web", "now"));
        assert_eq!((memory.statuses[0].spool_records, memory.open), (5, 1));
    }
    let mut rest = session.half_close();
    assert_eq!(rest.message().await.unwrap(), None, "it ends well when the agent has said everything");
    gateway.until("the session ends", |memory| memory.open == 0).await;
}

#[tokio::test]
async fn nobody_has_a_session_without_an_identity_or_a_greeting() {
    let gateway = Gateway::start();
    let stranger = gateway.plain().await;
    assert_eq!(stranger.session(1).await.err().unwrap().code(), Code::Unauthenticated);
    assert_eq!(stranger.renew(vec![1]).await.unwrap_err().code(), Code::Unauthenticated);
    let agent = gateway.certified().await;
    let (out, mut answers) = agent.open_session().await.unwrap();
    let status = agent_message::Body::Status(Status::default());
    out.send(wire::AgentMessage { body: Some(status) }).await.unwrap();
    assert_eq!(answers.message().await.unwrap_err().code(), Code::FailedPrecondition);
    // A token does where there is no TLS.
    let old = gateway.logged_in().await;
    let mut session = old.session(1).await.unwrap();
    session.send(1, now_ms(), records(&["by token"])).await;
    assert_eq!(session.acked().await.unwrap(), 1);
}

#[tokio::test]
async fn a_batch_that_makes_no_sense_ends_its_session_only() {
    let gateway = Gateway::start();
    let agent = gateway.certified().await;
    let mut other = agent.session(1).await.unwrap();
    let mut endless = agent.session(2).await.unwrap();
    endless.send(u64::MAX, now_ms(), records(&["a", "b"])).await;
    assert_eq!(end(&mut endless).await.code(), Code::InvalidArgument);
    let mut large = agent.session(3).await.unwrap();
    large.send(1, now_ms(), vec![Record::default(); wire::BATCH_RECORDS_MAX + 1]).await;
    assert_eq!(end(&mut large).await.code(), Code::InvalidArgument);
    let mut huge = agent.session(4).await.unwrap();
    huge.send(1, now_ms(), records(&["x".repeat(wire::MESSAGE_BYTES_MAX).as_str()])).await;
    assert_eq!(end(&mut huge).await.code(), Code::ResourceExhausted);
    let mut wordy = agent.session(6).await.unwrap();
    let collectors = [("journal".to_owned(), "x".repeat(100_000))].into();
    wordy.say(agent_message::Body::Status(Status { collectors, ..Status::default() })).await;
    assert_eq!(end(&mut wordy).await.code(), Code::ResourceExhausted);
    let mut strange = agent.session(5).await.unwrap();
    let batch = wire::Batch { epoch: 6, first_seq: 1, sent_unix_ms: now_ms(), records: records(&["a"]) };
    strange.say(agent_message::Body::Batch(batch)).await;
    assert_eq!(end(&mut strange).await.code(), Code::InvalidArgument);
    other.send(1, now_ms(), records(&["sound"])).await;
    assert_eq!(other.acked().await.unwrap(), 1);
    assert_eq!(gateway.sink.messages(), ["sound"]);
}

#[tokio::test]
async fn a_stop_ends_everything_that_is_open_in_time() {
    let gateway = Gateway::start();
    let agent = gateway.certified().await;
    let mut session = agent.session(1).await.unwrap();
    session.send(1, now_ms(), records(&["last"])).await;
    assert_eq!(session.acked().await.unwrap(), 1);
    let old = gateway.logged_in().await;
    let (_answers, mut commands) = old.receive_commands().await.unwrap();
    let (events, ack) = old.open_events().await.unwrap();
    events.send(log_event("acme", "x7", "on its way")).await.unwrap();
    gateway.sink.wait_for_events(2).await;
    events.send(log_event("acme", "x7", "in the last moment")).await.unwrap();
    let (sink, desk) = gateway.stop().await;
    assert_eq!(end(&mut session).await.code(), Code::Unavailable);
    assert_eq!(commands.message().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(ack.await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert_eq!(sink.messages(), ["last", "on its way", "in the last moment"]);
    let memory = desk.memory();
    assert_eq!((memory.open, memory.connections), (0, 0));
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_queue_that_hangs() {
    let gateway = Gateway::start();
    let mut session = gateway.certified().await.session(1).await.unwrap();
    gateway.sink.hold();
    session.send(1, now_ms(), records(&["never"])).await;
    let agent = gateway.logged_in().await;
    let (events, ack) = agent.open_events().await.unwrap();
    events.send(log_event("acme", "x7", "lost")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (sink, _) = gateway.stop().await;
    assert_eq!(end(&mut session).await.code(), Code::Unavailable, "not acknowledged: it will come again");
    assert!(ack.await.unwrap().is_err());
    assert_eq!(sink.messages().len(), 0);
    assert_eq!(sink.rejected(RejectReason::StorageFailed), 1, "what will not come again is counted");
}
