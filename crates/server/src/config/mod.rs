//! Configuration of `muttd`: layers → raw → validated. The rest of the program sees only [`Config`].

mod env;
mod raw;
mod validate;

pub use validate::{
    ChannelSettings, Config, HttpSettings, Listen, PairListen, RetentionSettings, Role, SyslogSettings, TlsSettings,
};

use runtime::config::{Layers, Problem};
use std::collections::BTreeMap;
use std::path::Path;

/// The documented defaults; also the list of every setting there is.
pub const DEFAULTS: &str = include_str!("default.toml");

/// Settings whose content the defaults do not list.
const FREE: &[&str] = &["channel"];

/// A configuration that can be used, and what should be said about it.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// Not wrong, but worth knowing.
    pub notes: Vec<String>,
    /// The settings in force, as TOML; keys are shown as `***`.
    pub effective: String,
}

/// What the command line sets; wins over everything.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    pub data_dir: Option<String>,
    pub roles: Option<Vec<String>>,
}

/// Reads the layers: defaults, `file`, environment, command line. Every problem of every layer is
/// returned at once.
pub fn load(
    file: Option<&Path>,
    environment: &BTreeMap<String, String>,
    overrides: &Overrides,
) -> Result<Loaded, Vec<Problem>> {
    let mut layers = Layers::new(DEFAULTS, FREE);
    let mut unreadable = None;
    if let Some(path) = file {
        match std::fs::read_to_string(path) {
            Ok(text) => layers = layers.file(&path.display().to_string(), &text),
            Err(error) => {
                unreadable =
                    Some(Problem { path: path.display().to_string(), message: format!("cannot be read: {error}") });
            }
        }
    }
    let mut environment = environment.clone();
    if environment.get("LOG_FORMAT").is_some_and(|v| v.eq_ignore_ascii_case("json")) {
        environment.entry("LOG_JSON_ENABLED".into()).or_insert_with(|| "true".into());
    }
    let (mut table, mut problems) = layers.environment(&environment, env::BINDINGS).finish();
    problems.extend(unreadable);
    if let Some(dir) = &overrides.data_dir {
        table.insert("data_dir".into(), toml::Value::String(dir.clone()));
    }
    if let Some(roles) = &overrides.roles {
        table.insert("roles".into(), toml::Value::Array(roles.iter().cloned().map(toml::Value::String).collect()));
    }
    let effective = redacted(&table);
    let raw = raw::read(table, &mut problems);
    let config = raw.and_then(|raw| validate::validate(raw, &mut problems));
    match config {
        Some(config) if problems.is_empty() => {
            let notes = env::UNSUPPORTED
                .iter()
                .filter(|(name, _)| environment.get(*name).is_some_and(|v| !v.is_empty()))
                .map(|(name, note)| format!("{name} is set, but {note}"))
                .collect();
            Ok(Loaded { config, notes, effective })
        }
        _ => Err(problems),
    }
}

