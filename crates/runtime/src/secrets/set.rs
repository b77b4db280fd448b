//! A snapshot of secrets by name, and what the names mean.
//!
//! A secret has up to two values during a rotation: `<NAME>_CURRENT` and `<NAME>_NEXT`, and the
//! plain `<NAME>` of older installations (contract mutt §8.4). These names are one family. What
//! Vault says about a family replaces the whole family of the environment, so that no key that was
//! only meant for the first start stays valid beside Vault's.

use crate::{Login, Secret};
use std::collections::BTreeMap;

/// The secrets that the environment and files are searched for.
pub const NAMES: [&str; 30] = [
    "INGEST_API_KEY",
    "INGEST_API_KEY_CURRENT",
    "INGEST_API_KEY_NEXT",
    "WEBUI_API_KEY",
    "WEBUI_API_KEY_CURRENT",
    "WEBUI_API_KEY_NEXT",
    "MOOG_API_KEY",
    "MOOG_API_KEY_CURRENT",
    "MOOG_API_KEY_NEXT",
    "DB_USER",
    "DB_PASS",
    "DB_PASS_CURRENT",
    "DB_PASS_NEXT",
    "DB_PASSWORD",
    "POSTGRES_USER",
    "POSTGRES_PASSWORD",
    "REDIS_USER",
    "REDIS_PASS",
    "REDIS_PASS_CURRENT",
    "REDIS_PASS_NEXT",
    "REDIS_PASSWORD",
    "SMTP_PASS",
    "SMTP_PASS_CURRENT",
    "SMTP_PASS_NEXT",
    "SLACK_WEBHOOK_URL",
    "SLACK_WEBHOOK_URL_CURRENT",
    "SLACK_WEBHOOK_URL_NEXT",
    "PAGERDUTY_ROUTING_KEY",
    "PAGERDUTY_ROUTING_KEY_CURRENT",
    "PAGERDUTY_ROUTING_KEY_NEXT",
];

/// Other names of a secret, in the order in which they are looked at.
const ALIASES: [(&str, &str); 4] = [
    ("REDIS_PASSWORD", "REDIS_PASS"),
    ("DB_PASSWORD", "DB_PASS"),
    ("POSTGRES_PASSWORD", "DB_PASS"),
    ("POSTGRES_USER", "DB_USER"),
];

/// Secrets by name. No value in it is empty. `Debug` shows the names only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretSet(BTreeMap<String, Secret>);

/// The secret that a name belongs to: `DB_PASS` for `DB_PASS_NEXT` and `POSTGRES_PASSWORD`.
pub(super) fn family(name: &str) -> &str {
    let name = name.strip_suffix("_CURRENT").or_else(|| name.strip_suffix("_NEXT")).unwrap_or(name);
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, of)| of)
}

impl SecretSet {
    /// Empty values count as absent.
    pub fn new(values: impl IntoIterator<Item = (String, Secret)>) -> Self {
        Self(values.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }

    /// The value of exactly that name.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }

    /// The names that have a value.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether any name of that secret has a value.
    pub fn has(&self, name: &str) -> bool {
        !self.candidates(name).is_empty()
    }

    /// What to try for a login, in order: `CURRENT`, `NEXT`, then the older names. Each value once.
    pub fn candidates(&self, name: &str) -> Vec<Secret> {
        let name = family(name);
        let mut names = vec![format!("{name}_CURRENT"), format!("{name}_NEXT"), name.to_owned()];
        names.extend(ALIASES.iter().filter(|(_, of)| *of == name).map(|(alias, _)| (*alias).to_owned()));
        self.each_once(&names)
    }

    /// What to accept from callers, or to send, of an API key: `CURRENT`, or the plain name where
    /// there is no `CURRENT`; and `NEXT` as long as it is there. So a rotation that uses `CURRENT`
    /// ends the validity of a forgotten plain key.
    pub fn accepted(&self, name: &str) -> Vec<Secret> {
        let name = family(name);
        let current = format!("{name}_CURRENT");
        let first = if self.0.contains_key(&current) { current } else { name.to_owned() };
        self.each_once(&[first, format!("{name}_NEXT")])
    }

    /// The logins for a store. Never empty: without a password, one login with an empty one.
    pub(super) fn logins(&self, user_name: &str, user: Option<&str>, password_name: &str) -> Vec<Login> {
        let user = self.candidates(user_name).first().map(|u| u.expose().to_owned()).or(user.map(str::to_owned));
        let mut passwords = self.candidates(password_name);
        if passwords.is_empty() {
            passwords.push(Secret::new(""));
        }
        passwords.into_iter().map(|password| Login { user: user.clone(), password }).collect()
    }

    /// `self` where `top` says nothing about a secret, else `top`.
    pub(super) fn overlaid_by(&self, top: &Self) -> Self {
        let said: Vec<&str> = top.names().map(family).collect();
        let mut all = top.0.clone();
        let below = self.0.iter().filter(|(name, _)| !said.contains(&family(name)));
        all.extend(below.map(|(name, value)| (name.clone(), value.clone())));
        Self(all)
    }

    /// The names whose values differ between the two.
    pub(super) fn differing(&self, other: &Self) -> Vec<String> {
        let mut names: Vec<&String> = self.0.keys().chain(other.0.keys()).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().filter(|name| self.0.get(*name) != other.0.get(*name)).cloned().collect()
    }

    fn each_once(&self, names: &[String]) -> Vec<Secret> {
        let mut values: Vec<Secret> = Vec::new();
        for value in names.iter().filter_map(|name| self.0.get(name)) {
            if !values.contains(value) {
                values.push(value.clone());
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> SecretSet {
        SecretSet::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))))
    }

