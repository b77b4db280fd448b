use super::{Answer, Api, NOON, api_with, with_key};
use axum::body::Body;
use axum::http::Request;
use pipeline::detections::{Library, SharedText};
use rules::sigma::{Options, Reader};
use serde_json::{Value, json};
use server::api::router;
use std::io::{Cursor, Write};
use storage::catalog::Actor;
use storage::catalog::detection_rules::{DocumentChange, RuleSetting};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// Two rules that ship, the second one off.
const SHIPPED: &str = "\
title: Root logs in by password
id: 5d0a3b0e-6f3a-4c0e-8f2d-0f6d6f1c0001
name: root_login
status: stable
level: high
description: Nobody should.
tags: [attack.t1078, attack.initial-access]
logsource: {product: linux, service: sshd}
detection:
  selection: {event_type: ssh_success, User: root}
  other: {User|startswith: svc-}
  condition: selection and not other
---
title: Somebody logs in
id: 5d0a3b0e-6f3a-4c0e-8f2d-0f6d6f1c0002
status: experimental
level: low
logsource: {product: linux, service: sshd}
detection: {s: {event_type: ssh_success}, condition: s}
";

const OWN: &str = "\
title: Bob logs in
name: bob_login
level: medium
logsource: {product: linux, service: sshd}
detection: {s: {event_type: ssh_success, User: bob}, condition: s}
examples:
  match: ['sshd[7]: Accepted password for bob from 203.0.113.7 port 22 ssh2']
  no_match: ['sshd[7]: Accepted password for alice from 203.0.113.7 port 22 ssh2']
";

const COUNTS: &str = "\
title: Bob logs in often
name: bob_often
level: high
correlation: {type: event_count, rules: [bob_login], group-by: [SourceIp], timespan: 5m, condition: {gte: 2}}
";

pub async fn api() -> Api {
    api_with(|state| {
        let mut reader = Reader::new(Options::default());
        reader.text("rules/security/ssh.yml", SHIPPED);
        let text = SharedText { name: "rules/security/ssh.yml".into(), text: SHIPPED.into(), ships: true };
        state.detections.set_library(Library::new(reader, vec![text], Options::default(), false));
    })
    .await
}

impl Api {
    pub async fn put_document(&self, name: &str, query: &str, text: &str) -> Answer {
        let name = name.replace('/', "%2F");
        let request = with_key("PUT", &format!("/api/v2/detection/documents/{name}{query}"));
        let request = request.header("content-type", "application/yaml").header("x-user", "alice");
        self.send(request.body(Body::from(text.to_owned())).unwrap()).await
    }

    async fn import_zip(&self, query: &str, entries: &[(&str, &str)]) -> Answer {
        self.import_bytes(query, archive(entries)).await
    }

    async fn import_bytes(&self, query: &str, bytes: Vec<u8>) -> Answer {
        let request = with_key("POST", &format!("/api/v2/detection/import{query}"));
        let request = request.header("content-type", "application/zip").header("x-user", "alice");
        self.send(request.body(Body::from(bytes)).unwrap()).await
    }

    async fn rule(&self, uid: &str) -> Value {
        self.get(&format!("/api/v2/detection/rules/{uid}")).await.is(200)
    }

    async fn uids(&self, query: &str) -> Vec<String> {
        let found = self.get(&format!("/api/v2/detection/rules{query}")).await.is(200);
        found["rules"].as_array().unwrap().iter().map(|rule| rule["uid"].as_str().unwrap().to_owned()).collect()
    }
}

fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in entries {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn names(list: &Value, key: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| one[key].as_str().unwrap().to_owned()).collect()
}

const ROOT: &str = "5d0a3b0e-6f3a-4c0e-8f2d-0f6d6f1c0001";
const SOMEBODY: &str = "5d0a3b0e-6f3a-4c0e-8f2d-0f6d6f1c0002";

