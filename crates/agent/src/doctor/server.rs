//! The way to the server: its name, its port, whether it is to be believed.

use super::{DAY_MS, Finding, good, note, wrong};
use crate::link::{Identity, Judge, Word, chain, connector, judge, server_name};
use crate::report::age;
use crate::settings::{Fingerprint, Settings};
use crate::validity::validity;
use runtime::tls::tls_error;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{AlertDescription, CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

const WAIT: Duration = Duration::from_secs(5);

/// Judges as the agent does, and remembers what it was shown.
#[derive(Debug)]
struct Witness {
    judge: Judge,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default, Clone)]
struct Seen {
    chain: Vec<CertificateDer<'static>>,
    word: Option<Word>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judged = self.judge.judge(server, others, name, now);
        let chain = std::iter::once(server).chain(others).map(|der| der.clone().into_owned()).collect();
        let word = judged.as_ref().ok().copied();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Seen { chain, word };
        judged.map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}

/// As far as the way goes.
pub(super) async fn examine(settings: &Settings, dir: &Path, now_unix_ms: i64) -> Vec<Finding> {
    let ingest = &settings.ingest;
    let mut findings = Vec::new();
    let addresses: Vec<_> = match timeout(WAIT, tokio::net::lookup_host(ingest)).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => {
            findings.push(wrong(
                format!("name: {ingest} is not found: {error}"),
                "set -ingest (SM_INGEST_URL), or mend the resolver",
            ));
            return findings;
        }
        Err(_) => {
            findings.push(wrong(
                format!("name: nobody says in 5 s what {ingest} is"),
                "mend the resolver (/etc/resolv.conf)",
            ));
            return findings;
        }
    };
    let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    findings.push(good(format!("name: {ingest} is {}", shown.join(", "))));
    let tcp = match timeout(WAIT, TcpStream::connect(&*addresses)).await {
        Ok(Ok(tcp)) => tcp,
        Ok(Err(error)) => {
            let advice = "look whether the server runs, and whether a firewall lets this host out to that port";
            findings.push(wrong(format!("port: {ingest} does not answer: {error}"), advice));
            return findings;
        }
        Err(_) => {
            let advice = "a firewall on the way is likely: let this host out to that port";
            findings.push(wrong(format!("port: {ingest} has not answered for 5 s"), advice));
            return findings;
        }
    };
    findings.push(good(format!("port: {ingest} answers")));
    if settings.tls {
        findings.extend(encrypted(settings, dir, tcp, now_unix_ms).await);
    }
    findings
}

async fn encrypted(settings: &Settings, dir: &Path, tcp: TcpStream, now_unix_ms: i64) -> Vec<Finding> {
    let identity = Identity::of(dir);
    let shows_itself = identity.current().is_some();
    let local = |error: &(dyn std::error::Error + 'static)| {
        vec![wrong(format!("trust: {}", chain(error)), "set -ca (SM_CA_FILE) right, or use a token with a fingerprint")]
    };
    let judge = match judge(settings, &identity, !shows_itself) {
        Ok(judge) => judge,
        Err(error) => return local(&error),
    };
    let witness = Arc::new(Witness { judge, seen: Mutex::default() });
    let made = connector(witness.clone(), &identity, shows_itself)
        .and_then(|connector| Ok((connector, server_name(&settings.ingest)?)));
    let (connector, name) = match made {
        Ok(made) => made,
        Err(error) => return local(&error),
    };
    let outcome = timeout(WAIT, connector.connect(name, tcp)).await;
    let seen = witness.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match outcome {
        Ok(Ok(_)) => believed(settings, &seen, now_unix_ms),
        Ok(Err(error)) => vec![refused(&error, &seen, now_unix_ms)],
        Err(_) => vec![wrong("TLS: the server begins no TLS in 5 s", "look whether -ingest names the agents' port")],
    }
}

fn believed(settings: &Settings, seen: &Seen, now_unix_ms: i64) -> Vec<Finding> {
    let by = match seen.word {
        Some(Word::Fingerprint) => "the fingerprint in the token".to_owned(),
        Some(Word::Enrolment) => "an authority that came with this agent's certificate".to_owned(),
        Some(Word::Named) => match &settings.ca_file {
            Some(path) => format!("an authority in {}", path.display()),
            None => "an authority of this system".to_owned(),
        },
        None => "nobody".to_owned(),
    };
    let mut findings = vec![good(format!("trust: the server is believed by {by} (TLS 1.3)"))];
    if let Some((_, not_after)) = seen.chain.first().and_then(|der| validity(der)) {
        let left_ms = not_after.millis().saturating_sub(now_unix_ms);
        let said = format!("trust: the server's certificate is good for {}", age(left_ms));
        findings.push(if left_ms < 7 * DAY_MS { note(said) } else { good(said) });
    }
    findings
}

fn refused(error: &std::io::Error, seen: &Seen, now_unix_ms: i64) -> Finding {
    let what = format!("trust: {}", chain(error));
    let shown: Vec<String> = seen.chain.iter().skip(1).map(|der| Fingerprint::of(der).to_string()).collect();
    let shown = if shown.is_empty() { "none".to_owned() } else { shown.join(", ") };
    let now = model::Timestamp::from_millis(now_unix_ms).rfc3339();
    match tls_error(error) {
        Some(Error::InvalidCertificate(why)) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                let advice = format!("renew the server's certificate; or this host's clock is wrong: it says {now}");
                wrong(what, advice)
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                wrong(what, format!("set this host's clock (timedatectl set-ntp true): it says {now}"))
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => wrong(
                what,
                "call the server in -ingest by a name that its certificate has, or give the server that name",
            ),
            CertificateError::UnknownIssuer => wrong(
                what,
                format!(
                    "its authority is not among those that are believed; shown fingerprints: {shown}. Use -ca or a \
                     token of this server; if this agent was moved to another server, stop it and remove \
                     identity/certificate.pb in its data folder"
                ),
            ),
            _ => wrong(
                what,
                format!(
                    "take a new token from this server; if you did, somebody stands between: do not go on. Shown \
                     fingerprints of authorities: {shown}"
                ),
            ),
        },
        Some(Error::AlertReceived(AlertDescription::ProtocolVersion)) => wrong(what, "the server has to speak TLS 1.3"),
        Some(Error::InvalidMessage(_)) => wrong(what, "the port does not speak TLS: name the agents' port in -ingest"),
        _ => wrong(what, "look into the server's log; a proxy on the way has to pass bytes as they are"),
    }
}
