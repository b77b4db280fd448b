//! E-mail at a mail server, and read by a parser of mail, that others wrote.

use connectors::channels::{ChannelConfig, EmailConfig, SmtpTls, open};
use model::{Detection, ErrorKind};
use runtime::{KeyRing, Secret};
use std::time::Duration;
use testkit::builders::{EPOCH, alert};
use testkit::servers::Aiosmtpd;

fn config(server: &Aiosmtpd, password: &str) -> EmailConfig {
    EmailConfig {
        name: "email".into(),
        host: "localhost".into(),
        port: server.port,
        tls: SmtpTls::StartTls,
        dangerous_plaintext_remote: false,
        ca_file: Some(server.certs.ca.clone()),
        timeout: Duration::from_secs(20),
        user: "mutt".into(),
        passwords: KeyRing::fixed(Secret::new(password)),
        from: "Wächter <mutt@example.com>".into(),
        to: vec!["soc@example.com".into(), "noc@example.com".into()],
        reply_to: Some("soc@example.com".into()),
        subject: None,
        text: None,
        html: None,
        alert_url: "https://mutt.example.com/alerts/{id}".into(),
    }
}

#[tokio::test]
async fn a_mail_server_takes_what_we_send_and_reads_what_we_meant() {
    let server = Aiosmtpd::start("geheim ü");
    let channel = open(ChannelConfig::Email(Box::new(config(&server, "geheim ü")))).expect("it opens");
    channel.probe().await.unwrap();
    let sly = "größer\r\nBcc: evil@example.com\r\n\r\n.\r\nMAIL FROM:<x@y>\u{0} =?utf-8?q?=0d=0aX:_y?= 日本";
    let detection = Detection {
        rule_uid: "uid-1".into(),
        title: format!("{sly}{}", " long".repeat(60)),
        description: "ä".repeat(2_000),
        fields: vec![("user".into(), "<b>root</b>".into())],
        events: 3,
        ..Detection::default()
    };
    let alert = alert().message(sly).host("wéb-1").detection(detection).build();
    channel.deliver(&alert, EPOCH).await.unwrap();
    let taken = server.taken();
    let [mail] = &taken[..] else { panic!("one message: {taken:?}") };
    assert_eq!((&mail["encrypted"], &mail["login"]), (&true.into(), &"mutt".into()));
    assert_eq!(mail["from"], "mutt@example.com");
    assert_eq!(mail["to"], serde_json::json!(["soc@example.com", "noc@example.com"]));
    assert_eq!((&mail["defects"], &mail["attachments"]), (&serde_json::json!([]), &0.into()));
    let header = |name: &str| mail["headers"][name].as_str().unwrap_or_else(|| panic!("no {name}: {mail}")).to_owned();
    assert_eq!(header("From"), "Wächter <mutt@example.com>");
    assert_eq!(header("Message-ID"), format!("<{}.email@example.com>", alert.id));
    assert_eq!(header("X-MUTT-Host"), "wéb-1");
    let subject = header("Subject");
    assert!(
        subject.starts_with("[Major] größer Bcc: evil@example.com . MAIL FROM:<x@y> = ?utf-8?q?=0d=0aX:_y?= 日本 long"),
        "{subject}"
    );
    for name in mail["headers"].as_object().unwrap().keys() {
        assert!(!["Bcc", "X", "MAIL FROM"].contains(&name.as_str()), "{name}");
    }
    let part = |kind: &str| mail[kind].as_str().unwrap_or_else(|| panic!("no {kind}: {mail}")).replace("\r\n", "\n");
    let (plain, html) = (part("plain"), part("html"));
    assert!(plain.contains("größer\nBcc: evil@example.com\n\n.\nMAIL FROM:<x@y>\u{fffd}"), "{plain:?}");
    assert!(plain.contains(&"ä".repeat(2_000)) && plain.contains(&format!("alerts/{}", alert.id)));
    assert!(html.contains("<code>&lt;b&gt;root&lt;&#x2f;b&gt;</code>"), "{html}");
}

#[tokio::test]
async fn a_mail_server_that_does_not_know_the_password_gets_no_alert() {
    let server = Aiosmtpd::start("right");
    let channel = open(ChannelConfig::Email(Box::new(config(&server, "wrong")))).expect("it opens");
    let error = channel.deliver(&alert().build(), EPOCH).await.unwrap_err();
    assert!(error.kind == ErrorKind::Denied && !error.receiver_at_fault, "{error:?}");
    assert_eq!(server.taken().len(), 0);
    // A second password, as while it is being changed.
    let passwords = KeyRing::from(vec![Secret::new("wrong"), Secret::new("right")]);
    let channel =
        open(ChannelConfig::Email(Box::new(EmailConfig { passwords, ..config(&server, "") }))).expect("it opens");
    channel.deliver(&alert().build(), EPOCH).await.unwrap();
    assert_eq!(server.taken().len(), 1);
}
