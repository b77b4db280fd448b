//! Values that change, and a Vault that is away, while we run.

use crate::support::{LONG, Live, NEVER, OFTEN, Vault, of_vault, passwords};
use runtime::Secret;
use runtime::secrets::{HEALTH_PART, RefreshError, VaultConfig};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use testkit::wait_until;

const REDIS: &[&str] = &["REDIS_PASS"];
/// The passwords that readers may see during the rotation, in this order and in no other form.
const STAGES: [&[&str]; 3] = [&["redis-hunter2"], &["redis-hunter2", "fresh"], &["fresh"]];

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_seen_whole_by_readers_within_the_interval() {
    let vault = Vault::start();
    let config = VaultConfig { refresh_interval: OFTEN, ..vault.config() };
    rotate(&vault, config, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_seen_at_once_when_asked_for() {
    let vault = Vault::start();
    let config = VaultConfig { refresh_interval: NEVER, ..vault.config() };
    rotate(&vault, config, true).await;
}

async fn rotate(vault: &Vault, config: VaultConfig, ask: bool) {
    let live = Live::start(of_vault(config), REDIS).await;
    let (done, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let credentials = live.secrets.redis_credentials();
            let (done, reads) = (Arc::clone(&done), Arc::clone(&reads));
            tokio::spawn(async move {
                let mut stage = 0;
                loop {
                    // Asked before reading: what is read after the end is the end.
                    let last = done.load(Ordering::SeqCst);
                    let now = passwords(&credentials);
                    let at = STAGES.iter().position(|s| now == *s);
                    let at = at.unwrap_or_else(|| panic!("{} passwords of no stage", now.len()));
                    assert!(at >= stage, "stage {at} after {stage}");
                    stage = at;
                    reads.fetch_add(1, Ordering::SeqCst);
                    if last {
                        return stage;
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let steps = [&[("REDIS_PASS_NEXT", "fresh")][..], &[("REDIS_PASS_CURRENT", "fresh"), ("REDIS_PASS_NEXT", "")]];
    let mut follower = live.secrets.redis_credentials();
    for (step, stage) in steps.iter().zip(&STAGES[1..]) {
        vault.bao.kv_patch("mutt", step);
        if ask {
            live.secrets.refresh_now().await.unwrap();
            assert_eq!(live.redis(), *stage, "it is there when the call returns");
        } else {
            live.wait_redis(stage).await;
        }
        tokio::time::timeout(LONG, follower.changed()).await.expect("followers are woken");
    }
    let before = reads.load(Ordering::SeqCst);
    assert!(wait_until(LONG, || reads.load(Ordering::SeqCst) > before + 100).await);
    done.store(true, Ordering::SeqCst);
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 2, "every reader saw the end");
    }
    assert_eq!(live.secrets.counts().changes, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_makes_us_read_at_once() {
    let vault = Vault::start();
    let live = Live::start(of_vault(VaultConfig { refresh_interval: NEVER, ..vault.config() }), REDIS).await;
    let database = live.secrets.database_credentials("mutt_user");
    vault.bao.kv_patch("mutt", &[("REDIS_PASS_CURRENT", "fresh"), ("DB_PASS_CURRENT", "fresher")]);
    assert_eq!(live.redis(), STAGES[0], "nobody has asked");
    live.secrets.redis_credentials().refused();
    live.wait_redis(&["fresh"]).await;
    vault.bao.kv_patch("mutt", &[("REDIS_PASS_CURRENT", "other")]);
    for _ in 0..1_000 {
        database.refused();
    }
    live.wait_redis(&["other"]).await;
    assert!(live.secrets.counts().reads <= 5, "a storm of refusals is no storm of readings");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_api_key_both_values_count_while_both_are_there() {
    let vault = Vault::start();
    let live = Live::start(of_vault(vault.config()), &["INGEST_API_KEY"]).await;
    let mut keys = live.secrets.watch("INGEST_API_KEY");
    let texts = |keys: &[Secret]| keys.iter().map(|k| k.expose().to_owned()).collect::<Vec<_>>();
    for (step, expected) in [
        (&[("INGEST_API_KEY_NEXT", "n")][..], &["ingest-hunter2", "n"][..]),
        (&[("INGEST_API_KEY_CURRENT", "n"), ("INGEST_API_KEY_NEXT", "")], &["n"]),
        (&[("INGEST_API_KEY_NEXT", "o")], &["n", "o"]),
    ] {
        vault.bao.kv_patch("mutt", step);
        live.secrets.refresh_now().await.unwrap();
        assert!(keys.has_changed().unwrap());
        assert_eq!(texts(&keys.borrow_and_update()), expected);
        assert_eq!(texts(&live.secrets.watch("INGEST_API_KEY").borrow()), expected, "who comes late sees it too");
    }
    vault.bao.kv_patch("mutt", &[("MOOG_API_KEY", "m")]);
    live.secrets.refresh_now().await.unwrap();
    assert!(!keys.has_changed().unwrap(), "another key's change wakes nobody here");
    assert!(live.secrets.watch("WEBUI_API_KEY").borrow().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_without_a_required_key_is_not_taken() {
    let vault = Vault::start();
    let config = VaultConfig { refresh_interval: OFTEN, ..vault.config() };
    let live = Live::start(of_vault(config), &["REDIS_PASS", "DB_PASS"]).await;
    // `put` where `patch` was meant.
    vault.bao.kv_put("mutt", &[("REDIS_PASS_NEXT", "n")]);
    let said = live.wait_broken("holds no DB_PASS").await;
    assert!(!said.contains("REDIS"), "{said}");
    assert_eq!(live.redis(), ["redis-hunter2"], "nothing of it is taken");
    vault.bao.kv_patch("mutt", &[("DB_PASS", "d")]);
    live.wait_redis(&["n"]).await;
    live.wait_healthy().await;
    vault.bao.cli(&["kv", "delete", "-mount=secret", "mutt"]);
    live.wait_broken("deleted").await;
    assert_eq!(live.redis(), ["n"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_vault_changes_nothing_and_ends_by_itself() {
    let mut vault = Vault::durable();
    let config = VaultConfig { refresh_interval: OFTEN, ..vault.config() };
    let live = Live::start(of_vault(config), REDIS).await;
    let credentials = live.secrets.database_credentials("u");
    vault.bao.kill();
    let said = live.wait_broken("cannot be reached").await;
    vault.assert_hides(&said);
    assert!(matches!(live.secrets.refresh_now().await, Err(RefreshError::Failed(_))), "who asks is told");
    assert_eq!((live.redis(), passwords(&credentials)), (vec!["redis-hunter2".into()], vec!["db-hunter2".into()]));
    assert_eq!(live.secrets.counts().changes, 0);
    tokio::task::block_in_place(|| vault.bao.start_again());
    live.wait_healthy().await;
    vault.bao.kv_patch("mutt", &[("REDIS_PASS_CURRENT", "after")]);
    live.wait_redis(&["after"]).await;
    vault.bao.seal();
    live.wait_broken("sealed").await;
    assert_eq!(live.redis(), ["after"]);
    let public = live.health.public(HEALTH_PART).unwrap().unwrap_err();
    assert!(public.ends_with("failed: it is sealed") && !public.contains("127.0.0.1"), "{public}");
    let failures = live.failures();
    assert!(wait_until(LONG, || live.failures() > failures).await, "every failed reading is told");
    vault.bao.unseal();
    live.wait_healthy().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_together_share_a_few_readings() {
    let vault = Vault::start();
    let live = Live::start(of_vault(vault.config()), REDIS).await;
    let before = live.secrets.counts().reads;
    let asking: Vec<_> = (0..500)
        .map(|_| {
            let secrets = live.secrets.clone();
            tokio::spawn(async move { secrets.refresh_now().await })
        })
        .collect();
    for asked in asking {
        asked.await.unwrap().unwrap();
    }
    let reads = live.secrets.counts().reads - before;
    assert!((1..50).contains(&reads), "{reads} readings for 500 who asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_after_the_stop_is_told() {
    let vault = Vault::start();
    let mut live = Live::start(of_vault(vault.config()), REDIS).await;
    live.stopper.stop();
    tokio::time::timeout(LONG, &mut live.task).await.expect("it ends").unwrap();
    assert_eq!(live.secrets.refresh_now().await, Err(RefreshError::Stopped));
    assert_eq!(live.redis(), ["redis-hunter2"]);
}
