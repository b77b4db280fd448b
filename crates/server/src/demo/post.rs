//! One HTTP POST over one plain connection: all that the feeder needs, without a client library
//! that would ask for a TLS provider.

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The head's first line is all that is looked at.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Posts JSON to an `http://host:port/path`; the status of the answer.
pub async fn json(url: &str, api_key: &str, body: &str) -> Result<u16> {
    let (authority, path) = split(url).ok_or_else(|| Error::new(ErrorKind::InvalidInput, "not an http:// URL"))?;
    let exchange = async {
        let mut stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\nX-API-KEY: {api_key}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        status(&answer).ok_or_else(|| Error::new(ErrorKind::InvalidData, "the answer is not HTTP"))
    };
    tokio::time::timeout(TIMEOUT, exchange).await?
}

fn split(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (!authority.is_empty()).then_some((authority, if path.is_empty() { "/" } else { path }))
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.strip_prefix(b"HTTP/1.1 ")?;
    std::str::from_utf8(line.get(..3)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_status_lines_are_read() {
        assert_eq!(split("http://127.0.0.1:8080/api/v2/ingest"), Some(("127.0.0.1:8080", "/api/v2/ingest")));
        assert_eq!(split("http://[::1]:8080"), Some(("[::1]:8080", "/")));
        assert_eq!(split("https://127.0.0.1/"), None);
        assert_eq!(status(b"HTTP/1.1 400 Bad Request\r\n"), Some(400));
        assert_eq!(status(b"SSH-2.0"), None);
    }
}
