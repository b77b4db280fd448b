//! What the channels put on the wire, as their receivers see it.

use connectors::channels::{
    BodyFormat, Channel, ChannelConfig, HttpConfig, HttpMethod, HttpTarget, PagerDutyConfig, SlackConfig, SlackFormat,
    open,
};
use model::ErrorKind;
use runtime::{KeyRing, Secret};
use std::sync::Arc;
use std::time::Duration;
use testkit::builders::{EPOCH, alert};
use testkit::{Behaviour, Receiver, webhooks};

fn target(receiver: &Receiver) -> HttpTarget {
    HttpTarget { name: "wire".into(), url: receiver.url(), timeout: Duration::from_secs(5), ca_file: None }
}

fn moogsoft(receiver: &Receiver, key: &str) -> Arc<dyn Channel> {
    open(ChannelConfig::Moogsoft { target: target(receiver), api_keys: KeyRing::fixed(Secret::new(key)) })
        .expect("it opens")
}

fn webhook(receiver: &Receiver, secret: &str) -> Arc<dyn Channel> {
    open(ChannelConfig::Webhook { target: target(receiver), secret: Secret::new(secret) }).expect("it opens")
}

#[tokio::test]
async fn moogsoft_authorizes_with_the_key_and_without_one_not_at_all() {
    let receiver = Receiver::start().await;
    let alert = alert().correlation_id("c-9").build();
    moogsoft(&receiver, "k3y").deliver(&alert, EPOCH).await.unwrap();
    moogsoft(&receiver, "").deliver(&alert, EPOCH).await.unwrap();
    let [with, without] = &receiver.deliveries()[..] else { panic!("two deliveries") };
    assert_eq!(with.header("authorization"), Some("Bearer k3y"));
    assert_eq!(without.header("authorization"), None);
    assert_eq!(with.header("idempotency-key"), Some(alert.id.to_string().as_str()));
    assert_eq!(with.path, "/events");
    let body = with.json();
    assert_eq!((&body["external_id"], &body["manager"]), (&"c-9".into(), &"MUTT".into()));
}

