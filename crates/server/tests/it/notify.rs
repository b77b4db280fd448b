//! Who is told of which alerts: routes and incidents, through the whole server.

use crate::support::{TestServer, event, load_with};
use model::{AlertState, OrgId};
use serde_json::json;
use std::sync::Arc;
use storage::catalog::{AlertFilter, PageRequest};
use testkit::Receiver;

const PAGE: PageRequest = PageRequest { page: 1, limit: 200 };

/// A server with two channels, `noc` and `pager`, and these settings.
async fn server(noc: &Receiver, pager: &Receiver, more: &str) -> TestServer {
    let channel = |name: &str, receiver: &Receiver| {
        format!("[[channel]]\ntype = \"moogsoft\"\nname = \"{name}\"\nurl = \"{}\"\n", receiver.url())
    };
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let settings = format!("{}{}{more}", channel("noc", noc), channel("pager", pager));
    let config = load_with(dir.path(), &settings, &[], None);
    TestServer::start_with(dir, config).await
}

async fn in_state(server: &TestServer, state: AlertState) -> Vec<storage::catalog::AlertRecord> {
    let filter = AlertFilter { state: Some(state), ..AlertFilter::default() };
    server.parts.catalog.alerts(&OrgId::default(), &filter, PAGE).await.unwrap().rows
}

#[tokio::test(flavor = "multi_thread")]
async fn each_alert_goes_to_the_channels_of_its_route_and_nobody_else() {
    let (noc, pager) = (Receiver::start().await, Receiver::start().await);
    let routes = "[[routes]]\nmatch = { host = \"lab-*\" }\nchannels = []\n\
                  [[routes]]\nmatch = { team = \"SOC\" }\nchannels = [\"pager\"]\n";
    let server = server(&noc, &pager, routes).await;
    server.rule("DOWN").await;
    server
        .rule_with(json!({"match_string": "LOGIN", "prod_handling": "Page_only", "dev_handling": "Ignore", "team_assignment": "SOC"}))
        .await;
    server.send(&event("sw1", "DOWN 1")).await;
    server.send(&event("sw1", "LOGIN 1")).await;
    server.send(&event("lab-1", "DOWN 1")).await;
    server.until(async || in_state(&server, AlertState::Delivered).await.len() == 2).await;
    server.until(async || in_state(&server, AlertState::Recorded).await.len() == 1).await;
    assert_eq!(noc.deliveries().len(), 1, "what no route takes goes to everybody");
    assert_eq!(pager.deliveries().len(), 2);
    let nobody = &in_state(&server, AlertState::Recorded).await[0];
    assert_eq!((nobody.alert.host.as_str(), nobody.detail.as_deref()), ("lab-1", Some("its route names no channel")));
    server.stop().await;
}
