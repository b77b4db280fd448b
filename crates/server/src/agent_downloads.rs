//! What a host fetches from the control plane to install its agent: the installer, the authority's certificates, and
//! per architecture the agent with its checksum and the signature of that.
//!
//! Always true here: no part of a request becomes a path of the file system; a file goes from the disk to the
//! connection in pieces and is never whole in memory; a checksum is that of the file that is served, found once per
//! version of it and off the async threads; at most [`STREAMS_MAX`] agents are on their way at a time.
//!
//! What is signed is the line of the checksum file, `<SHA-256>  sm-agent-linux-<architecture>`. So the signature is
//! good for one content under one name, and the authority's key, which also signs certificates, never signs bytes
//! that others chose.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, ReadBuf};

/// The script that installs, as it is shipped.
pub const INSTALLER: &str = include_str!("../../../installer/install.sh");
/// Processors for which there can be an agent, by the names of its files.
pub const ARCHITECTURES: [&str; 3] = ["amd64", "arm64", "arm"];
/// Where packages put agents.
pub const SHARED_FOLDER: &str = "/usr/share/muttd/agents";
/// Agents on their way at one time; who comes then is asked to come again.
pub const STREAMS_MAX: usize = 64;
/// A larger file is no agent. The installer takes no more either.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// A host that takes longer no longer counts; its connection has bounds of its own.
const STREAM_TIME_MAX: Duration = Duration::from_secs(900);
const PIECE_BYTES: usize = 64 << 10;

/// What downloads need of the authority whose certificate the gateway shows.
pub trait Authority: Send + Sync + 'static {
    /// Its root certificates as PEM, those of before a change too.
    fn roots_pem(&self) -> String;
    /// ECDSA on P-256 over the SHA-256 of the message, in DER, by a key whose certificate is among the roots.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>>;
}

impl Authority for crate::authority::Authority {
    fn roots_pem(&self) -> String {
        self.roots_pem()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.sign(message)?)
    }
}

/// Serves installer and agents.
#[derive(Clone)]
pub struct Downloads {
    inner: Arc<Inner>,
}

struct Inner {
    folders: Vec<PathBuf>,
    /// The agent that was built or installed together with this program, for hosts of its kind.
    beside: Option<PathBuf>,
    authority: Arc<dyn Authority>,
    signed: HashMap<&'static str, tokio::sync::Mutex<Option<Signed>>>,
    streams: Arc<Streams>,
}

/// Tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A version's checksum file and its signature, which is by one of these roots.
#[derive(Clone)]
struct Signed {
    version: Version,
    sum: String,
    roots: String,
    signature: Vec<u8>,
}

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
enum DownloadError {
    #[error("there is no {name} here: put it into {folder} on the control plane (`make agents` builds it)")]
    Missing { name: String, folder: String },
    #[error("it is just being replaced: try again")]
    Changing,
    #[error("too many hosts are fetching their agent: try again")]
    Busy,
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    #[error("it cannot be signed")]
    Sign(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Downloads {
    /// Agents from `folder`, as the operator set it, or from those where they usually are. `executable` is this
    /// program's own file.
    pub fn new(folder: Option<PathBuf>, executable: Option<&Path>, authority: Arc<dyn Authority>) -> Self {
        let own = executable.and_then(Path::parent).map(Path::to_path_buf);
        let folders = match folder {
            Some(folder) => vec![folder],
            None => own.iter().cloned().chain([PathBuf::from(SHARED_FOLDER)]).collect(),
        };
        let beside = own.map(|own| own.join("sm-agent"));
        let signed = ARCHITECTURES.into_iter().map(|arch| (arch, tokio::sync::Mutex::default())).collect();
        Self { inner: Arc::new(Inner { folders, beside, authority, signed, streams: Arc::default() }) }
    }

    /// `GET` and `HEAD` of everything there is; other methods are refused, other paths are the caller's.
    pub fn router(self) -> Router {
        let mut router = Router::new().route("/ca.pem", get(roots)).merge(installer());
        for arch in ARCHITECTURES {
            let path = format!("/sm-agent-linux-{arch}");
            let agent = move |State(downloads): State<Self>| async move { answer(downloads.agent(arch).await) };
            let sum = move |State(downloads): State<Self>| async move {
                answer(downloads.signed(arch).await.map(|signed| content("text/plain; charset=utf-8", signed.sum)))
            };
            let signature = move |State(downloads): State<Self>| async move {
                answer(downloads.signed(arch).await.map(|signed| content("application/octet-stream", signed.signature)))
            };
            router = router
                .route(&path, get(agent))
                .route(&format!("{path}.sha256"), get(sum))
                .route(&format!("{path}.sig"), get(signature));
        }
        router.with_state(self)
    }

    async fn agent(&self, arch: &'static str) -> Result<Response, DownloadError> {
        let stream = Streams::enter(&self.inner.streams, Instant::now()).ok_or(DownloadError::Busy)?;
        let (file, version) = self.open(arch).await?;
        let body = FileBody { file: tokio::fs::File::from_std(file), left: version.bytes, _stream: stream };
        let mut response = content("application/octet-stream", Body::new(body));
        response.headers_mut().insert(header::CONTENT_LENGTH, version.bytes.into());
        Ok(response)
    }

    /// The signed checksum of the file as it is now. Who asks at the same time waits for the same work.
    async fn signed(&self, arch: &'static str) -> Result<Signed, DownloadError> {
        let mut known = self.inner.signed[arch].lock().await;
        let (file, version) = self.open(arch).await?;
        let roots = self.inner.authority.roots_pem();
        if let Some(signed) = known.as_ref().filter(|signed| signed.version == version && signed.roots == roots) {
            return Ok(signed.clone());
        }
        let authority = self.inner.authority.clone();
        let made = blocking(move || {
            let sum = format!("{}  {}\n", checksum(file, version)?, file_name(arch));
            let signature = authority.sign(sum.as_bytes()).map_err(DownloadError::Sign)?;
            Ok(Signed { version, sum, roots, signature })
        });
        let made = made.await?;
        tracing::info!(file.name = file_name(arch), file.bytes = version.bytes, "a new agent is served");
        *known = Some(made.clone());
        Ok(made)
    }

    async fn open(&self, arch: &'static str) -> Result<(std::fs::File, Version), DownloadError> {
        let inner = self.inner.clone();
        blocking(move || inner.open(arch)).await
    }
}

impl Inner {
    /// The first file of this architecture.
    fn open(&self, arch: &str) -> Result<(std::fs::File, Version), DownloadError> {
        let name = file_name(arch);
        let beside = self.beside.iter().filter(|_| arch == own_architecture()).cloned();
        for path in self.folders.iter().map(|folder| folder.join(&name)).chain(beside) {
            match std::fs::metadata(&path) {
                // Not opened before it is known what it is: a pipe would keep the thread.
                Ok(metadata) if metadata.is_file() && metadata.len() <= FILE_BYTES_MAX => {}
                Ok(_) => continue,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            let file = std::fs::File::open(&path)?;
            let version = Version::of(&file.metadata()?);
            return Ok((file, version));
        }
        let folder = self.folders.last().map_or_else(|| SHARED_FOLDER.to_owned(), |f| f.display().to_string());
        Err(DownloadError::Missing { name, folder })
    }
}

/// The installer alone, for other ports.
pub fn installer<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/install.sh", get(async || content("text/x-shellscript; charset=utf-8", INSTALLER)))
}

/// SHA-256 of the installer, with which whoever fetched it can tell that it is ours.
pub fn installer_sha256() -> String {
    hex(&Sha256::digest(INSTALLER))
}

fn file_name(arch: &str) -> String {
    format!("sm-agent-linux-{arch}")
}

/// The architecture that this program runs on; empty where there is no agent for it.
const fn own_architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "amd64"
    } else if cfg!(target_arch = "aarch64") {
        "arm64"
    } else if cfg!(target_arch = "arm") {
        "arm"
    } else {
        ""
    }
}

