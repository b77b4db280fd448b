//! Connections, made when they are needed and given back when they are sound.
//!
//! What always holds:
//! * Every new connection tries the logins of that moment in order. After a change of the logins no
//!   old connection starts new work; work that runs on one ends in peace.
//! * A connection that met an error of its own is closed, never given out again. One that died while
//!   it lay idle is noticed before the work starts, and replaced without an error.
//! * A caller that stops waiting takes its connection along: it is closed, and the server rolls back.
//! * Lists use at most half of the connections: those that wait for a locked table leave room for
//!   everything else.
//! * One call uses one connection, for no longer than [`PostgresConfig::statement_timeout`] a
//!   statement; nothing waits for ever.

use super::error::is_login_refused;
use super::{PgTls, PostgresConfig};
use crate::{StorageError, StorageResult};
use model::ErrorKind;
use runtime::Login;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

/// The user of a login that names none (contract mutt §8.1).
const USER: &str = "mutt_user";
/// A connection beyond `pool_min` that nobody wanted for this long is closed.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// Time to make one connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Time for the goodbye to a connection that is closed.
const GOODBYE_MAX: Duration = Duration::from_millis(200);
/// How much longer we wait for an answer than the server has: a dead network says nothing.
const SLACK: Duration = Duration::from_secs(5);
/// Statements of one call at most; bounds its whole time.
const STATEMENTS_PER_CALL: u32 = 4;

pub(super) type Work<'c, T> = Pin<Box<dyn Future<Output = StorageResult<T>> + Send + 'c>>;

/// What a transaction may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Sees one moment of the database.
    Read,
    Write,
}

impl Access {
    fn begin(self) -> &'static str {
        match self {
            Self::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Self::Write => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
        }
    }
}

pub(super) struct Pool {
    config: PostgresConfig,
    permits: Semaphore,
    /// Lists that may run at once.
    lists: Semaphore,
    shelf: Mutex<Shelf>,
}

/// What lies idle.
struct Shelf {
    /// The logins that the idle connections were made with or after.
    logins: Vec<Login>,
    /// Grows with every change of the logins.
    generation: u64,
    /// The longest unused first.
    idle: Vec<Idle>,
}

struct Idle {
    connection: PgConnection,
    since: Instant,
}

/// A connection in use. Dropped without [`Pool::give_back`] it is closed.
struct Lease<'p> {
    connection: PgConnection,
    generation: u64,
    /// Made for this lease, so it cannot have died while it lay idle.
    fresh: bool,
    _permit: SemaphorePermit<'p>,
}

impl Pool {
    /// Connects to nothing yet.
    pub fn new(config: PostgresConfig) -> StorageResult<Self> {
        if config.pool_max == 0 || config.pool_min > config.pool_max {
            return Err(StorageError::new(
                ErrorKind::Invalid,
                format!("pool_max must be at least 1 and pool_min ({}), not {}", config.pool_min, config.pool_max),
            ));
        }
        let shelf = Shelf { logins: config.credentials.logins(), generation: 0, idle: Vec::new() };
        Ok(Self {
            permits: Semaphore::new(config.pool_max as usize),
            lists: Semaphore::new((config.pool_max / 2).max(1) as usize),
            shelf: Mutex::new(shelf),
            config,
        })
    }

    /// Makes the connections that are kept.
    pub async fn warm_up(&self) -> StorageResult<()> {
        let mut leases = Vec::new();
        for _ in 0..self.config.pool_min {
            leases.push(self.lease().await?);
        }
        for lease in leases {
            self.give_back(lease).await;
        }
        Ok(())
    }

    /// Runs `work` in one transaction, which commits when `work` returns `Ok`.
    pub async fn run<T, F>(&self, access: Access, work: F) -> StorageResult<T>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T> + Send,
    {
        let lease = self.begin(access.begin()).await?;
        self.work(lease, (self.config.statement_timeout + SLACK) * STATEMENTS_PER_CALL, work).await
    }

    /// Runs `work`, which reads one page of a list.
    pub async fn run_list<T, F>(&self, work: F) -> StorageResult<T>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T> + Send,
    {
        let busy = || "as many lists are being read as may be at once".to_owned();
        let _turn = self.permit(&self.lists, busy).await?;
        self.run(Access::Read, work).await
    }

    /// The same for writing work whose one statement may take as long as `statement_max`.
    pub async fn run_within<T, F>(&self, statement_max: Duration, work: F) -> StorageResult<T>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T> + Send,
    {
        let mut lease = self.begin(Access::Write.begin()).await?;
        let sql = format!("SET LOCAL statement_timeout = {}", statement_max.as_millis());
        lease.connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
        self.work(lease, statement_max + SLACK, work).await
    }

    /// Runs `work` in the transaction that has begun, and ends it.
    async fn work<T, F>(&self, mut lease: Lease<'_>, longest: Duration, work: F) -> StorageResult<T>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T> + Send,
    {
        let outcome = timeout(longest, async {
            match work(&mut lease.connection).await {
                Ok(value) => {
                    lease.connection.execute("COMMIT").await.map_err(|e| (StorageError::from(e), false))?;
                    Ok(value)
                }
                Err(error) => {
                    // The connection is as good as before when the answer was about the data.
                    let ours = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict | ErrorKind::Invalid);
                    let sound = ours && lease.connection.execute("ROLLBACK").await.is_ok();
                    Err((error, sound))
                }
            }
        })
        .await;
        match outcome {
            Ok(Ok(value)) => {
                self.give_back(lease).await;
                Ok(value)
            }
            Ok(Err((error, sound))) => {
                if sound {
                    self.give_back(lease).await;
                }
                Err(error)
            }
            Err(_) => Err(StorageError::new(ErrorKind::Timeout, "the database did not answer in time")),
        }
    }

