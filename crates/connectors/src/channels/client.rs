//! The HTTP side that all channels share: one client per channel, one place that says what an
//! answer means.
//!
//! Always true here:
//! * A call makes at most one request: no retry, no redirect followed, no proxy from the environment.
//! * Whatever an error says, of ours, the library's or the receiver's, holds no secret, and of the
//!   URL it shows scheme, host and port only: path and query of a webhook are often its password.

use super::{DeliveryError, HttpTarget, Receipt};
use http::header::{CONTENT_TYPE, DATE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method};
use jiff::fmt::rfc2822::DateTimeParser;
use model::{ErrorKind, Timestamp};
use reqwest::{Client, Response, StatusCode, Url};
use runtime::KeyRing;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::error::Error;
use std::path::Path;
use std::time::Duration;

/// The start of an answer that is read at all; what is longer costs the connection.
const ANSWER_BYTES_MAX: usize = 4 * 1024;
/// The start of an answer that is shown to people.
const EXCERPT_CHARS_MAX: usize = 200;
/// The longest wait a receiver can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(5);
const PROBE_TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// Below the 60 s after which common receivers close idle connections.
const IDLE_MAX: Duration = Duration::from_secs(45);

/// A client for one URL.
pub(super) struct HttpClient {
    client: Client,
    url: Url,
    /// What people may see of the URL.
    shown: String,
    timeout: Duration,
    /// Keys that receivers might echo and nobody may see.
    secrets: KeyRing,
    /// Parts of the URL that might be secret too.
    hidden: Vec<String>,
}

