use super::*;
use model::Detection;
use runtime::Secret;
use testkit::builders::{EPOCH, alert};

pub(super) fn config() -> EmailConfig {
    EmailConfig {
        name: "email".into(),
        host: "127.0.0.1".into(),
        port: 2525,
        tls: SmtpTls::DangerousNone,
        dangerous_plaintext_remote: false,
        ca_file: None,
        timeout: Duration::from_secs(5),
        user: String::new(),
        passwords: KeyRing::fixed(Secret::new("")),
        from: "MUTT Alerts <mutt@example.com>".into(),
        to: vec!["soc@example.com".into(), "\"N., O.\" <noc@example.com>".into()],
        reply_to: None,
        subject: None,
        text: None,
        html: None,
        alert_url: "https://mutt.example.com/alerts/{id}".into(),
    }
}

fn message(config: EmailConfig, alert: &Alert) -> String {
    let email = Email::open(config).unwrap_or_else(|e| panic!("{e}"));
    String::from_utf8(email.message(alert, EPOCH).unwrap()).unwrap()
}

fn head(message: &str) -> &str {
    message.split_once("\r\n\r\n").unwrap().0
}

#[test]
fn an_alert_is_a_text_and_an_html_alternative_under_the_alerts_id() {
    let detection = Detection {
        rule_uid: "uid-1".into(),
        title: "Many failed logins".into(),
        description: "Somebody guesses <passwords>.".into(),
        tags: vec!["attack.t1110".into()],
        references: vec!["https://attack.mitre.org/".into()],
        false_positives: vec!["Forgetful people".into()],
        fields: vec![("src_ip".into(), "192.0.2.7".into())],
        events: 5,
        ..Detection::default()
    };
    let alert = alert().detection(detection).build();
    let message = message(config(), &alert);
    let head = head(&message);
    for line in [
        "From: \"MUTT Alerts\" <mutt@example.com>",
        "Subject: [Major] Many failed logins on router-1",
        "Date: Thu, 01 Jan 2026 00:00:00 +0000",
        &format!("Message-ID: <{}.email@example.com>", alert.id),
        "Auto-Submitted: auto-generated",
        &format!("X-MUTT-Alert-Id: {}", alert.id),
        "X-MUTT-Severity: Major",
        "X-MUTT-Host: router-1",
        "X-MUTT-Rule: uid-1",
        "MIME-Version: 1.0",
    ] {
        assert!(head.lines().any(|l| l == line), "{line}\n{head}");
    }
    assert!(head.contains("To: soc@example.com, =?utf-8?b?Ti4sIE8u?= <noc@example.com>"), "{head}");
    assert!(head.contains("Content-Type: multipart/alternative"), "{head}");
    let text = message.replace("=\r\n", "");
    for part in [
        "Many failed logins\r\n\r\nInterface Gi0/1 changed state to down\r\n\r\nSomebody guesses <passwords>.\r\n",
        "  src_ip: 192.0.2.7\r\n",
        "Events:   5\r\n",
        "Tags: attack.t1110\r\n",
        "Known false positives:\r\n  Forgetful people",
        &format!("https://mutt.example.com/alerts/{}\r\n", alert.id),
        "Somebody guesses &lt;passwords&gt;.",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn nothing_that_an_alert_says_becomes_a_header_or_a_second_message() {
    let sly =
        "x\r\nBcc: evil@example.com\r\n\r\nbody\r\n.\r\nMAIL FROM:<a@b>\u{0}\u{202e}\u{85}\u{2028} =?utf-8?q?Bcc:?= ü";
    let detection = Detection {
        rule_uid: sly.into(),
        title: sly.into(),
        fields: vec![(sly.into(), sly.into())],
        ..Detection::default()
    };
    for alert in [
        alert().message(sly).host(sly).team(sly).signature(sly).detection(detection).build(),
        alert().message(sly).host(sly).team(sly).signature(sly).build(),
        alert().message("x".repeat(100_000)).host("h".repeat(10_000)).team("t ".repeat(9_000)).build(),
        alert().message("ü".repeat(100_000)).host("ü".repeat(10_000)).build(),
        alert().message("").host("").team("").build(),
    ] {
        let message = message(config(), &alert);
        let names: Vec<&str> = head(&message)
            .split("\r\n")
            .filter(|line| !line.starts_with([' ', '\t']))
            .map(|line| line.split_once(':').unwrap_or_else(|| panic!("no header: {line}")).0)
            .collect();
        for name in names {
            let ours = matches!(
                name,
                "From"
                    | "To"
                    | "Date"
                    | "Message-ID"
                    | "References"
                    | "Subject"
                    | "Auto-Submitted"
                    | "MIME-Version"
                    | "Content-Type"
                    | "X-Auto-Response-Suppress"
            );
            assert!(ours || name.starts_with("X-MUTT-"), "{name}\n{message}");
        }
        assert!(!head(&message).contains("=?utf-8?q?Bcc"), "{message}");
        assert!(message.is_ascii() && !message.contains('\0'));
        assert!(message.lines().all(|line| line.len() <= 998), "a line is too long");
        assert!(message.split("\r\n").all(|line| !line.contains(['\r', '\n'])), "bare line ends");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_an_alert_says_the_message_stays_one_message(text in "(?s).{0,300}", host in "(?s).{0,80}") {
        let alert = alert().message(&text).host(&host).team(&text).build();
        let message = message(config(), &alert);
        proptest::prop_assert!(message.is_ascii() && message.lines().all(|line| line.len() <= 998));
        proptest::prop_assert!(message.split("\r\n").all(|line| !line.contains(['\r', '\n'])));
        let names = head(&message).split("\r\n").filter(|line| !line.starts_with([' ', '\t'])).map(|l| l.split(':').next());
        let known = ["From", "To", "Date", "Message-ID", "References", "Subject", "Auto-Submitted", "MIME-Version",
            "Content-Type", "X-Auto-Response-Suppress"];
        for name in names.flatten() {
            proptest::prop_assert!(known.contains(&name) || name.starts_with("X-MUTT-"), "{}", name);
        }
    }
}

#[test]
fn alerts_of_one_fault_are_one_thread_and_every_try_is_one_message() {
    let line = |alert: &Alert, name: &str| {
        let message = message(config(), alert);
        head(&message).lines().find(|line| line.starts_with(name)).unwrap().to_owned()
    };
    let (first, second) = (alert().signature("s").build(), alert().signature("s").number(2).build());
    assert_eq!(line(&first, "References:"), line(&second, "References:"));
    assert_ne!(line(&first, "References:"), line(&alert().signature("t").build(), "References:"));
    assert_eq!(line(&first, "Message-ID:"), line(&first, "Message-ID:"));
    assert_ne!(line(&first, "Message-ID:"), line(&second, "Message-ID:"));
}

#[test]
fn own_templates_count_and_where_one_fails_the_alert_is_sent_without_it() {
    let own = EmailConfig {
        subject: Some("{{ alert.host }}: {{ alert.event.n + 1 if alert.event.n else 'no number' }}".into()),
        text: Some("T {{ alert.message }} <b>".into()),
        ..config()
    };
    let good = message(own.clone(), &alert().raw_json(r#"{"n":4}"#).message("m").build());
    assert!(
        good.contains("Subject: router-1: 5\r\n") && good.contains("T m <b>") && !good.contains("multipart"),
        "{good}"
    );
    let fails = message(own, &alert().raw_json(r#"{"n":[1]}"#).message("m").build());
    assert!(fails.contains("Subject: m\r\n"), "{fails}");
    let html = EmailConfig { html: Some("<i>{{ alert.message }}</i>".into()), ..config() };
    assert!(message(html, &alert().message("<m>").build()).contains("<i>&lt;m&gt;</i>"));
    let no_html = EmailConfig { html: Some(String::new()), ..config() };
    assert!(!message(no_html, &alert().build()).contains("text/html"));
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_sent() {
    let refused = |config: EmailConfig, says: &str| {
        let error = Email::open(config).err().unwrap_or_else(|| panic!("{says}"));
        assert!(error.kind == ErrorKind::Invalid && error.reason.contains(says), "{says}: {error}");
    };
    let remote = EmailConfig { host: "mail.example.com".into(), ..config() };
    refused(remote.clone(), "this host only");
    assert!(Email::open(EmailConfig { dangerous_plaintext_remote: true, ..remote }).is_ok());
    for host in ["localhost", "LOCALHOST", "::1", "127.0.0.7"] {
        assert!(Email::open(EmailConfig { host: host.into(), ..config() }).is_ok(), "{host}");
    }
    refused(EmailConfig { host: "localhost.example.com".into(), ..config() }, "this host only");
    refused(EmailConfig { host: String::new(), ..config() }, "mail server");
    refused(EmailConfig { to: vec![], ..config() }, "1 to 100");
    for bad in ["", "nobody", "a b@c", "a@b>\r\nRCPT TO:<c@d>", "a@", "ü@example.com", "a@b\nBcc: c@d"] {
        refused(EmailConfig { to: vec![bad.into()], ..config() }, "`to`");
        refused(EmailConfig { from: bad.into(), ..config() }, "`from`");
    }
    refused(EmailConfig { alert_url: "javascript:{id}".into(), ..config() }, "alert_url");
    refused(EmailConfig { subject: Some("{{ alert.hots }}".into()), ..config() }, "`alert.host`?");
    refused(
        EmailConfig { tls: SmtpTls::StartTls, ca_file: Some("/nowhere/ca.pem".into()), ..config() },
        "/nowhere/ca.pem",
    );
}

#[test]
fn refusals_mean_what_they_mean_for_the_next_try() {
    for (code, step, expected) in [
        (421, Step::Greeting, ErrorKind::Unavailable),
        (554, Step::Greeting, ErrorKind::Unavailable),
        (454, Step::StartTls, ErrorKind::Unavailable),
        (454, Step::Auth, ErrorKind::Unavailable),
        (535, Step::Auth, ErrorKind::Denied),
        (504, Step::Auth, ErrorKind::Denied),
        (530, Step::Mail, ErrorKind::Denied),
        (550, Step::Mail, ErrorKind::Invalid),
        (450, Step::Rcpt, ErrorKind::Unavailable),
        (452, Step::Rcpt, ErrorKind::Full),
        (550, Step::Rcpt, ErrorKind::Invalid),
        (451, Step::Data, ErrorKind::Unavailable),
        (554, Step::Data, ErrorKind::Invalid),
        (250, Step::Data, ErrorKind::Unavailable),
    ] {
        assert_eq!(kind(step, &Reply { code, text: String::new() }), expected, "{code} to {}", step.as_str());
    }
}