#[tokio::test]
async fn rules_are_listed_with_how_they_stand_and_found_by_what_they_are() {
    let api = api().await;
    api.put_document("a/bob.yml", "", OWN).await.is(200);
    for (query, uids) in [
        ("", &[ROOT, SOMEBODY, "bob_login"][..]),
        ("?state=off", &[SOMEBODY]),
        ("?source=document", &["bob_login"]),
        ("?source=shipped&state=on", &[ROOT]),
        ("?level=medium", &["bob_login"]),
        ("?tag=attack.t10*", &[ROOT]),
        ("?tag=attack.t10", &[]),
        ("?text=NOBODY+SHOULD", &[ROOT]),
        ("?text=logs+in&limit=2&page=2", &["bob_login"]),
        ("?kind=correlation", &[]),
    ] {
        assert_eq!(api.uids(query).await, uids, "{query}");
    }
    let listed = api.get("/api/v2/detection/rules").await.is(200);
    assert_eq!(listed["states"], json!({ "on": 2, "off": 1, "dry-run": 0 }));
    let root = api.rule(ROOT).await;
    assert_eq!(
        (&root["state"], &root["why"], &root["origin"]["source"], &root["counts"]["matches"]),
        (&json!("on"), &json!("default"), &json!("shipped"), &json!(0))
    );
    assert!(root["text"].as_str().unwrap().starts_with("title: Root logs in by password"), "{root}");
    assert!(!root["text"].as_str().unwrap().contains("Somebody"), "without its neighbours");
    let words = root["explanation"].to_string();
    for part in ["product linux, service sshd", "all of", "User is", "not: ", "svc-"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert_eq!(api.rule(SOMEBODY).await["why"], "status");
    api.get("/api/v2/detection/rules/nothing").await.refuses(404, "no such detection rule");
    for query in ["state=maybe", "level=loud", "source=x", "kind=x"] {
        let name = query.split('=').next().unwrap();
        api.get(&format!("/api/v2/detection/rules?{query}")).await.refuses(400, name);
    }
}

#[tokio::test]
async fn what_is_said_about_a_rule_holds_and_is_taken_back_and_audited() {
    let api = api().await;
    let path = format!("/api/v2/detection/rules/{ROOT}/setting");
    let said = json!({ "state": "dry-run", "level": "low", "team": "SOC", "reason": "first we count" });
    let set = api.put(&path, said).await.is(200);
    assert_eq!(
        (&set["rule"]["state"], &set["rule"]["why"], &set["rule"]["level"], &set["rule"]["own_level"]),
        (&json!("dry-run"), &json!("setting"), &json!("low"), &json!("high"))
    );
    let only_level = json!({ "level": "critical", "expected": { "state": "off" } });
    api.put(&path, only_level).await.refuses(409, "somebody else changed");
    let expected = json!({ "state": "dry-run", "level": "low", "team": "SOC" });
    let set = api.put(&path, json!({ "level": "critical", "expected": expected })).await.is(200);
    assert_eq!(set["rule"]["setting"], json!({ "state": null, "level": "critical", "team": null }));
    let cleared = api.delete(&path).await.is(200);
    assert_eq!((&cleared["rule"]["state"], &cleared["rule"]["level"]), (&json!("on"), &json!("high")));
    for (body, name) in [
        (json!({ "state": "paused" }), "state"),
        (json!({ "level": "loud" }), "level"),
        (json!({ "team": " " }), "team"),
        (json!({ "team": "x".repeat(101) }), "team"),
        (json!({ "expected": 1 }), "expected"),
        (json!({ "expected": { "state": "x" } }), "expected.state"),
        (json!({ "sate": "off" }), "sate"),
    ] {
        let refused = api.put(&path, body.clone()).await.refuses(400, "Invalid setting");
        assert!(refused["fields"][name].is_string(), "{body}: {refused}");
    }
    let nowhere = "/api/v2/detection/rules/nothing/setting";
    api.put(nowhere, json!({ "state": "off" })).await.refuses(404, "no such detection rule");
    let log = api.get("/api/v2/audit").await.is(200);
    let row = &log["logs"].as_array().unwrap().iter().find(|row| row["reason"] == "first we count").unwrap().clone();
    assert!(row["new_values"].to_string().contains("dry-run"), "{row}");
    assert_eq!(log["logs"].as_array().unwrap().len(), 3, "three changes: {log}");
}

#[tokio::test]
async fn a_document_is_kept_read_changed_and_put_back_with_its_history() {
    let api = api().await;
    let kept = api.put_document("linux/bob.yml", "?reason=new+colleague", OWN).await.is(200);
    assert_eq!((&kept["version"], &names(&kept["rules"], "uid")), (&json!(1), &vec!["bob_login".to_owned()]));
    let path = "/api/v2/detection/documents/linux%2Fbob.yml";
    let read = api.get(path).await.is(200);
    assert_eq!((&read["text"], &read["changed_by"]), (&json!(OWN), &json!("alice")));
    assert_eq!(api.put_document("linux/bob.yml", "", OWN).await.is(200)["version"], 1, "no change, no version");
    let second = OWN.replace("User: bob", "User: rob");
    api.put_document("linux/bob.yml", "?expected=7", &second).await.refuses(409, "another version");
    assert_eq!(api.put_document("linux/bob.yml", "?expected=1", &second).await.is(200)["version"], 2);

    let versions = api.get(&format!("{path}/versions")).await.is(200);
    assert_eq!(versions["versions"].as_array().unwrap().len(), 2);
    let first = &versions["versions"][1];
    assert_eq!(
        (&first["version"], &first["changed_by"], &first["reason"]),
        (&json!(1), &json!("alice"), &json!("new colleague"))
    );
    assert_eq!(api.get(&format!("{path}/versions/1")).await.is(200)["text"], OWN);
    api.get(&format!("{path}/versions/9")).await.refuses(404, "no such version");
    let restored = api.post(&format!("{path}/restore"), json!({ "version": 1 })).await.is(200);
    assert_eq!(restored["version"], 3);
    assert_eq!(api.get(path).await.is(200)["text"], OWN);

    let listed = api.get("/api/v2/detection/documents?text=BOB").await.is(200);
    let row = &listed["documents"][0];
    assert_eq!((&row["name"], &row["rules"], &row["version"]), (&json!("linux/bob.yml"), &json!(1), &json!(3)));
    let removed = api.call("DELETE", path, json!({ "reason": "gone", "expected": 3 })).await.is(200);
    assert_eq!(removed["version"], 4);
    api.get(path).await.refuses(404, "no such document");
    api.delete(path).await.refuses(404, "no such document");
    assert_eq!(api.uids("?source=document").await, Vec::<String>::new());
    let removal = api.post(&format!("{path}/restore"), json!({ "version": 4 })).await;
    removal.refuses(400, "there is no text in it");
    assert_eq!(api.post(&format!("{path}/restore"), json!({ "version": 2 })).await.is(200)["version"], 5);
    let log = api.get("/api/v2/audit?changed_by=alice").await.is(200);
    assert!(log["logs"].as_array().unwrap().len() >= 2, "{log}");
    assert!(log["logs"].to_string().contains("new colleague"), "{log}");
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_with_line_and_suggestion_and_nothing_is_kept() {
    let api = api().await;
    let slip = OWN.replace("User: bob", "User|endwith: bob");
    let refused = api.put_document("a.yml", "", &slip).await.refuses(400, "did you mean `endswith`?");
    let problem = &refused["problems"][0];
    assert_eq!((&problem["document"], &problem["line"]), (&json!("a.yml"), &json!(5)), "{problem}");
    assert!(problem["suggestion"].as_str().unwrap().contains("endswith"));
    api.put_document("a.yml", "", "").await.refuses(400, "nothing was changed");
    api.put_document("a.yml", "", COUNTS).await.refuses(400, "bob_login");
    api.put_document("a.yml", "", "a\0b").await.refuses(400, "NUL");
    for name in ["..%2Fa.yml", "%2Fa.yml", "a%0A.yml", "a.txt", "b%2F.%2Fa.yml"] {
        api.put_document(name, "", OWN).await.refuses(400, "name of a document");
    }
    let json = api.put("/api/v2/detection/documents/a.yml", json!({ "text": OWN })).await;
    json.refuses(400, "application/yaml");
    let long = format!("{OWN}# {}", "x".repeat(1 << 20));
    assert_eq!(api.put_document("a.yml", "", &long).await.status, 413);
    assert_eq!(api.get("/api/v2/detection/documents").await.is(200)["pagination"]["total"], 0);

    // A rule that another document needs is not taken away, except by force.
    api.put_document("a.yml", "", OWN).await.is(200);
    api.put_document("b.yml", "", COUNTS).await.is(200);
    let path = "/api/v2/detection/documents/a.yml";
    let refused = api.delete(path).await.refuses(400, "bob_login");
    assert!(refused["hint"].as_str().unwrap().contains("force"), "{refused}");
    let renamed = OWN.replace("name: bob_login", "name: rob_login");
    api.put_document("a.yml", "", &renamed).await.refuses(400, "bob_login");
    api.call("DELETE", path, json!({ "force": true })).await.is(200);
    let broken = api.get("/api/v2/detection/documents/b.yml").await.is(200);
    assert_eq!(broken["problems"][0]["refused"], true, "what does not work any more says so");
}

#[tokio::test]
async fn an_archive_is_taken_whole_or_in_part_and_says_what_it_comes_to() {
    let api = api().await;
    let slip = OWN.replace("name: bob_login", "name: slip").replace("User: bob", "User|endwith: bob");
    let entries =
        [("a/bob.yml", OWN), ("a/often.yml", COUNTS), ("a/slip.yml", &slip), ("README.md", "#"), (".ci/x.yml", "x: 1")];
    let refused = api.import_zip("", &entries).await.refuses(400, "1 document cannot be used");
    assert_eq!((&refused["applied"], &refused["refused"]), (&json!(false), &json!(["a/slip.yml"])));
    assert_eq!(names(&refused["skipped"], "name"), ["README.md", ".ci/x.yml"]);
    assert_eq!(api.get("/api/v2/detection/documents").await.is(200)["pagination"]["total"], 0, "nothing was kept");

    let tried = api.import_zip("?dry_run=true&partial=true", &entries).await.is(200);
    assert_eq!(
        tried["documents"],
        json!({ "new": 2, "changed": 0, "unchanged": 0, "removed": 0, "refused": 1, "skipped": 2 })
    );
    assert_eq!(names(&tried["rules"]["new"], "uid"), ["bob_login", "bob_often"]);
    assert_eq!((&tried["dry_run"], &tried["applied"], &tried["possible"]), (&json!(true), &json!(false), &json!(true)));
    assert_eq!(api.import_zip("?dry_run=true", &entries).await.is(200)["possible"], false, "not as a whole");
    assert_eq!(api.get("/api/v2/detection/documents").await.is(200)["pagination"]["total"], 0, "a dry run");

    let taken = api.import_zip("?partial=true&reason=november", &entries).await.is(200);
    assert_eq!((&taken["applied"], &taken["changes"][0]["version"]), (&json!(true), &json!(1)));
    assert_eq!(api.uids("?source=document").await, ["bob_login", "bob_often"]);

    let again = api.import_zip("", &entries[..2]).await.is(200);
    assert_eq!((&again["documents"]["unchanged"], &again["changes"]), (&json!(2), &json!([])));

    // A correlation falls with the document that it needs; what was there before stays.
    let slip = OWN.replace("User: bob", "User|endwith: bob");
    let broken =
        [("a/bob.yml", &*slip), ("c.yml", &COUNTS.replace("often", "c")), ("d.yml", &OWN.replace("bob", "dan"))];
    let taken = api.import_zip("?partial=true", &broken).await.is(200);
    assert_eq!((&taken["refused"], &taken["documents"]["new"]), (&json!(["a/bob.yml", "c.yml"]), &json!(1)), "{taken}");
    assert_eq!(api.uids("?source=document").await, ["bob_login", "dan_login", "bob_often"]);

    let fewer = api.import_zip("?remove_missing=true", &[("a/bob.yml", OWN)]).await.is(200);
    assert_eq!((&fewer["documents"]["removed"], &fewer["rules"]["gone_total"]), (&json!(2), &json!(2)), "{fewer}");
    assert_eq!(api.uids("?source=document").await, ["bob_login"]);
    let reason = api.get("/api/v2/detection/documents/a%2Fbob.yml/versions").await.is(200);
    assert_eq!(reason["versions"][0]["reason"], "november");

    let texts = json!({ "documents": { "a/bob.yml": OWN, "b.yml": COUNTS } });
    assert_eq!(api.post("/api/v2/detection/import", texts).await.is(200)["documents"]["new"], 1);
    for body in [
        json!({}),
        json!({ "documents": [] }),
        json!({ "documents": { "a.yml": 1 } }),
        json!({ "documents": {}, "x": 1 }),
    ] {
        assert_eq!(api.post("/api/v2/detection/import", body).await.status, 400);
    }
}

#[tokio::test]
async fn what_was_imported_is_exported() {
    let api = api().await;
    api.import_zip("", &[("b/often.yml", COUNTS), ("a.yml", OWN)]).await.is(200);
    let exported = api.get("/api/v2/detection/export").await;
    assert_eq!((exported.status, exported.header("content-type")), (200, "application/zip"));
    assert!(exported.header("content-disposition").contains(".zip"));
    let mut archive = zip::ZipArchive::new(Cursor::new(exported.body.to_vec())).unwrap();
    let text = std::io::read_to_string(archive.by_name("b/often.yml").unwrap()).unwrap();
    assert_eq!((archive.len(), text.as_str()), (2, COUNTS));
    let again = api.import_bytes("?remove_missing=true", exported.body.to_vec()).await.is(200);
    assert_eq!(again["documents"]["unchanged"], 2);
}

#[tokio::test]
async fn a_hostile_archive_harms_nobody() {
    let api = api().await;
    let lines = "\n".repeat(1 << 20);
    let many: Vec<(String, &str)> = (0..70).map(|n| (format!("{n}.yml"), &*lines)).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, text)| (&**name, *text)).collect();
    let bomb = archive_packed(&many);
    assert!(bomb.len() < 1 << 20, "{} bytes", bomb.len());
    api.import_bytes("?partial=true", bomb).await.refuses(400, "more than 64 MiB together");
    for name in ["../up.yml", "/etc/root.yml", "a/../../up.yml", "c:\\x.yml", "a\u{7}.yml"] {
        let refused = api.import_zip("", &[("good.yml", OWN), (name, OWN)]).await.refuses(400, "cannot be used");
        assert_eq!(refused["unusable"].as_array().unwrap().len(), 1, "{refused}");
        let taken = api.import_zip("?partial=true", &[("good.yml", OWN), (name, OWN)]).await.is(200);
        assert_eq!(taken["documents"]["refused"], 1);
        let listed = api.get("/api/v2/detection/documents").await.is(200);
        assert_eq!(names(&listed["documents"], "name"), ["good.yml"], "{name:?}");
    }
    api.import_bytes("", b"no archive".to_vec()).await.refuses(400, "no zip archive");
    api.import_bytes("", archive(&[("a.txt", "x")])).await.refuses(400, "there are no documents");
    api.import_bytes("?partial=perhaps", archive(&[("a.yml", OWN)])).await.refuses(400, "partial");
    let large = api.import_bytes("", vec![0; (32 << 20) + 1]).await;
    assert_eq!(large.status, 413);
}

