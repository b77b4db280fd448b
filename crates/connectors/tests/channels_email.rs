//! E-mail as a mail server sees it: TLS, logins, refusals, broken servers, reused sessions.

use connectors::channels::{Channel, ChannelConfig, DeliveryError, EmailConfig, SmtpTls, open};
use model::ErrorKind;
use runtime::{KeyRing, Secret};
use std::sync::Arc;
use std::time::Duration;
use testkit::builders::{EPOCH, alert};
use testkit::{SmtpBehaviour as Does, SmtpReceiver, SmtpSecurity, SmtpStep};

const PASSWORD: &str = "correct horse";
/// `\0mutt\0correct horse` in base64.
const PLAIN: &str = "AG11dHQAY29ycmVjdCBob3JzZQ==";

fn config(server: &SmtpReceiver, tls: SmtpTls) -> EmailConfig {
    EmailConfig {
        name: "email".into(),
        host: "localhost".into(),
        port: server.port(),
        tls,
        dangerous_plaintext_remote: false,
        ca_file: (tls != SmtpTls::DangerousNone).then(|| server.ca_file()),
        timeout: Duration::from_secs(5),
        user: String::new(),
        passwords: KeyRing::fixed(Secret::new("")),
        from: "MUTT <mutt@example.com>".into(),
        to: vec!["soc@example.com".into(), "noc@example.com".into()],
        reply_to: None,
        subject: None,
        text: None,
        html: None,
        alert_url: String::new(),
    }
}

fn channel(config: EmailConfig) -> Arc<dyn Channel> {
    open(ChannelConfig::Email(Box::new(config))).unwrap_or_else(|e| panic!("{e}"))
}

async fn plain() -> (SmtpReceiver, Arc<dyn Channel>) {
    let server = SmtpReceiver::start(SmtpSecurity::Plain).await;
    let channel = channel(config(&server, SmtpTls::DangerousNone));
    (server, channel)
}

async fn fails(channel: &Arc<dyn Channel>) -> DeliveryError {
    channel.deliver(&alert().build(), EPOCH).await.map(drop).expect_err("it must fail")
}

fn is_transient(error: &DeliveryError, kind: ErrorKind) {
    assert!(error.kind == kind && kind.is_transient() && error.receiver_at_fault, "{error:?}");
    assert!(error.reason.contains("://localhost:"), "people must see whom it is about: {error}");
}

#[tokio::test]
async fn an_alert_arrives_encrypted_and_logged_in_either_way() {
    for (security, tls) in [(SmtpSecurity::StartTls, SmtpTls::StartTls), (SmtpSecurity::Implicit, SmtpTls::Implicit)] {
        for (mechanisms, user) in [("", ""), ("PLAIN LOGIN", "mutt"), ("LOGIN", "mutt")] {
            let server = SmtpReceiver::with_login(security, mechanisms).await;
            let login = EmailConfig {
                user: user.into(),
                passwords: KeyRing::fixed(Secret::new(PASSWORD)),
                ..config(&server, tls)
            };
            let channel = channel(login);
            let alert = alert().message(".\n.. größer\n.\nend").build();
            let receipt = channel.deliver(&alert, EPOCH).await.unwrap_or_else(|e| panic!("{security:?}: {e}"));
            assert_eq!(receipt.detail, "SMTP 250");
            let mails = server.mails();
            let [mail] = &mails[..] else { panic!("one message") };
            assert!(mail.encrypted);
            assert_eq!(
                (mail.from.as_str(), &mail.to[..]),
                ("mutt@example.com", &["soc@example.com".to_owned(), "noc@example.com".to_owned()][..])
            );
            assert_eq!(mail.header("Message-ID").unwrap(), format!("<{}.email@example.com>", alert.id));
            assert_eq!(mail.header("Auto-Submitted").as_deref(), Some("auto-generated"));
            assert_eq!(mail.user.as_deref(), Some(user).filter(|user| !user.is_empty()));
            let expected = if user.is_empty() { vec![] } else { vec![("mutt".to_owned(), PASSWORD.to_owned())] };
            assert_eq!(server.logins(), expected);
        }
    }
}

