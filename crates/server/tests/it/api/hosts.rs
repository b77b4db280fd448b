use super::api;
use serde_json::json;

#[tokio::test]
async fn dev_hosts_come_and_go() {
    let api = api().await;
    for (version, host) in [("v1", "lab-2"), ("v2", "lab 1/a")] {
        let added = api.post(&format!("/api/{version}/dev-hosts"), json!({ "hostname": host })).await.is(201);
        assert_eq!(added["message"], "Dev host added successfully");
    }
    let listed = api.get("/api/v1/dev-hosts").await.is(200);
    assert_eq!(listed, json!({ "hosts": [{ "hostname": "lab 1/a" }, { "hostname": "lab-2" }] }));
    api.post("/api/v2/dev-hosts", json!({ "hostname": "lab-2" })).await.refuses(409, "Hostname already exists");
    let gone = api.delete("/api/v2/dev-hosts/lab%201%2Fa").await.is(200);
    assert_eq!(gone["message"], "Dev host deleted successfully");
    api.delete("/api/v2/dev-hosts/lab%201%2Fa").await.refuses(404, "Hostname not found");
}

#[tokio::test]
async fn a_dev_host_without_a_name_is_400() {
    let api = api().await;
    for body in [json!({}), json!({ "hostname": "" }), json!({ "hostname": "  " }), json!({ "hostname": null })] {
        api.post("/api/v2/dev-hosts", body).await.refuses(400, "hostname is required");
    }
    for body in [json!({ "hostname": 7 }), json!({ "hostname": "x".repeat(256) }), json!({ "hostname": "a\u{0}b" })] {
        api.post("/api/v2/dev-hosts", body).await.refuses(400, "hostname");
    }
}

#[tokio::test]
async fn teams_come_change_and_go() {
    let api = api().await;
    let mapping = json!({ "hostname": "sw1", "team_assignment": "NETO" });
    let added = api.post("/api/v1/teams", mapping.clone()).await.is(201);
    assert_eq!(added["message"], "Team mapping added successfully");
    assert_eq!(api.get("/api/v2/teams").await.is(200), json!({ "teams": [mapping] }));
    api.post("/api/v2/teams", mapping).await.refuses(409, "Hostname already has a team assignment");
    let changed = api.put("/api/v2/teams/sw1", json!({ "team_assignment": "NetOps" })).await.is(200);
    assert_eq!(changed["message"], "Team mapping updated successfully");
    assert_eq!(api.get("/api/v2/teams").await.is(200)["teams"][0]["team_assignment"], "NetOps");
    api.put("/api/v2/teams/sw1", json!({})).await.refuses(400, "team_assignment is required");
    api.put("/api/v2/teams/sw9", json!({ "team_assignment": "x" })).await.refuses(404, "Hostname not found");
    assert_eq!(api.delete("/api/v2/teams/sw1").await.is(200)["message"], "Team mapping deleted successfully");
    api.delete("/api/v2/teams/sw1").await.refuses(404, "Hostname not found");
}

#[tokio::test]
async fn half_a_team_mapping_is_400() {
    let api = api().await;
    for body in [json!({}), json!({ "hostname": "sw1" }), json!({ "team_assignment": "NETO" })] {
        api.post("/api/v2/teams", body).await.refuses(400, "hostname and team_assignment are required");
    }
    let long = json!({ "hostname": "sw1", "team_assignment": "x".repeat(101) });
    api.post("/api/v2/teams", long).await.refuses(400, "team_assignment");
}

#[tokio::test]
async fn changes_of_hosts_and_teams_are_audited_too() {
    let api = api().await;
    api.post("/api/v2/dev-hosts", json!({ "hostname": "lab", "reason": "moved" })).await.is(201);
    api.post("/api/v2/teams", json!({ "hostname": "sw1", "team_assignment": "NETO" })).await.is(201);
    api.delete("/api/v2/teams/sw1").await.is(200);
    let logs = api.get("/api/v2/audit?table_name=device_teams").await.is(200);
    assert_eq!(logs["pagination"]["total"], 2);
    assert_eq!(logs["logs"][0]["old_values"], json!({ "hostname": "sw1", "team_assignment": "NETO" }));
    let logs = api.get("/api/v2/audit?table_name=development_hosts").await.is(200);
    assert_eq!(logs["logs"][0]["reason"], "moved");
}