fn archive_packed(entries: &[(&str, &str)]) -> Vec<u8> {
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in entries {
        writer.start_file(*name, options).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[tokio::test]
async fn viewers_read_operators_change_and_other_organisations_see_nothing() {
    let api = api().await;
    let (viewer, operator) = (api.user("vera", "viewer").await, api.user("otto", "operator").await);
    let as_user = async |key: &str, method: &str, path: &str, kind: &str, body: &str| {
        let request =
            Request::builder().method(method).uri(format!("/api/v2/detection{path}")).header("x-api-key", key);
        api.send(request.header("content-type", kind).body(Body::from(body.to_owned())).unwrap()).await
    };
    let changes = [
        ("PUT", "/documents/a.yml", "application/yaml", OWN),
        ("PUT", "/rules/bob_login/setting", "application/json", "{\"state\":\"off\"}"),
        ("DELETE", "/rules/bob_login/setting", "application/json", "{}"),
        ("POST", "/documents/a.yml/restore", "application/json", "{\"version\":1}"),
        ("POST", "/import?dry_run=true", "application/json", "{\"documents\":{}}"),
        ("POST", "/test", "application/json", "{\"events\":[\"a: b\"]}"),
        ("DELETE", "/documents/a.yml", "application/json", "{}"),
    ];
    for (method, path, kind, body) in changes {
        as_user(&viewer, method, path, kind, body).await.refuses(403, "operator");
    }
    for (method, path, kind, body) in changes {
        let answer = as_user(&operator, method, path, kind, body).await;
        assert!(
            answer.status == 200 || answer.text.contains("there are no documents"),
            "{method} {path}: {}",
            answer.text
        );
    }
    as_user(&operator, "PUT", "/documents/a.yml", "application/yaml", OWN).await.is(200);
    for path in ["/rules", "/documents", "/documents/a.yml", "/documents/a.yml/versions", "/rules/bob_login"] {
        as_user(&viewer, "GET", path, "application/json", "").await.is(200);
    }
    assert_eq!(as_user(&viewer, "GET", "/export", "application/json", "").await.status, 200);

    let mut other = api.state.clone();
    other.org = "other".parse().unwrap();
    let other = Api { router: router(other.clone()), state: other, _dir: tempfile::tempdir().unwrap() };
    assert_eq!(other.uids("?source=document").await, Vec::<String>::new());
    other.get("/api/v2/detection/documents/a.yml").await.refuses(404, "no such document");
    other.get("/api/v2/detection/documents/a.yml/versions").await.refuses(404, "no such document");
    other.get("/api/v2/detection/rules/bob_login").await.refuses(404, "no such detection rule");
    other.put("/api/v2/detection/rules/bob_login/setting", json!({ "state": "off" })).await.refuses(404, "no such");
    other.put(&format!("/api/v2/detection/rules/{ROOT}/setting"), json!({ "state": "off" })).await.is(200);
    assert_eq!(api.rule(ROOT).await["state"], "on", "what another one says about a rule that ships");
    assert_eq!(other.rule(ROOT).await["state"], "off");
}

#[tokio::test]
async fn a_rule_is_tried_on_events_before_it_is_kept() {
    let api = api().await;
    let login = |user: &str, second: u32| {
        json!({ "program": "sshd", "message": format!("Accepted password for {user} from 203.0.113.7 port 22 ssh2"),
            "timestamp": format!("2026-11-26T01:00:{second:02}Z") })
    };
    let text = format!("{OWN}---\n{COUNTS}");
    let events = json!([
        login("bob", 9),
        login("alice", 1),
        "sshd[7]: Accepted password for bob from 203.0.113.9 port 1 ssh2",
        login("bob", 3)
    ]);
    let verdict = api.post("/api/v2/detection/test", json!({ "text": text, "events": events })).await.is(200);
    assert_eq!(names(&verdict["rules"], "uid"), ["bob_login", "bob_often"]);
    let seen: Vec<(u64, &str)> = verdict["matches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["event"].as_u64().unwrap(), one["uid"].as_str().unwrap()))
        .collect();
    assert_eq!(seen, [(2, "bob_login"), (3, "bob_login"), (0, "bob_login"), (0, "bob_often")], "by time");
    assert_eq!(verdict["matches"][3]["group"], json!({ "SourceIp": "203.0.113.7" }));
    assert_eq!(verdict["examples"].as_array().unwrap().iter().filter(|one| one["passed"] == true).count(), 2);
    assert_eq!(api.get("/api/v2/detection/documents").await.is(200)["pagination"]["total"], 0, "nothing is kept");

    let wrong = OWN.replace("for alice", "for bob");
    let verdict = api.post("/api/v2/detection/test", json!({ "text": wrong })).await.is(200);
    let failed = &verdict["examples"][1];
    assert_eq!((&failed["passed"], &failed["must_match"], &failed["line"]), (&json!(false), &json!(false), &json!(8)));
    assert!(failed["why"].to_string().contains("User"), "{failed}");
    let all = api.post("/api/v2/detection/test", json!({ "events": [login("root", 1)] })).await.is(200);
    assert_eq!(names(&all["matches"], "uid"), [ROOT, SOMEBODY], "without a text: every rule that there is");
    for (body, name) in [
        (json!({}), "text"),
        (json!({ "events": ["no program"] }), "events"),
        (json!({ "events": [1] }), "events"),
        (json!({ "events": vec!["a: b"; 1_001] }), "events"),
        (json!({ "text": OWN, "name": "../x.yml" }), "name"),
        (json!({ "txt": OWN, "events": [] }), "txt"),
    ] {
        let refused = api.post("/api/v2/detection/test", body.clone()).await.refuses(400, "Invalid request");
        assert!(refused["fields"][name].is_string(), "{body}: {refused}");
    }
}

/// What somebody else keeps in the catalog is seen at once.
#[tokio::test]
async fn what_another_process_changes_is_shown() {
    let api = api().await;
    assert_eq!(api.uids("?source=document").await, Vec::<String>::new());
    let actor = Actor { name: "eve".into(), reason: None, correlation_id: "c".into(), at: NOON };
    let change = DocumentChange { name: "x.yml".into(), text: Some(OWN.into()), expected: None };
    api.state.catalog.change_rule_documents(&api.state.org, vec![change], &actor).await.unwrap();
    assert_eq!(api.uids("?source=document").await, ["bob_login"]);
    let off = RuleSetting { team: Some("SOC".into()), ..RuleSetting::default() };
    let nothing = RuleSetting::default();
    api.state.catalog.set_rule(&api.state.org, "gone", &nothing, off, &actor).await.unwrap();
    let listed = api.get("/api/v2/detection/rules").await.is(200);
    assert_eq!(listed["unknown"], json!(["gone"]), "said about a rule that is nowhere");
    assert_eq!(api.delete("/api/v2/detection/rules/gone/setting").await.is(200)["rule"], Value::Null);
}
