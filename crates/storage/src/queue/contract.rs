//! What every queue driver must do. `Opener` opens the same queues again, as after a restart.

#![expect(clippy::unwrap_used, reason = "a suite for tests: a failure is a panic")]

use super::{Delivery, Durability, Queue, QueueName, Queues, Rejection, decode_dead_letter};
use bytes::Bytes;
use model::ErrorKind;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Opens the queues under test; calling it again reopens the same ones. `lease` must be one second
/// and the ingest bound [`BOUND`] records.
pub type Opener<'a> = dyn Fn() -> Pin<Box<dyn Future<Output = Queues>>> + 'a;

/// Records the ingest queue under test may hold.
pub const BOUND: u64 = 100;

/// The lease the driver under test is opened with.
pub const LEASE: Duration = Duration::from_secs(1);

const SOON: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(10);

fn records(range: std::ops::Range<u32>) -> Vec<Bytes> {
    range.map(|n| Bytes::from(format!(r#"{{"n":{n}}}"#))).collect()
}

fn payloads(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|d| String::from_utf8_lossy(&d.payload).into_owned()).collect()
}

async fn fresh(open: &Opener<'_>) -> (Queues, Arc<dyn Queue>) {
    let queues = open().await;
    for name in QueueName::ALL {
        let queue = queues.get(name);
        let mut consumer = queue.consumer();
        loop {
            let all =
                consumer.next(1_000, if queue.stats().await.unwrap().depth == 0 { SOON } else { LONG }).await.unwrap();
            if all.is_empty() {
                break;
            }
            consumer.settle(all.into_iter().map(Delivery::ack).collect()).await.unwrap();
        }
        assert_eq!(queue.stats().await.unwrap().depth, 0);
    }
    let queue = Arc::clone(queues.get(QueueName::Ingest));
    (queues, queue)
}

/// Runs every check. `survives` = records outlive a reopen.
pub async fn run(open: &Opener<'_>, survives: bool) {
    in_order_and_once(open).await;
    equal_records_are_two_records(open).await;
    two_consumers_never_hold_one_record(open).await;
    unsettled_comes_back_after_its_lease(open).await;
    late_settling_is_harmless(open).await;
    retry_spends_an_attempt_and_waits_defer_does_not_spend(open).await;
    full_says_full_and_keeps_nothing_of_the_batch(open).await;
    rejected_is_in_the_dead_letters_with_its_reason(open).await;
    a_sleeping_consumer_wakes_for_a_new_record(open).await;
    peek_and_take_work_on_a_choice(open).await;
    oversize_is_invalid_not_full(open).await;
    if survives {
        everything_unsettled_survives_a_reopen(open).await;
    }
}

async fn in_order_and_once(open: &Opener<'_>) {
    let (_queues, queue) = fresh(open).await;
    for durability in Durability::ALL {
        queue.publish(records(0..5), durability).await.unwrap();
        let mut consumer = queue.consumer();
        let mut seen = Vec::new();
        while seen.len() < 5 {
            let got = consumer.next(2, LONG).await.unwrap();
            assert!(!got.is_empty() && got.len() <= 2);
            seen.extend(payloads(&got));
            consumer.settle(got.into_iter().map(Delivery::ack).collect()).await.unwrap();
        }
        assert_eq!(seen, (0..5).map(|n| format!(r#"{{"n":{n}}}"#)).collect::<Vec<_>>());
        assert!(consumer.next(10, SOON).await.unwrap().is_empty(), "settled records never come back");
    }
}

async fn equal_records_are_two_records(open: &Opener<'_>) {
    let (_queues, queue) = fresh(open).await;
    queue.publish([records(0..1), records(0..1)].concat(), Durability::Strict).await.unwrap();
    queue.publish(records(0..1), Durability::Strict).await.unwrap();
    let mut consumer = queue.consumer();
    let mut got = consumer.next(10, LONG).await.unwrap();
    assert_eq!(got.len(), 3);
    let (last, first) = (got.remove(2), got.remove(0));
    consumer.settle(vec![first.retry_after(Duration::ZERO), last.ack()]).await.unwrap();
    assert_eq!(queue.stats().await.unwrap().depth, 2, "one is settled, one comes again, one is held");
    let again = consumer.next(10, LONG).await.unwrap();
    assert_eq!((again.len(), again[0].attempts), (1, 1));
    consumer.settle(got.into_iter().chain(again).map(Delivery::ack).collect()).await.unwrap();
    assert_eq!(queue.stats().await.unwrap().depth, 0);
}

async fn two_consumers_never_hold_one_record(open: &Opener<'_>) {
    let (_queues, queue) = fresh(open).await;
    queue.publish(records(0..50), Durability::Strict).await.unwrap();
    let (mut a, mut b) = (queue.consumer(), queue.consumer());
    let (from_a, from_b) = tokio::join!(a.next(30, LONG), b.next(30, LONG));
    let (from_a, from_b) = (from_a.unwrap(), from_b.unwrap());
    let all: BTreeSet<String> = payloads(&from_a).into_iter().chain(payloads(&from_b)).collect();
    assert_eq!(all.len(), from_a.len() + from_b.len());
    a.settle(from_a.into_iter().map(Delivery::ack).collect()).await.unwrap();
    b.settle(from_b.into_iter().map(Delivery::ack).collect()).await.unwrap();
}

async fn unsettled_comes_back_after_its_lease(open: &Opener<'_>) {
    let (_queues, queue) = fresh(open).await;
    queue.publish(records(0..1), Durability::Strict).await.unwrap();
    let mut consumer = queue.consumer();
    drop(consumer.next(1, LONG).await.unwrap());
    assert!(consumer.next(1, SOON).await.unwrap().is_empty(), "held until the lease ends");
    let again = consumer.next(1, LONG).await.unwrap();
    assert_eq!((again.len(), again[0].attempts), (1, 0));
    consumer.settle(again.into_iter().map(Delivery::ack).collect()).await.unwrap();
}

async fn late_settling_is_harmless(open: &Opener<'_>) {
    let (_queues, queue) = fresh(open).await;
    queue.publish(records(0..1), Durability::Strict).await.unwrap();
    let mut slow = queue.consumer();
    let mut quick = queue.consumer();
    let held = slow.next(1, LONG).await.unwrap();
    let again = quick.next(1, LONG).await.unwrap();
    assert_eq!(again.len(), 1, "after the lease another consumer gets it");
    slow.settle(held.into_iter().map(Delivery::ack).collect()).await.unwrap();
    quick.settle(again.into_iter().map(Delivery::ack).collect()).await.unwrap();
    assert_eq!(queue.stats().await.unwrap().depth, 0);
}

async fn retry_spends_an_attempt_and_waits_defer_does_not_spend(open: &Opener<'_>) {
    let (_queues, queue) = fresh(open).await;
    queue.publish(records(0..1), Durability::Strict).await.unwrap();
    let mut consumer = queue.consumer();
    let first = consumer.next(1, LONG).await.unwrap();
    consumer.settle(first.into_iter().map(|d| d.retry_after(SOON * 2)).collect()).await.unwrap();
    assert!(consumer.next(1, SOON).await.unwrap().is_empty(), "not before its time");
    let second = consumer.next(1, LONG).await.unwrap();
    assert_eq!(second[0].attempts, 1);
    consumer.settle(second.into_iter().map(|d| d.defer(Duration::ZERO)).collect()).await.unwrap();
    let third = consumer.next(1, LONG).await.unwrap();
    assert_eq!(third[0].attempts, 1, "deferring spends nothing");
    consumer.settle(third.into_iter().map(Delivery::ack).collect()).await.unwrap();
}

async fn full_says_full_and_keeps_nothing_of_the_batch(open: &Opener<'_>) {
    let (_queues, queue) = fresh(open).await;
    queue.publish(records(0..BOUND as u32 - 1), Durability::Memory).await.unwrap();
    let error = queue.publish(records(0..2), Durability::Strict).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.retry_after.is_some(), "full says when to come back");
    assert_eq!(queue.stats().await.unwrap().depth, BOUND - 1);
    queue.publish(records(0..1), Durability::Strict).await.unwrap();
    let mut consumer = queue.consumer();
    let some = consumer.next(10, LONG).await.unwrap();
    consumer.settle(some.into_iter().map(Delivery::ack).collect()).await.unwrap();
    queue.publish(records(0..2), Durability::Strict).await.unwrap();
}

async fn rejected_is_in_the_dead_letters_with_its_reason(open: &Opener<'_>) {
    let (queues, queue) = fresh(open).await;
    queue.publish(records(7..8), Durability::Strict).await.unwrap();
    let mut consumer = queue.consumer();
    let got = consumer.next(1, LONG).await.unwrap();
    let rejection = Rejection { reason: "no luck".into(), retryable: true, replays: 2 };
    consumer.settle(got.into_iter().map(|d| d.reject(rejection.clone())).collect()).await.unwrap();
    assert_eq!(queue.stats().await.unwrap().depth, 0);
    let letters = queues.get(QueueName::DlqAlerter).peek(None, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    let letter = decode_dead_letter(&letters[0].payload).unwrap();
    assert_eq!((letter.reason.as_str(), letter.retryable, letter.replays), ("no luck", true, 2));
    assert_eq!(letter.original, records(7..8)[0]);
}

async fn a_sleeping_consumer_wakes_for_a_new_record(open: &Opener<'_>) {
    let (_queues, queue) = fresh(open).await;
    let mut consumer = queue.consumer();
    let sleeper = tokio::spawn(async move {
        let got = consumer.next(1, Duration::from_secs(30)).await.unwrap();
        let n = got.len();
        consumer.settle(got.into_iter().map(Delivery::ack).collect()).await.unwrap();
        n
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    queue.publish(records(0..1), Durability::Strict).await.unwrap();
    assert_eq!(tokio::time::timeout(LONG, sleeper).await.expect("woken").unwrap(), 1);
}

async fn peek_and_take_work_on_a_choice(open: &Opener<'_>) {
    let (_queues, queue) = fresh(open).await;
    queue.publish(records(0..10), Durability::Strict).await.unwrap();
    let first = queue.peek(None, 4).await.unwrap();
    assert_eq!(first.len(), 4);
    let rest = queue.peek(Some(first[3].position), 100).await.unwrap();
    assert_eq!(rest.len(), 6);
    let found = queue.find(&[rest[0].position, first[1].position, u64::MAX]).await.unwrap();
    assert_eq!(found.len(), 2, "what is not there is left out");
    assert!(found.iter().any(|record| record.payload == rest[0].payload && !record.leased));
    let taken = queue.take(&[rest[0].position, first[1].position]).await.unwrap();
    let mut taken: Vec<Bytes> = taken;
    taken.sort();
    assert_eq!(taken, [records(1..2), records(4..5)].concat());
    assert!(queue.take(&[first[1].position]).await.unwrap().is_empty(), "taken once");
    assert!(queue.find(&[first[1].position]).await.unwrap().is_empty(), "and gone");
    assert_eq!(queue.stats().await.unwrap().depth, 8);
    let mut consumer = queue.consumer();
    let mut left = BTreeSet::new();
    while left.len() < 8 {
        let got = consumer.next(10, LONG).await.unwrap();
        left.extend(payloads(&got));
        consumer.settle(got.into_iter().map(Delivery::ack).collect()).await.unwrap();
    }
    assert!(!left.contains(r#"{"n":1}"#) && !left.contains(r#"{"n":4}"#));
}

async fn oversize_is_invalid_not_full(open: &Opener<'_>) {
    let (_queues, queue) = fresh(open).await;
    let error = queue.publish(vec![Bytes::from(vec![b'x'; 9 << 20])], Durability::Strict).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "trying again would not help");
}

async fn everything_unsettled_survives_a_reopen(open: &Opener<'_>) {
    let (queues, queue) = fresh(open).await;
    queue.publish(records(0..10), Durability::Strict).await.unwrap();
    let mut consumer = queue.consumer();
    let got = consumer.next(6, LONG).await.unwrap();
    let mut settlements = Vec::new();
    for (i, delivery) in got.into_iter().enumerate() {
        match i {
            0 | 2 => settlements.push(delivery.ack()),
            3 => settlements.push(delivery.retry_after(Duration::from_secs(3_600))),
            _ => drop(delivery),
        }
    }
    consumer.settle(settlements).await.unwrap();
    queue.flush().await.unwrap();
    drop((consumer, queue, queues));
    let queues = open().await;
    let queue = queues.get(QueueName::Ingest);
    assert_eq!(queue.stats().await.unwrap().depth, 8);
    let mut consumer = queue.consumer();
    let mut seen = BTreeSet::new();
    let mut attempts = 0;
    while seen.len() < 8 {
        let got = consumer.next(10, LONG).await.unwrap();
        assert!(!got.is_empty(), "a restart forgets waits and leases: {seen:?}");
        attempts += got.iter().map(|d| d.attempts).sum::<u32>();
        seen.extend(payloads(&got));
        consumer.settle(got.into_iter().map(Delivery::ack).collect()).await.unwrap();
    }
    assert_eq!(attempts, 1, "attempts are remembered");
    assert!(!seen.contains(r#"{"n":0}"#) && !seen.contains(r#"{"n":2}"#), "settled records never come back");
}
