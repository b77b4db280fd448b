//! A disk that is really full: the data folder is a small tmpfs of a mount namespace of the
//! server's own, and a filler takes all that is left of it.

use crate::process::{Server, check, configure, event, launch};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use testkit::Receiver;

/// `unshare` with what this user needs to mount something for itself, if the system lets it.
fn unshare() -> Option<Command> {
    let attempts: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    attempts.into_iter().find_map(|flags| {
        let command = || {
            let mut command = Command::new("unshare");
            command.args(flags);
            command
        };
        let mounts = command()
            .args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        mounts.then(command)
    })
}

async fn start(dir: &Path, url: &str, mut command: Command) -> Server {
    let data = dir.join("data");
    std::fs::create_dir(&data).unwrap();
    command.args(["sh", "-c", "mount -t tmpfs -o size=32m tmpfs \"$MUTT_DATA_DIR\" && exec \"$0\" \"$@\""]);
    command.arg(env!("CARGO_BIN_EXE_muttd"));
    launch(dir, url, command, |pid| {
        let mut inside = PathBuf::from(format!("/proc/{pid}/root"));
        inside.extend(data.iter().skip(1));
        inside
    })
    .await
}

/// Writes until not a byte fits.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for block in [vec![0u8; 1 << 20], vec![0u8; 512], vec![0u8; 1]] {
        while file.write_all(&block).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_loses_nothing_and_needs_no_restart() {
    let Some(command) = unshare() else {
        println!("NOT RUN: this system lets nobody mount a file system in a namespace");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start().await;
    configure(dir.path(), "rate_limit = 1000000\n");
    let server = start(dir.path(), &receiver.url(), command).await;
    let mut acknowledged = BTreeSet::new();
    let mut refused = BTreeSet::new();
    let mut next = 0;
    for _ in 0..100 {
        assert_eq!(server.post(event(next)).await.unwrap().status(), 200);
        acknowledged.insert(next);
        next += 1;
    }
    let filler = server.data.join("filler");
    fill(&filler);

    // What still fits is kept; what does not is refused, and said to be for a while.
    let mut red = false;
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end || refused.len() < 20 {
        let response = server.post(event(next)).await.unwrap();
        match response.status().as_u16() {
            200 => acknowledged.insert(next),
            503 => {
                assert!(response.headers().contains_key("retry-after"), "a refusal says when to come again");
                // A few bytes may fit again a moment later, and are taken.
                red |= server.health().await == 503;
                refused.insert(next)
            }
            other => panic!("event {next} got {other}: {}", response.text().await.unwrap()),
        };
        next += 1;
        if !refused.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(red, "red while the disk is full");
    let queues = server.get("/api/v2/queues").await;
    assert!(queues["queues"].is_array(), "reading goes on");

    std::fs::remove_file(&filler).unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while server.health().await != 200 {
        assert!(Instant::now() < end, "did not recover by itself");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for _ in 0..100 {
        assert_eq!(server.post(event(next)).await.unwrap().status(), 200);
        acknowledged.insert(next);
        next += 1;
    }
    server.drained().await;
    let stored = server.stored().await;
    println!("full disk: {} acknowledged, {} refused", acknowledged.len(), refused.len());
    check(&acknowledged, next, &stored, &receiver);
    assert!(refused.iter().all(|n| !stored.contains_key(n)), "what was refused is not there");
}
