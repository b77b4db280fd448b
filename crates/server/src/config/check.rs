//! Looks at single values, and gathers what is wrong with them.

use super::settings::{Listen, PairListen, TlsSettings};
use connectors::channels::{ChannelConfig, HttpTarget};
use model::Durability;
use runtime::Secret;
use runtime::config::Problem;
use runtime::tls::MinimumTls;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the original looks for Prometheus.
const ORIGINAL_PROMETHEUS: &str = "http://localhost:9090";

pub(super) struct Check<'a>(pub(super) &'a mut Vec<Problem>);

impl Check<'_> {
    pub fn problem(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { path: path.into(), message: message.into() });
    }

    pub fn range<T: TryFrom<i64> + Default>(&mut self, path: &str, value: i64, least: i64, most: i64) -> T {
        if !(least..=most).contains(&value) {
            self.problem(path, format!("is {value}, expected {least} to {most}"));
        }
        T::try_from(value.clamp(least, most)).unwrap_or_default()
    }

    pub fn millis(&mut self, path: &str, value: i64, least: i64, most: i64) -> Duration {
        Duration::from_millis(self.range(path, value, least, most))
    }

    pub fn listen(&mut self, path: &'static str, text: &str) -> Option<Listen> {
        if text.is_empty() {
            return None;
        }
        match text.parse() {
            Ok(address) => Some(Listen { address, setting: path }),
            Err(_) => {
                self.problem(path, format!("`{text}` is not an address such as 127.0.0.1:8080 or [::1]:8080"));
                None
            }
        }
    }

    pub fn pair(&mut self, metrics: (&'static str, &str), health: (&'static str, &str)) -> PairListen {
        PairListen { metrics: self.listen(metrics.0, metrics.1), health: self.listen(health.0, health.1) }
    }

    pub fn durability(&mut self, path: &str, text: &str) -> Durability {
        Durability::parse(text).unwrap_or_else(|| {
            self.problem(path, format!("`{text}` is not one of strict, batched, memory"));
            Durability::Strict
        })
    }

    /// Certificate and key, both or none; they have to fit.
    pub fn tls(
        &mut self,
        cert: (&'static str, &str),
        key: (&'static str, &str),
        allow_tls12: bool,
    ) -> Option<TlsSettings> {
        match (cert.1.is_empty(), key.1.is_empty()) {
            (true, true) => return None,
            (true, false) => self.problem(cert.0, format!("is empty, but {} is not", key.0)),
            (false, true) => self.problem(key.0, format!("is empty, but {} is not", cert.0)),
            (false, false) => {}
        }
        let minimum = if allow_tls12 { MinimumTls::Tls12 } else { MinimumTls::Tls13 };
        let settings = TlsSettings { cert: PathBuf::from(cert.1), key: PathBuf::from(key.1), minimum };
        if !cert.1.is_empty()
            && !key.1.is_empty()
            && let Err(error) = runtime::tls::server_config(&settings.cert, &settings.key, minimum)
        {
            let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            self.problem(cert.0, format!("{error}{cause}"));
        }
        Some(settings)
    }

    /// Where a company's stores are used each process counts for itself only: there the original's
    /// Prometheus is asked unless another one is named.
    pub fn prometheus(&mut self, url: &str, shared: bool) -> Option<Secret> {
        let url = match url {
            "" if shared => ORIGINAL_PROMETHEUS,
            "" => return None,
            url => url,
        };
        if !(url.starts_with("http://") || url.starts_with("https://")) || crate::api::Prometheus::open(url).is_err() {
            self.problem("webui.prometheus_url", "is not a URL that begins with https:// or http://");
        }
        Some(Secret::new(url))
    }

    /// The value, or the content of the file that `file:…` names.
    pub fn secret(&mut self, path: &str, text: &str) -> Secret {
        let Some(file) = text.strip_prefix("file:") else { return Secret::new(text.trim()) };
        runtime::secrets::read_secret(Path::new(file)).unwrap_or_else(|reason| {
            self.problem(path, reason);
            Secret::new("")
        })
    }

    pub fn target(&mut self, path: &str, name: String, url: &str, timeout_ms: i64, ca_file: &str) -> HttpTarget {
        if !(url.starts_with("http://") || url.starts_with("https://")) {
            self.problem(format!("{path}.url"), "is not a URL that begins with https:// or http://");
        }
        let ca_file = (!ca_file.is_empty()).then(|| PathBuf::from(ca_file));
        if let Some(file) = ca_file.as_ref().filter(|f| !f.is_file()) {
            self.problem(format!("{path}.ca_file"), format!("`{}` is not a file", file.display()));
        }
        HttpTarget {
            name,
            url: url.to_owned(),
            timeout: self.millis(&format!("{path}.timeout_ms"), timeout_ms, 100, 300_000),
            ca_file,
        }
    }

    /// What only opening a channel finds, unless there is a problem of it since `found`.
    pub fn opens(&mut self, path: &str, channel: &ChannelConfig, found: usize) {
        if self.0.len() == found
            && let Err(error) = connectors::channels::open(channel.clone())
        {
            self.problem(path, error.to_string());
        }
    }
}
