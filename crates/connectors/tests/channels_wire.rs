//! What the channels put on the wire, as their receivers see it.

use connectors::channels::{Channel, ChannelConfig, HttpTarget, open};
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
