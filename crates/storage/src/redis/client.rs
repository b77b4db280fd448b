//! One connection that all callers share, made anew when it breaks.

use super::RedisConfig;
use super::connect::{Connector, explain};
use crate::StorageResult;
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::{Cmd, FromRedisValue, Pipeline, RedisError, ScriptInvocation};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// A Redis. Cheap to clone; clones share the connection, and commands of many callers travel
/// together.
#[derive(Clone)]
pub(crate) struct RedisClient(Arc<Inner>);

struct Inner {
    connector: Connector,
    current: RwLock<Option<Shared>>,
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Shared {
    connection: MultiplexedConnection,
    number: u64,
}

/// What can be sent.
enum Sent<'a> {
    Command(&'a Cmd),
    Pipeline(&'a Pipeline),
    Script(&'a ScriptInvocation<'a>),
}

impl Sent<'_> {
    async fn to<T: FromRedisValue>(&self, connection: &mut MultiplexedConnection) -> Result<T, RedisError> {
        match self {
            Self::Command(command) => command.query_async(connection).await,
            Self::Pipeline(pipeline) => pipeline.query_async(connection).await,
            Self::Script(call) => call.invoke_async(connection).await,
        }
    }
}

impl RedisClient {
    /// Connects once, so that what cannot work is said at the start.
    pub async fn connect(config: &RedisConfig) -> StorageResult<Self> {
        let inner = Inner {
            connector: Connector::new(config)?,
            current: RwLock::default(),
            connecting: tokio::sync::Mutex::default(),
        };
        let client = Self(Arc::new(inner));
        let _: String = client.query(&redis::cmd("PING")).await?;
        Ok(client)
    }

    /// Sends a command. When the connection is found broken it is made anew and the command sent
    /// again, so it may be executed twice: only for what may.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> StorageResult<T> {
        self.twice(Sent::Command(command)).await
    }

    /// As [`Self::query`], for several commands at once.
    pub async fn pipeline<T: FromRedisValue>(&self, pipeline: &Pipeline) -> StorageResult<T> {
        self.twice(Sent::Pipeline(pipeline)).await
    }

    /// As [`Self::query`], for a script.
    pub async fn script<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> StorageResult<T> {
        self.twice(Sent::Script(call)).await
    }

    /// A script that must not be executed twice by one call: a broken connection is an error.
    pub async fn script_once<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> StorageResult<T> {
        let mut shared = self.shared().await?;
        let answer = call.invoke_async(&mut shared.connection).await;
        answer.map_err(|error| self.failed(&shared, error))
    }

    /// A connection of the caller's own, for commands that block up to `block`.
    pub async fn dedicated(&self, block: Duration) -> StorageResult<MultiplexedConnection> {
        let connector = &self.0.connector;
        connector.connect(block + connector.config().answer_timeout).await
    }

    /// A connection of the caller's own, for subscriptions.
    pub async fn subscriber(&self) -> StorageResult<PubSub> {
        self.0.connector.subscriber().await
    }

    async fn twice<T: FromRedisValue>(&self, sent: Sent<'_>) -> StorageResult<T> {
        let mut shared = self.shared().await?;
        match sent.to(&mut shared.connection).await {
            Err(error) if error.is_connection_dropped() && !error.is_timeout() => {
                self.forget(&shared);
                let mut shared = self.shared().await?;
                sent.to(&mut shared.connection).await.map_err(|error| self.failed(&shared, error))
            }
            answer => answer.map_err(|error| self.failed(&shared, error)),
        }
    }

    fn current(&self) -> Option<Shared> {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn shared(&self) -> StorageResult<Shared> {
        if let Some(shared) = self.current() {
            return Ok(shared);
        }
        let _one_at_a_time = self.0.connecting.lock().await;
        if let Some(shared) = self.current() {
            return Ok(shared);
        }
        let connector = &self.0.connector;
        let connection = connector.connect(connector.config().answer_timeout).await?;
        debug_assert_eq!(connection.get_db(), connector.config().db);
        let shared = Shared { connection, number: fastrand::u64(..) };
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = Some(shared.clone());
        Ok(shared)
    }

    /// Drops the connection unless somebody has replaced it already.
    fn forget(&self, broken: &Shared) {
        let mut current = self.0.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|shared| shared.number == broken.number) {
            *current = None;
        }
    }

    fn failed(&self, shared: &Shared, error: RedisError) -> crate::StorageError {
        // A demoted master answers READONLY: the next call must ask anew who the master is.
        let moved = matches!(error.kind(), redis::ErrorKind::Server(redis::ServerErrorKind::ReadOnly));
        if error.is_connection_dropped() || error.is_timeout() || error.is_io_error() || moved {
            self.forget(shared);
        }
        explain("Redis", error)
    }
}
