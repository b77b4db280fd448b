//! What every channel over HTTP promises, as a suite that its test calls:
//!
//! ```ignore
//! contract::http_channel(&|target| open(ChannelConfig::Webhook { target, secret: … }), &[SECRET]).await;
//! ```
//!
//! Each case has a receiver and a channel of its own and panics with its name where a promise does
//! not hold. A bug found in one channel becomes a case for all.

use super::{Channel, DeliveryError, HttpTarget, Receipt};
use model::{Alert, AlertKind, Detection, ErrorKind, Timestamp};
use std::sync::Arc;
use std::time::{Duration, Instant};
use testkit::builders::{EPOCH, alert};
use testkit::{Behaviour, Receiver};

/// Opens the channel under test for a target.
pub type Open<'a> = &'a (dyn Fn(HttpTarget) -> Result<Arc<dyn Channel>, DeliveryError> + Sync);

/// Long enough for a busy machine to answer in, short enough to wait for.
const TIMEOUT: Duration = Duration::from_secs(5);
const SHORT_TIMEOUT: Duration = Duration::from_millis(500);
const QUERY_SECRET: &str = "t0ken-in-the-query";

/// Runs every case. `secrets` are the texts the channel was opened with.
pub async fn http_channel(open: Open<'_>, secrets: &[&str]) {
    takes_every_2xx_as_a_success(open).await;
    tells_of_every_alert(open).await;
    says_when_trying_again_can_help(open).await;
    says_when_trying_again_cannot_help(open).await;
    follows_no_redirect(open).await;
    gives_up_after_the_timeout(open).await;
    reports_broken_connections(open).await;
    reads_only_the_start_of_an_answer(open).await;
    gives_the_same_key_on_every_try(open).await;
    reuses_one_connection(open).await;
    works_again_after_an_outage(open).await;
    shows_no_secret(open, secrets).await;
    probes_without_creating_anything(open).await;
    refuses_targets_it_cannot_use(open);
}

/// A receiver and a channel that delivers to it.
struct Pair {
    case: &'static str,
    receiver: Receiver,
    channel: Arc<dyn Channel>,
}

impl Pair {
    async fn new(case: &'static str, open: Open<'_>, timeout: Duration) -> Self {
        let receiver = Receiver::start().await;
        let url = format!("{}?token={QUERY_SECRET}", receiver.url());
        let channel = open(target(&url, timeout)).unwrap_or_else(|e| panic!("{case}: cannot open: {e}"));
        assert_eq!(channel.name(), "contract", "{case}: the channel has its configured name");
        Self { case, receiver, channel }
    }

    /// One try under one behaviour, which must be one request.
    async fn deliver(&self, behaviour: Behaviour, alert: &Alert) -> Result<Receipt, DeliveryError> {
        let case = self.case;
        let before = self.receiver.requests().len();
        let said = format!("{behaviour:?}");
        self.receiver.set(behaviour);
        let result = self.channel.deliver(alert, EPOCH).await;
        let new = self.receiver.requests().split_off(before);
        assert_eq!(new.len(), 1, "{case}: {said}: one request per try");
        assert_eq!(new[0].method, "POST", "{case}: {said}");
        result
    }

    async fn fail(&self, behaviour: Behaviour) -> DeliveryError {
        let said = format!("{behaviour:?}");
        match self.deliver(behaviour, &alert().build()).await {
            Err(error) => error,
            Ok(receipt) => panic!("{}: {said} was taken for a success: {receipt:?}", self.case),
        }
    }
}

fn target(url: &str, timeout: Duration) -> HttpTarget {
    HttpTarget { name: "contract".into(), url: url.into(), timeout, ca_file: None }
}

async fn takes_every_2xx_as_a_success(open: Open<'_>) {
    let pair = Pair::new("takes_every_2xx_as_a_success", open, TIMEOUT).await;
    for status in [200, 201, 202, 204] {
        let receipt = pair.deliver(Behaviour::status(status), &alert().build()).await;
        let detail = receipt.unwrap_or_else(|e| panic!("{status} is a success: {e}")).detail;
        assert_eq!(detail, format!("HTTP {status}"));
    }
    let sent = &pair.receiver.requests()[0];
    assert_eq!(sent.header("content-type"), Some("application/json"));
    assert_eq!(sent.header("user-agent"), Some(concat!("mutt-security-manager/", env!("CARGO_PKG_VERSION"))));
    assert!(sent.json().is_object());
}

