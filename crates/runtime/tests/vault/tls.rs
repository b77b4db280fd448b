//! TLS is verified, always.

use crate::support::{Live, Starting, Vault, of_vault};
use runtime::secrets::VaultConfig;
use testkit::servers::{OpenBaoOptions, TestCerts};

#[tokio::test(flavor = "multi_thread")]
async fn only_the_configured_ca_is_trusted_and_a_new_ca_file_is_taken_up() {
    let vault = Vault::with(OpenBaoOptions { durable: false, tls: true }, "24h", "72h");
    let live = Live::start(of_vault(vault.config()), &["REDIS_PASS"]).await;
    assert_eq!(live.redis(), ["redis-hunter2"]);

    let other = tempfile::tempdir().unwrap();
    let ca = TestCerts::write(other.path()).ca;
    let wrong = VaultConfig { ca_file: Some(ca.clone()), ..vault.config() };
    let starting = Starting::with(of_vault(wrong), &["REDIS_PASS"]);
    let said = crate::support::wait_broken(&starting.health, "could not agree on TLS").await;
    assert!(said.contains("certificate") && said.contains(&vault.bao.address()), "{said}");
    std::fs::copy(&vault.bao.certs().unwrap().ca, &ca).unwrap();
    starting.succeeds().await;

    let system = VaultConfig { ca_file: None, ..vault.config() };
    Starting::with(of_vault(system), &["REDIS_PASS"]).fails_with("could not agree on TLS").await;
    let garbage = other.path().join("garbage.pem");
    std::fs::write(&garbage, "not a certificate").unwrap();
    let garbage = VaultConfig { ca_file: Some(garbage), ..vault.config() };
    Starting::with(of_vault(garbage), &["REDIS_PASS"]).fails_with("garbage.pem` holds no certificate").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_name_or_without_tls_is_refused() {
    let tls = Vault::with(OpenBaoOptions { durable: false, tls: true }, "24h", "72h");
    let other_name = tls.bao.address().replace("127.0.0.1", "127.0.0.2");
    // It listens on 127.0.0.1 only, so a forwarder stands at the other address.
    let target = tls.bao.address().replace("https://", "");
    let listener = tokio::net::TcpListener::bind(("127.0.0.2", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let forward = tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let mut to = tokio::net::TcpStream::connect(&target).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
        }
    });
    let address = format!("{}:{port}", other_name.rsplit_once(':').unwrap().0);
    let config = VaultConfig { address, ..tls.config() };
    let said = Starting::with(of_vault(config), &["REDIS_PASS"]).fails_with("could not agree on TLS").await;
    assert!(said.contains("127.0.0.2"), "{said}");

    let plain = Vault::start();
    let address = plain.bao.address().replace("http://", "https://");
    let config = VaultConfig { address, ca_file: tls.config().ca_file, ..plain.config() };
    Starting::with(of_vault(config), &["REDIS_PASS"]).fails_with("could not agree on TLS").await;
    forward.abort();
}
