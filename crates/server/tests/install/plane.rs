//! A control plane that only serves downloads, and what a dishonest one or a bad network makes of them.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SigningKey};
use runtime::http::HttpLimits;
use runtime::tls::{MinimumTls, TlsFiles};
use runtime::{Stop, Stopper};
use server::agent_downloads::{Authority, Downloads};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

/// What happens to answers on their way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mischief {
    #[default]
    None,
    /// One bit of the agent is another.
    Bit,
    /// Another agent, with a checksum that fits it.
    OtherAgent,
    /// A signature of somebody else.
    OtherSignature,
    /// The connection ends in the middle of the agent.
    Cut,
    /// The authority is said to be somebody else.
    OtherAuthority,
    /// The authority's certificates never end.
    EndlessAuthority,
    /// Everything fails.
    Broken,
}

/// A root, and the key that signs agents.
pub struct Root {
    pub pem: String,
    /// The part of its SHA-256 that is in tokens.
    pub fingerprint: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Root {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let fingerprint = Sha256::digest(certificate.der()).iter().take(16).map(|b| format!("{b:02x}")).collect();
        Self { pem: certificate.pem(), fingerprint, issuer: Issuer::new(params, key) }
    }
}

impl Authority for Root {
    fn roots_pem(&self) -> String {
        self.pem.clone()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.issuer.key().sign(message)?)
    }
}

pub struct Plane {
    pub root: Arc<Root>,
    pub port: u16,
    dir: tempfile::TempDir,
    mischief: Arc<Mutex<Mischief>>,
    _stopper: Stopper,
    _runtime: tokio::runtime::Runtime,
}

impl Plane {
    pub fn new() -> Self {
        Self::with("control-plane.muttd", ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// With a certificate for this name and use.
    pub fn with(name: &str, usage: ExtendedKeyUsagePurpose) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Arc::new(Root::new());
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let leaf = params.signed_by(&key, &root.issuer).unwrap();
        let (cert, key_file) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
        std::fs::write(&cert, leaf.pem() + &root.pem).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        let mischief = Arc::new(Mutex::new(Mischief::None));
        let router = Downloads::new(Some(dir.path().to_owned()), None, root.clone()).router();
        let router = disturbed(router, mischief.clone());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (stopper, stop) = Stopper::new();
        let tls = TlsFiles::open(&cert, &key_file, MinimumTls::Tls13).unwrap();
        let _entered = runtime.enter();
        let port = serve(router, tls, stop);
        Self { root, port, dir, mischief, _stopper: stopper, _runtime: runtime }
    }

    /// Serves this as the agent for hosts of this kind.
    pub fn put_agent(&self, content: &[u8]) {
        let name = if cfg!(target_arch = "aarch64") { "sm-agent-linux-arm64" } else { "sm-agent-linux-amd64" };
        let new = self.dir.path().join("new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, self.dir.path().join(name)).unwrap();
    }

    pub fn set(&self, mischief: Mischief) {
        *self.mischief.lock().unwrap() = mischief;
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn token(&self, org: &str) -> String {
        format!("sm_{org}_1751700000000_{SECRET}.{}", self.root.fingerprint)
    }

    /// A file with the root, as an operator hands it out.
    pub fn ca_file(&self) -> PathBuf {
        let path = self.dir.path().join("ca.pem");
        std::fs::write(&path, &self.root.pem).unwrap();
        path
    }
}

/// What must be seen nowhere.
pub const SECRET: &str = "0123456789abcdefghjkmnpqrstvwxyz";

/// A program that says its version, long enough for several pieces.
pub fn agent(version: &str) -> Vec<u8> {
    let mut text = format!("#!/bin/sh\necho 'sm-agent {version}'\nexit 0\n").into_bytes();
    text.resize(200_000, b'#');
    text
}

/// In a runtime.
fn serve(router: Router, tls: Arc<TlsFiles>, stop: Stop) -> u16 {
    let listener = runtime::http::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(runtime::http::serve(listener, Some(tls), router, HttpLimits::default(), stop));
    port
}

fn disturbed(router: Router, mischief: Arc<Mutex<Mischief>>) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let mischief = *mischief.lock().unwrap();
        async move {
            let path = request.uri().path().to_owned();
            disturb(mischief, &path, next.run(request).await).await
        }
    }))
}

async fn disturb(mischief: Mischief, path: &str, response: Response) -> Response {
    let is_agent = path.starts_with("/sm-agent-linux-") && !path.contains('.');
    let (mut head, body) = response.into_parts();
    let mut bytes = axum::body::to_bytes(body, 1 << 24).await.unwrap().to_vec();
    match mischief {
        Mischief::None => {}
        Mischief::Bit if is_agent => bytes[100_000] ^= 1,
        Mischief::OtherAgent if is_agent => bytes = agent("6.6.6"),
        Mischief::OtherAgent if path.ends_with(".sha256") => {
            let sum: String = Sha256::digest(agent("6.6.6")).iter().map(|b| format!("{b:02x}")).collect();
            bytes.splice(..64, sum.into_bytes());
        }
        Mischief::OtherSignature if path.ends_with(".sig") => bytes = Root::new().sign(b"anything").unwrap(),
        Mischief::Cut if is_agent => {
            let half = bytes::Bytes::from(bytes).slice(..100_000);
            return Response::from_parts(head, Body::new(Pieces([Ok(half), Err(reset())].into())));
        }
        Mischief::OtherAuthority if path == "/ca.pem" => bytes = Root::new().pem.into_bytes(),
        // 1 GiB, of a length that is not said.
        Mischief::EndlessAuthority if path == "/ca.pem" => {
            head.headers.remove(http::header::CONTENT_LENGTH);
            let piece = bytes::Bytes::from(b"-----BEGIN CERTIFICATE-----\n".repeat(1 << 16));
            return Response::from_parts(head, Body::new(Pieces((0..585).map(|_| Ok(piece.clone())).collect())));
        }
        Mischief::Broken => head.status = http::StatusCode::INTERNAL_SERVER_ERROR,
        Mischief::Bit
        | Mischief::OtherAgent
        | Mischief::OtherSignature
        | Mischief::Cut
        | Mischief::OtherAuthority
        | Mischief::EndlessAuthority => {}
    }
    head.headers.insert(http::header::CONTENT_LENGTH, bytes.len().into());
    Response::from_parts(head, Body::from(bytes))
}

fn reset() -> std::io::Error {
    std::io::ErrorKind::ConnectionReset.into()
}

/// A body of pieces that does not say how long it is.
struct Pieces(VecDeque<std::io::Result<bytes::Bytes>>);

impl http_body::Body for Pieces {
    type Data = bytes::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<http_body::Frame<bytes::Bytes>>>> {
        Poll::Ready(self.0.pop_front().map(|piece| piece.map(http_body::Frame::data)))
    }
}
