//! A server that is not Vault, or one that has been taken over.

use crate::support::{LONG, Live, OFTEN, Starting, of_vault, wait_broken};
use runtime::Secret;
use runtime::secrets::VaultConfig;
use serde_json::json;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use testkit::{Behaviour, Receiver, wait_until};

const SECRET_ID: &str = "secretid-hunter2";
const TOKEN: &str = "token-hunter2";

struct Hostile {
    receiver: Receiver,
    dir: TempDir,
}

impl Hostile {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hostile = Self { receiver: Receiver::start().await, dir };
        hostile.write_id(SECRET_ID);
        hostile
    }

    fn write_id(&self, secret_id: &str) {
        let new = self.dir.path().join("id.new");
        std::fs::write(&new, secret_id).unwrap();
        std::fs::rename(new, self.dir.path().join("id")).unwrap();
    }

    fn config(&self) -> VaultConfig {
        VaultConfig {
            secret_id_file: self.dir.path().join("id"),
            refresh_interval: OFTEN,
            ..VaultConfig::new(format!("http://{}", self.receiver.addr()), Secret::new("role-hunter2"))
        }
    }

    async fn says(&self, text: &str) -> String {
        let said = Starting::with(of_vault(self.config()), &["REDIS_PASS"]).fails_with(text).await;
        assert!(!said.contains("hunter2") && said.len() < 1_000, "{said}");
        said
    }
}

fn login() -> Behaviour {
    let auth = json!({ "client_token": TOKEN, "lease_duration": 3600, "renewable": true });
    Behaviour::answer(200, json!({ "auth": auth }).to_string())
}