    /// A connection in a transaction. Nothing has happened yet, so idle ones that turn out to be
    /// dead are passed over.
    async fn begin(&self, begin: &'static str) -> StorageResult<Lease<'_>> {
        loop {
            let mut lease = self.lease().await?;
            match timeout(self.config.acquire_timeout, lease.connection.execute(begin)).await {
                Ok(Ok(_)) => return Ok(lease),
                Ok(Err(error)) if lease.fresh => return Err(error.into()),
                Ok(Err(_)) => drop(lease),
                Err(_) => return Err(StorageError::new(ErrorKind::Timeout, "the database did not answer in time")),
            }
        }
    }

    async fn lease(&self) -> StorageResult<Lease<'_>> {
        let busy = || format!("all {} connections to the database are busy", self.config.pool_max);
        let permit = self.permit(&self.permits, busy).await?;
        let (found, generation, retired) = self.take_idle();
        for old in retired {
            close(old).await;
        }
        if let Some(connection) = found {
            return Ok(Lease { connection, generation, fresh: false, _permit: permit });
        }
        let connection = timeout(self.config.acquire_timeout, self.connect())
            .await
            .map_err(|_| StorageError::new(ErrorKind::Unavailable, "the database does not answer"))??;
        Ok(Lease { connection, generation, fresh: true, _permit: permit })
    }

    async fn permit<'p>(&self, of: &'p Semaphore, busy: impl Fn() -> String) -> StorageResult<SemaphorePermit<'p>> {
        timeout(self.config.acquire_timeout, of.acquire())
            .await
            .map_err(|_| StorageError::new(ErrorKind::Unavailable, busy()))?
            .map_err(|e| StorageError::with_source(ErrorKind::Internal, "the pool is closed", e))
    }

    /// The freshest idle connection, and those that are to be closed.
    fn take_idle(&self) -> (Option<PgConnection>, u64, Vec<PgConnection>) {
        let logins = self.config.credentials.logins();
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let mut retired = Vec::new();
        if shelf.logins != logins {
            shelf.logins = logins;
            shelf.generation += 1;
            retired.extend(shelf.idle.drain(..).map(|idle| idle.connection));
        }
        while shelf.idle.len() > self.config.pool_min as usize
            && shelf.idle.first().is_some_and(|idle| idle.since.elapsed() > IDLE_MAX)
        {
            retired.push(shelf.idle.remove(0).connection);
        }
        (shelf.idle.pop().map(|idle| idle.connection), shelf.generation, retired)
    }

    async fn give_back(&self, lease: Lease<'_>) {
        let Lease { connection, generation, _permit, .. } = lease;
        let old = {
            let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
            if shelf.generation == generation {
                shelf.idle.push(Idle { connection, since: Instant::now() });
                None
            } else {
                Some(connection)
            }
        };
        if let Some(old) = old {
            close(old).await;
        }
    }

    /// A new connection, by the first login that the server takes.
    async fn connect(&self) -> StorageResult<PgConnection> {
        let connection = self.connect_plain().await?;
        self.prepare(connection).await
    }

    /// The same without our limits of time on statements: for migrations.
    pub async fn connect_plain(&self) -> StorageResult<PgConnection> {
        let logins = self.config.credentials.logins();
        let mut refused = None;
        for (n, login) in logins.iter().enumerate() {
            let options = self.options(login);
            match timeout(CONNECT_MAX, PgConnection::connect_with(&options)).await {
                Ok(Ok(connection)) => {
                    if n > 0 {
                        tracing::debug!(login = n + 1, "the database refused an earlier login and took this one");
                    }
                    return Ok(connection);
                }
                Ok(Err(error)) if is_login_refused(&error) => refused = Some(error),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(StorageError::new(ErrorKind::Unavailable, "the database does not answer")),
            }
        }
        self.config.credentials.refused();
        Err(match refused {
            // A matter of operators: events wait until they have set it right.
            Some(error) => StorageError::with_source(
                ErrorKind::Unavailable,
                format!("the database refuses all {} logins", logins.len()),
                StorageError::from(error),
            ),
            None => StorageError::new(ErrorKind::Unavailable, "there is no login for the database"),
        })
    }

    fn options(&self, login: &Login) -> PgConnectOptions {
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&self.config.host)
            .port(self.config.port)
            .database(&self.config.database)
            .username(login.user.as_deref().unwrap_or(USER))
            .password(login.password.expose())
            .application_name("muttd")
            .disable_statement_logging();
        options = match &self.config.tls {
            PgTls::Off => options.ssl_mode(PgSslMode::Disable),
            PgTls::Required { ca_file } => {
                let options = options.ssl_mode(PgSslMode::VerifyFull);
                match ca_file {
                    Some(file) => options.ssl_root_cert(file),
                    None => options,
                }
            }
        };
        options
    }

    /// Sets what every session needs: limits, so that no dead client holds a lock for long.
    async fn prepare(&self, mut connection: PgConnection) -> StorageResult<PgConnection> {
        let ms = self.config.statement_timeout.as_millis();
        let sql = format!(
            "SET statement_timeout = {ms}; SET idle_in_transaction_session_timeout = {}; \
             SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3",
            ms.saturating_mul(2)
        );
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
        Ok(connection)
    }
}

/// Says goodbye, so that the server's log has no complaint about us.
async fn close(connection: PgConnection) {
    let _ = timeout(GOODBYE_MAX, connection.close()).await; // it is closed one way or the other
}
