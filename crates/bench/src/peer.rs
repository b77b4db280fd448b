//! What muttd is compared with, and what receives its alerts.

use crate::Plan;
use crate::muttd::{Usage, fresh_dir};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// `bench hyper-peer`: reads each request to its end, answers 200, keeps nothing.
pub fn serve_hyper() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(ANY).await?;
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{}", listener.local_addr()?)?;
        stdout.flush()?;
        serve(listener, |_: Bytes| {}).await
    })
}

async fn serve(listener: TcpListener, seen: impl Fn(Bytes) + Clone + Send + Sync + 'static) -> Result<()> {
    // As long as what muttd answers to a single event.
    const ANSWER: &[u8] = br#"{"correlation_id":"4b1cbbd0-3a21-4c44-9bd1-0a3c43a1a0c0","event_id":"evt_0198f3a2b4c5d6e7f8090a0b0c0d0e0f","queue_depth":1000,"status":"queued"}"#;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let seen = seen.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let seen = seen.clone();
                async move {
                    if let Ok(body) = request.into_body().collect().await {
                        seen(body.to_bytes());
                    }
                    let answer = Response::builder().header("content-type", "application/json");
                    Ok::<_, Infallible>(answer.body(Full::new(Bytes::from_static(ANSWER))).unwrap_or_default())
                }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// A bare hyper server in a process of its own.
pub struct HyperPeer {
    child: Child,
    pub address: SocketAddr,
}

impl HyperPeer {
    pub fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?).arg("hyper-peer").stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output of the hyper peer")?).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse().context("the hyper peer's address")? })
    }

    pub fn usage(&self) -> Usage {
        Usage::of(self.child.id())
    }
}

impl Drop for HyperPeer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes alerts and notes when; on a thread of its own, as long as the process lives.
pub struct AlertReceiver {
    pub address: SocketAddr,
    pub arrivals: Arc<Mutex<Vec<(usize, Instant)>>>,
}

/// What a message must hold so that [`AlertReceiver`] knows its alert; a number of 6 digits follows.
pub const SEQUENCE: &str = "bench-seq-";

impl AlertReceiver {
    pub fn start() -> Result<Self> {
        let listener = StdListener::bind(ANY)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&arrivals);
        std::thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let seen = move |body: Bytes| {
                    let now = Instant::now();
                    let text = String::from_utf8_lossy(&body);
                    let number = text.split(SEQUENCE).nth(1).and_then(|rest| rest.get(..6)?.parse().ok());
                    if let Some(number) = number {
                        noted.lock().unwrap_or_else(PoisonError::into_inner).push((number, now));
                    }
                };
                serve(TcpListener::from_std(listener)?, seen).await
            })
        });
        Ok(Self { address, arrivals })
    }
}

/// Debian's rsyslogd, from sockets to one file.
pub struct Rsyslog {
    child: Child,
    dir: PathBuf,
    pub tcp: SocketAddr,
    pub udp: SocketAddr,
}

/// Starts one on its folder. What it says of itself stays within it.
fn rsyslogd(dir: &Path, config: &str) -> Result<Child> {
    let file = dir.join("rsyslog.conf");
    let global =
        format!("global(workDirectory=\"{}\" net.enableDNS=\"off\" processInternalMessages=\"on\")\n", dir.display());
    std::fs::write(&file, global + config)?;
    let log = std::fs::File::create(dir.join("log"))?;
    Command::new("rsyslogd")
        .args(["-n", "-f"])
        .arg(&file)
        .arg("-i")
        .arg(dir.join("pid"))
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("rsyslogd is not installed; bench/run.sh installs it")
}

