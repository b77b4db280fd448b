//! Whatever somebody calls himself, an action hits nobody else.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

use fields::{from_event, parsers};
use model::Fields;
use proptest::prelude::*;
use serde_json::json;

/// The address that really did it.
const REAL: &str = "203.0.113.9";

/// Pieces of lines of all formats, of which names are made.
const PIECES: &[&str] = &[
    " from ",
    " port ",
    " ssh2",
    "10.0.0.1",
    "2001:db8::bad",
    "22",
    "root",
    "x",
    " ",
    ": ",
    ", ",
    "invalid user ",
    " [preauth]",
    "user ",
    "Failed password for ",
    " for ",
    "ED25519-CERT",
    " ID ",
    " (serial 0) CA ED25519 SHA256:bbbb",
    ": RSA SHA256:aaaa",
    "rhost=",
    " rhost=",
    "  user=",
    "ruser=",
    " ; USER=",
    " ; COMMAND=",
    " : ",
    "TTY=",
    ", rip=",
    ", lip=",
    ">, method=",
    "<",
    "] FAIL LOGIN: Client \"",
    "\"",
    "] \"",
    "] ",
    " [",
    "[pid 1] [",
    "(",
    ")",
    "@",
    "[10.0.0.1]",
    " addr=10.0.0.1",
    "acct=",
    "'",
    "addr=",
    "sshd[1]: ",
    "src=10.0.0.1 ",
    " src=10.0.0.1",
    "=",
    "|",
    "{",
    "}",
    "\\",
    "é",
    ", client: 10.0.0.1, server: ",
    " - - [26/Nov/2026:01:00:00 +0000] \"GET / HTTP/1.1\" 200 1",
    "\n",
    "<GS>",
    " port 22 ssh2",
    " from 10.0.0.1 port 22 ssh2",
    " not allowed because ",
    "SRC=10.0.0.1 ",
    "(Login failed)",
    "]) - USER ",
    ") [WARNING] ",
    " (10.0.0.1[10.0.0.1]) - ",
    ": 535 ",
    "] ",
    "session opened for user ",
    " by ",
    "type=USER_LOGIN msg=audit(1.1:1): ",
    ": SASL LOGIN authentication failed: ",
    " [10.0.0.1]:1",
    " I=[10.0.0.1]:25",
    ", relay=x [10.0.0.1]",
    ", user=",
    " (may be forged)",
    "]): USER ",
    "(pam_unix) authentication failure; ",
    "UID=\"root\"",
];

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), 0..8).prop_map(|pieces| pieces.concat())
}

fn hexadecimal(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02X}")).collect()
}