async fn roots(State(downloads): State<Downloads>) -> Response {
    content("application/x-pem-file", downloads.inner.authority.roots_pem())
}

fn content(kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // What is replaced must be seen at once.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}

fn answer(result: Result<Response, DownloadError>) -> Response {
    let error = match result {
        Ok(response) => return response,
        Err(error) => error,
    };
    let status = match &error {
        DownloadError::Missing { .. } => StatusCode::NOT_FOUND,
        DownloadError::Changing | DownloadError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        DownloadError::Read(source) => {
            tracing::error!(error = source as &dyn std::error::Error, "an agent cannot be served");
            StatusCode::INTERNAL_SERVER_ERROR
        }
        DownloadError::Sign(source) => {
            tracing::error!(error = source.as_ref() as &dyn std::error::Error, "an agent cannot be signed");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    let mut response = content("text/plain; charset=utf-8", format!("{error}\n"));
    *response.status_mut() = status;
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
    response.into_response()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DownloadError> + Send + 'static,
) -> Result<T, DownloadError> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Of the whole file, if it is still the same at the end.
fn checksum(mut file: std::fs::File, version: Version) -> Result<String, DownloadError> {
    let mut digest = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut read = 0;
    loop {
        let length = file.read(&mut piece)?;
        read += length as u64;
        if length == 0 || read > version.bytes {
            break;
        }
        digest.update(&piece[..length]);
    }
    if read != version.bytes || Version::of(&file.metadata()?) != version {
        return Err(DownloadError::Changing);
    }
    Ok(hex(&digest.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Who is fetching an agent, since when.
#[derive(Default)]
struct Streams {
    open: Mutex<(u64, HashMap<u64, Instant>)>,
}

struct Stream {
    of: Arc<Streams>,
    number: u64,
}

impl Streams {
    /// `None`: full.
    fn enter(streams: &Arc<Self>, now: Instant) -> Option<Stream> {
        let mut open = streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, since) = &mut *open;
        if since.len() >= STREAMS_MAX {
            since.retain(|_, since| now.saturating_duration_since(*since) < STREAM_TIME_MAX);
        }
        if since.len() >= STREAMS_MAX {
            return None;
        }
        *number += 1;
        since.insert(*number, now);
        Some(Stream { of: streams.clone(), number: *number })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.of.open.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.number);
    }
}

/// A file, piece by piece. One that became shorter breaks the connection off, so nobody takes it for whole.
struct FileBody {
    file: tokio::fs::File,
    left: u64,
    _stream: Stream,
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let wanted = usize::try_from(self.left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let mut piece = vec![0; wanted];
        let mut buffer = ReadBuf::new(&mut piece);
        match Pin::new(&mut self.file).poll_read(context, &mut buffer) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(Ok(())) => {}
        }
        let length = buffer.filled().len();
        if length == 0 {
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        piece.truncate(length);
        self.left -= length as u64;
        Poll::Ready(Some(Ok(http_body::Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
#[path = "agent_downloads_tests.rs"]
mod tests;
