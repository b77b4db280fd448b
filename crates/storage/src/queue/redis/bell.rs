//! Waiting at an empty queue, without asking again and again: one `BRPOPLPUSH` on a connection of
//! its own.

use super::consumer::Lane;
use crate::StorageError;
use crate::redis::{RedisClient, explain};
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// How long one command blocks; after it somebody else may decide to fetch.
const BLOCK: Duration = Duration::from_secs(1);

/// How one waiting ended.
#[derive(Debug)]
pub enum Rung {
    /// This record was moved to the list.
    Got(Bytes),
    Nothing,
    /// Redis has no memory for a command that may need more. Taking without waiting still works.
    OutOfMemory,
    /// Redis, or the connection to it, was refused; nothing was moved.
    Refused(StorageError),
    /// The answer was lost: a record may have been moved.
    Lost(StorageError),
}

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
            let rung = wait(&client, &mut slot, &queue, &list).await;
            if let Rung::Refused(error) | Rung::Lost(error) = &rung {
                *slot = None;
                tracing::debug!(%error, "waiting at the queue ended");
            }
            lane.rang(rung).await;
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

async fn wait(client: &RedisClient, slot: &mut Option<MultiplexedConnection>, queue: &str, list: &str) -> Rung {
    let connection = match slot {
        Some(connection) => connection,
        None => match client.dedicated(BLOCK).await {
            Ok(connection) => slot.insert(connection),
            Err(error) => return Rung::Refused(error),
        },
    };
    let mut command = redis::cmd("BRPOPLPUSH");
    command.arg(queue).arg(list).arg(BLOCK.as_secs());
    match command.query_async(connection).await {
        Ok(Some(record)) => Rung::Got(record),
        Ok(None) => Rung::Nothing,
        Err(error) if error.code() == Some("OOM") => Rung::OutOfMemory,
        // An error that Redis answered has a code; one of the way there and back has none.
        Err(error) if error.code().is_some() => Rung::Refused(explain("waiting at a Redis list", error)),
        Err(error) => Rung::Lost(explain("waiting at a Redis list", error)),
    }
}
