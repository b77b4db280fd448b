//! The four calls of Vault's HTTP API that we need: AppRole login, lookup-self, renew-self, and
//! reading a secret of KV version 2. HashiCorp Vault and OpenBao answer them alike.

use super::error::causes;
use super::{Failure, KvPath, SecretSet, Step, VaultConfig, VaultError};
use crate::Secret;
use http::{HeaderMap, HeaderValue, Method};
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::Value;
use std::error::Error;
use std::time::Duration;

/// A KV secret of Vault is at most 1 MiB by its own default (`max_request_size` is 32 MiB).
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// What Vault says about a refusal, as far as it is shown to people.
const SAID_CHARS_MAX: usize = 200;
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Ten years: beyond any lease, and safe to add to an instant.
const LEASE_SECS_MAX: u64 = 315_360_000;

/// A token and how long it is good.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub token: Secret,
    /// From the answer on; `None`: it does not end.
    pub ttl: Option<Duration>,
    pub renewable: bool,
}

/// A Vault server.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    base: Url,
    namespace: Option<HeaderValue>,
    /// What answers may repeat and nobody may see.
    hidden: Vec<Secret>,
}

/// One request.
struct Call<'a> {
    step: Step,
    method: Method,
    path: Vec<&'a str>,
    token: Option<&'a Secret>,
    body: Option<Value>,
}

