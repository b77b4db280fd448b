//! Every channel keeps the promises of channels; a new one is a few lines here.

use connectors::channels::{
    BodyFormat, ChannelConfig, HttpConfig, HttpMethod, PagerDutyConfig, SlackConfig, SlackFormat, contract, open,
};
use runtime::{KeyRing, Secret};

#[tokio::test]
async fn moogsoft_keeps_the_contract() {
    const KEY: &str = "moogsoft-key-0123456789";
    contract::http_channel(
        &|target| open(ChannelConfig::Moogsoft { target, api_keys: KeyRing::fixed(Secret::new(KEY)) }),
        &[KEY],
    )
    .await;
}

#[tokio::test]
async fn webhook_keeps_the_contract() {
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    contract::http_channel(&|target| open(ChannelConfig::Webhook { target, secret: Secret::new(SECRET) }), &[SECRET])
        .await;
}

#[tokio::test]
async fn slack_keeps_the_contract() {
    for format in [SlackFormat::Blocks, SlackFormat::Attachments] {
        contract::http_channel(
            &|target| {
                let (urls, none) = (KeyRing::from(Vec::new()), String::new);
                let (title, text) = (None, None);
                let config = SlackConfig { target, urls, channel: none(), format, title, text, alert_url: none() };
                open(ChannelConfig::Slack(Box::new(config)))
            },
            &[],
        )
        .await;
    }
}

#[tokio::test]
async fn pagerduty_keeps_the_contract() {
    const KEY: &str = "R0123456789ABCDEFGHIJKLMNOPQRSTU";
    contract::http_channel(
        &|target| {
            let routing_keys = KeyRing::fixed(Secret::new(KEY));
            open(ChannelConfig::PagerDuty(Box::new(PagerDutyConfig { target, routing_keys, alert_url: String::new() })))
        },
        &[KEY],
    )
    .await;
}

#[tokio::test]
async fn http_keeps_the_contract() {
    const TOKEN: &str = "token-0123456789";
    contract::http_channel(
        &|target| {
            open(ChannelConfig::Http(Box::new(HttpConfig {
                target,
                method: HttpMethod::Post,
                headers: vec![("Authorization".into(), Secret::new(format!("Bearer {TOKEN}")))],
                format: BodyFormat::Json,
                content_type: None,
                body: None,
                alert_url: String::new(),
            })))
        },
        &[TOKEN],
    )
    .await;
}