impl HttpClient {
    /// Fails on what is wrong without asking the receiver. `secrets` are kept out of every error.
    pub fn open(target: &HttpTarget, secrets: KeyRing) -> Result<Self, DeliveryError> {
        let url = parse_url(&target.url)?;
        if target.timeout.is_zero() {
            return Err(invalid("the timeout must be longer than 0"));
        }
        let roots = match &target.ca_file {
            Some(path) => roots_of(path)?,
            None if url.scheme() == "https" => system_roots()?,
            None => rustls::RootCertStore::empty(),
        };
        let tls = rustls::ClientConfig::builder_with_provider(runtime::tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| internal(&e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("mutt-security-manager/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .connect_timeout(target.timeout.min(CONNECT_TIMEOUT_MAX))
            .pool_idle_timeout(IDLE_MAX)
            .tcp_keepalive(IDLE_MAX)
            .tcp_nodelay(true)
            .build()
            .map_err(|e| internal(&e.without_url()))?;

        let hidden = hidden_texts(&url);
        let shown = shown(&target.url);
        Ok(Self { client, url, shown, timeout: target.timeout, secrets, hidden })
    }

    /// Posts `body` once. `now` is for receivers that say when to come back but not what time it is.
    pub async fn post_json(
        &self,
        mut headers: HeaderMap,
        body: Vec<u8>,
        now: Timestamp,
    ) -> Result<Receipt, DeliveryError> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.send(Method::POST, headers, body, now).await
    }

    /// Makes one request, whose content type is among the `headers`.
    pub async fn send(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Vec<u8>,
        now: Timestamp,
    ) -> Result<Receipt, DeliveryError> {
        let request = self.client.request(method, self.url.clone()).timeout(self.timeout).headers(headers).body(body);
        let mut response = request.send().await.map_err(|e| self.no_answer(e))?;
        let status = response.status();
        let answer = read_start(&mut response).await;
        if status.is_success() {
            // The status alone does not count: a proxy may have sent it for a receiver that died.
            answer.map_err(|(e, _)| self.no_answer(e))?;
            return Ok(Receipt { detail: format!("HTTP {}", status.as_u16()) });
        }
        let start = answer.unwrap_or_else(|(_, start)| start);
        Err(self.refusal(status, response.headers(), &start, Some(now)))
    }

    /// Asks with HEAD, which creates nothing, whether anybody answers. Every answer below 500 will
    /// do, and so will 501: a server that knows no HEAD is there too.
    pub async fn probe(&self) -> Result<(), DeliveryError> {
        let request = self.client.head(self.url.clone()).timeout(self.timeout.min(PROBE_TIMEOUT_MAX));
        let response = request.send().await.map_err(|e| self.no_answer(e))?;
        let status = response.status();
        if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
            return Err(self.refusal(status, response.headers(), &[], None));
        }
        Ok(())
    }

    /// What an answer that is not 2xx means.
    fn refusal(&self, status: StatusCode, headers: &HeaderMap, start: &[u8], now: Option<Timestamp>) -> DeliveryError {
        let kind = match status.as_u16() {
            408 => ErrorKind::Timeout,
            429 => ErrorKind::Full,
            500.. => ErrorKind::Unavailable,
            401 | 403 => ErrorKind::Denied,
            _ => ErrorKind::Invalid,
        };
        let transient = kind.is_transient();
        let mut reason = format!("`{}` answered HTTP {}", self.shown, status.as_u16());
        if let Some(words) = status.canonical_reason() {
            reason.push(' ');
            reason.push_str(words);
        }
        if status.is_redirection() {
            reason.push_str("; redirects are not followed: configure the final URL");
        }
        let excerpt = self.excerpt(start);
        if !excerpt.is_empty() {
            reason.push_str(": ");
            reason.push_str(&excerpt);
        }
        let retry_after = if transient { retry_after(headers, now) } else { None };
        DeliveryError { kind, reason, retry_after, receiver_at_fault: transient }
    }

    /// What it means that no whole answer came.
    fn no_answer(&self, error: reqwest::Error) -> DeliveryError {
        let error = error.without_url();
        let (kind, what) = if error.is_connect() {
            (ErrorKind::Unavailable, "cannot be reached")
        } else if error.is_timeout() {
            (ErrorKind::Timeout, "did not answer in time")
        } else {
            (ErrorKind::Unavailable, "did not answer properly")
        };
        let reason = format!("`{}` {what}: {}", self.shown, self.redact(&causes(&error)));
        DeliveryError { kind, reason, retry_after: None, receiver_at_fault: true }
    }

    /// The start of an answer on one line, without secrets.
    fn excerpt(&self, start: &[u8]) -> String {
        let mut text = self.redact(&String::from_utf8_lossy(start));
        if start.len() >= ANSWER_BYTES_MAX {
            // The cut may have gone through a secret, whose first part would then be shown.
            let longest = self.hidden().first().map_or(0, String::len);
            let end = text.floor_char_boundary(text.len().saturating_sub(longest));
            text.truncate(end);
        }
        let words: Vec<&str> =
            text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
        words.join(" ").chars().take(EXCERPT_CHARS_MAX).collect()
    }

    fn redact(&self, text: &str) -> String {
        self.hidden().iter().fold(text.to_owned(), |text, hidden| text.replace(hidden, "***"))
    }

    /// All that is hidden, longest first, so that no part of one stays behind.
    fn hidden(&self) -> Vec<String> {
        let mut texts: Vec<String> = self.secrets.keys().iter().map(|s| s.expose().trim().to_owned()).collect();
        texts.extend(self.hidden.iter().cloned());
        texts.retain(|text| !text.is_empty());
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        texts
    }
}

/// Scheme, host and port of a URL: what may be shown of it.
pub(super) fn shown(url: &str) -> String {
    match Url::parse(url) {
        Ok(url) if url.has_host() => url.origin().ascii_serialization(),
        Ok(_) | Err(_) => "(not a URL)".to_owned(),
    }
}

/// A mistake in the configuration.
pub(super) fn invalid(reason: impl Into<String>) -> DeliveryError {
    DeliveryError { kind: ErrorKind::Invalid, reason: reason.into(), retry_after: None, receiver_at_fault: false }
}

/// A defect of ours.
pub(super) fn internal(error: &dyn Error) -> DeliveryError {
    DeliveryError { kind: ErrorKind::Internal, reason: causes(error), retry_after: None, receiver_at_fault: false }
}

/// The sentences never repeat the text: it may hold a password.
fn parse_url(text: &str) -> Result<Url, DeliveryError> {
    let mut url = Url::parse(text).map_err(|e| invalid(format!("the URL cannot be read: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid("the URL must start with https:// or http://"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(invalid("the URL names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(
            "the URL must not hold a user name or password: configure them as the channel's secret instead",
        ));
    }
    url.set_fragment(None);
    Ok(url)
}

/// What no error may repeat of a URL: every part that might be a secret. Short parts are ordinary
/// words and would blank out half of an answer.
fn hidden_texts(url: &Url) -> Vec<String> {
    let mut texts = vec![url.as_str().to_owned()];
    texts.extend(Some(url.path()).filter(|path| path.len() > 8).map(str::to_owned));
    texts.extend(url.path().split('/').filter(|segment| segment.len() >= 16).map(str::to_owned));
    texts.extend(url.query().map(str::to_owned));
    let raw_values =
        url.query().unwrap_or_default().split('&').map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value));
    texts.extend(raw_values.filter(|value| value.len() >= 4).map(str::to_owned));
    texts.extend(url.query_pairs().map(|(_, value)| value.into_owned()).filter(|value| value.len() >= 4));
    texts.sort_unstable();
    texts.dedup();
    texts
}

