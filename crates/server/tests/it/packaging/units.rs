use super::{files, read, tool};
use server::config::{self, Overrides};
use std::collections::BTreeMap;

/// Name of a unit → the role that it runs.
const UNITS: [(&str, &str); 7] = [
    ("mutt-ingestor.service", "ingestor"),
    ("mutt-alerter.service", "alerter"),
    ("mutt-alerter@.service", "alerter"),
    ("mutt-moog-forwarder.service", "forwarder"),
    ("mutt-webui.service", "webui"),
    ("mutt-remediation.service", "remediation"),
    ("muttd.service", "ingestor,alerter,forwarder,remediation,webui"),
];

fn value<'a>(unit: &'a str, key: &str) -> &'a str {
    unit.lines().filter_map(|line| line.split_once('=')).find(|(k, _)| *k == key).map_or("", |(_, v)| v)
}

#[test]
fn each_unit_runs_its_role_notifies_reloads_and_never_gives_up() {
    assert_eq!(files("systemd", ".service").len(), UNITS.len());
    for (name, roles) in UNITS {
        let unit = read(&format!("systemd/{name}"));
        for (key, wanted) in [
            ("Type", "notify"),
            ("User", "mutt"),
            ("Group", "mutt"),
            ("EnvironmentFile", "-/etc/mutt/mutt.env"),
            ("ExecReload", "/bin/kill -HUP $MAINPID"),
            ("Restart", "always"),
            ("StartLimitIntervalSec", "0"),
            ("WatchdogSec", "30"),
            ("LogsDirectory", "mutt"),
            ("RuntimeDirectory", "mutt"),
            ("RuntimeDirectoryPreserve", "yes"),
            ("LimitCORE", "0"),
        ] {
            assert_eq!(value(&unit, key), wanted, "{name}: {key}");
        }
        assert_eq!(value(&unit, "Requires"), "", "{name}: stores may be on other hosts");
        assert!(value(&unit, "StateDirectory").split(' ').any(|d| d == "mutt"), "{name}");
        let start = value(&unit, "ExecStart");
        assert!(start.contains(&format!("--roles {roles} ")), "{name}: {start}");
        // systemd waits longer than the drain takes.
        let stop: u64 = value(&unit, "TimeoutStopSec").parse().unwrap();
        let defaults: toml::Table = config::DEFAULTS.parse().unwrap();
        assert!(stop * 1_000 > defaults["grace_ms"].as_integer().unwrap() as u64 + 10_000, "{name}");
        let roles = roles.split(',').map(str::to_owned).collect();
        let overrides = Overrides { data_dir: None, roles: Some(roles) };
        assert!(config::load(None, &BTreeMap::new(), &overrides).is_ok(), "{name}: muttd takes the roles");
    }
}

#[test]
fn no_two_units_share_a_data_directory() {
    let dirs: Vec<String> = UNITS
        .iter()
        .map(|(name, _)| {
            let unit = read(&format!("systemd/{name}"));
            unit.split("--data-dir ").nth(1).unwrap().lines().next().unwrap().to_owned()
        })
        .collect();
    let mut once = dirs.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), dirs.len(), "{dirs:?}");
}

#[test]
fn each_unit_is_rated_3_or_better_by_systemd() {
    for (name, _) in UNITS {
        let said = tool("systemd-analyze", &["security", "--offline=true", "--no-pager", &format!("systemd/{name}")]);
        let exposure: f64 = said
            .lines()
            .find_map(|line| line.split_once("Overall exposure level for ")?.1.split_once(": "))
            .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("{name}: {said}"));
        assert!(exposure <= 3.0, "{name}: {exposure}");
    }
}
