//! Waiting at an empty queue, without asking again and again: one `BRPOPLPUSH` on a connection of
//! its own.

use super::consumer::Lane;
use crate::StorageResult;
use crate::redis::{RedisClient, explain};
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// How long one command blocks; after it somebody else may decide to fetch.
const BLOCK: Duration = Duration::from_secs(1);

pub struct Bell {
    client: RedisClient,
    queue: String,
    list: String,
    connection: Arc<Mutex<Option<MultiplexedConnection>>>,
    waiting: Option<JoinHandle<()>>,
}

impl Bell {
    pub fn new(client: RedisClient, queue: String, list: String) -> Self {
        Self { client, queue, list, connection: Arc::default(), waiting: None }
    }

    /// Waits once, beside the caller, and tells the lane how it ended. A caller that goes away
    /// meanwhile loses nothing.
    pub fn ring(&mut self, lane: &Arc<Lane>) {
        let (client, connection) = (self.client.clone(), Arc::clone(&self.connection));
        let (queue, list, lane) = (self.queue.clone(), self.list.clone(), Arc::clone(lane));
        self.waiting = Some(tokio::spawn(async move {
            let mut slot = connection.lock().await;
            let record = wait(&client, &mut slot, &queue, &list).await;
            if let Err(error) = &record {
                *slot = None;
                tracing::debug!(%error, "waiting at the queue ended");
            }
            lane.rang(record).await;
        }));
    }

    /// Ends the waiting; what it gets meanwhile is the lane's.
    pub fn end(&mut self) -> impl Future<Output = ()> + Send + 'static {
        let waiting = self.waiting.take();
        async move {
            if let Some(waiting) = waiting {
                let _ = waiting.await;
            }
        }
    }
}

async fn wait(
    client: &RedisClient,
    slot: &mut Option<MultiplexedConnection>,
    queue: &str,
    list: &str,
) -> StorageResult<Option<Bytes>> {
    let connection = match slot {
        Some(connection) => connection,
        None => slot.insert(client.dedicated(BLOCK).await?),
    };
    let mut command = redis::cmd("BRPOPLPUSH");
    command.arg(queue).arg(list).arg(BLOCK.as_secs());
    command.query_async(connection).await.map_err(|e| explain("waiting at a Redis list", e))
}
