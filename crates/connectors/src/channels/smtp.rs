//! The part of SMTP (RFC 5321) that hands one message over: greeting, `EHLO`, `STARTTLS`, `AUTH`,
//! `MAIL`, `RCPT`, `DATA`.
//!
//! Always true here:
//! * Nothing but `EHLO` and `STARTTLS` is said before TLS, and what a server sent before TLS counts for
//!   nothing after it.
//! * Answers are bounded in the length and the number of their lines.
//! * A message is handed over to all recipients that are taken, or to none: one that may be taken
//!   later (4xx) stops it before anything was sent.
//! * A session that was left in the middle of something is never used again.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// RFC 5321 allows 512.
const LINE_BYTES_MAX: u64 = 4 * 1024;
const LINES_MAX: usize = 64;

/// How a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// From the first byte (port 465).
    Implicit,
    /// After `STARTTLS`, which the server must offer.
    StartTls,
    /// Not at all: everybody on the way reads, and can change, every alert and the password.
    DangerousNone,
}

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Greeting,
    Ehlo,
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    Reset,
}

impl Step {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Greeting => "connecting",
            Self::Ehlo => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::Mail => "MAIL FROM",
            Self::Rcpt => "RCPT TO",
            Self::Data => "DATA",
            Self::Reset => "RSET",
        }
    }
}

/// An answer: its number, and its lines as one.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub code: u16,
    pub text: String,
}

#[derive(Debug)]
pub(super) enum Failure {
    /// Not reachable, gone, or not understood.
    Broken(Step, io::Error),
    /// The server does not offer what is demanded.
    Lacks(&'static str),
    /// The server said no, or not now.
    Refused(Step, Reply),
}

/// What the server took.
#[derive(Debug)]
pub(super) struct Taken {
    pub reply: Reply,
    /// Recipients that were refused for good, with why.
    pub refused: Vec<(String, Reply)>,
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A session that has said `EHLO`.
pub(super) struct Session {
    stream: BufReader<Box<dyn Io>>,
    /// What it offers, in upper case: `AUTH PLAIN LOGIN`.
    offers: Vec<String>,
}

impl Session {
    pub async fn connect(
        host: &str,
        port: u16,
        tls: SmtpTls,
        config: &Arc<rustls::ClientConfig>,
    ) -> Result<Self, Failure> {
        let broken = |e| Failure::Broken(Step::Greeting, e);
        let tcp = TcpStream::connect((host, port)).await.map_err(broken)?;
        tcp.set_nodelay(true).map_err(broken)?;
        let own = match tcp.local_addr().map_err(broken)?.ip() {
            std::net::IpAddr::V4(ip) => format!("[{ip}]"),
            std::net::IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
        };
        let name = || {
            ServerName::try_from(host.to_owned()).map_err(|e| broken(io::Error::new(io::ErrorKind::InvalidInput, e)))
        };
        let encrypted = async |tcp: TcpStream, step| {
            let stream = TlsConnector::from(Arc::clone(config)).connect(name()?, tcp).await;
            stream.map(|stream| Box::new(stream) as Box<dyn Io>).map_err(|e| Failure::Broken(step, e))
        };
        let stream: Box<dyn Io> = match tls {
            SmtpTls::Implicit => encrypted(tcp, Step::Greeting).await?,
            SmtpTls::DangerousNone => Box::new(tcp),
            SmtpTls::StartTls => {
                let tcp = start_tls(tcp, &own).await?;
                let mut session = Self::new(encrypted(tcp, Step::StartTls).await?);
                session.ehlo(&own).await?;
                return Ok(session);
            }
        };
        let mut session = Self::new(stream);
        expect(Step::Greeting, 220, read_reply(&mut session.stream).await)?;
        session.ehlo(&own).await?;
        Ok(session)
    }

    fn new(stream: Box<dyn Io>) -> Self {
        Self { stream: BufReader::new(stream), offers: Vec::new() }
    }

