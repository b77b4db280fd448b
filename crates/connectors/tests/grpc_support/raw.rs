//! HTTP/2 by hand: what no library would send, and what one sends, at the moment that a test wants.

use super::{Gateway, TOKEN};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use wire::{AuthRequest, method};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// The head of a gRPC call, with more of the same.
pub fn head(path: &str, more: &[u8]) -> Vec<u8> {
    let mut out = vec![0x83, 0x86, 0x04, path.len() as u8];
    out.extend(path.as_bytes());
    out.extend(b"\x01\x01x\x0f\x10\x10application/grpc");
    out.extend(more);
    out
}

pub fn framed(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&[0][..], &(bytes.len() as u32).to_be_bytes(), &bytes].concat()
}

/// A client that has greeted.
pub async fn raw(gateway: &Gateway) -> TcpStream {
    let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
    // Its kernel sends what it is given.
    tcp.set_nodelay(true).unwrap();
    tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    tcp.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    tcp
}

/// One that has logged in, on stream 1.
pub async fn raw_logged_in(gateway: &Gateway) -> TcpStream {
    let mut tcp = raw(gateway).await;
    let login = AuthRequest { org_id: "acme".into(), token: TOKEN.into(), ..AuthRequest::default() };
    let call =
        [frame(HEADERS, END_HEADERS, 1, &head(method::AUTHENTICATE, b"")), frame(DATA, END_STREAM, 1, &framed(&login))];
    tcp.write_all(&call.concat()).await.unwrap();
    gateway.until("the login", |memory| !memory.logins.is_empty()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    tcp
}
