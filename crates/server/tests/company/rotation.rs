//! Passwords of Redis and PostgreSQL change under load by Vault, and no client sees an error.

use crate::site::{INGEST_KEY, Member, Sent, Site, SiteOptions, WEB_KEY, check, load};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testkit::servers::OpenBao;

#[tokio::test(flavor = "multi_thread")]
async fn secrets_rotate_under_load_without_an_error_and_without_a_restart() {
    let mut site = Site::start(SiteOptions {
        redis_password: Some("redis-one".into()),
        postgres_password: Some("postgres-one".into()),
        ..SiteOptions::default()
    })
    .await;
    let vault = OpenBao::start();
    let role = vault.mutt_service("24h", "72h");
    vault.kv_put(
        "mutt/prod",
        &[
            ("INGEST_API_KEY", INGEST_KEY),
            ("WEBUI_API_KEY", WEB_KEY),
            ("MOOG_API_KEY", "moog-key"),
            ("DB_PASS_CURRENT", "postgres-one"),
            ("REDIS_PASS_CURRENT", "redis-one"),
        ],
    );
    for name in ["REDIS_PASS", "DB_PASS", "INGEST_API_KEY", "WEBUI_API_KEY", "MOOG_API_KEY"] {
        site.environment.remove(name);
    }
    let secret_id = site.dir.path().join("vault_secret_id");
    std::fs::write(&secret_id, &role.secret_id).unwrap();
    site.set("VAULT_ADDR", &vault.address());
    site.set("VAULT_ROLE_ID", &role.role_id);
    site.set("VAULT_SECRET_ID_FILE", &secret_id.display().to_string());
    site.set("VAULT_SECRET_PATH", "mutt/prod");
    site.set("VAULT_REFRESH_INTERVAL", "1");
    let mut members: Vec<Member> = vec![site.member("webui")];
    site.rules();
    for role in ["ingestor", "alerter", "forwarder"] {
        members.push(site.member(role));
    }
    let (sent, stop) = (Arc::new(Sent::default()), Arc::new(AtomicBool::new(false)));
    let urls = vec![members[1].url("/api/v2/ingest")];
    let client = tokio::spawn(load(urls, Arc::clone(&sent), Duration::from_millis(5), Arc::clone(&stop)));
    let refresh = Duration::from_millis(2_500);

    // Write NEXT; make the stores accept the new one; promote; retire the old one.
    vault.kv_patch("mutt/prod", &[("DB_PASS_NEXT", "postgres-two"), ("REDIS_PASS_NEXT", "redis-two")]);
    tokio::time::sleep(refresh).await;
    site.redis.cli(&["ACL", "SETUSER", "default", ">redis-two"]);
    site.postgres.psql(&format!("ALTER USER {} PASSWORD 'postgres-two'", site.postgres.user()));
    vault.kv_patch(
        "mutt/prod",
        &[
            ("DB_PASS_CURRENT", "postgres-two"),
            ("REDIS_PASS_CURRENT", "redis-two"),
            ("DB_PASS_NEXT", ""),
            ("REDIS_PASS_NEXT", ""),
        ],
    );
    tokio::time::sleep(refresh).await;
    site.redis.cli(&["ACL", "SETUSER", "default", "<redis-one"]);
    site.redis.set_password("redis-two");
    tokio::time::sleep(refresh).await;

    stop.store(true, Ordering::SeqCst);
    client.await.unwrap();
    assert_eq!(sent.refused.load(Ordering::SeqCst), 0, "no client saw an error");
    // A new process knows only the new ones.
    members[2].daemon.kill();
    members[2].start_again();
    members[2].healthy(Duration::from_secs(20));
    site.drained();
    check(&site, &sent);
    for member in &members {
        let output = member.daemon.output();
        for secret in ["redis-one", "redis-two", "postgres-one", "postgres-two", "moog-key"] {
            assert!(!output.contains(secret), "the {} logged a secret", member.role);
        }
    }
}