#[tokio::test]
async fn while_keys_are_rotated_the_one_that_is_taken_counts() {
    let receiver = Receiver::start().await;
    let (writer, keys) = tokio::sync::watch::channel(vec![Secret::new("current"), Secret::new("next")]);
    let channel = open(ChannelConfig::Moogsoft { target: target(&receiver), api_keys: keys.into() }).expect("it opens");
    receiver.script([Behaviour::status(401)]);
    channel.deliver(&alert().build(), EPOCH).await.unwrap();
    writer.send(vec![Secret::new("next")]).unwrap();
    channel.deliver(&alert().build(), EPOCH).await.unwrap();
    let sent: Vec<_> = receiver.deliveries().iter().map(|d| d.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(sent, ["Bearer current", "Bearer next", "Bearer next"]);
    receiver.set(Behaviour::answer(403, "next is not known"));
    let error = channel.deliver(&alert().build(), EPOCH).await.unwrap_err();
    assert!(error.reason.contains("403") && !error.reason.contains("next"), "{}", error.reason);
}

#[tokio::test]
async fn webhooks_verify_at_a_careful_receiver_and_only_untouched_ones_do() {
    const WHSEC: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDazfgh8g0mCs=";
    const RAW: &str = "a raw secret that is long enough";
    let receiver = Receiver::start().await;
    for secret in [WHSEC, RAW] {
        receiver.forget();
        webhook(&receiver, secret).deliver(&alert().message("größer").build(), EPOCH).await.unwrap();
        let received = receiver.deliveries().remove(0);
        webhooks::verify(secret, &received, EPOCH).unwrap();
        webhooks::verify(secret, &received, EPOCH.plus(Duration::from_secs(600))).unwrap_err();
        webhooks::verify("another secret of sufficient size", &received, EPOCH).unwrap_err();
        let mut touched = received.clone();
        touched.body = String::from_utf8_lossy(&received.body).replace("router-1", "router-2").into();
        webhooks::verify(secret, &touched, EPOCH).unwrap_err();
    }
}

#[tokio::test]
async fn a_repeated_webhook_has_the_same_body_and_a_new_time() {
    const SECRET: &str = "a raw secret that is long enough";
    let receiver = Receiver::start().await;
    let channel = webhook(&receiver, SECRET);
    let later = EPOCH.plus(Duration::from_secs(60));
    channel.deliver(&alert().build(), EPOCH).await.unwrap();
    channel.deliver(&alert().build(), later).await.unwrap();
    let [first, second] = &receiver.deliveries()[..] else { panic!("two deliveries") };
    assert_eq!((&first.body, first.header("webhook-id")), (&second.body, second.header("webhook-id")));
    assert_ne!(first.header("webhook-signature"), second.header("webhook-signature"));
    webhooks::verify(SECRET, second, later).unwrap();
}

fn slack(receiver: &Receiver, urls: KeyRing) -> Arc<dyn Channel> {
    let config = SlackConfig {
        target: target(receiver),
        urls,
        channel: String::new(),
        format: SlackFormat::Blocks,
        title: None,
        text: Some("{{ alert.message }} <https://wiki.example.com|runbook>".into()),
        alert_url: String::new(),
    };
    open(ChannelConfig::Slack(Box::new(config))).expect("it opens")
}

#[tokio::test]
async fn slack_gets_text_that_calls_nobody_and_the_templates_own_links() {
    let receiver = Receiver::start().await;
    slack(&receiver, KeyRing::from(Vec::new())).deliver(&alert().message("<!here> & co").build(), EPOCH).await.unwrap();
    let body = receiver.bodies_json().remove(0);
    assert_eq!(body["text"], "[Major] &lt;!here&gt; &amp; co on router-1");
    let section = &body["attachments"][0]["blocks"][0]["text"];
    assert_eq!(section["text"], "&lt;!here&gt; &amp; co <https://wiki.example.com|runbook>");
}

#[tokio::test]
async fn a_slack_webhook_may_be_replaced_while_we_run() {
    let receiver = Receiver::start().await;
    let url = |secret: &str| Secret::new(format!("{}/services/{secret}", receiver.url()));
    let (writer, urls) = tokio::sync::watch::channel(vec![url("old-webhook-0123456789")]);
    let channel = slack(&receiver, urls.into());
    channel.deliver(&alert().build(), EPOCH).await.unwrap();
    writer.send(vec![url("old-webhook-0123456789"), url("new-webhook-0123456789")]).unwrap();
    receiver.script([Behaviour::answer(404, "no_service")]);
    channel.deliver(&alert().build(), EPOCH).await.unwrap();
    receiver.set(Behaviour::answer(404, "no_service new-webhook-0123456789"));
    let error = channel.deliver(&alert().build(), EPOCH).await.unwrap_err();
    assert!(error.kind == ErrorKind::Invalid && error.reason.contains("no_service"), "{error}");
    assert!(!error.reason.contains("webhook-0123456789"), "{error}");
    let paths: Vec<String> = receiver.deliveries().into_iter().map(|d| d.path).collect();
    let (old, new) = ("/events/services/old-webhook-0123456789", "/events/services/new-webhook-0123456789");
    assert_eq!(paths, [old, old, new, old, new]);
}

#[tokio::test]
async fn pagerduty_is_offered_the_next_key_where_one_is_not_known() {
    let receiver = Receiver::start().await;
    let keys = KeyRing::from(vec![Secret::new("first-key-0123456789"), Secret::new("second-key-0123456789")]);
    let config =
        PagerDutyConfig { target: target(&receiver), routing_keys: keys, alert_url: "https://m.example/{id}".into() };
    let channel = open(ChannelConfig::PagerDuty(Box::new(config))).expect("it opens");
    receiver.script([Behaviour::answer(400, "Invalid routing key first-key-0123456789"), Behaviour::status(202)]);
    let alert = alert().build();
    assert_eq!(channel.deliver(&alert, EPOCH).await.unwrap().detail, "HTTP 202");
    let bodies = receiver.bodies_json();
    assert_eq!(
        (&bodies[0]["routing_key"], &bodies[1]["routing_key"]),
        (&"first-key-0123456789".into(), &"second-key-0123456789".into())
    );
    assert_eq!(bodies[1]["client_url"], format!("https://m.example/{}", alert.id));
    receiver.set(Behaviour::answer(400, "first-key-0123456789 second-key-0123456789"));
    let error = channel.deliver(&alert, EPOCH).await.unwrap_err();
    assert!(!error.reason.contains("-key-0123456789"), "{error}");
}

fn http(receiver: &Receiver) -> HttpConfig {
    HttpConfig {
        target: target(receiver),
        method: HttpMethod::Put,
        headers: vec![("X-Token".into(), Secret::new("t0ken-0123456789")), ("X-Plain".into(), Secret::new("1"))],
        format: BodyFormat::Json,
        content_type: None,
        body: Some(r#"{"title": {{ alert.title }}, "n": {{ alert.event.n }}, "host": {{ alert.host|upper }}}"#.into()),
        alert_url: String::new(),
    }
}

#[tokio::test]
async fn a_request_of_ones_own_is_made_as_it_is_configured() {
    let receiver = Receiver::start().await;
    let channel = open(ChannelConfig::Http(Box::new(http(&receiver)))).expect("it opens");
    let alert = alert().message("say \"hi\"\u{1}").raw_json(r#"{"n":[1,null]}"#).build();
    channel.deliver(&alert, EPOCH).await.unwrap();
    let request = receiver.requests().remove(0);
    assert_eq!((request.method.as_str(), request.header("content-type")), ("PUT", Some("application/json")));
    assert_eq!((request.header("x-token"), request.header("x-plain")), (Some("t0ken-0123456789"), Some("1")));
    assert_eq!(request.idempotency_key(), Some(alert.id.to_string().as_str()));
    assert_eq!(request.json(), serde_json::json!({"title": "say \"hi\"\u{1}", "n": [1, null], "host": "ROUTER-1"}));

    let text = HttpConfig {
        method: HttpMethod::Post,
        format: BodyFormat::Text,
        content_type: Some("text/markdown".into()),
        body: Some("{{ alert.host }} & {{ alert.message }}".into()),
        ..http(&receiver)
    };
    open(ChannelConfig::Http(Box::new(text))).expect("it opens").deliver(&alert, EPOCH).await.unwrap();
    let request = receiver.deliveries().remove(0);
    assert_eq!(request.header("content-type"), Some("text/markdown"));
    assert_eq!(request.body, "router-1 & say \"hi\"\u{1}");
}

#[tokio::test]
async fn what_no_request_can_be_is_refused_and_no_value_of_a_header_is_shown() {
    let receiver = Receiver::start().await;
    for (name, value, says) in [
        ("Host", "x", "is set by muttd"),
        ("Content-Length", "1", "is set by muttd"),
        ("bad name", "x", "is not the name"),
        ("X-Token", "hunter2\r\nX: y", "no header can carry"),
    ] {
        let config = HttpConfig { headers: vec![(name.into(), Secret::new(value))], ..http(&receiver) };
        let error = open(ChannelConfig::Http(Box::new(config.clone()))).err().expect("refused");
        assert!(error.reason.contains(says) && !error.reason.contains("hunter2"), "{error}");
        assert!(!format!("{config:?}").contains("hunter2"));
    }
    let config = HttpConfig { body: Some("{{ alert.titel }}".into()), ..http(&receiver) };
    let error = open(ChannelConfig::Http(Box::new(config))).err().expect("refused");
    assert!(error.reason.contains("`body`") && error.reason.contains("`alert.title`?"), "{error}");
}