    async fn ehlo(&mut self, own: &str) -> Result<(), Failure> {
        self.offers = offers(self.ask(Step::Ehlo, 250, &format!("EHLO {own}")).await?);
        Ok(())
    }

    /// `AUTH PLAIN`, or `AUTH LOGIN` where there is nothing else.
    pub async fn log_in(&mut self, user: &str, password: &str) -> Result<(), Failure> {
        let mechanisms = self.offers.iter().find_map(|line| line.strip_prefix("AUTH").map(str::to_owned));
        let mechanisms = mechanisms.unwrap_or_default();
        let mut mechanisms = mechanisms.split([' ', '=']);
        if mechanisms.clone().any(|m| m == "PLAIN") {
            let text = STANDARD.encode(format!("\0{user}\0{password}"));
            self.ask(Step::Auth, 235, &format!("AUTH PLAIN {text}")).await?;
        } else if mechanisms.any(|m| m == "LOGIN") {
            self.ask(Step::Auth, 334, "AUTH LOGIN").await?;
            self.ask(Step::Auth, 334, &STANDARD.encode(user)).await?;
            self.ask(Step::Auth, 235, &STANDARD.encode(password)).await?;
        } else {
            return Err(Failure::Lacks("AUTH PLAIN or LOGIN, though a user is configured"));
        }
        Ok(())
    }

    /// Hands a message over. The session is good for another afterwards only if this is `Ok`.
    pub async fn send(&mut self, from: &str, to: &[String], message: &[u8]) -> Result<Taken, Failure> {
        self.ask(Step::Mail, 250, &format!("MAIL FROM:<{from}>")).await?;
        let (mut refused, mut taken) = (Vec::new(), 0);
        for address in to {
            match self.ask(Step::Rcpt, 250, &format!("RCPT TO:<{address}>")).await {
                Ok(_) => taken += 1,
                Err(Failure::Refused(Step::Rcpt, reply)) if reply.code >= 500 && reply.code != 530 => {
                    refused.push((address.clone(), reply));
                }
                Err(failure) => return Err(failure),
            }
        }
        if taken == 0 {
            let reply = refused.pop().map(|(_, reply)| reply);
            return Err(Failure::Refused(Step::Rcpt, reply.unwrap_or(Reply { code: 554, text: String::new() })));
        }
        self.ask(Step::Data, 354, "DATA").await?;
        self.write(Step::Data, &stuffed(message)).await?;
        let reply = expect(Step::Data, 250, read_reply(&mut self.stream).await)?;
        Ok(Taken { reply, refused })
    }

    /// Whether the server still answers; forgets what was begun.
    pub async fn reset(&mut self) -> Result<(), Failure> {
        self.ask(Step::Reset, 250, "RSET").await.map(drop)
    }

    async fn ask(&mut self, step: Step, code: u16, command: &str) -> Result<Reply, Failure> {
        self.write(step, format!("{command}\r\n").as_bytes()).await?;
        expect(step, code, read_reply(&mut self.stream).await)
    }

