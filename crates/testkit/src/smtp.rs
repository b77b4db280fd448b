//! A mail server on 127.0.0.1 that behaves as told and remembers what it took.

use crate::servers::TestCerts;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// How connections begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpSecurity {
    /// Plain text to the end.
    Plain,
    /// Plain text until `STARTTLS`; says 530 to mail before.
    StartTls,
    /// TLS from the first byte.
    Implicit,
}

/// Where a conversation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpStep {
    Greeting,
    Ehlo,
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    /// After the dot.
    End,
    Reset,
}

/// What is done at a step instead of the usual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SmtpBehaviour {
    /// These lines, without their ends.
    Reply(String),
    /// Nothing, until the client gives up.
    Hang,
    Close,
    /// A line that never ends.
    Endless,
}

impl SmtpBehaviour {
    pub fn reply(text: impl Into<String>) -> Self {
        Self::Reply(text.into())
    }
}

/// A message that was taken.
#[derive(Debug, Clone)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    /// Without the doubled dots.
    pub data: String,
    pub encrypted: bool,
    /// Who was logged in.
    pub user: Option<String>,
    /// Number of the connection, from 1.
    pub connection: u64,
}

impl Mail {
    /// A header without the folds in it; the first of that name.
    pub fn header(&self, name: &str) -> Option<String> {
        let head = self.data.split("\r\n\r\n").next()?.replace("\r\n ", " ");
        let found = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned));
        found.map(|value| value.trim().to_owned())
    }
}

#[derive(Debug, Default)]
struct State {
    behaviours: VecDeque<(SmtpStep, SmtpBehaviour)>,
    always: Option<(SmtpStep, SmtpBehaviour)>,
    mails: Vec<Mail>,
    /// Every line of a client, after the number of its connection.
    lines: Vec<(u64, String)>,
    connections: u64,
    logins: Vec<(String, String)>,
}

struct Shared {
    state: Mutex<State>,
    security: SmtpSecurity,
    /// Offered after `AUTH`; empty: no login is needed.
    mechanisms: &'static str,
    tls: TlsAcceptor,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// What to do at `step` other than the usual.
    fn told(&self, step: SmtpStep) -> Option<SmtpBehaviour> {
        let mut state = self.state();
        if state.behaviours.front().is_some_and(|(at, _)| *at == step) {
            return state.behaviours.pop_front().map(|(_, behaviour)| behaviour);
        }
        state.always.as_ref().filter(|(at, _)| *at == step).map(|(_, behaviour)| behaviour.clone())
    }
}

/// A mail server; ends when dropped. Takes everything until told otherwise.
pub struct SmtpReceiver {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
    certs: TestCerts,
    _folder: tempfile::TempDir,
}

impl SmtpReceiver {
    /// Listens on a free port of 127.0.0.1, with a certificate for `localhost` of a CA of its own.
    pub async fn start(security: SmtpSecurity) -> Self {
        Self::with_login(security, "").await
    }

