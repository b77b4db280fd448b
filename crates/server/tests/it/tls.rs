//! HTTPS that muttd terminates itself: real clients, own authorities, certificates that change.

use crate::support::{TestServer, load};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use testkit::servers::TestCerts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn client(authorities: &[&Path], version: &'static rustls::SupportedProtocolVersion) -> reqwest::Client {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    }
    let tls = rustls::ClientConfig::builder_with_provider(runtime::tls::provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // No idle connections: each request shakes hands.
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().pool_max_idle_per_host(0);
    let client = client.redirect(reqwest::redirect::Policy::none());
    client.timeout(Duration::from_secs(30)).build().unwrap()
}

struct Files {
    _dir: tempfile::TempDir,
    certs: TestCerts,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { certs: TestCerts::write(dir.path()), _dir: dir }
    }

    fn env(&self) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.display().to_string();
        vec![
            ("MUTT_INGEST_TLS_CERT", text(&self.certs.cert)),
            ("MUTT_INGEST_TLS_KEY", text(&self.certs.key)),
            ("MUTT_WEBUI_TLS_CERT", text(&self.certs.cert)),
            ("MUTT_WEBUI_TLS_KEY", text(&self.certs.key)),
        ]
    }

    async fn server(&self) -> TestServer {
        let env = self.env();
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        TestServer::start(&env).await
    }

    /// Puts other files in their place, whole, as tools that renew certificates do.
    fn replace_by(&self, other: &TestCerts) {
        for (from, to) in [(&other.key, &self.certs.key), (&other.cert, &self.certs.cert)] {
            let new = to.with_extension("new");
            std::fs::copy(from, &new).unwrap();
            std::fs::rename(&new, to).unwrap();
        }
    }
}

fn health(server: &TestServer) -> String {
    format!("https://localhost:{}/health", server.addresses.webui.unwrap().port())
}