fn redacted(table: &toml::Table) -> String {
    const SECRET: [&str; 4] = ["api_key", "secret", "ingest", "webui"];
    fn walk(table: &mut toml::Table, in_keys: bool) {
        for (key, value) in table.iter_mut() {
            match value {
                toml::Value::Table(inner) => walk(inner, key == "keys"),
                toml::Value::Array(items) => {
                    items.iter_mut().filter_map(toml::Value::as_table_mut).for_each(|t| walk(t, false));
                }
                // A password in the URL.
                toml::Value::String(text) if key == "prometheus_url" && text.contains('@') => *text = "***".into(),
                toml::Value::String(text)
                    if (in_keys || matches!(key.as_str(), "api_key" | "secret"))
                        && SECRET.contains(&key.as_str())
                        && !text.is_empty()
                        && !text.starts_with("file:") =>
                {
                    *text = "***".into();
                }
                _ => {}
            }
        }
    }
    let mut table = table.clone();
    walk(&mut table, false);
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn problems(toml: &str, env: &[(&str, &str)]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, toml).unwrap();
        match load(Some(&file), &vars(env), &Overrides::default()) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.into_iter().map(|p| p.path).collect(),
        }
    }

    #[test]
    fn the_defaults_are_valid_and_listen_on_loopback_only() {
        let config = load(None, &BTreeMap::new(), &Overrides::default()).unwrap().config;
        assert_eq!(config.roles.len(), Role::ALL.len());
        for listen in config.listens() {
            assert!(listen.address.ip().is_loopback(), "{listen:?}");
        }
        assert!(config.ingest_limit.is_none(), "no site-wide limit unless somebody asks for one");
    }

    #[test]
    fn the_original_environment_is_honoured() {
        let env = vars(&[
            ("SERVER_PORT_INGESTOR", "18080"),
            ("HEALTH_PORT_ALERTER", "18082"),
            ("MAX_INGEST_QUEUE_SIZE", "5000"),
            ("REQUIRED_FIELDS", "hostname,message"),
            ("RATE_LIMIT_ENABLED", "true"),
            ("MOOG_WEBHOOK_URL", "http://127.0.0.1:9/events"),
            ("MOOG_API_KEY", "k"),
            ("MOOG_TIMEOUT", "3"),
            ("MOOG_CB_OPEN_SECONDS", "60"),
            ("UNHANDLED_EXPIRY_SECONDS", "60"),
            ("REMEDIATION_INTERVAL", "300"),
            ("LOG_FORMAT", "json"),
            ("REDIS_HOST", "redis"),
        ]);
        let loaded = load(None, &env, &Overrides::default()).unwrap();
        let config = loaded.config;
        assert_eq!(config.http.as_ref().unwrap().listen.address.port(), 18_080);
        assert_eq!(config.alerter_listen.health.as_ref().unwrap().address.port(), 18_082);
        assert_eq!(config.live.ingest_records_max, 5_000);
        assert_eq!(config.http.as_ref().unwrap().rules.required, ["hostname", "message"]);
        assert_eq!(config.live.ingest_limit.unwrap().max, 1_000);
        assert_eq!(config.channels.len(), 1);
        assert_eq!(config.live.breaker.unwrap().open_for.as_secs(), 60);
        assert_eq!(config.live.remediation_interval.as_secs(), 300);
        assert!(config.log.json);
        assert!(loaded.notes[0].contains("REDIS_HOST"), "a driver that is missing is said, not ignored");
        assert!(!loaded.effective.contains("api_key = \"k\""), "keys are not shown");
    }

    #[test]
    fn all_mistakes_are_reported_at_once_with_their_paths() {
        let mut found = problems(
            "rolles = []\nroles = [\"ingester\"]\n[ingest.http]\nlisten = \"nowhere\"\ndurability = \"sure\"\n\
             [queue]\nlease_ms = 0\n[[channel]]\ntype = \"pager\"\nname = \"x\"\n[ingest.syslog]\ntls = \"127.0.0.1:6514\"\n",
            &[("MOOG_RATE_LIMIT", "many"), ("SERVER_PORT_WEBUI", "0"), ("MOOG_WEBHOOK_URL", "ftp://x")],
        );
        found.sort();
        assert_eq!(
            found,
            [
                "MOOG_RATE_LIMIT",
                "SERVER_PORT_WEBUI",
                "channel[0]",
                "forwarder.moog.url",
                "ingest.http.durability",
                "ingest.http.listen",
                "ingest.syslog.tls_cert",
                "ingest.syslog.tls_key",
                "queue.lease_ms",
                "roles[0]",
                "rolles",
            ]
        );
    }

    #[test]
    fn contradictions_are_refused() {
        assert_eq!(problems("[webui]\nlisten = \"127.0.0.1:8080\"", &[]), ["webui.listen"]);
        assert_eq!(
            problems(
                "[[channel]]\ntype=\"webhook\"\nname=\"a\"\nurl=\"http://h/\"\nsecret=\"0123456789abcdef0123456789abcdef\"\n[[channel]]\ntype=\"webhook\"\nname=\"a\"\nurl=\"http://h/\"\nsecret=\"0123456789abcdef0123456789abcdef\"",
                &[]
            ),
            ["channel[1].name"]
        );
        assert_eq!(problems("roles = []", &[]), ["roles"]);
        assert_eq!(
            problems("[forwarder]\nretry_base_ms = 2000\nretry_max_ms = 1000", &[]),
            ["forwarder.retry_base_ms"]
        );
    }
}
