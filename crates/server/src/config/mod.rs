//! Configuration of `muttd`: layers → raw → validated. The rest of the program sees only [`Config`].

mod agents;
mod channels;
mod check;
mod detection;
mod env;
mod raw;
mod routes;
mod settings;
mod shown;
mod snmp;
mod stores;
mod validate;

pub use agents::AgentSettings;
pub use detection::DetectionSettings;
pub use settings::{
    ChannelSettings, Config, HttpSettings, Listen, MOOGSOFT, PairListen, Role, SyslogSettings, TlsSettings,
};
pub use stores::StoreSettings;

use runtime::config::{Layers, Problem, Unit, lookup};
use std::collections::BTreeMap;
use std::path::Path;

/// The documented defaults; also the list of every setting there is.
pub const DEFAULTS: &str = include_str!("default.toml");

/// Settings whose content the defaults do not list.
const FREE: &[&str] = &["channel", "routes", "ingest.snmp.users", "ingest.snmp.hostnames"];

/// Every environment variable that sets a setting.
pub fn variables() -> impl Iterator<Item = &'static str> {
    env::BINDINGS.iter().map(|binding| binding.variable).chain(["LOG_FORMAT", "DB_SSL_MODE"])
}

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
    let mut own = toml::Table::new();
    if let Some(path) = file {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                layers = layers.file(&path.display().to_string(), &text);
                own = text.parse().unwrap_or_default();
            }
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
    // A rate that the environment names is meant: the original's limit was on unless it was switched off.
    let given = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
    let rate_is_given = ["INGEST_MAX_RATE", "RATE_LIMIT_MAX_REQUESTS"].into_iter().any(given);
    if rate_is_given && !given("RATE_LIMIT_ENABLED") && lookup(&own, "ingest.limit.enabled").is_none() {
        environment.insert("RATE_LIMIT_ENABLED".into(), "true".into());
    }
    let mut notes: Vec<String> = env::not_needed(&environment).collect();
    let ssl_mode = env::ssl_mode(&mut environment, &mut notes);
    let (mut table, mut problems) = layers.environment(&environment, env::BINDINGS).finish();
    problems.extend(unreadable);
    problems.extend(ssl_mode.err());
    if let Some(dir) = &overrides.data_dir {
        table.insert("data_dir".into(), toml::Value::String(dir.clone()));
    }
    if let Some(roles) = &overrides.roles {
        table.insert("roles".into(), toml::Value::Array(roles.iter().cloned().map(toml::Value::String).collect()));
    }
    listen_host(&mut table, &own, &environment, &mut notes);
    let effective = shown::shown(&table);
    let raw = raw::read(table, &mut problems);
    let config = raw.and_then(|raw| validate::validate(raw, &environment, &mut problems));
    match config {
        Some(config) if problems.is_empty() => {
            notes.extend(config.moog_key_note());
            notes.extend(config.router.notes().iter().cloned());
            Ok(Loaded { config, notes, effective })
        }
        _ => Err(problems),
    }
}

/// Settings that hold an address to listen on.
const LISTENERS: [&str; 12] = [
    "ingest.agents.listen",
    "ingest.http.listen",
    "ingest.syslog.udp",
    "ingest.syslog.tcp",
    "ingest.snmp.udp",
    "alerter.metrics_listen",
    "alerter.health_listen",
    "forwarder.metrics_listen",
    "forwarder.health_listen",
    "remediation.metrics_listen",
    "remediation.health_listen",
    "webui.listen",
];

/// Gives the listeners that neither the user's file nor the environment addresses the host of
/// `listen_host`.
fn listen_host(
    table: &mut toml::Table,
    own: &toml::Table,
    environment: &BTreeMap<String, String>,
    notes: &mut Vec<String>,
) {
    let mut host = lookup(table, "listen_host").and_then(toml::Value::as_str).unwrap_or_default().to_owned();
    if host.is_empty() && env::is_originals(environment) {
        host = "0.0.0.0".to_owned();
        notes.push(
            "this is the environment of an original installation, so the listeners answer on every address, as they \
             did; MUTT_LISTEN_HOST=127.0.0.1 changes that"
                .to_owned(),
        );
    }
    if host.is_empty() {
        return;
    }
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
    let addressed = |path: &str| {
        let by_variable = |b: &&runtime::config::Binding| b.path == path && matches!(b.unit, Unit::Plain);
        lookup(own, path).is_some()
            || env::BINDINGS
                .iter()
                .filter(by_variable)
                .any(|b| environment.get(b.variable).is_some_and(|v| !v.is_empty()))
    };
    for path in LISTENERS.into_iter().filter(|path| !addressed(path)) {
        let Some(toml::Value::String(text)) = lookup_mut(table, path) else { continue };
        if let Some((_, port)) = text.rsplit_once(':') {
            *text = format!("{host}:{port}");
        }
    }
}