#[tokio::test(flavor = "multi_thread")]
async fn ingest_and_web_speak_tls_1_3_and_nothing_else() {
    let files = Files::new();
    let server = files.server().await;
    let good = client(&[&files.certs.ca], &rustls::version::TLS13);
    let port = server.addresses.ingest.unwrap().port();
    let sent = good
        .post(format!("https://localhost:{port}/ingest"))
        .header("x-api-key", &server.ingest_key)
        .header("content-type", "application/json")
        .body(crate::support::event("h", "over TLS").to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 200);
    let health = health(&server);
    assert_eq!(good.get(&health).send().await.unwrap().status(), 200);
    let login = good.post(health.replace("/health", "/login")).body(format!("key={}", server.web_key));
    let login = login.send().await.unwrap();
    assert!(login.headers()["set-cookie"].to_str().unwrap().ends_with("; Secure"), "{:?}", login.headers());
    assert!(client(&[&files.certs.ca], &rustls::version::TLS12).get(&health).send().await.is_err(), "TLS 1.2");
    assert!(client(&[&Files::new().certs.ca], &rustls::version::TLS13).get(&health).send().await.is_err());
    let mut plain = TcpStream::connect(server.addresses.webui.unwrap()).await.unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&answer));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_nothing_holds_up_nobody_nor_the_stop() {
    let files = Files::new();
    let server = files.server().await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(server.addresses.webui.unwrap()).await.unwrap());
    }
    let good = client(&[&files.certs.ca], &rustls::version::TLS13);
    assert_eq!(good.get(health(&server)).send().await.unwrap().status(), 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_shakes_hands_is_dropped() {
    let files = Files::new();
    let server = files.server().await;
    let mut silent = TcpStream::connect(server.addresses.webui.unwrap()).await.unwrap();
    let ended = tokio::time::timeout(crate::support::SOON, silent.read(&mut [0; 1])).await;
    assert!(matches!(ended.expect("the server closes it"), Ok(0) | Err(_)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_is_spoken_only_where_the_dangerous_switch_is_set() {
    let files = Files::new();
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let env = files.env();
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let strict = load(dir.path(), &env, None);
    let text = std::fs::read_to_string(dir.path().join("test.toml")).unwrap();
    let text = text.replace("[webui]", "[webui]\ndangerous_allow_tls12 = true");
    let file = dir.path().join("old-clients.toml");
    std::fs::write(&file, text).unwrap();
    let overrides =
        server::config::Overrides { data_dir: Some(dir.path().join("data").display().to_string()), roles: None };
    let loaded = server::config::load(Some(&file), &crate::support::environment(&env), &overrides).unwrap();
    let (old, new) = (&rustls::version::TLS12, &rustls::version::TLS13);
    for (config, speaks_old) in [(loaded.config, true), (strict, false)] {
        let server = TestServer::start_with(Arc::clone(&dir), config).await;
        let port = server.addresses.ingest.unwrap().port();
        let ingest = format!("https://localhost:{port}/health");
        let answers = async |version, url: &str| client(&[&files.certs.ca], version).get(url).send().await.is_ok();
        assert!(answers(new, &health(&server)).await);
        assert_eq!(answers(old, &health(&server)).await, speaks_old);
        assert!(!answers(old, &ingest).await, "each listener has a switch of its own");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_taken_under_load_and_no_request_fails() {
    let files = Files::new();
    let server = files.server().await;
    let other = Files::new();
    let (old_ca, new_ca) = (files.certs.ca.clone(), other.certs.ca.clone());
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let url = health(&server);
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (client, url) = (client(&[&old_ca, &new_ca], &rustls::version::TLS13), url.clone());
        let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
        load.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    server.until(async || answered.load(Ordering::Relaxed) > 20).await;
    files.replace_by(&other.certs);
    let new_only = client(&[&new_ca], &rustls::version::TLS13);
    server.until(async || new_only.get(&url).send().await.is_ok()).await;
    let before = answered.load(Ordering::Relaxed);
    server.until(async || answered.load(Ordering::Relaxed) > before + 20).await;
    stop.store(true, Ordering::Relaxed);
    load.join_all().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_used_leave_the_old_ones_in_force() {
    let files = Files::new();
    let env = files.env();
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let server = files.server().await;
    let config = load(server.dir.path(), &env, None);
    let good = client(&[&files.certs.ca], &rustls::version::TLS13);
    let (cert, key) = (std::fs::read(&files.certs.cert).unwrap(), std::fs::read(&files.certs.key).unwrap());
    let other = Files::new();
    for (bad_cert, bad_key) in [
        (b"not a certificate".to_vec(), key.clone()),
        (cert.clone(), Vec::new()),
        (std::fs::read(&other.certs.cert).unwrap(), key.clone()),
    ] {
        std::fs::write(&files.certs.cert, bad_cert).unwrap();
        std::fs::write(&files.certs.key, bad_key).unwrap();
        // As SIGHUP does.
        server.handle.apply(&config).await;
        assert_eq!(good.get(health(&server)).send().await.unwrap().status(), 200);
    }
    files.replace_by(&other.certs);
    server.handle.apply(&config).await;
    let new = client(&[&other.certs.ca], &rustls::version::TLS13);
    assert_eq!(new.get(health(&server)).send().await.unwrap().status(), 200);
    assert!(good.get(health(&server)).send().await.is_err(), "the old certificate is gone");
    server.stop().await;
}

#[test]
fn half_a_configuration_or_files_that_do_not_fit_are_refused_at_start() {
    let (files, other) = (Files::new(), Files::new());
    let text = |path: &Path| path.display().to_string();
    let problems = |cert: &str, key: &str| {
        let env = crate::support::environment(&[("MUTT_WEBUI_TLS_CERT", cert), ("MUTT_WEBUI_TLS_KEY", key)]);
        let loaded = server::config::load(None, &env, &server::config::Overrides::default());
        loaded.err().map(|found| found.into_iter().map(|p| p.path).collect::<Vec<_>>()).unwrap_or_default()
    };
    assert_eq!(problems(&text(&files.certs.cert), ""), ["webui.tls_key"]);
    assert_eq!(problems("", &text(&files.certs.key)), ["webui.tls_cert"]);
    assert_eq!(problems("/nowhere.pem", &text(&files.certs.key)), ["webui.tls_cert"]);
    assert_eq!(problems(&text(&files.certs.cert), &text(&other.certs.key)), ["webui.tls_cert"]);
    assert!(problems(&text(&files.certs.cert), &text(&files.certs.key)).is_empty());
}
