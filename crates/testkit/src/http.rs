//! As much of HTTP/1.1 as a receiver needs: requests with a `Content-Length`, keep-alive, and
//! answers written as bytes, so that they can also be wrong on purpose.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Head and body beyond these are a defect of the sender under test.
const HEAD_MAX: usize = 64 * 1024;
const BODY_MAX: usize = 64 * 1024 * 1024;

/// A request as it came over the wire.
pub struct Parsed {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// Reads the next request; `buffer` keeps what came after it. `None` when the peer closed or sent
/// something that is not such a request.
pub async fn read_request(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> Option<Parsed> {
    let head_len = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if buffer.len() > HEAD_MAX || stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_len]).into_owned();
    let _ = buffer.split_to(head_len + 4);
    let mut lines = head.split("\r\n");
    let mut request_line = lines.next()?.split(' ');
    let (method, path) = (request_line.next()?.to_owned(), request_line.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = match headers.iter().find(|(name, _)| name == "content-length") {
        Some((_, value)) => value.parse::<usize>().ok().filter(|n| *n <= BODY_MAX)?,
        None => 0,
    };
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer.split_to(length).freeze();
    Some(Parsed { method, path, headers, body })
}

/// An answer as bytes. A HEAD request gets the head only; 204 and 304 never have a body.
pub fn answer(status: u16, headers: &[(String, String)], body: &[u8], head_only: bool) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status} {}\r\n", reason(status)).into_bytes();
    for (name, value) in headers {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    let bodyless = status == 204 || status == 304;
    if !bodyless {
        out.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    if !head_only && !bodyless {
        out.extend_from_slice(body);
    }
    out
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        410 => "Gone",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_in_one_stream_are_told_apart() {
        let mut stream: &[u8] =
            b"POST /a HTTP/1.1\r\nContent-Length: 3\r\nX-Y: z\r\n\r\nabcHEAD /b HTTP/1.1\r\n\r\nGET";
        let mut buffer = BytesMut::new();
        let first = read_request(&mut stream, &mut buffer).await.unwrap();
        assert_eq!((first.method.as_str(), first.path.as_str(), &first.body[..]), ("POST", "/a", &b"abc"[..]));
        assert_eq!(first.headers[1], ("x-y".to_owned(), "z".to_owned()));
        let second = read_request(&mut stream, &mut buffer).await.unwrap();
        assert_eq!((second.method.as_str(), second.body.len()), ("HEAD", 0));
        assert!(read_request(&mut stream, &mut buffer).await.is_none(), "a request that ends early is none");
    }
}