/// Lines in which somebody at the real address is called `name`, as the programs write them.
fn lines(name: &str) -> Vec<(&'static str, String)> {
    // Web servers escape quotes and control characters; the mail server does not.
    let web = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let one_line = name.replace('\n', "\\n");
    let cef = name.replace('\\', "\\\\").replace('=', "\\=").replace('\n', "\\n");
    let mut lines = vec![
        (
            "postfix/smtpd",
            format!("warning: unknown[{REAL}]: SASL LOGIN authentication failed: x, sasl_username={one_line}"),
        ),
        (
            "dovecot",
            format!(
                "imap-login: Disconnected (auth failed, 1 attempts): user=<{one_line}>, method=PLAIN, rip={REAL}, lip=192.0.2.1, TLS"
            ),
        ),
        ("vsftpd", format!("[pid 7] [{one_line}] FAIL LOGIN: Client \"{REAL}\"")),
        ("proftpd", format!("web1 ({REAL}[{REAL}]) - USER {one_line} (Login failed): Incorrect password")),
        ("proftpd", format!("web1 ({REAL}[{REAL}]): USER {one_line} (Login failed): Incorrect password")),
        (
            "sendmail",
            format!("26H8: AUTH failure (LOGIN): x (-13) SASL(-13): x, user={one_line}, relay=host.example [{REAL}]"),
        ),
        ("exim", format!("a authenticator failed for ({one_line}) [{REAL}]:5 I=[192.0.2.1]:25: 535 Incorrect data")),
        (
            "exim",
            format!("a authenticator failed for (x) [{REAL}]:5 I=[192.0.2.1]:25 U={one_line}: 535 Incorrect data"),
        ),
        ("postfix-in/smtpd", format!("warning: unknown[{REAL}]:5: SASL LOGIN authentication failed: {one_line}")),
        ("pure-ftpd", format!("(?@{REAL}) [WARNING] Authentication failed for user [{one_line}]")),
        (
            "exim",
            format!(
                "login authenticator failed for (x) [{REAL}]:5000: 535 Incorrect authentication data (set_id={one_line})"
            ),
        ),
        (
            "nginx",
            format!("{REAL} - {web} [26/Nov/2026:01:00:00 +0000] \"GET /{web} HTTP/1.1\" 200 1 \"{web}\" \"{web}\""),
        ),
        ("", format!("{REAL} - - [26/Nov/2026:01:00:00 +0000] \"GET /{web} HTTP/1.1\" 200 1 \"{web}\" \"{web}\"")),
        (
            "nginx",
            format!(
                "2026/11/26 01:00:00 [error] 7#7: *1 open() \"/srv/{one_line}\" failed (2: x), client: {REAL}, server: _, request: \"GET /{one_line} HTTP/1.1\""
            ),
        ),
        (
            "",
            format!(
                "type=USER_LOGIN msg=audit(1.2:3): pid=1 uid=0 msg='op=login acct={} exe=\"/usr/sbin/sshd\" hostname=? addr={REAL} terminal=ssh res=failed'",
                hexadecimal(name)
            ),
        ),
        ("", format!("CEF:0|A|B|1|1|n|5|src={REAL} suser={cef} msg={cef}")),
        ("dnsmasq-dhcp", format!("DHCPACK(eth0) {REAL} 00:11:22:33:44:55 {one_line}")),
        ("sshd", format!("Received disconnect from {REAL} port 5:11: {one_line} [preauth]")),
        ("sshd", format!("Bad protocol version identification '{one_line}' from {REAL} port 5")),
        (
            "sshd",
            format!(
                "Failed publickey for a from {REAL} port 5 ssh2: ED25519-CERT SHA256:aa ID {one_line} (serial 1) CA RSA SHA256:bb"
            ),
        ),
        (
            "sshd",
            format!(
                "Disconnecting invalid user {one_line} {REAL} port 5: Change of username or service not allowed: ({one_line},ssh-connection) -> ({one_line},ssh-connection) [preauth]"
            ),
        ),
    ];
    for line in [
        format!("Failed password for invalid user {one_line} from {REAL} port 5 ssh2"),
        format!("Failed password for {one_line} from {REAL} port 5 ssh2"),
        format!(
            "Failed publickey for invalid user {one_line} from {REAL} port 5 ssh2: ED25519-CERT SHA256:aa ID y (serial 1) CA RSA SHA256:bb"
        ),
        format!("Failed none for invalid user {one_line} from {REAL} port 5 ssh2 [preauth]"),
        format!("Invalid user {one_line} from {REAL} port 5"),
        format!("Invalid user {one_line} from {REAL}"),
        format!(
            "error: maximum authentication attempts exceeded for invalid user {one_line} from {REAL} port 5 ssh2 [preauth]"
        ),
        format!("Connection closed by invalid user {one_line} {REAL} port 5 [preauth]"),
        format!("Connection reset by authenticating user {one_line} {REAL} port 5 [preauth]"),
        format!("Disconnected from invalid user {one_line} {REAL} port 5 [preauth]"),
        format!("User {one_line} from {REAL} not allowed because not listed in AllowUsers"),
        format!("error: PAM: Authentication failure for illegal user {one_line} from {REAL}"),
        format!(
            "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={REAL}  user={one_line}"
        ),
        format!(
            "PAM 2 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost={REAL}  user={one_line}"
        ),
    ] {
        lines.push(("sshd", format!("message repeated 2 times: [ {line}]")));
        lines.push(("sshd", line));
    }
    lines.push((
        "login",
        format!("pam_unix(rlogin:auth): authentication failure; logname= uid=0 euid=0 tty= ruser={one_line} rhost={REAL}  user=root"),
    ));
    lines.push((
        "apache2",
        format!("[Wed Nov 26 01:00:00.1 2026] [auth_basic:error] [pid 7:tid 9] [client {REAL}:5] AH01617: user {web}: authentication failure for \"/{web}\": Password Mismatch"),
    ));
    lines.push((
        "haproxy",
        format!("{REAL}:5 [26/Nov/2026:01:00:00.655] a b 1/1/1/1/1 404 5 - - ---- 1/1/1/1/0 0/0 {{{web}}} \"GET /{web} HTTP/1.1\""),
    ));
    // Of a program that nobody knows, nothing is believed.
    lines.push(("myapp", one_line.clone()));
    lines.push(("myapp", format!("request by {one_line}")));
    lines.push(("systemd", one_line));
    lines
}

