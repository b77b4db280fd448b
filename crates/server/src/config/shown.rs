//! What may be shown of the settings in force. A text is shown only where its key is named here, so
//! that a setting that somebody adds is hidden until somebody says that it is no secret.

use toml::{Table, Value};

const HIDDEN: &str = "***";

/// Keys of texts that are no secrets, in whatever table.
const SHOWN: [&str; 48] = [
    "auth",
    "ca_file",
    "data_dir",
    "database",
    "durability",
    "engine_id",
    "fields",
    "health_listen",
    "host",
    "level",
    "listen",
    "listen_host",
    "metrics_listen",
    "mount",
    "name",
    "namespace",
    "oid_names",
    "path",
    "pod_name",
    "privacy",
    "read_also",
    "required_fields",
    "roles",
    "rules",
    "secret_id_file",
    "sentinel_master",
    "sentinels",
    "shed_mode",
    "tcp",
    "timezone",
    "tls",
    "tls_cert",
    "tls_key",
    "type",
    "udp",
    "team",
    "page_from",
    "ticket_from",
    "unhandled_team",
    "user",
    // The names of lists and keys in Redis.
    "alert_queue",
    "alerter_dlq",
    "alerter_heartbeat",
    "alerter_processing",
    "dead_letters",
    "ingest_queue",
    "moog_circuit",
    "moog_dlq",
];
/// The same, for which the list above was too long.
const SHOWN_OF_REDIS: [&str; 5] = ["metrics", "moog_heartbeat", "moog_processing", "moog_rate_limit", "unhandled"];
/// The same of the gateway for agents.
const SHOWN_OF_AGENTS: [&str; 6] = ["also_listen", "ca_dir", "downloads", "names", "public_address", "use_tls"];
/// The same of channels. What is said in bodies may hold a secret, and so is not among them.
const SHOWN_OF_CHANNELS: [&str; 8] =
    ["channel", "content_type", "format", "html", "method", "subject", "text", "title"];
/// Keys of e-mail addresses, which are shown as they are.
const ADDRESSES: [&str; 3] = ["from", "reply_to", "to"];
/// Keys of URLs, of which scheme, host and port are shown: user, path and query may hold a secret.
const URLS: [&str; 4] = ["address", "alert_url", "prometheus_url", "url"];
/// Tables whose keys are free and whose values are no secrets.
const FREE_TABLES: [&str; 5] = ["hostnames", "incidents", "match", "placeholders", "routes"];
/// Tables whose keys are free and whose values may be secrets.
const SECRET_TABLES: [&str; 1] = ["headers"];

/// The settings as TOML, without secrets.
pub fn shown(table: &Table) -> String {
    let mut table = table.clone();
    hide_in(&mut table, Values::ByKey);
    table.to_string()
}

/// What the values of a table are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    ByKey,
    Harmless,
    Secret,
}

fn hide_in(table: &mut Table, values: Values) {
    for (key, value) in table.iter_mut() {
        hide(key, value, values);
    }
}

