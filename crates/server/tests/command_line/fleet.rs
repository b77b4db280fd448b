//! Organisations, tokens and agents by command.

use super::{Served, muttd, text};
use model::Timestamp;
use std::path::Path;
use storage::catalog::CatalogConfig;
use storage::catalog::fleet::{Enrolled, Enrolment, HostFacts};

#[track_caller]
fn done(dir: &Path, args: &[&str]) -> (String, String) {
    let output = muttd(dir, args, &[]);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn refused(dir: &Path, args: &[&str], says: &str) {
    let output = muttd(dir, args, &[]);
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains(says), "{args:?}: {said}");
}

/// Enrols an agent with a token, as a gateway does.
fn enrol(dir: &Path, token: &str, number: u8, host: &str) -> Enrolled {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let file = dir.join("data/catalog.db");
        let catalog = storage::catalog::open(CatalogConfig::Sqlite { file }).await.unwrap();
        let login = catalog.token_login(&server::agent_tokens::fingerprint(token)).await.unwrap().unwrap();
        let enrolment = Enrolment {
            org: login.token.org,
            token: login.token.id,
            id: format!("agt_{number:026}"),
            key: Some([number; 32]),
            facts: HostFacts { hostname: host.into(), version: "2.0.0".into(), ..HostFacts::default() },
            certificate_ends_at: Some(Timestamp::from_secs(4_000_000_000)),
            at: login.token.created_at,
        };
        catalog.enrol(enrolment).await.unwrap()
    })
}

#[test]
fn a_fleet_is_looked_after_by_command_while_the_server_runs_and_while_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let mut served = Served::start(path);
    done(path, &["admin", "org", "create", "acme", "--title", "Acme Ltd", "--agents-max", "1"]);
    refused(path, &["admin", "org", "create", "a_b"], "tokens can carry it");
    let (orgs, _) = done(path, &["admin", "org", "list"]);
    assert!(orgs.contains("acme") && orgs.contains("Acme Ltd") && orgs.contains("default"), "{orgs}");

    let args = ["admin", "token", "create", "--org", "acme", "--host", "web-1", "--gateway", "mutt.example"];
    let (token, how) = done(path, &args);
    let token = token.strip_suffix('\n').unwrap();
    assert!(token.starts_with("sm_acme_") && !token.contains('\n'), "the token alone: {token}");
    let command = format!("export SM_TOKEN='{token}' SM_INGEST_URL='mutt.example:9002'");
    assert!(how.contains(&command), "{how}");
    let (tokens, _) = done(path, &["admin", "token", "list", "--org", "acme"]);
    assert!(tokens.contains("web-1") && tokens.contains("0/1") && !tokens.contains(&token[20..]), "{tokens}");
    let (ours, _) = done(path, &["admin", "token", "list"]);
    assert!(!ours.contains("web-1"), "{ours}");
    refused(path, &["admin", "token", "create", "--gateway", "a;reboot"], "--gateway");
    refused(path, &["admin", "token", "revoke", "99"], "Token not found");

    assert!(matches!(enrol(path, token, 1, "says so"), Enrolled::New { .. }));
    let (list, _) = done(path, &["agents", "list", "--org", "acme"]);
    assert!(list.contains("web-1") && list.contains("pending") && list.contains("2.0.0"), "{list}");
    let (none, _) = done(path, &["agents", "list"]);
    assert!(none.contains("0 match"), "{none}");
    let (json, _) = done(path, &["agents", "list", "--org", "acme", "--state", "pending", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["agents"][0]["host"], &json["states"]["pending"]), (&"web-1".into(), &1.into()));
    let (shown, _) = done(path, &["agents", "show", "web-1", "--org", "acme"]);
    assert!(shown.contains("web-1 is pending") && shown.contains("agt_"), "{shown}");
    refused(path, &["agents", "show", "web-1"], "there is no agent of a host `web-1` in default");
    served.signal("-TERM");
    assert!(served.0.wait().unwrap().success());

    let (said, _) = done(path, &["agents", "revoke", "web-1", "--org", "acme", "--reason", "stolen"]);
    assert!(said.contains("revoked the agent of web-1"), "{said}");
    let (shown, _) = done(path, &["agents", "show", "agt_00000000000000000000000001", "--org", "acme"]);
    assert!(shown.contains("web-1 is revoked") && shown.contains("stolen"), "{shown}");
    done(path, &["agents", "remove", "web-1", "--org", "acme"]);
    refused(path, &["agents", "remove", "web-1", "--org", "acme"], "there is no agent");
    let (next, _) = done(path, &["admin", "token", "rotate", "1", "--org", "acme", "--overlap-hours", "0"]);
    assert!(next.starts_with("sm_acme_") && next.trim() != token);
    done(path, &["admin", "token", "revoke", "2", "--org", "acme"]);
    let (tokens, _) = done(path, &["admin", "token", "list", "--org", "acme"]);
    assert!(tokens.contains("revoked") && tokens.contains("expired"), "{tokens}");
    refused(path, &["admin", "org", "change", "acme"], "nothing is to be changed");
    let (org, _) = done(path, &["admin", "org", "change", "acme", "--agents-max", "any", "--disable"]);
    assert!(org.contains("disabled") && org.contains("any") && org.contains("Acme Ltd"), "{org}");
    refused(path, &["admin", "org", "change", "default", "--disable"], "stays enabled");
    refused(path, &["agents", "list", "--org", "none"], "no such organisation");
    let kept = std::fs::read(path.join("data/catalog.db")).unwrap();
    assert!(!kept.windows(16).any(|bytes| bytes == &token.as_bytes()[token.len() - 16..]), "only the fingerprint");
}
