//! Reading a request body with bounds: compressed size, expanded size, time.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;
use std::fmt::Display;
use std::io::Read;
use std::time::Duration;

/// Why a body was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyError {
    TooLarge {
        bytes_max: usize,
    },
    TooSlow,
    /// The connection broke, or the encoding is not what it says.
    Broken(String),
    UnknownEncoding(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, BodyError> {
    let Some(value) = headers.get(http::header::CONTENT_ENCODING) else { return Ok(Encoding::Identity) };
    match value.to_str().unwrap_or("?").trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Encoding::Identity),
        "gzip" | "x-gzip" => Ok(Encoding::Gzip),
        "zstd" => Ok(Encoding::Zstd),
        other => Err(BodyError::UnknownEncoding(other.chars().take(40).collect())),
    }
}

/// Reads and expands the body. `bytes_max` bounds both what is received and what it expands to.
pub async fn read<B: Body<Data = Bytes, Error: Display> + Unpin>(
    headers: &HeaderMap,
    body: B,
    bytes_max: usize,
    timeout: Duration,
) -> Result<Bytes, BodyError> {
    let encoding = encoding(headers)?;
    let received = tokio::time::timeout(timeout, receive(body, bytes_max)).await.map_err(|_| BodyError::TooSlow)??;
    match encoding {
        Encoding::Identity => Ok(received),
        Encoding::Gzip | Encoding::Zstd => {
            let expanded = tokio::task::spawn_blocking(move || match encoding {
                Encoding::Gzip => expand(flate2::read::MultiGzDecoder::new(&*received), bytes_max),
                Encoding::Zstd => {
                    let mut decoder = zstd::stream::read::Decoder::with_buffer(&*received).map_err(broken)?;
                    // A frame may ask for a window of gigabytes; 8 MiB is what the format recommends to bear.
                    decoder.window_log_max(23).map_err(broken)?;
                    expand(decoder, bytes_max)
                }
                Encoding::Identity => Ok(received),
            });
            expanded.await.map_err(|e| BodyError::Broken(e.to_string()))?
        }
    }
}

async fn receive<B: Body<Data = Bytes, Error: Display> + Unpin>(
    mut body: B,
    bytes_max: usize,
) -> Result<Bytes, BodyError> {
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|e| BodyError::Broken(e.to_string()))?.into_data() else { continue };
        if first.as_ref().map_or(0, Bytes::len) + all.len() + data.len() > bytes_max {
            return Err(BodyError::TooLarge { bytes_max });
        }
        match (&first, all.is_empty()) {
            (None, true) => first = Some(data),
            _ => {
                if let Some(first) = first.take() {
                    all.extend_from_slice(&first);
                }
                all.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| all.freeze()))
}

fn expand(decoder: impl Read, bytes_max: usize) -> Result<Bytes, BodyError> {
    let mut out = Vec::new();
    decoder.take(bytes_max as u64 + 1).read_to_end(&mut out).map_err(broken)?;
    if out.len() > bytes_max {
        return Err(BodyError::TooLarge { bytes_max });
    }
    Ok(out.into())
}

fn broken(error: std::io::Error) -> BodyError {
    BodyError::Broken(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    async fn check(encoding: &str, body: Vec<u8>) -> Result<Bytes, BodyError> {
        let mut headers = HeaderMap::new();
        headers.insert("content-encoding", encoding.parse().unwrap());
        read(&headers, http_body_util::Full::new(body.into()), 10_000, Duration::from_secs(5)).await
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn gzip_and_zstd_bodies_expand() {
        assert_eq!(check("gzip", gzip(b"hello")).await.unwrap(), "hello");
        assert_eq!(check("zstd", zstd::encode_all(&b"hello"[..], 3).unwrap()).await.unwrap(), "hello");
        assert_eq!(check("identity", b"hello".to_vec()).await.unwrap(), "hello");
    }

    #[tokio::test]
    async fn a_bomb_is_stopped_at_the_bound() {
        let zeros = vec![0u8; 50_000_000];
        let too_large = Err(BodyError::TooLarge { bytes_max: 10_000 });
        assert_eq!(check("gzip", gzip(&zeros[..9_000_000])).await, too_large);
        assert_eq!(check("zstd", zstd::encode_all(&zeros[..], 3).unwrap()).await, too_large);
        assert_eq!(check("identity", zeros).await, too_large);
    }

    #[tokio::test]
    async fn broken_and_unknown_encodings_say_so() {
        assert!(matches!(check("gzip", b"not gzip".to_vec()).await, Err(BodyError::Broken(_))));
        assert!(matches!(check("zstd", b"not zstd".to_vec()).await, Err(BodyError::Broken(_))));
        assert_eq!(check("br", vec![]).await, Err(BodyError::UnknownEncoding("br".into())));
    }
}