fn roots_of(path: &Path) -> Result<rustls::RootCertStore, DeliveryError> {
    let unusable =
        |why: &dyn Error| invalid(format!("the CA file `{}` cannot be used: {}", path.display(), causes(why)));
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unusable(&e))? {
        roots.add(certificate.map_err(|e| unusable(&e))?).map_err(|e| unusable(&e))?;
    }
    if roots.is_empty() {
        return Err(invalid(format!("the CA file `{}` holds no certificate", path.display())));
    }
    Ok(roots)
}

fn system_roots() -> Result<rustls::RootCertStore, DeliveryError> {
    let mut roots = rustls::RootCertStore::empty();
    // Systems carry certificates that rustls cannot read; the others are still good.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(invalid("this system has no root certificates: install `ca-certificates` or configure a CA file"));
    }
    Ok(roots)
}

/// The error and what caused it, outermost first, each said once.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

/// Up to [`ANSWER_BYTES_MAX`] of the body. An error comes with what was read before it.
async fn read_start(response: &mut Response) -> Result<Vec<u8>, (reqwest::Error, Vec<u8>)> {
    let mut start = Vec::new();
    while start.len() < ANSWER_BYTES_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => start.extend_from_slice(&chunk[..chunk.len().min(ANSWER_BYTES_MAX - start.len())]),
            Ok(None) => break,
            Err(e) => return Err((e, start)),
        }
    }
    Ok(start)
}

/// `Retry-After` in seconds or as an HTTP date; a date counts from the receiver's own `Date` where
/// it sent one, because its clock need not be ours.
fn retry_after(headers: &HeaderMap, now: Option<Timestamp>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let secs = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(secs).min(RETRY_AFTER_MAX));
    }
    let then = http_date(text)?;
    let now = headers.get(DATE).and_then(|v| http_date(v.to_str().ok()?)).or(now)?;
    Some(then.since(now).min(RETRY_AFTER_MAX))
}

fn http_date(text: &str) -> Option<Timestamp> {
    DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text.trim()).ok().map(Timestamp::from_jiff)
}

