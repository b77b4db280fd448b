//! The token: renewed, revoked, at its longest life.

use crate::support::{LONG, Live, OFTEN, Vault, of_vault};
use runtime::Secret;
use runtime::secrets::VaultConfig;
use testkit::servers::OpenBaoOptions;
use testkit::wait_until;

const REDIS: &[&str] = &["REDIS_PASS"];

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_seconds_is_renewed_for_several_periods() {
    let vault = Vault::with(OpenBaoOptions::default(), "6s", "1h");
    // Secrets are read once a day here: it is the token that wakes us.
    let live = Live::start(of_vault(vault.config()), REDIS).await;
    let renewed = wait_until(LONG, || live.secrets.counts().renewals >= 4).await;
    assert!(renewed, "{:?}", live.secrets.counts());
    let counts = live.secrets.counts();
    assert_eq!((counts.logins, counts.failures), (1, 0), "{counts:?}");
    vault.bao.kv_patch("mutt", &[("REDIS_PASS_CURRENT", "later")]);
    live.secrets.refresh_now().await.unwrap();
    assert_eq!(live.redis(), ["later"], "the token is still good");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_its_longest_life_there_is_a_new_login() {
    let vault = Vault::with(OpenBaoOptions::default(), "6s", "9s");
    let live = Live::start(of_vault(vault.config()), REDIS).await;
    let anew = wait_until(LONG, || live.secrets.counts().logins >= 3).await;
    let counts = live.secrets.counts();
    assert!(anew && counts.renewals >= 1, "{counts:?}");
    assert_eq!(counts.failures, 0, "no round went without secrets: {counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_followed_by_a_new_login() {
    let vault = Vault::start();
    let live = Live::start(of_vault(vault.config()), REDIS).await;
    vault.bao.kv_patch("mutt", &[("REDIS_PASS_CURRENT", "after")]);
    vault.bao.revoke_logins();
    live.secrets.refresh_now().await.unwrap();
    assert_eq!(live.redis(), ["after"]);
    assert_eq!(live.secrets.counts().logins, 2);
    live.wait_healthy().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_finds_a_revoked_token_before_it_is_needed() {
    let vault = Vault::start();
    let config = VaultConfig { renew_check_interval: OFTEN, refresh_interval: OFTEN, ..vault.config() };
    let live = Live::start(of_vault(config), REDIS).await;
    vault.bao.revoke_logins();
    assert!(wait_until(LONG, || live.secrets.counts().logins == 2).await, "{:?}", live.secrets.counts());
    assert_eq!(live.secrets.counts().failures, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_id_is_read_anew_at_every_login_and_may_be_wrong_for_a_while() {
    let vault = Vault::start();
    let config = VaultConfig { refresh_interval: OFTEN, ..vault.config() };
    let live = Live::start(of_vault(config), REDIS).await;
    vault.bao.cli(&[
        "write",
        "auth/approle/role/mutt/secret-id/destroy",
        &format!("secret_id={}", vault.role.secret_id),
    ]);
    vault.bao.revoke_logins();
    let said = live.wait_broken("HTTP 400").await;
    assert!(said.contains("logging in") && said.contains("secret id"), "{said}");
    vault.assert_hides(&said);
    assert_eq!(live.redis(), ["redis-hunter2"], "what we have stays");
    vault.write_secret_id(&vault.bao.secret_id("mutt"));
    live.wait_healthy().await;
    vault.bao.kv_patch("mutt", &[("REDIS_PASS_CURRENT", "after")]);
    live.wait_redis(&["after"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_fails_is_told_while_the_old_token_still_reads() {
    // A third of 24 s is over soon; the rest is long enough for a busy machine.
    let vault = Vault::with(OpenBaoOptions::default(), "24s", "24s");
    let live = Live::start(of_vault(vault.config()), REDIS).await;
    std::fs::remove_file(vault.secret_id_file()).unwrap();
    let said = live.wait_broken("VAULT_SECRET_ID_FILE").await;
    assert!(said.contains("No such file"), "{said}");
    vault.bao.kv_patch("mutt", &[("REDIS_PASS_CURRENT", "after")]);
    live.secrets.refresh_now().await.unwrap_err();
    assert_eq!(live.redis(), ["after"], "who asks hears of the trouble, and has the news");
    vault.write_secret_id(&vault.role.secret_id);
    live.wait_healthy().await;
    assert_eq!(live.secrets.counts().logins, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_token_is_used_and_renewed_where_there_is_no_role_id() {
    let vault = Vault::start();
    let token = vault.bao.cli(&["token", "create", "-policy=mutt-service", "-ttl=9s", "-field=token"]);
    let config = VaultConfig {
        role_id: Secret::new(""),
        token: Some(Secret::new(token.as_str())),
        refresh_interval: OFTEN,
        ..vault.config()
    };
    let live = Live::start(of_vault(config), REDIS).await;
    assert!(wait_until(LONG, || live.secrets.counts().renewals >= 2).await, "{:?}", live.secrets.counts());
    live.wait_healthy().await;
    vault.bao.cli(&["token", "revoke", &token]);
    let said = live.wait_broken("VAULT_TOKEN").await;
    assert!(said.contains("HTTP 403") && said.contains("give a new one"), "{said}");
    assert!(!said.contains(&token), "{said}");
    assert_eq!(live.redis(), ["redis-hunter2"], "what we have stays");
}