#[tokio::test]
async fn one_session_carries_many_messages_and_an_old_one_is_replaced() {
    let (server, channel) = plain().await;
    channel.probe().await.unwrap();
    for n in 0..5 {
        channel.deliver(&alert().number(n).build(), EPOCH).await.unwrap();
    }
    assert_eq!((server.connections(), server.mails().len()), (1, 5));
    // The server has closed it meanwhile, or says so when it is asked.
    for behaviour in [Does::Close, Does::reply("421 idle for too long")] {
        server.script([(SmtpStep::Reset, behaviour)]);
        channel.deliver(&alert().build(), EPOCH).await.unwrap();
    }
    assert_eq!((server.connections(), server.mails().len()), (3, 7));
    server.stop().await;
    is_transient(&fails(&channel).await, ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_server_that_may_take_it_later_is_tried_again_and_nothing_was_sent() {
    let (server, channel) = plain().await;
    for (step, reply, kind) in [
        (SmtpStep::Greeting, "421 too busy", ErrorKind::Unavailable),
        (SmtpStep::Greeting, "554 not for you", ErrorKind::Unavailable),
        (SmtpStep::Ehlo, "421 too busy", ErrorKind::Unavailable),
        (SmtpStep::Mail, "451 try later", ErrorKind::Unavailable),
        (SmtpStep::Mail, "452 disk full", ErrorKind::Full),
        (SmtpStep::Rcpt, "450 greylisted", ErrorKind::Unavailable),
        (SmtpStep::Data, "421 closing", ErrorKind::Unavailable),
        (SmtpStep::End, "451 local error", ErrorKind::Unavailable),
    ] {
        server.set(Some((step, Does::reply(reply))));
        let error = fails(&channel).await;
        is_transient(&error, kind);
        assert!(error.reason.contains(&reply[..3]) && error.reason.contains(&reply[4..]), "{reply}: {error}");
    }
    // One that is taken and one that may be taken later.
    server.set(None);
    server.script([(SmtpStep::Rcpt, Does::reply("250 ok")), (SmtpStep::Rcpt, Does::reply("450 greylisted"))]);
    is_transient(&fails(&channel).await, ErrorKind::Unavailable);
    assert_eq!(server.mails().len(), 0);
    channel.deliver(&alert().build(), EPOCH).await.unwrap();
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn what_is_refused_for_good_is_not_tried_again() {
    let (server, channel) = plain().await;
    for (step, reply) in [
        (SmtpStep::Mail, "550 no such sender"),
        (SmtpStep::Rcpt, "550 no such user"),
        (SmtpStep::Data, "554 no"),
        (SmtpStep::End, "554 looks like spam"),
    ] {
        server.set(Some((step, Does::reply(reply))));
        let error = fails(&channel).await;
        assert!(error.kind == ErrorKind::Invalid && !error.receiver_at_fault, "{reply}: {error:?}");
        assert!(error.reason.contains(reply.split_once(' ').unwrap().1), "{error}");
    }
    server.set(Some((SmtpStep::Mail, Does::reply("530 log in first"))));
    assert_eq!(fails(&channel).await.kind, ErrorKind::Denied);
    assert_eq!(server.mails().len(), 0);
}

#[tokio::test]
async fn a_recipient_that_is_refused_does_not_cost_the_others_their_alert() {
    let (server, channel) = plain().await;
    server.script([(SmtpStep::Rcpt, Does::reply("550-no such\r\n550 user"))]);
    let receipt = channel.deliver(&alert().build(), EPOCH).await.unwrap();
    assert_eq!(receipt.detail, "SMTP 250; 1 of 2 recipients refused");
    assert_eq!(server.mails()[0].to, ["noc@example.com"]);
}

#[tokio::test]
async fn servers_that_hang_close_or_never_end_a_line_are_given_up() {
    let server = SmtpReceiver::start(SmtpSecurity::Plain).await;
    let soon = EmailConfig { timeout: Duration::from_millis(400), ..config(&server, SmtpTls::DangerousNone) };
    let channel = channel(soon);
    let steps = [SmtpStep::Greeting, SmtpStep::Ehlo, SmtpStep::Mail, SmtpStep::Rcpt, SmtpStep::Data, SmtpStep::End];
    for step in steps {
        for (behaviour, kind) in [
            (Does::Hang, ErrorKind::Timeout),
            (Does::Close, ErrorKind::Unavailable),
            (Does::Endless, ErrorKind::Unavailable),
            (Does::reply("hello"), ErrorKind::Unavailable),
        ] {
            server.set(Some((step, behaviour)));
            let error = fails(&channel).await;
            is_transient(&error, kind);
            assert!(error.reason.len() < 500, "{error}");
        }
    }
    server.set(None);
    channel.deliver(&alert().build(), EPOCH).await.expect("the next try is not harmed");
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn nothing_is_said_before_tls_and_a_stranger_is_told_nothing() {
    let login = |config: EmailConfig| EmailConfig {
        user: "mutt".into(),
        passwords: KeyRing::fixed(Secret::new(PASSWORD)),
        ..config
    };
    // One that does not offer it, or from whose offer somebody took it.
    let stripped = SmtpReceiver::with_login(SmtpSecurity::Plain, "PLAIN").await;
    let error = fails(&channel(login(config(&stripped, SmtpTls::StartTls)))).await;
    is_transient(&error, ErrorKind::Unavailable);
    assert!(error.reason.contains("does not offer STARTTLS"), "{error}");
    assert!(stripped.lines().iter().all(|line| line.starts_with("EHLO")), "{:?}", stripped.lines());

    // One that refuses it, and one that puts an answer of its own behind it.
    let server = SmtpReceiver::with_login(SmtpSecurity::StartTls, "PLAIN").await;
    for reply in ["454 not now", "220 go ahead\r\n250-evil\r\n250 AUTH PLAIN"] {
        server.set(Some((SmtpStep::StartTls, Does::reply(reply))));
        is_transient(&fails(&channel(login(config(&server, SmtpTls::StartTls)))).await, ErrorKind::Unavailable);
    }
    server.set(None);

    // One whose certificate nobody vouches for, and one with another name.
    let other = SmtpReceiver::start(SmtpSecurity::Plain).await;
    for (host, ca) in [("localhost", other.ca_file()), ("127.0.0.1", server.ca_file())] {
        let config = EmailConfig { host: host.into(), ca_file: Some(ca), ..login(config(&server, SmtpTls::StartTls)) };
        let error = fails(&channel(config)).await;
        assert!(error.kind == ErrorKind::Unavailable && error.reason.contains("certificate"), "{error}");
    }
    assert_eq!((server.logins().len(), server.mails().len()), (0, 0));
}

#[tokio::test]
async fn while_passwords_are_rotated_the_one_that_is_taken_counts_and_none_is_shown() {
    let server = SmtpReceiver::with_login(SmtpSecurity::Implicit, "PLAIN").await;
    let (writer, passwords) = tokio::sync::watch::channel(vec![Secret::new(PASSWORD), Secret::new("next one")]);
    let rotating =
        EmailConfig { user: "mutt".into(), passwords: passwords.into(), ..config(&server, SmtpTls::Implicit) };
    let channel = channel(rotating);
    server.script([(SmtpStep::Auth, Does::reply("535 no"))]);
    channel.deliver(&alert().build(), EPOCH).await.unwrap();
    let tried: Vec<String> = server.logins().into_iter().map(|(_, password)| password).collect();
    assert_eq!(tried, [PASSWORD, "next one"]);

    writer.send(vec![Secret::new(PASSWORD)]).unwrap();
    let echo = format!("535 no {PASSWORD} {PLAIN} no");
    server.script([(SmtpStep::Reset, Does::Close), (SmtpStep::Auth, Does::reply(echo))]);
    let error = fails(&channel).await;
    assert!(error.kind == ErrorKind::Denied && !error.receiver_at_fault, "{error:?}");
    assert!(error.reason.contains("535") && error.reason.contains("no *** *** no"), "{error}");
    server.script([(SmtpStep::Auth, Does::reply("454 later"))]);
    is_transient(&fails(&channel).await, ErrorKind::Unavailable);
    assert!(!format!("{channel:?}", channel = channel.name()).contains(PASSWORD));
}

#[tokio::test]
async fn probing_sends_nothing_and_finds_who_refuses_there() {
    let server = SmtpReceiver::with_login(SmtpSecurity::Implicit, "PLAIN").await;
    let with = |password: &str| {
        let passwords = KeyRing::fixed(Secret::new(password));
        channel(EmailConfig { user: "mutt".into(), passwords, ..config(&server, SmtpTls::Implicit) })
    };
    let good = with(PASSWORD);
    good.probe().await.unwrap();
    good.probe().await.unwrap();
    assert_eq!((server.connections(), server.logins().len()), (1, 1), "the session is kept");
    server.set(Some((SmtpStep::Auth, Does::reply("535 no"))));
    with("wrong").probe().await.unwrap();
    for behaviour in [Does::reply("421 busy"), Does::Close] {
        server.set(Some((SmtpStep::Greeting, behaviour)));
        is_transient(&with(PASSWORD).probe().await.unwrap_err(), ErrorKind::Unavailable);
    }
    assert_eq!(server.mails().len(), 0);
    assert!(!server.lines().iter().any(|line| line.starts_with("MAIL")));
}
