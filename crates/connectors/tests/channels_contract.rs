//! Every channel keeps the promises of channels; a new one is a few lines here.

use connectors::channels::{ChannelConfig, contract, open};
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