async fn tells_of_every_alert(open: Open<'_>) {
    let pair = Pair::new("tells_of_every_alert", open, TIMEOUT).await;
    let hostile: String = (0..0x300).filter_map(char::from_u32).chain(r#"\"{{ 7 }}<!here>"#.chars()).collect();
    for text in [String::new(), hostile, "long ".repeat(100_000)] {
        let few = || vec![text.clone(); 3];
        let detection = Detection {
            rule_uid: text.clone(),
            name: text.clone(),
            title: text.clone(),
            description: text.clone(),
            tags: few(),
            references: few(),
            false_positives: few(),
            fields: vec![(text.clone(), text.clone()), ("a".into(), text.clone())],
            ..Detection::default()
        };
        let of_a_rule = alert().host(&text).team(&text).message(&text).signature(&text).correlation_id(&text);
        let of_a_detection = of_a_rule.clone().detection(detection);
        let unhandled = of_a_rule.clone().kind(AlertKind::Unhandled).raw_json(&text);
        for told in [of_a_rule, of_a_detection, unhandled] {
            let delivered = pair.deliver(Behaviour::accept(), &told.build()).await;
            assert!(delivered.is_ok(), "{}: {delivered:?}", pair.case);
        }
    }
    assert!(pair.receiver.requests().iter().all(|r| r.json().is_object()), "{}", pair.case);
}

async fn says_when_trying_again_can_help(open: Open<'_>) {
    let pair = Pair::new("says_when_trying_again_can_help", open, TIMEOUT).await;
    let in_90_s = EPOCH.plus(Duration::from_secs(90)).rfc1123();
    let started = Instant::now();
    for (behaviour, kind, retry_after_secs) in [
        (Behaviour::status(429), ErrorKind::Full, None),
        (Behaviour::retry_after(429, "7"), ErrorKind::Full, Some(7)),
        (Behaviour::retry_after(429, &in_90_s), ErrorKind::Full, Some(90)),
        (Behaviour::retry_after(429, "86400"), ErrorKind::Full, Some(3600)),
        (Behaviour::status(408), ErrorKind::Timeout, None),
        (Behaviour::status(500), ErrorKind::Unavailable, None),
        (Behaviour::retry_after(500, "soon"), ErrorKind::Unavailable, None),
        (Behaviour::retry_after(503, "30"), ErrorKind::Unavailable, Some(30)),
        (Behaviour::status(504), ErrorKind::Unavailable, None),
    ] {
        let said = format!("{behaviour:?}");
        let error = pair.fail(behaviour).await;
        assert!(error.kind == kind && error.kind.is_transient(), "{said}: {error:?}");
        assert_eq!(error.retry_after, retry_after_secs.map(Duration::from_secs), "{said}");
        assert!(error.receiver_at_fault, "{said}: the breaker counts it");
    }
    assert!(started.elapsed() < Duration::from_secs(5), "deliver itself never waits");
}

async fn says_when_trying_again_cannot_help(open: Open<'_>) {
    let pair = Pair::new("says_when_trying_again_cannot_help", open, TIMEOUT).await;
    for (status, kind) in [
        (304, ErrorKind::Invalid),
        (400, ErrorKind::Invalid),
        (401, ErrorKind::Denied),
        (403, ErrorKind::Denied),
        (404, ErrorKind::Invalid),
        (410, ErrorKind::Invalid),
        (413, ErrorKind::Invalid),
    ] {
        let error = pair.fail(Behaviour::retry_after(status, "5")).await;
        assert!(error.kind == kind && !error.kind.is_transient(), "{status}: {error:?}");
        assert!(!error.receiver_at_fault && error.retry_after.is_none(), "{status}: {error:?}");
    }
    let error = pair.fail(Behaviour::answer(400, "field `class`\nis missing")).await;
    assert!(error.reason.contains("400") && error.reason.contains("field `class` is missing"), "{error}");
}

async fn follows_no_redirect(open: Open<'_>) {
    let pair = Pair::new("follows_no_redirect", open, TIMEOUT).await;
    let elsewhere = Receiver::start().await;
    for status in [301, 302, 307, 308] {
        let error = pair.fail(Behaviour::status(status).with_header("Location", elsewhere.url())).await;
        assert!(error.kind == ErrorKind::Invalid && !error.receiver_at_fault, "{error:?}");
    }
    assert_eq!(elsewhere.connections(), 0, "a redirect would carry the secret elsewhere");
}

async fn gives_up_after_the_timeout(open: Open<'_>) {
    let pair = Pair::new("gives_up_after_the_timeout", open, SHORT_TIMEOUT).await;
    let started = Instant::now();
    let error = pair.fail(Behaviour::Hang).await;
    let took = started.elapsed();
    assert!(error.kind == ErrorKind::Timeout && error.receiver_at_fault, "{error:?}");
    assert!(took >= SHORT_TIMEOUT && took < SHORT_TIMEOUT * 10, "{took:?}");
    let delivered = pair.deliver(Behaviour::accept(), &alert().build()).await;
    assert!(delivered.is_ok(), "the next try is not harmed: {delivered:?}");
}

async fn reports_broken_connections(open: Open<'_>) {
    let pair = Pair::new("reports_broken_connections", open, TIMEOUT).await;
    // Once on a new connection and once on one that has worked before.
    for warm in [false, true] {
        for behaviour in [Behaviour::Close, Behaviour::CloseMidResponse, Behaviour::Garbage] {
            if warm {
                pair.deliver(Behaviour::accept(), &alert().build()).await.expect("accepted");
            }
            let said = format!("{behaviour:?}, warm: {warm}");
            let error = pair.fail(behaviour).await;
            assert!(error.kind == ErrorKind::Unavailable && error.receiver_at_fault, "{said}: {error:?}");
        }
    }
}

async fn reads_only_the_start_of_an_answer(open: Open<'_>) {
    let pair = Pair::new("reads_only_the_start_of_an_answer", open, TIMEOUT).await;
    let started = Instant::now();
    let delivered = pair.deliver(Behaviour::EndlessBody, &alert().build()).await;
    assert!(delivered.is_ok() && started.elapsed() < TIMEOUT, "{delivered:?}");
    let error = pair.fail(Behaviour::answer(500, "long ".repeat(100_000))).await;
    assert!(error.kind == ErrorKind::Unavailable && error.reason.len() < 1_000, "{} bytes", error.reason.len());
}

async fn gives_the_same_key_on_every_try(open: Open<'_>) {
    let pair = Pair::new("gives_the_same_key_on_every_try", open, TIMEOUT).await;
    let first = alert().build();
    pair.receiver.script([Behaviour::status(500), Behaviour::Close, Behaviour::status(429), Behaviour::accept()]);
    for later_secs in [0, 1, 2, 3] {
        let now = EPOCH.plus(Duration::from_secs(later_secs));
        let _ = pair.channel.deliver(&first, now).await;
    }
    let ids = pair.receiver.distinct_ids();
    assert_eq!(ids.into_iter().collect::<Vec<_>>(), [first.id.to_string()], "the key is the alert's id");
    assert!(pair.channel.deliver(&alert().number(2).build(), Timestamp::default()).await.is_ok());
    assert_eq!((pair.receiver.distinct_ids().len(), pair.receiver.deliveries().len()), (2, 5));
}

async fn reuses_one_connection(open: Open<'_>) {
    let pair = Pair::new("reuses_one_connection", open, TIMEOUT).await;
    for n in 0..20 {
        // Refusals keep the connection too.
        let behaviour = if n % 4 == 3 { Behaviour::answer(503, "busy") } else { Behaviour::accept() };
        let _ = pair.deliver(behaviour, &alert().number(n).build()).await;
    }
    assert_eq!((pair.receiver.connections(), pair.receiver.deliveries().len()), (1, 20));
}

async fn works_again_after_an_outage(open: Open<'_>) {
    let pair = Pair::new("works_again_after_an_outage", open, TIMEOUT).await;
    let alert = alert().build();
    assert!(pair.channel.deliver(&alert, EPOCH).await.is_ok());
    pair.receiver.go_down().await;
    for _ in 0..2 {
        let error = pair.channel.deliver(&alert, EPOCH).await.expect_err("nobody listens");
        assert!(error.kind == ErrorKind::Unavailable && error.receiver_at_fault, "{error:?}");
    }
    pair.receiver.come_up();
    let delivered = pair.channel.deliver(&alert, EPOCH).await;
    assert!(delivered.is_ok(), "{delivered:?}");
}

async fn shows_no_secret(open: Open<'_>, secrets: &[&str]) {
    let pair = Pair::new("shows_no_secret", open, TIMEOUT).await;
    let mut hidden: Vec<String> = secrets.iter().map(|s| (*s).to_owned()).collect();
    hidden.extend([QUERY_SECRET.to_owned(), "Authorization".to_owned()]);
    // A receiver that repeats what it was sent, as debugging proxies do.
    let echo = format!("{} ?token={QUERY_SECRET} {}", secrets.join(" "), pair.receiver.url());
    let mut errors = Vec::new();
    for behaviour in [
        Behaviour::answer(400, &echo),
        Behaviour::answer(401, &echo),
        Behaviour::answer(503, &echo),
        Behaviour::redirect(format!("http://elsewhere.example/?token={QUERY_SECRET}")),
        Behaviour::Close,
        Behaviour::CloseMidResponse,
        Behaviour::Garbage,
    ] {
        errors.push(pair.fail(behaviour).await);
    }
    pair.receiver.go_down().await;
    errors.push(pair.channel.deliver(&alert().build(), EPOCH).await.expect_err("nobody listens"));
    errors.push(pair.channel.probe().await.expect_err("nobody listens"));
    let hanging = Pair::new("shows_no_secret", open, SHORT_TIMEOUT).await;
    errors.push(hanging.fail(Behaviour::Hang).await);
    for error in errors {
        let shown = format!("{error} {error:?}");
        for secret in &hidden {
            assert!(!shown.contains(secret.as_str()), "`{secret}` is shown in: {shown}");
        }
        assert!(error.reason.contains("http://127.0.0.1:"), "people must see whom it is about: {error}");
    }
}

async fn probes_without_creating_anything(open: Open<'_>) {
    let pair = Pair::new("probes_without_creating_anything", open, TIMEOUT).await;
    for status in [200, 204, 302, 400, 401, 403, 404, 405, 429, 501] {
        pair.receiver.set(Behaviour::status(status));
        let answer = pair.channel.probe().await;
        assert!(answer.is_ok(), "whoever says {status} is there: {answer:?}");
    }
    for (behaviour, kind) in [
        (Behaviour::status(500), ErrorKind::Unavailable),
        (Behaviour::retry_after(503, "9"), ErrorKind::Unavailable),
        (Behaviour::Close, ErrorKind::Unavailable),
        (Behaviour::Garbage, ErrorKind::Unavailable),
    ] {
        let said = format!("{behaviour:?}");
        pair.receiver.set(behaviour);
        let error = pair.channel.probe().await.expect_err(&said);
        assert!(error.kind == kind && error.receiver_at_fault, "{said}: {error:?}");
    }
    let requests = pair.receiver.requests();
    assert!(requests.iter().all(|r| r.method == "HEAD" && r.body.is_empty()), "a probe creates nothing");
    assert_eq!(requests.len(), 14, "one request per probe");

    let hanging = Pair::new("probes_without_creating_anything", open, SHORT_TIMEOUT).await;
    hanging.receiver.set(Behaviour::Hang);
    let error = hanging.channel.probe().await.expect_err("it hangs");
    assert!(error.kind == ErrorKind::Timeout && error.receiver_at_fault, "{error:?}");
}

fn refuses_targets_it_cannot_use(open: Open<'_>) {
    for url in ["", "example.com", "ftp://example.com/", "http://", "https://user:hunter2@example.com/", "file:///etc"]
    {
        let error = open(target(url, TIMEOUT)).err().unwrap_or_else(|| panic!("`{url}` must be refused"));
        assert!(error.kind == ErrorKind::Invalid && !error.receiver_at_fault, "{url}: {error:?}");
        assert!(!error.reason.contains("hunter2"), "{error}");
    }
    let mut with_ca = target("https://example.com/", TIMEOUT);
    with_ca.ca_file = Some("/nowhere/ca.pem".into());
    let error = open(with_ca).err().expect("a CA file that is not there must be refused");
    assert!(error.reason.contains("/nowhere/ca.pem"), "{error}");
}
