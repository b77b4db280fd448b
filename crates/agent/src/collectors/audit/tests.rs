use super::*;
use crate::collectors::test::context;
use std::process::Command;

#[test]
fn records_of_one_serial_number_come_together_whatever_is_in_between() {
    let begin = Instant::now();
    let (mut join, mut whole) = (Join::default(), Vec::new());
    join.push(1300, "audit(1.000:7): pid=1", begin, &mut whole);
    join.push(1300, "audit(1.000:8): pid=2", begin, &mut whole);
    join.push(1309, "audit(1.000:7): argc=1", begin, &mut whole);
    join.push(1112, "audit(1.000:9): pid=3 msg='op=login'", begin, &mut whole);
    join.push(1320, "audit(1.000:7): ", begin, &mut whole);
    join.push(1300, "nonsense", begin, &mut whole);
    assert_eq!(
        whole,
        [
            "type=USER_LOGIN msg=audit(1.000:9): pid=3 msg='op=login'",
            "type=SYSCALL msg=audit(1.000:7): pid=1\ntype=EXECVE msg=audit(1.000:7): argc=1",
        ]
    );
    whole.clear();
    join.settle(begin, &mut whole);
    assert!(whole.is_empty(), "it may go on");
    join.settle(begin + SETTLE, &mut whole);
    assert_eq!(whole, ["type=SYSCALL msg=audit(1.000:8): pid=2"]);
    // Without ends, without end.
    whole.clear();
    for i in 0..1_000 {
        join.push(1300, &format!("audit(1.000:{i}): {}", "x".repeat(1_000)), begin, &mut whole);
        join.push(1302, &format!("audit(1.000:{}): {}", i % 3, "x".repeat(10_000)), begin, &mut whole);
    }
    assert!(join.0.len() <= OPEN_MAX && join.0.values().all(|(lines, _)| lines.len() < EVENT_BYTES_MAX));
}

/// The kernel's auditing, switched on with one rule for the executions of our children; put back at the end.
struct Auditing {
    socket: KernelSocket,
    rule: Vec<u8>,
}

const SET: u16 = 1001;
const ADD_RULE: u16 = 1011;
const DEL_RULE: u16 = 1012;

impl Auditing {
    fn begin() -> Result<Self, String> {
        if !cfg!(target_arch = "x86_64") {
            return Err("the rule of this test is for x86_64".to_owned());
        }
        let socket = KernelSocket::netlink(Some(netlink::AUDIT), READLOG, &[], BUFFER_BYTES);
        let mut socket = socket.map_err(|error| format!("nobody may listen: {error}"))?;
        match is_enabled(&mut socket) {
            Some(false) => {}
            Some(true) => return Err("auditing is in use on this machine".to_owned()),
            None => return Err("the kernel does not say whether it audits".to_owned()),
        }
        let auditing = Self { socket, rule: rule() };
        auditing.say(ADD_RULE, &auditing.rule);
        auditing.enable(1);
        Ok(auditing)
    }

    fn say(&self, kind: u16, body: &[u8]) {
        let mut message = ((NETLINK_HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(REQUEST.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        self.socket.tell(&message).unwrap();
    }

    fn enable(&self, enabled: u32) {
        // Which of the numbers is meant, then that number.
        let numbers: Vec<u8> =
            [1, enabled, 0, 0, 0, 0, 0, 0, 0, 0].iter().flat_map(|n: &u32| n.to_ne_bytes()).collect();
        self.say(SET, &numbers);
    }
}

impl Drop for Auditing {
    fn drop(&mut self) {
        self.say(DEL_RULE, &self.rule);
        self.enable(0);
    }
}

/// Always, at its end, `execve` of a process whose parent is this one.
fn rule() -> Vec<u8> {
    let mut numbers = vec![4u32, 2, 2];
    let mut calls = [0u32; 64];
    calls[59 / 32] = 1 << (59 % 32);
    numbers.extend(calls);
    let equal = 0x4000_0000;
    for of_fields in [[11, 18], [0xc000_003e, std::process::id()], [equal, equal]] {
        numbers.extend(of_fields);
        numbers.extend([0; 62]);
    }
    numbers.push(0);
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

#[test]
fn an_execution_under_a_rule_is_told_with_its_arguments() {
    let (context, mut heard) = context();
    let socket = match KernelSocket::netlink(Some(netlink::AUDIT), READLOG, &[], BUFFER_BYTES) {
        Ok(socket) => socket,
        Err(error) => return eprintln!("SKIPPED: nobody may listen: {error}"),
    };
    let auditing = match Auditing::begin() {
        Ok(auditing) => auditing,
        Err(why) => return eprintln!("SKIPPED: {why}"),
    };
    let listen = Listen::new(context, socket, 10_000);
    let thread = std::thread::spawn(move || listen.run());
    let long = "y".repeat(2_000);
    let mut child = Command::new("/bin/true").args(["a b", "é", &long]).spawn().unwrap();
    let pid = child.id().to_string();
    child.wait().unwrap();
    let found = heard.until(|log| log.labels.get("pid") == Some(&pid));
    drop(auditing);
    heard.stopper.stop();
    thread.join().unwrap();
    let found = found.unwrap();
    assert_eq!((&*found.stream, &*found.labels["event_type"]), ("audit", "audit_execve"));
    assert_eq!(found.labels["cmdline"], format!("/bin/true a b é {long}"));
    assert_eq!(found.labels["ppid"], std::process::id().to_string());
    assert_eq!(found.labels["process"], "true");
    let mut socket = KernelSocket::netlink(Some(netlink::AUDIT), READLOG, &[], BUFFER_BYTES).unwrap();
    assert_eq!(is_enabled(&mut socket), Some(false), "as it was found");
}

#[test]
fn the_daemons_log_gives_the_same_events() {
    use crate::collectors::files::follow_for_test;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let text = "type=SYSCALL msg=audit(1.000:7): pid=1 comm=\"a\"\ntype=EXECVE msg=audit(1.000:7): argc=1 a0=\"x\"\n\
                type=SYSCALL msg=audit(1.000:8): pid=2\ntype=USER_LOGIN msg=audit(1.000:9): pid=3 msg='op=login res=failed'\n";
    std::fs::write(&path, text).unwrap();
    let messages = follow_for_test(&path, Multiline::Serial);
    let events: Vec<_> = messages.iter().map(|lines| record::event(lines, 0).unwrap()).collect();
    let types: Vec<&str> = events.iter().map(|event| &*event.labels["event_type"]).collect();
    assert_eq!(types, ["audit_execve", "audit_syscall", "audit_user_login"]);
}
