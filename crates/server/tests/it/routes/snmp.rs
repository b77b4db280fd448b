//! The SNMP listener in front of the whole pipeline.

use super::stored;
use crate::support::TestServer;
use model::Outcome;
use serde_json::json;
use storage::catalog::{AlertFilter, PageRequest};

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_on_an_oid_matches_acknowledged_informs_below_it_and_no_near_ones() {
    let env = [("MUTT_SNMP_UDP", "127.0.0.1:0"), ("MUTT_SNMP_COMMUNITIES", "c0mmunity")];
    let server = TestServer::start(&env).await;
    server
        .rule_with(json!({"trap_oid": ".1.3.6.1.4.1.9.9", "match_type": "oid_prefix", "prod_handling": "Page_only", "dev_handling": "Ignore", "team_assignment": "NET"}))
        .await;
    let to = server.addresses.snmp.unwrap().to_string();
    let home = tempfile::tempdir().unwrap();
    for oid in [".1.3.6.1.4.1.9.99.1", ".1.3.6.1.4.1.9.9.43.2.0.1", ".1.3.6.1.4.1.9"] {
        let mut inform = std::process::Command::new("snmpinform");
        inform.args(["-v2c", "-r0", "-t20", "-c", "c0mmunity", &to, "5", oid]);
        inform.env("MIBS", "").env("HOME", home.path()).env("SNMP_PERSISTENT_DIR", home.path());
        let status = tokio::task::spawn_blocking(move || inform.status()).await.unwrap();
        assert!(status.unwrap().success(), "acknowledged: {oid}");
    }
    let events = stored(&server, "127.0.0.1", 3).await;
    assert!(events.iter().all(|e| e["source"] == "snmp" && e["source_ip"] == "127.0.0.1"));
    server.until_settled(Outcome::Handled, 1).await;
    server.until_settled(Outcome::Unhandled, 2).await;
    let page = PageRequest { page: 1, limit: 10 };
    let alerts = server.parts.catalog.alerts(&model::OrgId::default(), &AlertFilter::default(), page).await.unwrap();
    assert_eq!(alerts.rows.len(), 1);
    assert_eq!(alerts.rows[0].alert.message, "1.3.6.1.4.1.9.9.43.2.0.1");
    server.stop().await;
}
