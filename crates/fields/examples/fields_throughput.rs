//! Time per event: `cargo run --release -p fields --example fields_throughput [FILE.jsonl]`.
//!
//! Without a file: a Windows event of about 3 KB, and lines of ssh as syslog delivers them.

use model::Fields;
use std::hint::black_box;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(path) = std::env::args().nth(1) {
        let text = std::fs::read_to_string(path)?;
        let events: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        report("file, from_json", &events, fields::from_json);
        return Ok(());
    }
    let windows = windows();
    report("Windows event, from_json", &[&windows], fields::from_json);
    let ssh = syslog("sshd", "Failed password for invalid user admin from 203.0.113.9 port 51122 ssh2");
    report("ssh line, from_event", &[&ssh], fields::from_event);
    let sudo = syslog("sudo", "deploy : TTY=pts/0 ; PWD=/home/deploy ; USER=root ; COMMAND=/usr/bin/apt update");
    report("sudo line, from_event", &[&sudo], fields::from_event);
    let other = syslog("myapp", "request 7 took 12 ms and nothing happened");
    report("unknown line, from_event", &[&other], fields::from_event);
    Ok(())
}

type Extract = for<'a> fn(&'a str, &mut Fields<'a>) -> Result<(), fields::FieldsError>;

#[expect(clippy::print_stdout, reason = "an example prints")]
fn report(name: &str, events: &[&str], extract: Extract) {
    let bytes: usize = events.iter().map(|event| event.len()).sum();
    let rounds = (200_000 / events.len()).max(1);
    let mut leaves = 0;
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let mut out = Fields::default();
        let start = now();
        for _ in 0..rounds {
            for event in events {
                out.clear();
                if extract(black_box(event), &mut out).is_ok() {
                    leaves = out.leaves().len();
                }
                black_box(&out);
            }
        }
        best = best.min(start.elapsed());
    }
    let ns = best.as_nanos() as f64 / (rounds * events.len()) as f64;
    let mean = bytes / events.len();
    println!("{name}: {:.2} µs/event, {mean} bytes, {leaves} leaves in the last", ns / 1000.0);
}

fn now() -> std::time::Instant {
    std::time::Instant::now()
}

fn syslog(program: &str, message: &str) -> String {
    format!(
        r#"{{"hostname":"web1","message":"{message}","timestamp":"2026-11-26T01:00:00Z","syslog_severity":6,"severity":"info","facility":"authpriv","source":"syslog","source_ip":"192.0.2.10","program":"{program}","pid":"812","_id":"evt_01m81xv3qwp46z160000000000","_org":"acme"}}"#
    )
}

fn windows() -> String {
    let filler = r"-NoProfile -ExecutionPolicy Bypass -File C:\\ProgramData\\a\\b.ps1 ".repeat(18);
    format!(
        r##"{{"Event":{{"#attributes":{{"xmlns":"http://schemas.microsoft.com/win/2004/08/events/event"}},"System":{{"Provider":{{"#attributes":{{"Name":"Microsoft-Windows-Sysmon","Guid":"5770385F-C22A-43E0-BF4C-06F5698FFBD9"}}}},"EventID":1,"Version":5,"Level":4,"Task":1,"Opcode":0,"Keywords":"0x8000000000000000","TimeCreated":{{"#attributes":{{"SystemTime":"2025-12-15T11:49:00.470910Z"}}}},"EventRecordID":74726,"Correlation":null,"Execution":{{"#attributes":{{"ProcessID":3320,"ThreadID":4216}}}},"Channel":"Microsoft-Windows-Sysmon/Operational","Computer":"pc.corp.example","Security":{{"#attributes":{{"UserID":"S-1-5-18"}}}}}},"EventData":{{"RuleName":"-","UtcTime":"2025-12-15 11:49:00.469","ProcessGuid":"0197231E-F5AC-693F-C505-000000000D00","ProcessId":12536,"Image":"C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\powershell.exe","FileVersion":"10.0.26100.5074","Description":"Windows PowerShell","Product":"Microsoft Windows Operating System","Company":"Microsoft Corporation","OriginalFileName":"PowerShell.EXE","CommandLine":"powershell.exe {filler}","CurrentDirectory":"C:\\Users\\bob\\AppData\\Local\\Temp\\","User":"CORP\\bob","LogonGuid":"0197231E-5032-6940-AAE2-070000000000","LogonId":"0x7e2aa","TerminalSessionId":1,"IntegrityLevel":"High","Hashes":"MD5=0C0A46AAA84E8689D9EE731E6799283B,SHA256=2EF794C4940AFEA56C6D6D3B9BC9E66965BC7333E79C5DCB2DEF3C0E36F0834C,IMPHASH=68F5781FF188454492D1B3FD57484D85","ParentProcessGuid":"0197231E-F5AC-693F-C305-000000000D00","ParentProcessId":9448,"ParentImage":"C:\\Windows\\System32\\cmd.exe","ParentCommandLine":"\"cmd.exe\" /c powershell","ParentUser":"CORP\\bob"}}}}}}"##
    )
}
