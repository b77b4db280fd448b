use super::*;
use http::{Method, Request};
use http_body_util::BodyExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use tower::ServiceExt;

/// Signs by putting a word before it; counts.
#[derive(Default)]
struct Stamp {
    made: AtomicUsize,
    roots: Mutex<String>,
}

impl Authority for Stamp {
    fn roots_pem(&self) -> String {
        self.roots.lock().unwrap().clone()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        self.made.fetch_add(1, Ordering::Relaxed);
        Ok([b"by us: ", message].concat())
    }
}

struct Site {
    dir: tempfile::TempDir,
    stamp: Arc<Stamp>,
    router: Router,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stamp = Arc::new(Stamp::default());
        let downloads = Downloads::new(Some(dir.path().join("agents")), None, stamp.clone());
        std::fs::create_dir(dir.path().join("agents")).unwrap();
        Self { router: downloads.router(), dir, stamp }
    }

    fn put(&self, name: &str, content: &[u8]) {
        let path = self.dir.path().join("agents").join(name);
        std::fs::write(path.with_extension("new"), content).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    }

    async fn ask(&self, method: Method, path: &str) -> (StatusCode, http::HeaderMap, Vec<u8>) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        (head.status, head.headers, body.collect().await.unwrap().to_bytes().to_vec())
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let (status, _, body) = self.ask(Method::GET, path).await;
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}

fn line(content: &[u8], name: &str) -> String {
    format!("{}  {name}\n", hex(&Sha256::digest(content)))
}

#[tokio::test]
async fn an_agent_comes_with_its_checksum_and_the_signature_of_that() {
    let site = Site::new();
    // Of several pieces.
    let content: Vec<u8> = (0..3 * PIECE_BYTES + 7).map(|n| (n % 251) as u8).collect();
    for (arch, other) in [("amd64", b"1"), ("arm64", b"2"), ("arm", b"3")] {
        let name = format!("sm-agent-linux-{arch}");
        let content = [&content[..], other].concat();
        site.put(&name, &content);
        let (status, headers, body) = site.ask(Method::GET, &format!("/{name}")).await;
        assert_eq!((status, body == content), (StatusCode::OK, true), "{name}");
        assert_eq!(headers[header::CONTENT_LENGTH], content.len().to_string());
        let sum = line(&content, &name);
        assert_eq!(site.get(&format!("/{name}.sha256")).await, (StatusCode::OK, sum.clone()));
        assert_eq!(site.get(&format!("/{name}.sig")).await, (StatusCode::OK, format!("by us: {sum}")));
        let (status, headers, body) = site.ask(Method::HEAD, &format!("/{name}")).await;
        assert_eq!((status, body.len()), (StatusCode::OK, 0));
        assert_eq!(headers[header::CONTENT_LENGTH], content.len().to_string());
    }
}