fn lookup_mut<'a>(table: &'a mut toml::Table, path: &str) -> Option<&'a mut toml::Value> {
    match path.split_once('.') {
        None => table.get_mut(path),
        Some((first, rest)) => lookup_mut(table.get_mut(first)?.as_table_mut()?, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::catalog::CatalogConfig;
    use storage::coordination::CoordinationConfig;
    use storage::queue::QueueConfig;

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
    fn a_rate_in_the_environment_switches_the_limit_on_unless_it_is_switched_off() {
        let limit = |pairs: &[(&str, &str)]| {
            load(None, &vars(pairs), &Overrides::default()).unwrap().config.live.ingest_limit.map(|limit| limit.max)
        };
        assert_eq!(limit(&[("INGEST_MAX_RATE", "2")]), Some(2));
        assert_eq!(limit(&[("RATE_LIMIT_MAX_REQUESTS", "3"), ("RATE_LIMIT_ENABLED", "")]), Some(3));
        assert_eq!(limit(&[("INGEST_MAX_RATE", "2"), ("RATE_LIMIT_ENABLED", "false")]), None);
        assert_eq!(limit(&[("INGEST_RATE_WINDOW", "60")]), None);
    }

    #[test]
    fn a_forwarder_that_would_ask_moogsoft_without_a_key_says_so() {
        let notes = |pairs: &[(&str, &str)], role: &str| {
            let overrides = Overrides { roles: Some(vec![role.to_owned()]), ..Overrides::default() };
            load(None, &vars(pairs), &overrides).unwrap().notes.join("; ")
        };
        let url = ("MOOG_WEBHOOK_URL", "http://127.0.0.1:9/events");
        assert!(notes(&[url], "forwarder").contains("MOOG_API_KEY"));
        assert_eq!(notes(&[url], "alerter"), "");
        assert_eq!(notes(&[url, ("MOOG_API_KEY", "k")], "forwarder"), "");
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
            ("REDIS_TLS_ENABLED", "false"),
            ("REDIS_PASS", "hunter2"),
            ("REDIS_CA_CERT_PATH", "/nowhere/ca.pem"),
            ("DB_HOST", "db"),
            ("DB_TLS_ENABLED", "false"),
            ("DB_NAME", "mutt"),
            ("VAULT_ADDR", "https://vault:8200"),
            ("VAULT_ROLE_ID", "role"),
            ("VAULT_SECRET_PATH", "mutt/prod"),
            ("MUTT_WEBUI_LISTEN", "127.0.0.1:9"),
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
        assert!(loaded.notes[0].contains("every address"));
        let address = |listen: &Listen| listen.address.to_string();
        assert_eq!(address(&config.http.as_ref().unwrap().listen), "0.0.0.0:18080", "as the original did");
        assert_eq!(address(config.webui_listen.as_ref().unwrap()), "127.0.0.1:9", "unless it is said");
        assert!(matches!(&config.stores.queue, QueueConfig::Redis(queue) if queue.redis.tls.is_none()));
        assert!(matches!(&config.stores.coordination, CoordinationConfig::Redis(_)));
        assert!(matches!(&config.stores.catalog, CatalogConfig::Postgres(db) if db.database == "mutt"));
        assert_eq!(config.stores.vault.as_ref().unwrap().path, "mutt/prod");
        assert!(config.stores.given.contains_key("REDIS_PASS_CURRENT"));
        assert!(!loaded.effective.contains("hunter2"));
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
    fn snmp_says_which_user_or_address_is_wrong_and_shows_no_secret() {
        let on = "[ingest.snmp]\nudp = \"127.0.0.1:10162\"\n";
        assert_eq!(problems(on, &[]), ["ingest.snmp.communities"], "nobody could send");
        let users = format!(
            "{on}hostnames = {{ \"router\" = \"r\" }}\n[[ingest.snmp.users]]\nname = \"a\"\nauth = \"sha3\"\n\
             auth_passphrase = \"short\"\n[[ingest.snmp.users]]\nname = \"b\"\nprivacy = \"aes128\"\n\
             privacy_passphrase = \"long enough\"\nengine_id = \"zz\"\n[[ingest.snmp.users]]\nnames = \"c\"\n"
        );
        let mut found = problems(&users, &[]);
        found.sort();
        assert_eq!(
            found,
            [
                "ingest.snmp.hostnames.router",
                "ingest.snmp.users[0].auth",
                "ingest.snmp.users[0].auth_passphrase",
                "ingest.snmp.users[1].engine_id",
                "ingest.snmp.users[1].privacy",
                "ingest.snmp.users[2]",
            ]
        );
        let env = [("MUTT_SNMP_UDP", "127.0.0.1:10162"), ("MUTT_SNMP_COMMUNITIES", "hunter2,hunter3")];
        let loaded = load(None, &vars(&env), &Overrides::default()).unwrap();
        assert_eq!(loaded.config.snmp.unwrap().1.communities.len(), 2);
        assert!(!loaded.effective.contains("hunter"));
    }

    #[test]
    fn a_store_that_is_chosen_must_be_there() {
        assert_eq!(problems("[queue]\ntype=\"redis\"", &[]), ["queue.type"]);
        assert_eq!(problems("[catalog]\ntype=\"postgres\"\n[coordination]\ntype=\"reddis\"", &[]).len(), 2);
        let redis = [("REDIS_HOST", "r")];
        assert_eq!(problems("[redis]\nca_file=\"/nowhere\"", &redis), ["redis.ca_file"]);
        assert_eq!(problems("[redis.keys]\nalert_queue=\"mutt:ingest_queue\"", &redis), ["redis.keys"]);
        assert_eq!(problems("", &[("REDIS_SENTINELS", "a:1,:2")]), ["redis.sentinels[1]"]);
        assert_eq!(problems("[postgres]\npool_min=11", &[("DB_HOST", "d")]), ["postgres.pool_min"]);
        assert_eq!(problems("", &[("VAULT_ADDR", "vault:8200"), ("VAULT_ROLE_ID", "r")]), ["VAULT_ADDR"]);
        let chosen =
            load(None, &vars(&[("REDIS_HOST", "r"), ("MUTT_QUEUE", "embedded")]), &Overrides::default()).unwrap();
        assert!(
            matches!(chosen.config.stores.queue, QueueConfig::Embedded { .. }),
            "the configuration may say otherwise"
        );
    }

    #[test]
    fn a_secret_file_that_holds_nothing_is_a_mistake_wherever_it_is_named() {
        for variable in ["INGEST_API_KEY_FILE", "WEBUI_API_KEY_CURRENT_FILE", "DB_PASS_FILE", "MOOG_API_KEY_FILE"] {
            assert_eq!(problems("", &[(variable, "/nosuch")]), [variable]);
        }
        for variable in ["INGEST_API_KEY", "DB_PASS", "REDIS_PASS_CURRENT"] {
            assert_eq!(problems("", &[(variable, "file:/nosuch")]), [variable]);
        }
        assert_eq!(problems("[keys]\ningest = \"file:/nosuch\"", &[]), ["keys.ingest"]);
        assert_eq!(problems("[redis]\npassword = \"file:/nosuch\"", &[]), ["redis.password"]);
        assert_eq!(
            problems("[keys]\ningest = \"k\"", &[("INGEST_API_KEY_FILE", "/nosuch")]),
            [""; 0],
            "it is not used"
        );
        let next = [("INGEST_API_KEY_NEXT_FILE", "/nosuch"), ("REDIS_PASS_NEXT", "file:/nosuch")];
        assert_eq!(problems("", &next), [""; 0], "nothing is being rotated");
    }

    #[test]
    fn a_url_that_could_not_be_served_is_a_mistake_and_is_not_repeated() {
        let url = ("MOOG_WEBHOOK_URL", "http://usr:hunter2@127.0.0.1:9/e");
        let found = load(None, &vars(&[url, ("SERVER_PORT_WEBUI", "0")]), &Overrides::default()).unwrap_err();
        let paths: Vec<&str> = found.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(paths, ["SERVER_PORT_WEBUI", "forwarder.moog"]);
        assert!(
            found[1].message.contains("user name or password") && !found[1].message.contains("hunter2"),
            "{found:?}"
        );
        let channel = "[[channel]]\ntype = \"webhook\"\nname = \"a\"\nurl = \"https://u:p@h/\"\nsecret = \"0123456789abcdef0123456789abcdef\"";
        assert_eq!(problems(channel, &[]), ["channel[0]"]);
    }

    #[test]
    fn each_role_needs_its_keys_of_vault() {
        let required = |roles: &str, vault: bool| {
            let mut env = vec![("MUTT_ROLES", roles), ("MOOG_WEBHOOK_URL", "http://127.0.0.1:9/events")];
            if vault {
                env.extend([("VAULT_ADDR", "https://vault:8200"), ("VAULT_ROLE_ID", "role")]);
            }
            load(None, &vars(&env), &Overrides::default()).unwrap().config.required_secrets()
        };
        assert_eq!(required("ingestor,forwarder,webui", false), [""; 0], "they are made here");
        assert_eq!(required("ingestor", true), ["INGEST_API_KEY"]);
        assert_eq!(required("webui", true), ["WEBUI_API_KEY"]);
        assert_eq!(required("alerter", true), [""; 0]);
        assert_eq!(required("ingestor,forwarder,webui", true), ["INGEST_API_KEY", "WEBUI_API_KEY", "MOOG_API_KEY"]);
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

    /// The original's enforcer and its cleanup script had variables of their own for the same.
    #[test]
    fn of_two_variables_about_deleting_the_one_that_deletes_less_counts() {
        let load = |pairs: &[(&str, &str)]| load(None, &vars(pairs), &Overrides::default()).unwrap();
        let days = |days: u64| std::time::Duration::from_secs(days * 86_400);
        let kept = load(&[]).config.live.retention;
        assert!(kept.enabled && !kept.dry_run);
        assert_eq!((kept.events, kept.archive, kept.config_audit), (days(90), days(7 * 365), days(365)));
        let loaded = load(&[
            ("EVENT_RETENTION_DAYS", "90"),
            ("RETENTION_EVENT_AUDIT_DAYS", "2555"),
            ("CONFIG_AUDIT_RETENTION_DAYS", "400"),
            ("RETENTION_AUDIT_DAYS", "30"),
            ("RETENTION_ENFORCEMENT_ENABLED", "true"),
            ("RETENTION_ENABLED", "false"),
            ("RETENTION_DRY_RUN", "true"),
            ("RETENTION_DLQ_DAYS", "30"),
            ("RETENTION_METRICS_FILE", ""),
        ]);
        let kept = loaded.config.live.retention;
        assert!(!kept.enabled && kept.dry_run);
        assert_eq!((kept.events, kept.config_audit), (days(2_555), days(400)));
        assert_eq!(loaded.notes.len(), 1, "{:?}", loaded.notes);
        assert!(loaded.notes[0].starts_with("RETENTION_DLQ_DAYS is not read: dead letters are not deleted by age"));
        assert_eq!(problems("", &[("RETENTION_AUDIT_DAYS", "0")]), ["retention.config_audit_days"]);
        assert_eq!(problems("", &[("RETENTION_DRY_RUN", "perhaps")]), ["RETENTION_DRY_RUN"]);
    }

    #[test]
    fn the_originals_ssl_mode_is_off_or_verified_or_a_mistake() {
        let tls = |pairs: &[(&str, &str)]| {
            let mut all = vec![("DB_HOST", "db")];
            all.extend(pairs);
            let loaded = load(None, &vars(&all), &Overrides::default()).unwrap();
            let CatalogConfig::Postgres(db) = loaded.config.stores.catalog else { panic!("no PostgreSQL") };
            (db.tls != storage::catalog::PgTls::Off, loaded.notes.iter().filter(|n| n.contains("DB_SSL_MODE")).count())
        };
        assert_eq!(tls(&[]), (true, 0));
        assert_eq!(tls(&[("DB_SSL_MODE", "disable")]), (false, 0));
        assert_eq!(tls(&[("DB_SSL_MODE", "disable"), ("DB_TLS_ENABLED", "")]), (false, 0));
        for mode in ["require", "verify-ca", "verify-full", "Require"] {
            assert_eq!(tls(&[("DB_SSL_MODE", mode)]), (true, 0), "{mode}");
        }
        for mode in ["allow", "prefer"] {
            assert_eq!(tls(&[("DB_SSL_MODE", mode)]), (true, 1), "{mode}");
        }
        assert_eq!(tls(&[("DB_SSL_MODE", "disable"), ("DB_TLS_ENABLED", "true")]), (true, 0), "ours wins");
        assert_eq!(tls(&[("DB_SSL_MODE", "prefer"), ("DB_TLS_ENABLED", "false")]), (false, 0));
        assert_eq!(problems("", &[("DB_SSL_MODE", "bogus"), ("DB_TLS_ENABLED", "true")]), ["DB_SSL_MODE"]);
    }
}