fn read(program: &str, line: &str) -> Fields<'static> {
    let event = json!({"hostname": "h", "message": line, "timestamp": 1, "program": program}).to_string();
    let mut fields = Fields::default();
    from_event(&event, &mut fields).unwrap();
    fields.into_owned()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_name_never_becomes_an_address(name in name()) {
        for (program, line) in lines(&name) {
            let fields = read(program, &line);
            for field in ["SourceIp", "src_ip", "c-ip", "client_ip"] {
                // An object of JSON is the application's own word.
                if program == "myapp" && line.starts_with('{') {
                    continue;
                }
                let values: Vec<&str> = fields.values(field).collect();
                prop_assert!(
                    values.iter().all(|value| *value == REAL) && values.len() < 2,
                    "{field} is {values:?} of {program}: {line}"
                );
            }
        }
    }

    /// None of the lines is about somebody who got in.
    #[test]
    fn a_name_never_becomes_what_happened(name in name()) {
        for (program, line) in lines(&name) {
            if program == "myapp" && line.starts_with('{') {
                continue;
            }
            let fields = read(program, &line);
            prop_assert_ne!(fields.first("event_outcome"), Some("success"), "{}: {}", program, line);
            let allowed: &[&str] = match program {
                "sshd" => &["ssh_fail", "pam_fail"],
                "haproxy" | "nginx" | "myapp" | "systemd" | "dnsmasq-dhcp" | "" => &[],
                _ => &["login_fail", "pam_fail"],
            };
            prop_assert!(
                fields.values("event_type").all(|word| allowed.contains(&word)),
                "{program}: {line}: {:?}", fields.first("event_type")
            );
        }
    }

    #[test]
    fn a_directory_or_a_command_never_becomes_who_ran_sudo(name in name()) {
        let name = name.replace('\n', " ");
        let command = format!("/bin/echo {name}");
        let line = format!("deploy : TTY=pts/0 ; PWD=/home/{name} ; USER=root ; COMMAND={command}");
        let fields = read("sudo", &line);
        prop_assert_eq!(fields.values("User").collect::<Vec<_>>(), ["deploy"]);
        prop_assert!(fields.first("CommandLine").unwrap().ends_with(command.trim_end()), "{}", line);
        prop_assert!(fields.values("TargetUser").any(|user| user == "root") || line.matches(" ; COMMAND=").count() > 1);
        prop_assert!(!fields.exists("SourceIp"));
    }

    #[test]
    fn no_line_makes_a_parser_panic(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..20), any in "\\PC{0,40}") {
        let text = pieces.concat();
        for program in parsers::ALL.iter().flat_map(|parser| parser.programs).chain(&[""]) {
            for line in [&text, &any, &format!("{any}{text}"), &format!("{text}{any}")] {
                read(program, line);
            }
        }
    }

    /// Lines as recorded, cut and crossed with each other.
    #[test]
    fn no_cut_line_makes_a_parser_panic(cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..120, 0usize..120), 1..4)) {
        let recorded: Vec<(&str, &str)> = [
            include_str!("../fixtures/sshd.txt"),
            include_str!("../fixtures/sudo.txt"),
            include_str!("../fixtures/logins.txt"),
            include_str!("../fixtures/kernel.txt"),
            include_str!("../fixtures/auditd.txt"),
            include_str!("../fixtures/web.txt"),
            include_str!("../fixtures/services.txt"),
        ]
        .iter()
        .flat_map(|file| file.lines())
        .filter_map(|line| line.strip_prefix("> ")?.split_once("| "))
        .collect();
        let mut text = String::new();
        let mut programs = Vec::new();
        for (which, from, length) in cuts {
            let (program, line) = recorded[which.index(recorded.len())];
            programs.push(program.trim());
            text.extend(line.chars().skip(from).take(length));
        }
        for program in programs {
            read(program, &text);
            read("", &text);
        }
    }
}

/// A long line is read in a time that grows with its length: a parser that looks at everything
/// behind every place would not come to an end here.
#[test]
fn long_lines_of_repeated_pieces_come_to_an_end() {
    for piece in PIECES {
        let text = piece.repeat(60_000 / piece.len());
        for program in
            parsers::ALL.iter().filter_map(|parser| parser.programs.first()).chain(&["", "su", "dovecot", "exim"])
        {
            read(program, &text);
        }
        for (program, line) in lines(&text) {
            read(program, &line);
        }
    }
    for prefix in ["Failed publickey for ", "Disconnecting invalid user ", "Invalid user "] {
        for piece in [" from 1.1.1.1 port 1 ssh2: K ID ", " 1.1.1.1 port 1: ", " from 1.1.1.1 port 1"] {
            read("sshd", &format!("{prefix}{}", piece.repeat(20_000)));
        }
    }
}