    /// The same; mail is taken after a login by one of `mechanisms`: `PLAIN LOGIN`.
    pub async fn with_login(security: SmtpSecurity, mechanisms: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let certs = TestCerts::write_for(folder.path(), &["localhost"]);
        let chain = CertificateDer::pem_file_iter(&certs.cert).expect("a certificate").collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_file(&certs.key).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain.expect("a certificate"), key)
            .expect("certificate and key fit");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("127.0.0.1 has a free port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            security,
            mechanisms,
            tls: TlsAcceptor::from(Arc::new(config)),
        });
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { addr, shared, task: Mutex::new(Some(task)), certs, _folder: folder }
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }
    /// The CA that vouches for it.
    pub fn ca_file(&self) -> PathBuf {
        self.certs.ca.clone()
    }
    /// The next conversations do so at these steps, in this order, each once.
    pub fn script(&self, behaviours: impl IntoIterator<Item = (SmtpStep, SmtpBehaviour)>) {
        self.shared.state().behaviours.extend(behaviours);
    }
    /// From now on every conversation does so at that step; forgets a script.
    pub fn set(&self, behaviour: Option<(SmtpStep, SmtpBehaviour)>) {
        let mut state = self.shared.state();
        state.behaviours.clear();
        state.always = behaviour;
    }
    /// The messages taken so far.
    pub fn mails(&self) -> Vec<Mail> {
        self.shared.state().mails.clone()
    }
    /// What clients said, line by line, without messages.
    pub fn lines(&self) -> Vec<String> {
        self.shared.state().lines.iter().map(|(_, line)| line.clone()).collect()
    }
    /// User and password of every login that was tried.
    pub fn logins(&self) -> Vec<(String, String)> {
        self.shared.state().logins.clone()
    }
    /// TCP connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.state().connections
    }
    /// Closes every connection and refuses new ones, for good.
    pub async fn stop(&self) {
        let task = self.task.lock().expect("no holder of this lock panics").take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Drop for SmtpReceiver {
    fn drop(&mut self) {
        if let Ok(Some(task)) = self.task.get_mut() {
            task.abort();
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let number = {
                    let mut state = shared.state();
                    state.connections += 1;
                    state.connections
                };
                connections.spawn(connection(stream, number, Arc::clone(&shared)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

async fn connection(stream: TcpStream, number: u64, shared: Arc<Shared>) {
    if shared.security == SmtpSecurity::Implicit {
        let Ok(stream) = shared.tls.accept(stream).await else { return };
        let stream: Box<dyn Io> = Box::new(stream);
        Conversation::new(stream, number, &shared, true).run(true).await;
        return;
    }
    let mut plain = Conversation::new(stream, number, &shared, false);
    if plain.run(true).await {
        let Ok(stream) = shared.tls.accept(plain.stream.into_inner()).await else { return };
        let stream: Box<dyn Io> = Box::new(stream);
        Conversation::new(stream, number, &shared, true).run(false).await;
    }
}

struct Conversation<'a, S> {
    stream: BufReader<S>,
    number: u64,
    shared: &'a Shared,
    encrypted: bool,
    user: Option<String>,
    from: Option<String>,
    to: Vec<String>,
}

impl<'a, S: Io> Conversation<'a, S> {
    fn new(stream: S, number: u64, shared: &'a Shared, encrypted: bool) -> Self {
        Self { stream: BufReader::new(stream), number, shared, encrypted, user: None, from: None, to: Vec::new() }
    }

    /// Whether TLS begins now.
    async fn run(&mut self, greet: bool) -> bool {
        if greet && self.answer(SmtpStep::Greeting, "220 testkit ESMTP").await.is_none() {
            return false;
        }
        while let Some(line) = self.line().await {
            let upper = line.to_ascii_uppercase();
            let going = if upper.starts_with("EHLO ") {
                let offers = self.offers();
                self.answer(SmtpStep::Ehlo, &offers).await
            } else if upper == "STARTTLS" && self.shared.security == SmtpSecurity::StartTls && !self.encrypted {
                return self.answer(SmtpStep::StartTls, "220 go ahead").await == Some(true);
            } else if upper.starts_with("AUTH ") && !self.shared.mechanisms.is_empty() {
                self.log_in(&line).await
            } else if upper == "QUIT" {
                return false;
            } else if upper == "RSET" || upper == "NOOP" {
                (self.from, self.to) = (None, Vec::new());
                self.answer(SmtpStep::Reset, "250 ok").await
            } else {
                self.mail(&line, &upper).await
            };
            if going.is_none() {
                return false;
            }
        }
        false
    }

    fn offers(&self) -> String {
        let mut offers = vec!["testkit".to_owned(), "8BITMIME".to_owned()];
        let open = self.shared.security == SmtpSecurity::StartTls && !self.encrypted;
        if open {
            offers.push("STARTTLS".to_owned());
        } else if !self.shared.mechanisms.is_empty() {
            offers.push(format!("AUTH {}", self.shared.mechanisms));
        }
        let last = offers.len() - 1;
        let lines = offers.iter().enumerate().map(|(n, o)| format!("250{}{o}", if n == last { ' ' } else { '-' }));
        lines.collect::<Vec<_>>().join("\r\n")
    }

    async fn mail(&mut self, line: &str, upper: &str) -> Option<bool> {
        let address = || line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(a, _)| a.to_owned());
        if self.shared.security == SmtpSecurity::StartTls && !self.encrypted {
            return self.say("530 STARTTLS first").await;
        }
        if !self.shared.mechanisms.is_empty() && self.user.is_none() {
            return self.say("530 log in first").await;
        }
        if upper.starts_with("MAIL FROM:<") {
            let going = self.answer(SmtpStep::Mail, "250 ok").await;
            if going == Some(true) {
                self.from = address();
            }
            going
        } else if upper.starts_with("RCPT TO:<") && self.from.is_some() {
            let going = self.answer(SmtpStep::Rcpt, "250 ok").await;
            if going == Some(true) {
                self.to.extend(address());
            }
            going
        } else if upper == "DATA" && !self.to.is_empty() {
            match self.answer(SmtpStep::Data, "354 go ahead").await {
                Some(true) => self.data().await,
                other => other,
            }
        } else {
            self.say("503 not now").await
        }
    }

    async fn data(&mut self) -> Option<bool> {
        let mut data = String::new();
        loop {
            let mut line = Vec::new();
            self.stream.read_until(b'\n', &mut line).await.ok().filter(|n| *n > 0)?;
            let line = String::from_utf8_lossy(&line).into_owned();
            if line == ".\r\n" {
                break;
            }
            data.push_str(line.strip_prefix('.').unwrap_or(&line));
        }
        let mail = Mail {
            from: self.from.take().unwrap_or_default(),
            to: std::mem::take(&mut self.to),
            data,
            encrypted: self.encrypted,
            user: self.user.clone(),
            connection: self.number,
        };
        let going = self.answer(SmtpStep::End, "250 taken").await;
        if going == Some(true) {
            self.shared.state().mails.push(mail);
        }
        going
    }

    async fn log_in(&mut self, line: &str) -> Option<bool> {
        use base64::Engine;
        let decode = |text: &str| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (user, password) = if let Some(text) = line.strip_prefix("AUTH PLAIN ") {
            let text = decode(text);
            let mut parts = text.split('\0').skip(1).map(str::to_owned);
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
        } else {
            self.say("334 VXNlcm5hbWU6").await?;
            let user = decode(&self.line().await?);
            self.say("334 UGFzc3dvcmQ6").await?;
            (user, decode(&self.line().await?))
        };
        self.shared.state().logins.push((user.clone(), password));
        let going = self.answer(SmtpStep::Auth, "235 welcome").await;
        if going == Some(true) {
            self.user = Some(user);
        }
        going
    }

    /// The next line, remembered. `None` at the end.
    async fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).await.ok().filter(|n| *n > 0)?;
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        self.shared.state().lines.push((self.number, line.clone()));
        Some(line)
    }

    /// `Some(true)`: the usual was said (or another word of success); `None`: the connection ends.
    async fn answer(&mut self, step: SmtpStep, usual: &str) -> Option<bool> {
        match self.shared.told(step) {
            None => self.say(usual).await.map(|_| true),
            Some(SmtpBehaviour::Reply(text)) => {
                self.say(&text).await?;
                Some(text.starts_with(usual.get(..3)?))
            }
            Some(SmtpBehaviour::Hang) => {
                let mut rest = [0u8; 1024];
                while matches!(self.stream.read(&mut rest).await, Ok(n) if n > 0) {}
                None
            }
            Some(SmtpBehaviour::Close) => None,
            Some(SmtpBehaviour::Endless) => {
                while self.stream.write_all(&[b'2'; 1024]).await.is_ok() {}
                None
            }
        }
    }

    async fn say(&mut self, text: &str) -> Option<bool> {
        self.stream.write_all(format!("{text}\r\n").as_bytes()).await.ok()?;
        self.stream.flush().await.ok()?;
        Some(false)
    }
}
