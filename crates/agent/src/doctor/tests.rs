use super::*;
use crate::report::Waiting;
use crate::settings::Parsed;
use crate::settings::parse;
use std::collections::BTreeMap;

const NOW_MS: i64 = 1_790_000_000_000;

fn found(findings: &[Finding], grade: Grade, start: &str) -> bool {
    findings.iter().any(|finding| finding.grade == grade && finding.text.starts_with(start))
}

fn report() -> Report {
    let waiting = Waiting { used_bytes: 10, max_bytes: 100, ..Waiting::default() };
    Report { standing: Standing::Connected, written_unix_ms: NOW_MS - 4_000, waiting, ..Report::default() }
}

#[test]
fn permissions_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sm-agent.conf");
    assert_eq!(conf(&path).grade, Grade::Note);
    assert_eq!(data_dir(&dir.path().join("none")).grade, Grade::Note);
    std::fs::write(&path, "SM_TOKEN=hush\n").unwrap();
    for (mode, grade) in [(0o600, Grade::Good), (0o400, Grade::Good), (0o640, Grade::Wrong), (0o604, Grade::Wrong)] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        assert_eq!(conf(&path).grade, grade, "{mode:o}");
    }
    for (mode, grade) in [(0o700, Grade::Good), (0o755, Grade::Wrong)] {
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(mode)).unwrap();
        assert_eq!(data_dir(dir.path()).grade, grade, "{mode:o}");
    }
    assert_eq!(data_dir(&path).grade, Grade::Wrong, "a file");
}

#[test]
fn an_agent_that_does_not_run_is_no_agent() {
    let none = Err(ReportError::None("/d".into()));
    assert!(found(&service(&none, NOW_MS), Grade::Wrong, "service: no agent has run"));
    // The number of this process is no agent's.
    let other = Ok(Report { pid: std::process::id(), ..report() });
    assert!(found(&service(&other, NOW_MS), Grade::Wrong, "service: the agent does not run; it spoke last 4 s ago"));
}

#[test]
fn what_the_agent_said_is_graded() {
    assert!(state(&report()).iter().all(|finding| finding.grade == Grade::Good));
    for (ahead_ms, grade, start) in [
        (0, Grade::Good, "clock: within"),
        (-59_000, Grade::Good, "clock: within 59 s"),
        (3_600_000, Grade::Wrong, "clock: this host is 60 min behind"),
        (-3_600_000, Grade::Wrong, "clock: this host is 60 min ahead of"),
        (i64::MIN, Grade::Wrong, "clock: "),
    ] {
        let findings = state(&Report { clock_ahead_ms: Some(ahead_ms), ..report() });
        assert!(found(&findings, grade, start), "{ahead_ms}: {findings:?}");
    }
    let mut full = report();
    full.waiting.used_bytes = 90;
    full.waiting.dropped = BTreeMap::from([("file".to_owned(), 3)]);
    full.not_running = BTreeMap::from([("auth".to_owned(), "no file".to_owned())]);
    let findings = state(&full);
    assert!(found(&findings, Grade::Wrong, "records: 0 wait, 90 of 100"));
    assert!(found(&findings, Grade::Note, "records given up for want of room, ever: file 3"));
    assert!(found(&findings, Grade::Note, "collectors: auth does not run: no file"));
    let dir = tempfile::tempdir().unwrap();
    assert_eq!((disk(dir.path(), 0).grade, disk(dir.path(), u64::MAX).grade), (Grade::Good, Grade::Wrong));
}

async fn examined(args: &[&str]) -> (String, bool) {
    let args: Vec<String> = ["doctor"].iter().chain(args).map(|arg| (*arg).to_owned()).collect();
    let Parsed::Doctor(examined) = parse(&args, &BTreeMap::new(), "box", |_| Some(String::new())) else { panic!() };
    words(&examine(&examined, NOW_MS).await)
}

#[tokio::test]
async fn it_says_what_is_wrong_on_the_way_and_shows_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data = ["-data-dir", data.to_str().unwrap()];
    // A port that answers, and not in TLS; one that nobody has.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut tcp, b"HTTP/1.1 400 no\r\n\r\n").await;
        }
    });
    let shut = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let token = "sm_acme_1_hush.ba7816bf8f01cfea414140de5dae2223";
    for (args, said) in [
        (&[][..], &["WRONG settings: missing -token flag", "what to do: set it"][..]),
        (&["-token", "sm_acme_1_hush.ba"], &["WRONG settings: the token's end"]),
        (&["-token", token, "-ingest", &shut], &["WRONG port: ", "ok    token: names the server's authority, ba78"]),
        (&["-token", token, "-ingest", &open], &["ok    port: ", "WRONG trust: ", "does not speak TLS"]),
        (&["-token", "sm_acme_1_hush", "-ingest", &open], &["note  encryption is off", "ok    port: "]),
        (&["-token", "sm_acme_1_hush", "-tls", "-ca", "/none", "-ingest", &open], &["WRONG trust: cannot read"]),
    ] {
        let args = [&data[..], args].concat();
        let (text, is_well) = examined(&args).await;
        for part in said.iter().chain(&["WRONG service: no agent has run"]) {
            assert!(text.contains(part), "{args:?}: no {part:?} in {text}");
        }
        assert!(!is_well && !text.contains("hush"), "{text}");
    }
    assert!(!dir.path().join("data").exists(), "it made nothing");
}