/// A header value that logs and debuggers do not show.
pub(super) fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::Secret;

    fn target(url: &str) -> HttpTarget {
        HttpTarget { name: "test".into(), url: url.into(), timeout: Duration::from_secs(5), ca_file: None }
    }

    fn none() -> KeyRing {
        KeyRing::fixed(Secret::new(""))
    }

    fn client(url: &str, secret: &str) -> HttpClient {
        HttpClient::open(&target(url), KeyRing::fixed(Secret::new(secret))).unwrap()
    }

    #[test]
    fn only_urls_that_can_be_posted_to_are_taken_and_none_is_repeated() {
        for (url, says) in [
            ("ftp://hunter2.example/", "must start with"),
            ("hunter2", "cannot be read"),
            ("http://", "cannot be read"),
            ("https://bob:hunter2@example.com/", "user name or password"),
            ("https://hunter2@example.com/", "user name or password"),
            ("https://:hunter2@example.com/", "user name or password"),
            ("data:text/plain,hunter2", "must start with"),
        ] {
            let error = HttpClient::open(&target(url), none()).err().expect(url);
            assert_eq!(error.kind, ErrorKind::Invalid, "{url}");
            assert!(error.reason.contains(says) && !error.reason.contains("hunter2"), "{url}: {error}");
            assert!(!format!("{:?}", target(url)).contains("hunter2@"), "{url}");
        }
        assert_eq!(client("http://example.com:8080/a/b?token=t#f", "").shown, "http://example.com:8080");
        let mut no_time = target("http://example.com/");
        no_time.timeout = Duration::ZERO;
        assert!(HttpClient::open(&no_time, none()).is_err());
    }

    #[test]
    fn statuses_mean_what_the_contract_says() {
        let client = client("http://example.com/", "");
        for (status, kind, at_fault) in [
            (301, ErrorKind::Invalid, false),
            (304, ErrorKind::Invalid, false),
            (400, ErrorKind::Invalid, false),
            (401, ErrorKind::Denied, false),
            (403, ErrorKind::Denied, false),
            (404, ErrorKind::Invalid, false),
            (408, ErrorKind::Timeout, true),
            (410, ErrorKind::Invalid, false),
            (413, ErrorKind::Invalid, false),
            (422, ErrorKind::Invalid, false),
            (429, ErrorKind::Full, true),
            (500, ErrorKind::Unavailable, true),
            (502, ErrorKind::Unavailable, true),
            (504, ErrorKind::Unavailable, true),
            (599, ErrorKind::Unavailable, true),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = client.refusal(status, &HeaderMap::new(), b"", None);
            assert_eq!((error.kind, error.receiver_at_fault), (kind, at_fault), "{status}");
        }
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        let now = Timestamp::parse("1994-11-06T08:49:00Z").unwrap();
        let check = |text: &str, date: Option<&str>, now: Option<Timestamp>, expected: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            if let Some(date) = date {
                headers.insert(DATE, date.parse().unwrap());
            }
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{text}");
        };
        check("0", None, None, Some(0));
        check(" 120 ", None, None, Some(120));
        check("7200", None, None, Some(3600));
        check("99999999999999999999999", None, None, Some(3600));
        check("-1", None, None, None);
        check("soon", None, Some(now), None);
        check("", None, Some(now), None);
        check("Sun, 06 Nov 1994 08:49:37 GMT", None, Some(now), Some(37));
        check("Sun, 06 Nov 1994 08:49:37 GMT", None, None, None);
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some("Sun, 06 Nov 1994 08:49:27 GMT"), Some(now), Some(10));
        check("Sun, 06 Nov 1994 08:40:00 GMT", None, Some(now), Some(0));
        check("Sun, 06 Nov 2094 08:40:00 GMT", None, Some(now), Some(3600));
    }

    #[test]
    fn an_excerpt_is_short_one_line_and_without_what_the_receiver_echoes() {
        let key = Secret::new("k3y-of-the-channel");
        let client = client("http://example.com/services/T0/B0?token=t0ken&x=", key.expose());
        let excerpt = client.excerpt(b"bad\r\n\x00key  k3y-of-the-channel at /services/T0/B0?token=t0ken; t0ken");
        assert_eq!(excerpt, "bad key *** at ***?token=***; ***");
        assert_eq!(client.excerpt("ü".repeat(3000).as_bytes()).chars().count(), EXCERPT_CHARS_MAX);

        // Echoed so often that the cut at the end of what is read moves into the excerpt.
        let mut long = key.expose().repeat(300).into_bytes();
        long.truncate(ANSWER_BYTES_MAX);
        for cut in 0..key.expose().len() {
            let mut answer = vec![b' '; cut];
            answer.extend_from_slice(&long[..ANSWER_BYTES_MAX - cut]);
            assert!(!client.excerpt(&answer).contains("k3y"), "{cut}");
        }
    }

    #[test]
    fn a_ca_file_must_hold_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let mut target = target("https://example.com/");
        for (content, says) in [(None, "cannot be used"), (Some("nothing"), "holds no certificate")] {
            let path = folder.path().join("ca.pem");
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            target.ca_file = Some(path);
            let error = HttpClient::open(&target, none()).err().expect("refused");
            assert!(error.kind == ErrorKind::Invalid && error.reason.contains(says), "{error}");
        }
    }
}
