use bytes::Bytes;
use runtime::{Clock, SystemClock};
use std::sync::Arc;
use std::time::Duration;
use storage::queue::{Delivery, Durability, QueueConfig, QueueLimits, QueueName, contract, open};

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

fn config(dir: &std::path::Path) -> QueueConfig {
    let limits = QueueLimits { ingest_records_max: contract::BOUND, lease: contract::LEASE, ..QueueLimits::default() };
    QueueConfig::Embedded { dir: dir.to_owned(), limits }
}

#[tokio::test]
async fn embedded_queues_keep_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let opener = || -> std::pin::Pin<Box<dyn Future<Output = _>>> {
        let config = config(dir.path());
        Box::pin(async move { open(config, clock()).await.unwrap() })
    };
    contract::run(&opener, true).await;
}

#[tokio::test]
async fn a_second_process_is_told_that_the_queue_cannot_be_shared() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(config(dir.path()), clock()).await.unwrap();
    let error = open(config(dir.path()), clock()).await.err().expect("refused");
    assert!(error.to_string().contains("cannot be shared between processes"), "{error}");
}

#[tokio::test]
async fn settled_records_leave_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let limits = QueueLimits { segment_bytes: 9 << 20, bytes_max: 64 << 20, ..QueueLimits::default() };
    let config = QueueConfig::Embedded { dir: dir.path().to_owned(), limits };
    let queues = open(config, clock()).await.unwrap();
    let queue = queues.get(QueueName::Ingest);
    let mut consumer = queue.consumer();
    let record = Bytes::from(vec![b'x'; 100_000]);
    // Three times what may lie on disk goes through.
    for _ in 0..40 {
        queue.publish(vec![record.clone(); 50], Durability::Memory).await.unwrap();
        let mut left = 50;
        while left > 0 {
            let got = consumer.next(50, Duration::from_secs(10)).await.unwrap();
            left -= got.len();
            consumer.settle(got.into_iter().map(Delivery::ack).collect()).await.unwrap();
        }
        // Space is given back at most once a second.
        if queue.stats().await.unwrap().bytes > 40 << 20 {
            tokio::time::sleep(Duration::from_millis(1_000)).await;
        }
    }
    assert!(queue.stats().await.unwrap().bytes <= 64 << 20);
}
