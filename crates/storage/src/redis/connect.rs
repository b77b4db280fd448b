//! Making a connection: find the server, try the logins.

use super::{RedisAddress, RedisConfig, RedisPlace};
use crate::{StorageError, StorageResult};
use model::ErrorKind;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError};
use runtime::Login;
use std::time::Duration;

#[derive(Clone, Copy)]
enum Purpose {
    /// Commands, each answered within this time.
    Commands(Duration),
    Subscriptions,
}

/// Who is spoken to, for the text of an error.
#[derive(Clone, Copy)]
enum Server {
    Redis,
    Sentinel,
}

enum Opened {
    Commands(MultiplexedConnection),
    Subscriptions(Box<PubSub>),
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Redis => "Redis",
            Self::Sentinel => "Sentinel",
        })
    }
}

/// Opens connections as configured. Holds the CA, read once.
pub struct Connector {
    config: RedisConfig,
    ca: Option<Vec<u8>>,
}

impl Connector {
    pub fn new(config: &RedisConfig) -> StorageResult<Self> {
        let ca = match config.tls.as_ref().and_then(|tls| tls.ca_file.as_ref()) {
            Some(path) => Some(std::fs::read(path).map_err(|e| {
                StorageError::with_source(ErrorKind::Invalid, format!("Redis CA `{}`", path.display()), e)
            })?),
            None => None,
        };
        Ok(Self { config: config.clone(), ca })
    }

    pub fn config(&self) -> &RedisConfig {
        &self.config
    }

    /// A connection whose commands end after `answer_timeout`.
    pub async fn connect(&self, answer_timeout: Duration) -> StorageResult<MultiplexedConnection> {
        let address = self.server().await?;
        self.command_connection(Server::Redis, &address, self.config.db, answer_timeout).await
    }

    /// A connection for subscriptions.
    pub async fn subscriber(&self) -> StorageResult<PubSub> {
        let address = self.server().await?;
        match self.open(Server::Redis, &address, self.config.db, Purpose::Subscriptions).await? {
            Opened::Subscriptions(subscriber) => Ok(*subscriber),
            Opened::Commands(_) => unreachable!("a purpose opens its own kind"),
        }
    }

    async fn command_connection(
        &self,
        server: Server,
        address: &RedisAddress,
        db: i64,
        answer_timeout: Duration,
    ) -> StorageResult<MultiplexedConnection> {
        match self.open(server, address, db, Purpose::Commands(answer_timeout)).await? {
            Opened::Commands(connection) => Ok(connection),
            Opened::Subscriptions(_) => unreachable!("a purpose opens its own kind"),
        }
    }

    async fn server(&self) -> StorageResult<RedisAddress> {
        match &self.config.place {
            RedisPlace::Server(address) => Ok(address.clone()),
            RedisPlace::Sentinel { nodes, master } => self.ask_sentinels(nodes, master).await,
        }
    }