impl Rsyslog {
    /// `synced`: with an fsync for each batch of its queue, which is what comes nearest to our default.
    pub fn start(plan: &Plan, synced: bool) -> Result<Self> {
        let dir = fresh_dir(plan, "rsyslog")?;
        let sync = if synced { r#" sync="on""# } else { "" };
        let tcp = StdListener::bind(ANY)?.local_addr()?;
        let udp = UdpSocket::bind(ANY)?.local_addr()?;
        let child = rsyslogd(
            &dir,
            &format!(
                r#"main_queue(queue.type="FixedArray" queue.size="500000" queue.dequeueBatchSize="4096")
module(load="imtcp")
module(load="imudp" timeRequery="8" batchSize="128")
input(type="imtcp" address="127.0.0.1" port="{tcp}")
input(type="imudp" address="127.0.0.1" port="{udp}" rcvbufSize="16m")
if $inputname == "imtcp" or $inputname == "imudp" then {{
  action(type="omfile" file="{dir}/out.log" template="RSYSLOG_FileFormat"{sync})
}}
"#,
                dir = dir.display(),
                tcp = tcp.port(),
                udp = udp.port(),
            ),
        )?;
        let peer = Self { child, dir, tcp, udp };
        let started = Instant::now();
        let port = format!(":{:04X} ", udp.port());
        while TcpStream::connect(tcp).is_err() || !std::fs::read_to_string("/proc/net/udp")?.contains(&port) {
            if started.elapsed() > Duration::from_secs(10) {
                bail!("rsyslogd does not listen: {}", std::fs::read_to_string(peer.dir.join("log"))?);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(peer)
    }

    /// Messages in its file, guessed by the file's size: a line of ours has always the same length.
    pub fn written(&self) -> u64 {
        let size = std::fs::metadata(self.file()).map_or(0, |m| m.len());
        let line = std::fs::File::open(self.file()).ok().and_then(|file| {
            let mut line = Vec::new();
            BufReader::new(file).read_until(b'\n', &mut line).ok()
        });
        line.filter(|line| *line > 0).map_or(0, |line| size / line as u64)
    }

    /// Messages in its file, counted.
    pub fn counted(&self) -> Result<u64> {
        let mut file = BufReader::with_capacity(1 << 20, std::fs::File::open(self.file())?);
        let mut lines = 0;
        loop {
            let chunk = file.fill_buf()?;
            if chunk.is_empty() {
                return Ok(lines);
            }
            lines += chunk.iter().filter(|b| **b == b'\n').count() as u64;
            let read = chunk.len();
            file.consume(read);
        }
    }

    pub fn usage(&self) -> Usage {
        Usage::of(self.child.id())
    }

    fn file(&self) -> PathBuf {
        self.dir.join("out.log")
    }
}

/// Debian's rsyslogd, which follows a file and sends its lines to a socket that takes them: as an agent does, but for
/// encryption, identity, and keeping what was sent until it is durable there.
pub struct FileFollower {
    child: Child,
    dir: PathBuf,
}

impl FileFollower {
    pub fn start(plan: &Plan) -> Result<Self> {
        let dir = fresh_dir(plan, "follower")?;
        let listener = StdListener::bind(ANY)?;
        let port = listener.local_addr()?.port();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok((mut stream, _)) = listener.accept() {
                while matches!(std::io::Read::read(&mut stream, &mut buffer), Ok(1..)) {}
            }
        });
        std::fs::write(dir.join("app.log"), "")?;
        let child = rsyslogd(
            &dir,
            &format!(
                r#"module(load="imfile" mode="inotify")
input(type="imfile" File="{dir}/app.log" Tag="app:" addMetadata="off")
if $syslogtag == "app:" then {{
  action(type="omfwd" target="127.0.0.1" port="{port}" protocol="tcp")
}}
"#,
                dir = dir.display(),
            ),
        )?;
        Ok(Self { child, dir })
    }

    /// The file that it follows.
    pub fn file(&self) -> PathBuf {
        self.dir.join("app.log")
    }

    pub fn usage(&self) -> Usage {
        Usage::of(self.child.id())
    }
}

impl Drop for FileFollower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