#[tokio::test]
async fn a_version_is_summed_and_signed_once_and_a_new_one_is_seen() {
    let site = Site::new();
    let path = "/sm-agent-linux-amd64.sha256";
    site.put("sm-agent-linux-amd64", b"first");
    for _ in 0..3 {
        assert_eq!(site.get(path).await.1, line(b"first", "sm-agent-linux-amd64"));
        assert_eq!(site.get("/sm-agent-linux-amd64.sig").await.0, StatusCode::OK);
    }
    assert_eq!(site.stamp.made.load(Ordering::Relaxed), 1);
    // Of the same length, in the same moment.
    site.put("sm-agent-linux-amd64", b"other");
    assert_eq!(site.get(path).await.1, line(b"other", "sm-agent-linux-amd64"));
    assert_eq!(site.stamp.made.load(Ordering::Relaxed), 2);
    // Another authority signs anew.
    *site.stamp.roots.lock().unwrap() = "new root".to_owned();
    assert_eq!(site.get("/ca.pem").await, (StatusCode::OK, "new root".to_owned()));
    assert_eq!(site.get("/sm-agent-linux-amd64.sig").await.0, StatusCode::OK);
    assert_eq!(site.stamp.made.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn only_what_is_named_can_be_had_and_only_read() {
    let site = Site::new();
    site.put("secret", b"not for you");
    site.put("sm-agent-linux-mips", b"no such architecture");
    for path in [
        "/",
        "/secret",
        "/sm-agent-linux-mips",
        "/sm-agent-linux-amd64/../secret",
        "/sm-agent-linux-amd64%2f..%2fsecret",
        "/../../etc/passwd",
        "/sm-agent-linux-amd64.sha512",
        "/agents/secret",
    ] {
        let (status, text) = site.get(path).await;
        assert!(status == StatusCode::NOT_FOUND && !text.contains("not for you"), "{path}: {status} {text}");
    }
    site.put("sm-agent-linux-amd64", b"x");
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        for path in ["/install.sh", "/ca.pem", "/sm-agent-linux-amd64", "/sm-agent-linux-amd64.sig"] {
            let (status, headers, _) = site.ask(method.clone(), path).await;
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert_eq!(headers[header::ALLOW], "GET,HEAD");
        }
    }
    let (status, text) = site.get("/install.sh").await;
    assert!(status == StatusCode::OK && text == INSTALLER);
    assert_eq!(installer_sha256(), hex(&Sha256::digest(text)));
}

#[tokio::test]
async fn a_missing_architecture_is_said_with_where_it_belongs() {
    let site = Site::new();
    // Neither is an agent.
    std::fs::create_dir(site.dir.path().join("agents/sm-agent-linux-arm")).unwrap();
    let large = std::fs::File::create(site.dir.path().join("agents/sm-agent-linux-amd64")).unwrap();
    large.set_len(FILE_BYTES_MAX + 1).unwrap();
    for arch in ARCHITECTURES {
        for end in ["", ".sha256", ".sig"] {
            let (status, text) = site.get(&format!("/sm-agent-linux-{arch}{end}")).await;
            let folder = site.dir.path().join("agents").display().to_string();
            assert_eq!(status, StatusCode::NOT_FOUND);
            assert!(text.contains(&folder) && text.contains(arch), "{text}");
        }
    }
}

#[tokio::test]
async fn an_agent_beside_this_program_is_for_hosts_of_its_kind() {
    let mut site = Site::new();
    let executable = site.dir.path().join("bin/muttd");
    std::fs::create_dir(site.dir.path().join("bin")).unwrap();
    std::fs::write(executable.with_file_name("sm-agent"), b"beside").unwrap();
    let folder = site.dir.path().join("agents");
    site.router = Downloads::new(Some(folder), Some(&executable), site.stamp.clone()).router();
    for arch in ARCHITECTURES {
        let expected = if arch == own_architecture() { StatusCode::OK } else { StatusCode::NOT_FOUND };
        assert_eq!(site.get(&format!("/sm-agent-linux-{arch}")).await.0, expected, "{arch}");
    }
    // What is meant for the purpose wins.
    let name = file_name(own_architecture());
    site.put(&name, b"meant");
    assert_eq!(site.get(&format!("/{name}")).await.1, "meant");
    // Without a setting: beside this program.
    std::fs::write(executable.with_file_name("sm-agent-linux-arm"), b"an arm").unwrap();
    site.router = Downloads::new(None, Some(&executable), site.stamp.clone()).router();
    assert_eq!(site.get("/sm-agent-linux-arm").await.1, "an arm");
}

#[test]
fn more_hosts_than_the_bound_come_again_later() {
    let (streams, now) = (Arc::new(Streams::default()), Instant::now());
    let mut held: Vec<Stream> = (0..STREAMS_MAX).map(|_| Streams::enter(&streams, now).unwrap()).collect();
    assert!(Streams::enter(&streams, now).is_none());
    // One that has ended makes room for one.
    held.pop();
    held.push(Streams::enter(&streams, now).unwrap());
    assert!(Streams::enter(&streams, now).is_none());
    // Those that take nothing any more keep nobody out.
    assert!(Streams::enter(&streams, now + STREAM_TIME_MAX).is_some());
    assert_eq!(answer(Err(DownloadError::Busy)).headers()[header::RETRY_AFTER], "2");
}

#[tokio::test]
async fn a_file_that_becomes_shorter_breaks_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent");
    std::fs::write(&path, vec![7; 100]).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let version = Version::of(&file.metadata().unwrap());
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(60).unwrap();
    assert!(matches!(checksum(file.try_clone().unwrap(), version), Err(DownloadError::Changing)));
    let stream = Streams::enter(&Arc::default(), Instant::now()).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let body = FileBody { file: tokio::fs::File::from_std(file), left: version.bytes, _stream: stream };
    assert_eq!(body.collect().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}