    /// The first Sentinel that knows the master and whose answer is right counts.
    async fn ask_sentinels(&self, nodes: &[RedisAddress], master: &str) -> StorageResult<RedisAddress> {
        let mut last = StorageError::new(ErrorKind::Unavailable, "no Redis Sentinel is configured");
        for node in nodes {
            let asked = self.ask_sentinel(node, master).await;
            match asked {
                Ok(Some((host, port))) => {
                    let address = RedisAddress { host, port };
                    match self.is_master(&address).await {
                        Ok(true) => return Ok(address),
                        Ok(false) => {
                            last = StorageError::new(
                                ErrorKind::Unavailable,
                                format!("Sentinel {node} names {address}, which is no master (a failover?)"),
                            );
                        }
                        Err(error) => last = error,
                    }
                }
                Ok(None) => {
                    last = StorageError::new(
                        ErrorKind::Unavailable,
                        format!("Sentinel {node} knows no master called `{master}`"),
                    );
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask_sentinel(&self, node: &RedisAddress, master: &str) -> StorageResult<Option<(String, u16)>> {
        let mut connection = self.command_connection(Server::Sentinel, node, 0, self.config.answer_timeout).await?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("get-master-addr-by-name").arg(master);
        command.query_async(&mut connection).await.map_err(|e| explain(&format!("{} at {node}", Server::Sentinel), e))
    }

    async fn is_master(&self, address: &RedisAddress) -> StorageResult<bool> {
        let mut connection = self.command_connection(Server::Redis, address, 0, self.config.answer_timeout).await?;
        let role: Vec<redis::Value> = redis::cmd("ROLE")
            .query_async(&mut connection)
            .await
            .map_err(|e| explain(&format!("Redis at {address}"), e))?;
        Ok(role.first().is_some_and(|role| *role == redis::Value::BulkString(b"master".to_vec())))
    }

    /// Tries each login until one is let in.
    async fn open(&self, server: Server, address: &RedisAddress, db: i64, purpose: Purpose) -> StorageResult<Opened> {
        let mut logins = self.config.credentials.logins();
        if logins.is_empty() {
            logins.push(Login { user: None, password: runtime::Secret::new("") });
        }
        let mut refused = None;
        for login in &logins {
            let opened = match self.client(address, db, login) {
                Ok(client) => self.open_as(&client, purpose).await,
                Err(error) => Err(error),
            };
            match opened {
                Ok(opened) => return Ok(opened),
                Err(error) if is_refused_login(&error) => refused = Some(error),
                Err(error) => return Err(explain(&format!("{server} at {address}"), error)),
            }
        }
        self.config.credentials.refused();
        let detail = refused.map(|e| e.to_string()).unwrap_or_default();
        Err(StorageError::new(
            ErrorKind::Unavailable,
            format!("{server} at {address} refuses each of the {} logins: {detail}", logins.len()),
        ))
    }

    async fn open_as(&self, client: &Client, purpose: Purpose) -> Result<Opened, RedisError> {
        let connect_timeout = self.config.connect_timeout;
        match purpose {
            Purpose::Commands(answer_timeout) => {
                let options = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(connect_timeout))
                    .set_response_timeout(Some(answer_timeout));
                Ok(Opened::Commands(client.get_multiplexed_async_connection_with_config(&options).await?))
            }
            Purpose::Subscriptions => {
                let subscriber = tokio::time::timeout(connect_timeout, client.get_async_pubsub())
                    .await
                    .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))?;
                Ok(Opened::Subscriptions(Box::new(subscriber)))
            }
        }
    }

    fn client(&self, address: &RedisAddress, db: i64, login: &Login) -> Result<Client, RedisError> {
        let (host, port) = (address.host.clone(), address.port);
        let place = match &self.config.tls {
            None => ConnectionAddr::Tcp(host, port),
            Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        };
        let mut session = RedisConnectionInfo::default().set_db(db).set_skip_set_lib_name();
        if !login.password.is_empty() {
            session = session.set_password(login.password.expose());
            if let Some(user) = &login.user {
                session = session.set_username(user);
            }
        }
        let info = place.into_connection_info()?.set_redis_settings(session);
        match &self.config.tls {
            None => Client::open(info),
            Some(_) => {
                Client::build_with_tls(info, redis::TlsCertificates { client_tls: None, root_cert: self.ca.clone() })
            }
        }
    }
}

fn is_refused_login(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("WRONGPASS" | "NOAUTH"))
        || error.detail().is_some_and(|d| d.contains("invalid password") || d.contains("without any password"))
}

/// The error of a command or connection in our terms. No text of ours holds a password or an event.
pub fn explain(context: &str, error: RedisError) -> StorageError {
    use redis::ServerErrorKind as S;
    let kind = match error.kind() {
        _ if error.is_timeout() => ErrorKind::Timeout,
        // Not `Full`: that is a bound of ours, which waiting for our own workers mends.
        _ if matches!(error.code(), Some("OOM" | "MISCONF" | "NOREPLICAS" | "NOAUTH" | "WRONGPASS")) => {
            ErrorKind::Unavailable
        }
        redis::ErrorKind::Io | redis::ErrorKind::AuthenticationFailed => ErrorKind::Unavailable,
        redis::ErrorKind::Server(
            S::BusyLoading | S::MasterDown | S::ReadOnly | S::TryAgain | S::ClusterDown | S::NotBusy,
        ) => ErrorKind::Unavailable,
        redis::ErrorKind::Server(S::NoPerm) => ErrorKind::Denied,
        _ if error.is_connection_dropped() || error.is_io_error() => ErrorKind::Unavailable,
        redis::ErrorKind::InvalidClientConfig => ErrorKind::Invalid,
        _ => ErrorKind::Internal,
    };
    StorageError::with_source(kind, context.to_owned(), error)
}
