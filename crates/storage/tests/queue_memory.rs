use runtime::{Clock, SystemClock};
use std::sync::Arc;
use storage::queue::{QueueConfig, QueueLimits, contract, open};

#[tokio::test]
async fn memory_queues_keep_the_contract() {
    let limits = QueueLimits { ingest_records_max: contract::BOUND, lease: contract::LEASE, ..QueueLimits::default() };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let opener = || -> std::pin::Pin<Box<dyn Future<Output = _>>> {
        let (limits, clock) = (limits.clone(), Arc::clone(&clock));
        Box::pin(async move { open(QueueConfig::Memory(limits), clock).await.unwrap() })
    };
    contract::run(&opener, false).await;
}
