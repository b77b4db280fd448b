//! Offline: what a cluster would refuse or silently not connect. There is no cluster and no schema
//! here, so these files are not tried against one.

use super::{default_ports, files, is_known, read, yaml};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

fn objects() -> Vec<Value> {
    let kustomization = &yaml("k8s/kustomization.yaml")[0];
    let mut all = Vec::new();
    for file in kustomization["resources"].as_array().unwrap() {
        all.extend(yaml(&format!("k8s/{}", file.as_str().unwrap())));
    }
    all
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn of_kind(kind: &str) -> Vec<Value> {
    objects().into_iter().filter(|o| o["kind"] == kind).collect()
}

/// What runs pods.
fn workloads() -> Vec<Value> {
    objects().into_iter().filter(|o| o["kind"] == "Deployment" || o["kind"] == "StatefulSet").collect()
}

fn labels_match(selector: &Value, labels: &Value) -> bool {
    let pairs = selector["matchLabels"].as_object().or_else(|| selector.as_object());
    let pairs = pairs.is_none_or(|p| p.iter().all(|(k, v)| k == "matchExpressions" || &labels[k] == v));
    let expressions = selector["matchExpressions"].as_array().is_none_or(|list| {
        list.iter().all(|e| e["values"].as_array().unwrap().contains(&labels[e["key"].as_str().unwrap()]))
    });
    pairs && expressions
}

fn container(deployment: &Value) -> &Value {
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    &containers[0]
}

#[test]
fn every_file_is_used_and_no_two_objects_share_a_name() {
    let kustomization = &yaml("k8s/kustomization.yaml")[0];
    let used: BTreeSet<String> =
        kustomization["resources"].as_array().unwrap().iter().map(|f| format!("k8s/{}", f.as_str().unwrap())).collect();
    for file in files("k8s", ".yaml") {
        let example = file.ends_with("kustomization.yaml") || file.ends_with("secret.example.yaml");
        assert!(example || used.contains(&file), "{file} is not in the kustomization");
    }
    let mut seen = BTreeSet::new();
    for object in objects() {
        assert!(object["apiVersion"].is_string() && object["kind"].is_string(), "{object}");
        assert!(seen.insert((object["kind"].to_string(), name(&object).to_owned())), "{} twice", name(&object));
    }
    let cron = objects().iter().any(|o| o["kind"] == "CronJob");
    assert!(!cron, "muttd makes partitions and enforces retention itself");
}

#[test]
fn the_deployments_are_the_contracts_and_run_their_roles() {
    let deployments = workloads();
    // Who is scaled has no number of its own, which each `apply` would put back.
    let scaled = of_kind("HorizontalPodAutoscaler");
    let replicas = |d: &Value| {
        let scaler = scaled.iter().find(|h| h["spec"]["scaleTargetRef"]["name"] == name(d));
        let (own, least) = (&d["spec"]["replicas"], scaler.map(|h| &h["spec"]["minReplicas"]));
        assert!(own.is_null() != least.is_none(), "{}", name(d));
        own.as_u64().or(least.and_then(Value::as_u64)).unwrap()
    };
    let found: BTreeMap<&str, u64> = deployments.iter().map(|d| (name(d), replicas(d))).collect();
    let wanted = [
        ("mutt-alerter", 2),
        ("mutt-ingestor", 2),
        ("mutt-moog-forwarder", 2),
        ("mutt-remediation", 1),
        ("mutt-webui", 2),
    ];
    assert_eq!(found, BTreeMap::from(wanted));
    for deployment in &deployments {
        let args: Vec<&str> =
            container(deployment)["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
        let role = args[args.iter().position(|a| *a == "--roles").unwrap() + 1];
        assert_eq!(name(deployment).trim_start_matches("mutt-").trim_start_matches("moog-"), role);
        let overrides = server::config::Overrides { data_dir: None, roles: Some(vec![role.to_owned()]) };
        assert!(server::config::load(None, &BTreeMap::new(), &overrides).is_ok(), "{role}");
        if role == "remediation" {
            assert_eq!(deployment["spec"]["strategy"]["type"], "Recreate");
        }
    }
}

#[test]
fn selectors_reach_exactly_their_pods() {
    let deployments = workloads();
    let labels = |d: &Value| d["spec"]["template"]["metadata"]["labels"].clone();
    for d in &deployments {
        assert!(labels_match(&d["spec"]["selector"], &labels(d)), "{}", name(d));
    }
    for kind in ["Service", "PodDisruptionBudget"] {
        let objects = of_kind(kind);
        assert_eq!(objects.len(), deployments.len(), "{kind}: one each");
        for object in objects {
            let reached: Vec<&str> = deployments
                .iter()
                .filter(|d| labels_match(&object["spec"]["selector"], &labels(d)))
                .map(name)
                .collect();
            assert_eq!(reached, [name(&object)], "{kind}");
        }
    }
    for policy in of_kind("NetworkPolicy") {
        let selector = &policy["spec"]["podSelector"];
        assert!(deployments.iter().any(|d| labels_match(selector, &labels(d))), "{} selects nothing", name(&policy));
    }
    for hpa in of_kind("HorizontalPodAutoscaler") {
        let target = hpa["spec"]["scaleTargetRef"]["name"].as_str().unwrap().to_owned();
        let deployment = deployments.iter().find(|d| name(d) == target).unwrap();
        let requests = &container(deployment)["resources"]["requests"]["cpu"];
        assert!(requests.is_string(), "a share of the CPU needs a request");
    }
}

#[test]
fn ports_probes_services_and_policies_agree_with_the_defaults() {
    let defaults: BTreeSet<u64> = default_ports().values().map(|p| u64::from(*p)).collect();
    let services = of_kind("Service");
    let mut open = BTreeSet::new();
    for deployment in workloads() {
        let container = container(&deployment);
        let ports: BTreeMap<&str, u64> = container["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| (p["name"].as_str().unwrap(), p["containerPort"].as_u64().unwrap()))
            .collect();
        for port in ports.values() {
            assert!(defaults.contains(port), "{}: {port}", name(&deployment));
            open.insert(*port);
        }
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let probe = &container[probe];
            let port = probe["httpGet"]["port"].as_str().or(probe["tcpSocket"]["port"].as_str()).unwrap();
            assert!(ports.contains_key(port), "{}: {port}", name(&deployment));
        }
        // The forwarder's health is red while the receiver of alerts is away, which must not stall a rollout.
        let ready = if name(&deployment) == "mutt-moog-forwarder" { "/metrics" } else { "/health" };
        assert_eq!(container["readinessProbe"]["httpGet"]["path"], ready, "{}", name(&deployment));
        let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
        let scraped: u64 = annotations["prometheus.io/port"].as_str().unwrap().parse().unwrap();
        assert!(ports.values().any(|p| *p == scraped));
        let service = services.iter().find(|s| name(s) == name(&deployment)).unwrap();
        for port in service["spec"]["ports"].as_array().unwrap() {
            assert_eq!(ports.get(port["targetPort"].as_str().unwrap()), port["port"].as_u64().as_ref());
        }
    }
    let stores = BTreeSet::from([53, 6379, 26379, 5432, 8200, 443]);
    for policy in of_kind("NetworkPolicy") {
        for direction in ["ingress", "egress"] {
            for rule in policy["spec"][direction].as_array().unwrap_or(&Vec::new()) {
                for port in rule["ports"].as_array().unwrap() {
                    let port = port["port"].as_u64().unwrap();
                    let known = if direction == "ingress" { &open } else { &stores };
                    assert!(known.contains(&port), "{}: {port}", name(&policy));
                }
            }
        }
    }
}

#[test]
fn an_alerters_events_survive_its_pod_and_have_room() {
    let alerter = workloads().into_iter().find(|w| name(w) == "mutt-alerter").unwrap();
    assert_eq!(alerter["kind"], "StatefulSet", "a volume of its own for each");
    let claim = &alerter["spec"]["volumeClaimTemplates"][0];
    let mounts = container(&alerter)["volumeMounts"].as_array().unwrap();
    assert!(mounts.iter().any(|m| m["name"] == name(claim) && m["mountPath"] == "/var/lib/mutt"));
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "100Gi");
}

#[test]
fn a_door_of_one_role_is_not_set_for_all() {
    let text = read("k8s/config.yaml");
    assert!(!text.contains("_TLS_KEY:"), "a role without the mounted certificate would not start");
}

#[test]
fn no_pod_has_more_rights_than_it_needs() {
    let accounts = of_kind("ServiceAccount");
    for deployment in workloads() {
        let pod = &deployment["spec"]["template"]["spec"];
        let what = name(&deployment);
        let account = accounts.iter().find(|a| name(a) == pod["serviceAccountName"]).unwrap();
        assert_eq!(account["automountServiceAccountToken"], false, "{what}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{what}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{what}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{what}");
        let context = &container(&deployment)["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false, "{what}");
        assert_eq!(context["readOnlyRootFilesystem"], true, "{what}");
        assert_eq!(context["capabilities"]["drop"][0], "ALL", "{what}");
        assert!(container(&deployment)["resources"]["limits"]["memory"].is_string(), "{what}");
        let claims = deployment["spec"]["volumeClaimTemplates"].as_array().cloned().unwrap_or_default();
        let mut volumes: BTreeSet<&str> =
            pod["volumes"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
        volumes.extend(claims.iter().map(name));
        for mount in container(&deployment)["volumeMounts"].as_array().unwrap() {
            assert!(volumes.contains(mount["name"].as_str().unwrap()), "{what}");
        }
    }
}

#[test]
fn settings_are_read_by_muttd_and_the_example_secret_holds_none() {
    let maps = of_kind("ConfigMap");
    let map = |wanted: &str| maps.iter().find(|m| name(m) == wanted).unwrap()["data"].clone();
    for variable in map("mutt-config").as_object().unwrap().keys() {
        assert!(is_known(variable), "{variable} is read by nobody");
    }
    let secret = &yaml("k8s/secret.example.yaml")[0];
    for (variable, value) in secret["stringData"].as_object().unwrap() {
        assert!(is_known(variable), "{variable} is read by nobody");
        assert_eq!(value, "", "{variable}");
    }
    assert!(of_kind("Secret").is_empty(), "the example is not applied");
    let inline: toml::Table = map("mutt-files")["muttd.toml"].as_str().unwrap().parse().unwrap();
    let shipped: toml::Table = read("config/muttd.toml").parse().unwrap();
    assert_eq!(inline, shipped, "the ConfigMap holds packaging/config/muttd.toml");
    for deployment in workloads() {
        for source in container(&deployment)["envFrom"].as_array().unwrap() {
            let config = source["configMapRef"]["name"].as_str().is_some_and(|n| maps.iter().any(|m| name(m) == n));
            assert!(config || source["secretRef"]["name"] == name(secret), "{source}");
        }
        for volume in deployment["spec"]["template"]["spec"]["volumes"].as_array().unwrap() {
            let Some(from) = volume["configMap"]["name"].as_str() else { continue };
            assert!(maps.iter().any(|m| name(m) == from), "{from}");
        }
    }
}

#[test]
fn there_is_one_image_of_this_version() {
    for deployment in workloads() {
        assert_eq!(container(&deployment)["image"], "muttd", "{}", name(&deployment));
    }
    let images = yaml("k8s/kustomization.yaml")[0]["images"].clone();
    assert_eq!((images.as_array().unwrap().len(), &images[0]["name"]), (1, &Value::from("muttd")));
    assert_eq!(images[0]["newTag"], env!("CARGO_PKG_VERSION"), "bump packaging/k8s with the version");
}