fn kv(data: serde_json::Value) -> Behaviour {
    Behaviour::answer(200, json!({ "data": { "data": data } }).to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_answers_to_the_login_are_bounded_and_explained() {
    let hostile = Hostile::start().await;
    for (behaviour, says) in [
        (Behaviour::EndlessBody, "longer than 1 MiB"),
        (Behaviour::answer(200, "x".repeat(2 << 20)), "longer than 1 MiB"),
        (Behaviour::answer(500, "x".repeat(2 << 20)), "HTTP 500"),
        (Behaviour::answer(200, "<html>hunter2"), "not JSON"),
        (Behaviour::answer(200, "[".repeat(500_000)), "not JSON"),
        (Behaviour::answer(200, "{}"), "no token"),
        (Behaviour::answer(200, r#"{"auth":{"client_token":"a\r\nX: hunter2","lease_duration":1}}"#), "no token"),
        (Behaviour::answer(200, r#"{"auth":{"client_token":"a"}}"#), "no lease_duration"),
        (Behaviour::Garbage, "did not answer properly"),
        (Behaviour::Close, "did not answer properly"),
        (Behaviour::CloseMidResponse, "did not answer properly"),
        (
            Behaviour::answer(400, json!({ "errors": [format!("no {SECRET_ID}\n role-hunter2")] }).to_string()),
            "no *** ***",
        ),
        (Behaviour::answer(429, "{}"), "HTTP 429"),
        (Behaviour::answer(404, "nginx"), "is this the address of a Vault server?"),
    ] {
        hostile.receiver.set(behaviour.clone());
        let said = hostile.says(says).await;
        assert!(said.contains("logging in"), "{behaviour:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_repeated_only_with_another_secret_id() {
    for (status, hint) in [(400, "wrong, expired or used up"), (403, "user lockout")] {
        let hostile = Hostile::start().await;
        hostile.receiver.set(Behaviour::answer(status, "{}"));
        let starting = Starting::with(of_vault(hostile.config()), &["REDIS_PASS"]);
        let said = wait_broken(&starting.health, &format!("HTTP {status}")).await;
        assert!(said.contains(hint) && said.contains("when the file of the secret id changes"), "{said}");
        // In this time there were five logins once.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(hostile.receiver.requests().len(), 1);
        hostile.receiver.set(kv(json!({ "REDIS_PASS": "x" })));
        hostile.receiver.script([login()]);
        // As some editors write it.
        hostile.write_id("\u{feff}another-hunter2\r\n");
        starting.succeeds().await;
        let sent = hostile.receiver.requests();
        assert_eq!(sent[1].json()["secret_id"], "another-hunter2");
        assert_eq!(sent.len(), 3, "and the reading");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_given_up() {
    let hostile = Hostile::start().await;
    hostile.receiver.set(Behaviour::Hang);
    hostile.says("did not answer in time").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_takes_no_secret_to_another_host() {
    let (hostile, elsewhere) = (Hostile::start().await, Receiver::start().await);
    for script in [vec![], vec![login()]] {
        hostile.receiver.set(Behaviour::redirect(elsewhere.url()));
        hostile.receiver.script(script);
        hostile.says("redirects are not followed").await;
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_secrets_are_refused_and_odd_ones_left_out() {
    let hostile = Hostile::start().await;
    for (answer, says) in [
        (Behaviour::EndlessBody, "longer than 1 MiB"),
        (Behaviour::answer(200, r#"{"data":{"REDIS_PASS":"x"}}"#), "KV version 2"),
        (kv(json!("text")), "KV version 2"),
        (kv(json!({ "REDIS_PASS": null, "REDIS_PASS_NEXT": "" })), "holds no REDIS_PASS"),
        (kv(json!({ "REDIS_PASS": { "a": "hunter2" }, "REDIS_PASS_NEXT": [1] })), "holds no REDIS_PASS"),
        (Behaviour::answer(403, format!(r#"{{"errors":["no, {TOKEN}"]}}"#)), "no, ***"),
    ] {
        hostile.receiver.set(answer);
        hostile.receiver.script([login()]);
        hostile.says(says).await;
    }
    hostile.receiver.set(kv(json!({ "REDIS_PASS": 5, "REDIS_PASS_NEXT": "line\n", "x": true })));
    hostile.receiver.script([login()]);
    let live = Live::start(of_vault(hostile.config()), &["REDIS_PASS"]).await;
    assert_eq!(live.redis(), ["line", "5"], "NEXT, then the plain name");
    hostile.receiver.set(Behaviour::EndlessBody);
    live.wait_broken("longer than 1 MiB").await;
    assert_eq!(live.redis(), ["line", "5"]);
    assert_eq!(live.secrets.snapshot().names().collect::<Vec<_>>(), ["REDIS_PASS", "REDIS_PASS_NEXT"]);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One thread, so that the subscriber sees all of it.
#[tokio::test]
async fn the_most_talkative_log_holds_no_secret() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let hostile = Hostile::start().await;
    hostile.receiver.set(kv(json!({ "REDIS_PASS": "one-hunter2" })));
    let refused = Behaviour::answer(400, json!({ "errors": [SECRET_ID] }).to_string());
    let broken = Behaviour::answer(500, json!({ "errors": [SECRET_ID] }).to_string());
    hostile.receiver.script([broken, refused, login()]);
    let address = format!("http://{}/behind/", hostile.receiver.addr());
    let config = VaultConfig { address, namespace: Some("team".into()), ..hostile.config() };
    let other_id = async {
        assert!(wait_until(LONG, || hostile.receiver.requests().len() == 2).await, "it is refused");
        hostile.write_id("otherid-hunter2");
    };
    let (live, ()) = tokio::join!(Live::start(of_vault(config), &["REDIS_PASS"]), other_id);
    hostile.receiver.set(kv(json!({ "REDIS_PASS": "two-hunter2" })));
    live.wait_redis(&["two-hunter2"]).await;
    hostile.receiver.set(Behaviour::answer(418, json!({ "errors": [TOKEN] }).to_string()));
    live.wait_broken("HTTP 418").await;
    hostile.receiver.set(Behaviour::answer(403, json!({ "errors": [TOKEN] }).to_string()));
    live.wait_broken("HTTP 403").await;
    let failures = live.failures();
    assert!(wait_until(LONG, || live.failures() > failures + 1).await);
    drop(guard);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for line in [
        "trying again in",
        "the login was refused",
        "logged in to Vault",
        "the secrets are at `secret/data/mutt`",
        "secrets have changed",
    ] {
        assert!(text.contains(line), "{line:?} is not in the log");
    }
    assert_eq!(text.lines().filter(|line| line.contains("WARN") && line.contains("HTTP 403")).count(), 1, "once");
    assert!(text.contains("TRACE") && !text.contains("hunter2"), "a secret is in the log");
    let sent = hostile.receiver.requests();
    assert!(sent.iter().all(|r| !r.path.contains("hunter2")), "a secret is in a URL");
    assert_eq!(sent[0].path, "/behind/v1/auth/approle/login");
    assert!(sent.iter().all(|r| r.header("x-vault-namespace") == Some("team")));
    assert!(sent.iter().any(|r| r.header("x-vault-token") == Some(TOKEN)), "and yet they were sent");
}