fn hide(key: &str, value: &mut Value, values: Values) {
    match value {
        Value::Table(inner) if FREE_TABLES.contains(&key) => hide_in(inner, Values::Harmless),
        Value::Table(inner) if SECRET_TABLES.contains(&key) => hide_in(inner, Values::Secret),
        Value::Table(inner) => hide_in(inner, Values::ByKey),
        Value::Array(items) => items.iter_mut().for_each(|item| hide(key, item, values)),
        Value::String(text) if text.is_empty() || text.starts_with("file:") => {}
        Value::String(text) if values == Values::Secret => *text = HIDDEN.to_owned(),
        Value::String(text) if URLS.contains(&key) => *text = origin(text),
        Value::String(_) if ADDRESSES.contains(&key) => {}
        Value::String(text) => {
            let known = [&SHOWN[..], &SHOWN_OF_AGENTS, &SHOWN_OF_REDIS, &SHOWN_OF_CHANNELS]
                .iter()
                .any(|keys| keys.contains(&key));
            let harmless = values == Values::Harmless || known;
            // `user:password@host`, by mistake.
            if !harmless || text.contains('@') {
                *text = HIDDEN.to_owned();
            }
        }
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
}

fn origin(text: &str) -> String {
    let Ok(url) = reqwest::Url::parse(text) else { return HIDDEN.to_owned() };
    let plain = matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    match url.origin() {
        origin if !origin.is_tuple() => HIDDEN.to_owned(),
        origin if plain => origin.ascii_serialization(),
        origin => format!("{}/{HIDDEN}", origin.ascii_serialization()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each text of the table becomes a marker that names its path.
    fn mark(value: &mut Value, path: &str, paths: &mut Vec<String>) {
        match value {
            Value::Table(inner) => {
                for (key, value) in inner.iter_mut() {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    mark(value, &path, paths);
                }
            }
            Value::Array(items) => {
                if items.is_empty() {
                    items.push("".into());
                }
                items.iter_mut().for_each(|item| mark(item, path, paths));
            }
            Value::String(text) => {
                *text = format!("MARK<{path}>");
                paths.push(path.to_owned());
            }
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
        }
    }

    #[test]
    fn of_all_settings_these_are_hidden_and_no_others() {
        let own: String = super::super::DEFAULTS
            .lines()
            .filter(|line| !matches!(*line, "channel = []" | "routes = []" | "users = []"))
            .flat_map(|line| [line, "\n"])
            .collect();
        let lists = "[[channel]]\ntype = ''\nname = ''\nurl = ''\napi_key = ''\nsecret = ''\nca_file = ''\n\
            host = ''\nuser = ''\npassword = ''\nfrom = ''\nto = ['']\nreply_to = ''\nsubject = ''\ntext = ''\nhtml = ''\n\
            alert_url = ''\nchannel = ''\ntitle = ''\nrouting_key = ''\nmethod = ''\nformat = ''\ncontent_type = ''\n\
            body = ''\nheaders = { Authorization = '', name = '' }\n\
            [[ingest.snmp.users]]\nname = ''\nauth = ''\nauth_passphrase = ''\nprivacy = ''\n\
            privacy_passphrase = ''\nengine_id = ''\n[[routes]]\nname = ''\nmatch = { host = '', team = [''] }\n\
            channels = ['']\nescalate_after = ''\n[[routes.routes]]\nescalate_to = ['']\n";
        let mut value = Value::Table(format!("{own}{lists}").parse().unwrap());
        let mut paths = Vec::new();
        mark(&mut value, "", &mut paths);
        let text = shown(value.as_table().unwrap());
        let mut hidden: Vec<String> =
            paths.into_iter().filter(|path| !text.contains(&format!("MARK<{path}>"))).collect();
        hidden.sort();
        assert_eq!(
            hidden,
            [
                "channel.alert_url",
                "channel.api_key",
                "channel.body",
                "channel.headers.Authorization",
                "channel.headers.name",
                "channel.password",
                "channel.routing_key",
                "channel.secret",
                "channel.url",
                "forwarder.email.password",
                "forwarder.moog.api_key",
                "forwarder.moog.url",
                "forwarder.slack.url",
                "ingest.snmp.communities",
                "ingest.snmp.users.auth_passphrase",
                "ingest.snmp.users.privacy_passphrase",
                "keys.ingest",
                "keys.webui",
                "postgres.password",
                "postgres.password_next",
                "redis.password",
                "redis.password_next",
                "vault.address",
                "vault.role_id",
                "vault.token",
                "webui.prometheus_url",
            ]
        );
    }

    #[test]
    fn a_url_is_shown_without_what_may_be_a_secret_and_a_new_key_not_at_all() {
        for (text, expected) in [
            ("url = \"http://usr:pw@h:8/e?token=x\"", "http://h:8/***"),
            ("url = \"https://hooks.example.com/services/T0/secret\"", "https://hooks.example.com/***"),
            ("url = \"https://moog.example.com\"", "https://moog.example.com"),
            ("address = \"https://v:8200/\"", "https://v:8200"),
            ("address = \"v:8200\"", "***"),
            ("host = \"redis\"", "redis"),
            ("host = \":pw@redis\"", "***"),
            ("a_new_key = \"x\"", "***"),
            ("password = \"file:/etc/x\"", "file:/etc/x"),
            ("hostnames = { \"10.0.0.1\" = \"router1\" }", "router1"),
            ("to = [\"soc@example.com\"]", "soc@example.com"),
            ("headers = { name = \"token\" }", "***"),
            ("headers = { a = \"file:/etc/x\" }", "file:/etc/x"),
        ] {
            let shown = shown(&text.parse().unwrap());
            assert!(shown.contains(&format!("\"{expected}\"")), "{text}: {shown}");
            assert!(!["pw", "token", "secret"].iter().any(|s| shown.contains(s)), "{shown}");
        }
    }
}