impl Api {
    /// Reads the CA file; asks nobody. `hidden` is kept out of every error.
    pub fn open(config: &VaultConfig, hidden: Vec<Secret>) -> Result<Self, VaultError> {
        let file = |reason: String| VaultError::new(Step::Files, Failure::File, reason);
        let base = config.base_url().map_err(|problem| file(format!("VAULT_ADDR {problem}")))?;
        let tls = crate::tls::client_config(config.ca_file.as_deref()).map_err(|e| file(causes(&e)))?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("mutt-security-manager/", env!("CARGO_PKG_VERSION")))
            // A redirect would take the token to a host that nobody configured.
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            // One call in half a minute: a kept connection would only be found dead.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|e| file(causes(&e.without_url())))?;
        let namespace = config.namespace.as_deref().filter(|n| !n.is_empty());
        let namespace = namespace.and_then(|n| HeaderValue::from_str(n).ok());
        Ok(Self { client, base, namespace, hidden })
    }

    /// Keeps one more out of every error.
    pub fn hide(&mut self, secret: Secret) {
        self.hidden.push(secret);
    }

    pub async fn login(&self, role_id: &Secret, secret_id: &Secret) -> Result<Lease, VaultError> {
        let body = serde_json::json!({ "role_id": role_id.expose(), "secret_id": secret_id.expose() });
        let call = Call {
            step: Step::Login,
            method: Method::POST,
            path: vec!["auth", "approle", "login"],
            token: None,
            body: Some(body),
        };
        lease(Step::Login, &self.call(call).await?["auth"])
    }

    /// How long `token` is good; denied when it is not.
    pub async fn lookup_self(&self, token: &Secret) -> Result<Lease, VaultError> {
        let call = Call {
            step: Step::LookupToken,
            method: Method::GET,
            path: vec!["auth", "token", "lookup-self"],
            token: Some(token),
            body: None,
        };
        let answer = self.call(call).await?;
        let ttl = answer["data"]["ttl"].as_u64().ok_or_else(|| not_vaults(Step::LookupToken, "it holds no ttl"))?;
        let renewable = answer["data"]["renewable"].as_bool().unwrap_or(false);
        Ok(Lease { token: token.clone(), ttl: duration(ttl), renewable })
    }

    pub async fn renew_self(&self, token: &Secret) -> Result<Lease, VaultError> {
        let call = Call {
            step: Step::RenewToken,
            method: Method::POST,
            path: vec!["auth", "token", "renew-self"],
            token: Some(token),
            body: Some(serde_json::json!({})),
        };
        lease(Step::RenewToken, &self.call(call).await?["auth"])
    }

    /// The newest version of a secret: its texts, numbers and booleans by name.
    pub async fn read(&self, token: &Secret, path: &KvPath) -> Result<SecretSet, VaultError> {
        let call =
            Call { step: Step::Read, method: Method::GET, path: path.segments(), token: Some(token), body: None };
        let mut answer = self.call(call).await.map_err(|e| at_path(e, path))?;
        let Value::Object(data) = answer["data"]["data"].take() else {
            return Err(not_vaults(Step::Read, &format!("`{path}` is not a secret of a KV version 2 engine")));
        };
        Ok(SecretSet::new(data.into_iter().filter_map(|(name, value)| {
            let text = match value {
                // `kv put NAME=@file` keeps the line feed at the end of the file.
                Value::String(text) => text.trim_end_matches(['\r', '\n']).to_owned(),
                Value::Number(number) => number.to_string(),
                Value::Bool(_) | Value::Null | Value::Array(_) | Value::Object(_) => return None,
            };
            Some((name, Secret::new(text)))
        })))
    }

    async fn call(&self, call: Call<'_>) -> Result<Value, VaultError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(&call.path);
        }
        let mut headers = HeaderMap::new();
        headers.insert("X-Vault-Request", HeaderValue::from_static("true"));
        if let Some(namespace) = &self.namespace {
            headers.insert("X-Vault-Namespace", namespace.clone());
        }
        if let Some(token) = call.token {
            let mut value = HeaderValue::from_str(token.expose())
                .map_err(|_| not_vaults(call.step.clone(), "it holds a token that cannot be sent"))?;
            value.set_sensitive(true);
            headers.insert("X-Vault-Token", value);
        }
        let mut request = self.client.request(call.method.clone(), url).headers(headers);
        if let Some(body) = &call.body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let mut response = request.send().await.map_err(|e| self.no_answer(&call, e))?;
        let status = response.status();
        let body = read_bounded(&mut response, &call.step).await.map_err(|e| match e {
            Unread::Broken(e) => self.no_answer(&call, e),
            Unread::TooLong(e) => e,
        });
        if !status.is_success() {
            // A refusal is known by its status, whatever became of its body.
            let said: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
            return Err(self.refusal(&call, status, &said));
        }
        // The parser's error would say where, and could quote what.
        serde_json::from_slice(&body?).map_err(|_| not_vaults(call.step, "it is not JSON"))
    }

    fn shown(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    fn no_answer(&self, call: &Call<'_>, error: reqwest::Error) -> VaultError {
        let error = error.without_url();
        let (failure, what) = if of_tls(&error) {
            (Failure::Tls, "could not agree on TLS (is its certificate of the configured CA, for this name?)")
        } else if error.is_timeout() {
            (Failure::Timeout, "did not answer in time")
        } else if error.is_connect() {
            (Failure::Unreachable, "cannot be reached")
        } else {
            (Failure::BadAnswer, "did not answer properly")
        };
        let why = redact(&causes(&error), &self.hidden);
        VaultError::new(call.step.clone(), failure, format!("`{}` {what}: {why}", self.shown()))
    }

    fn refusal(&self, call: &Call<'_>, status: StatusCode, answer: &Value) -> VaultError {
        let said = said(answer, &self.hidden);
        let sealed = said.to_lowercase().contains("sealed");
        let (failure, hint) = match (status.as_u16(), &call.step) {
            (400, Step::Login) => (Failure::Refused, "; the role id or the secret id is wrong, expired or used up"),
            (400, _) => (Failure::Refused, ""),
            (403, Step::Login) => (
                Failure::Denied,
                "; locked out after refused logins (user lockout), or is AppRole not enabled at `auth/approle`?",
            ),
            (403, _) => (Failure::Denied, ""),
            // A deleted version is a 404 whose answer names the time.
            (404, Step::Read) if answer["data"]["metadata"]["version"].is_u64() => {
                (Failure::NotFound, "; its newest version is deleted")
            }
            (404, Step::Read) => (Failure::NotFound, "; there is no such secret (of a KV version 2 engine)"),
            (404, _) => (Failure::NotFound, "; is this the address of a Vault server?"),
            (503, _) if sealed => (Failure::Sealed, "; somebody must unseal it"),
            (300..400, _) => {
                let hint = "; redirects are not followed: give the address of the active node or of the load balancer";
                (Failure::Status(status.as_u16()), hint)
            }
            (other, _) => (Failure::Status(other), ""),
        };
        let said = if said.is_empty() { status.canonical_reason().unwrap_or_default().to_owned() } else { said };
        let reason = format!("`{}` answered HTTP {} ({said}){hint}", self.shown(), status.as_u16());
        VaultError::new(call.step.clone(), failure, reason)
    }
}