    async fn write(&mut self, step: Step, bytes: &[u8]) -> Result<(), Failure> {
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        written.await.map_err(|e| Failure::Broken(step, e))
    }
}

/// The connection, ready for TLS.
async fn start_tls(tcp: TcpStream, own: &str) -> Result<TcpStream, Failure> {
    let mut stream = BufReader::new(tcp);
    let broken = |step| move |e| Failure::Broken(step, e);
    expect(Step::Greeting, 220, read_reply(&mut stream).await)?;
    stream.write_all(format!("EHLO {own}\r\n").as_bytes()).await.map_err(broken(Step::Ehlo))?;
    let reply = expect(Step::Ehlo, 250, read_reply(&mut stream).await)?;
    if !offers(reply).iter().any(|offer| offer == "STARTTLS") {
        return Err(Failure::Lacks("STARTTLS, without which nothing is sent to it"));
    }
    stream.write_all(b"STARTTLS\r\n").await.map_err(broken(Step::StartTls))?;
    expect(Step::StartTls, 220, read_reply(&mut stream).await)?;
    // Somebody in between could have put it there, to be taken for the server's later.
    if !stream.buffer().is_empty() {
        return Err(broken(Step::StartTls)(io::Error::other("it went on in plain text after STARTTLS")));
    }
    Ok(stream.into_inner())
}

fn offers(reply: Reply) -> Vec<String> {
    reply.text.to_ascii_uppercase().lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

fn expect(step: Step, code: u16, reply: io::Result<Reply>) -> Result<Reply, Failure> {
    let reply = reply.map_err(|e| Failure::Broken(step, e))?;
    // 251 and 252 take a recipient too.
    let good = reply.code == code || (step == Step::Rcpt && matches!(reply.code, 251 | 252));
    if good { Ok(reply) } else { Err(Failure::Refused(step, reply)) }
}

async fn read_reply(stream: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> io::Result<Reply> {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt};
    let odd = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("what it says is not SMTP: {what}"));
    let mut text = String::new();
    for _ in 0..LINES_MAX {
        let mut line = Vec::new();
        (&mut *stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
        }
        if !line.ends_with(b"\n") {
            return Err(odd("a line is too long or cut"));
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        let code = line.get(..3).filter(|code| code.bytes().all(|b| b.is_ascii_digit()));
        let code = code.and_then(|code| code.parse().ok()).filter(|code| (200..600).contains(code));
        let code: u16 = code.ok_or_else(|| odd("a line without a number"))?;
        text.push_str(line.get(4..).unwrap_or_default());
        match line.as_bytes().get(3) {
            None | Some(b' ') => return Ok(Reply { code, text }),
            Some(b'-') => text.push('\n'),
            Some(_) => return Err(odd("a number with something behind it")),
        }
    }
    Err(odd("too many lines"))
}

/// As it goes over the wire: every line ends with CR LF, none is a single dot but the last.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + message.len() / 32 + 8);
    let body = message.strip_suffix(b"\n").unwrap_or(message);
    for line in body.split(|byte| *byte == b'\n') {
        // A CR by itself ends a line for some servers, and with it could end the message.
        let mut bytes = line.iter().copied().filter(|byte| *byte != b'\r').peekable();
        if bytes.peek() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend(bytes);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_ends_before_its_end() {
        for (message, wire) in [
            ("a\r\nb\r\n", "a\r\nb\r\n.\r\n"),
            ("a\n.\nb", "a\r\n..\r\nb\r\n.\r\n"),
            (".a\r\n..\r\n", "..a\r\n...\r\n.\r\n"),
            ("a\r\n.\rb\r.\r\r\n", "a\r\n..b.\r\n.\r\n"),
            ("\r.\r\n", "..\r\n.\r\n"),
            ("", "\r\n.\r\n"),
        ] {
            let out = String::from_utf8(stuffed(message.as_bytes())).unwrap();
            assert_eq!(out, wire, "{message:?}");
        }
    }

    #[tokio::test]
    async fn answers_are_read_whole_and_bounded() {
        let read = async |text: &str| read_reply(&mut BufReader::new(text.as_bytes())).await;
        let reply = read("250-mx greets you\r\n250-STARTTLS\r\n250 auth plain\r\n").await.unwrap();
        assert_eq!((reply.code, offers(reply)), (250, vec!["STARTTLS".to_owned(), "AUTH PLAIN".to_owned()]));
        assert_eq!(read("250\r\n").await.unwrap().code, 250);
        for bad in ["", "250", "2x0 ok\r\n", "999 ok\r\n", "250_ok\r\n", "\r\n", "ü50 x\r\n", "250-a\r\n"] {
            assert!(read(bad).await.is_err(), "{bad:?}");
        }
        assert!(read(&format!("250 {}\r\n", "x".repeat(5_000))).await.is_err());
        assert!(read(&"250-x\r\n".repeat(70)).await.is_err());
    }
}