    fn texts(secrets: &[Secret]) -> Vec<&str> {
        secrets.iter().map(Secret::expose).collect()
    }

    #[test]
    fn logins_try_current_then_next_then_the_older_names_each_once() {
        for (pairs, expected) in [
            (&[("DB_PASS", "c"), ("DB_PASS_NEXT", "b"), ("DB_PASS_CURRENT", "a")][..], &["a", "b", "c"][..]),
            (&[("DB_PASS", "a"), ("DB_PASS_NEXT", "a"), ("DB_PASS_CURRENT", "a")], &["a"]),
            (&[("DB_PASS_NEXT", "b"), ("DB_PASS_CURRENT", "")], &["b"]),
            (&[("POSTGRES_PASSWORD", "d")], &["d"]),
            (&[], &[]),
        ] {
            assert_eq!(texts(&set(pairs).candidates("DB_PASS")), expected, "{pairs:?}");
            assert_eq!(texts(&set(pairs).candidates("DB_PASS_CURRENT")), expected, "any name of it will do");
        }
        assert_eq!(texts(&set(&[("REDIS_PASSWORD", "r")]).candidates("REDIS_PASS")), ["r"]);
    }

    #[test]
    fn a_plain_api_key_ends_where_there_is_a_current_one() {
        for (pairs, expected) in [
            (&[("INGEST_API_KEY", "a")][..], &["a"][..]),
            (&[("INGEST_API_KEY", "a"), ("INGEST_API_KEY_NEXT", "b")], &["a", "b"]),
            (&[("INGEST_API_KEY", "a"), ("INGEST_API_KEY_CURRENT", "b")], &["b"]),
            (&[("INGEST_API_KEY_CURRENT", "b"), ("INGEST_API_KEY_NEXT", "c")], &["b", "c"]),
            (&[("INGEST_API_KEY_NEXT", "c")], &["c"]),
        ] {
            assert_eq!(texts(&set(pairs).accepted("INGEST_API_KEY")), expected, "{pairs:?}");
        }
    }

    #[test]
    fn what_vault_says_about_a_secret_replaces_all_of_it() {
        let below = set(&[("REDIS_PASSWORD", "env"), ("REDIS_PASS_NEXT", "env2"), ("MOOG_API_KEY", "m")]);
        let merged = below.overlaid_by(&set(&[("REDIS_PASS_CURRENT", "vault")]));
        assert_eq!(texts(&merged.candidates("REDIS_PASS")), ["vault"]);
        assert_eq!(texts(&merged.accepted("MOOG_API_KEY")), ["m"]);
        assert_eq!(below.differing(&merged), ["REDIS_PASSWORD", "REDIS_PASS_CURRENT", "REDIS_PASS_NEXT"]);
    }

    #[test]
    fn a_store_without_password_still_has_one_login_and_vaults_user_wins() {
        let none = set(&[]).logins("DB_USER", Some("mutt_user"), "DB_PASS");
        assert_eq!(none, [Login { user: Some("mutt_user".into()), password: Secret::new("") }]);
        let both = set(&[("DB_USER", "v"), ("DB_PASS", "p")]).logins("DB_USER", Some("mutt_user"), "DB_PASS");
        assert_eq!(both, [Login { user: Some("v".into()), password: Secret::new("p") }]);
    }

    #[test]
    fn debug_shows_names_only() {
        let shown = format!("{:?}", set(&[("DB_PASS", "hunter2")]));
        assert!(shown.contains("DB_PASS") && !shown.contains("hunter2"), "{shown}");
    }
}