fn at_path(mut error: VaultError, path: &KvPath) -> VaultError {
    error.reason = format!("`{path}`: {}", error.reason);
    error
}

fn not_vaults(step: Step, why: &str) -> VaultError {
    VaultError::new(step, Failure::BadAnswer, format!("this is not an answer of Vault: {why}"))
}

/// `auth` of a login's or renewal's answer.
fn lease(step: Step, auth: &Value) -> Result<Lease, VaultError> {
    let token = auth["client_token"].as_str().unwrap_or_default();
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || HeaderValue::from_str(token).is_err() {
        return Err(not_vaults(step, "it holds no token that could be sent"));
    }
    let Some(secs) = auth["lease_duration"].as_u64() else {
        return Err(not_vaults(step, "it holds no lease_duration"));
    };
    let renewable = auth["renewable"].as_bool().unwrap_or(false);
    Ok(Lease { token: Secret::new(token), ttl: duration(secs), renewable })
}

/// Vault's 0 means that it does not end.
fn duration(secs: u64) -> Option<Duration> {
    (secs > 0).then(|| Duration::from_secs(secs.min(LEASE_SECS_MAX)))
}

enum Unread {
    Broken(reqwest::Error),
    TooLong(VaultError),
}

async fn read_bounded(response: &mut Response, step: &Step) -> Result<Vec<u8>, Unread> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Unread::Broken)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Unread::TooLong(not_vaults(step.clone(), "it is longer than 1 MiB")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The `errors` of an answer on one line, without secrets.
fn said(answer: &Value, hidden: &[Secret]) -> String {
    let errors = answer["errors"].as_array().map_or(&[][..], Vec::as_slice);
    let text: Vec<&str> = errors.iter().take(4).filter_map(Value::as_str).collect();
    // Before it is cut: half a secret would not be found.
    let text = redact(&text.join("; "), hidden);
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    words.join(" ").chars().take(SAID_CHARS_MAX).collect()
}

fn redact(text: &str, hidden: &[Secret]) -> String {
    let hidden = hidden.iter().filter(|secret| !secret.is_empty());
    hidden.fold(text.to_owned(), |text, secret| text.replace(secret.expose(), "***"))
}

/// Whether rustls is among the causes.
fn of_tls(error: &(dyn Error + 'static)) -> bool {
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    crate::tls::tls_error(error).is_some()
        || wrapped.is_some_and(|inner| of_tls(inner))
        || error.source().is_some_and(of_tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_vault_says_is_shown_on_one_short_line_without_secrets() {
        let token = [Secret::new("hvs.abc")];
        let answer = serde_json::json!({ "errors": ["no\n way,\u{1b}[1m hvs.abc", 5, "x".repeat(500)] });
        let text = said(&answer, &token);
        assert!(text.starts_with("no way, [1m ***; xxx"), "{text}");
        assert_eq!(text.chars().count(), SAID_CHARS_MAX);
        for odd in [serde_json::json!(null), serde_json::json!({ "errors": "x" }), serde_json::json!([1])] {
            assert_eq!(said(&odd, &token), "");
        }
    }

    #[test]
    fn leases_of_odd_answers_are_refused_and_long_ones_are_cut() {
        for auth in [
            serde_json::json!(null),
            serde_json::json!({ "client_token": "", "lease_duration": 5 }),
            serde_json::json!({ "client_token": "a\nb", "lease_duration": 5 }),
            serde_json::json!({ "client_token": "a", "lease_duration": -5 }),
            serde_json::json!({ "client_token": "a".repeat(TOKEN_BYTES_MAX + 1), "lease_duration": 5 }),
        ] {
            assert_eq!(lease(Step::Login, &auth).unwrap_err().failure, Failure::BadAnswer);
        }
        let long = lease(Step::Login, &serde_json::json!({ "client_token": "a", "lease_duration": u64::MAX })).unwrap();
        assert_eq!(long.ttl, Some(Duration::from_secs(LEASE_SECS_MAX)));
        assert!(!long.renewable);
        assert_eq!(duration(0), None);
    }
}
