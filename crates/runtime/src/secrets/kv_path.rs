//! Where in the KV engine the secrets are: one setting, two readings.
//!
//! The original reads `VAULT_SECRETS_PATH` (default `secret/mutt`) below the mount `secret`, which
//! means `/v1/secret/data/secret/mutt`; its own set-up scripts and its guide write to
//! `/v1/secret/data/mutt` (contract mutt §0, 12). So a leading `<mount>/` is taken off first, and the
//! literal path is tried where that gives nothing.

use std::fmt;

/// A secret of a KV version 2 engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvPath {
    pub mount: String,
    pub path: String,
}

impl KvPath {
    /// What `path` may mean below `mount`, in the order to try.
    pub fn readings(mount: &str, path: &str) -> Vec<Self> {
        let (mount, path) = (mount.trim_matches('/'), path.trim_matches('/'));
        let reading = |path: &str| Self { mount: mount.to_owned(), path: path.to_owned() };
        let stripped = path.strip_prefix(mount).and_then(|rest| rest.strip_prefix('/'));
        stripped.into_iter().chain([path]).map(reading).collect()
    }

    /// What is wrong with a mount or path, if anything.
    pub(super) fn problem(text: &str) -> Option<&'static str> {
        let text = text.trim_matches('/');
        if text.is_empty() {
            return Some("is empty");
        }
        if text.len() > 512 || text.chars().any(char::is_control) {
            return Some("is too long or holds control characters");
        }
        let odd = |segment: &str| matches!(segment, "" | "." | "..");
        text.split('/').any(odd).then_some("holds an empty, `.` or `..` part")
    }

    /// The parts of the API's path after `/v1/`.
    pub(super) fn segments(&self) -> Vec<&str> {
        self.mount.split('/').chain(["data"]).chain(self.path.split('/')).collect()
    }
}

/// As policies spell it: `secret/data/mutt`.
impl fmt::Display for KvPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/data/{}", self.mount, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leading_mount_is_taken_off_first_and_the_literal_path_comes_second() {
        for (mount, path, expected) in [
            ("secret", "secret/mutt", &["secret/data/mutt", "secret/data/secret/mutt"][..]),
            ("/secret/", "/secret/mutt/prod/", &["secret/data/mutt/prod", "secret/data/secret/mutt/prod"]),
            ("secret", "mutt/prod", &["secret/data/mutt/prod"]),
            ("secret", "secrets/mutt", &["secret/data/secrets/mutt"]),
            ("secret", "secret", &["secret/data/secret"]),
            ("team/kv", "team/kv/mutt", &["team/kv/data/mutt", "team/kv/data/team/kv/mutt"]),
        ] {
            let readings: Vec<String> = KvPath::readings(mount, path).iter().map(ToString::to_string).collect();
            assert_eq!(readings, expected, "{mount} {path}");
        }
    }

    #[test]
    fn paths_that_would_lead_elsewhere_are_refused() {
        for (text, bad) in [
            ("secret/mutt", false),
            ("/mutt/", false),
            ("", true),
            ("/", true),
            ("a//b", true),
            ("a/../b", true),
            ("./a", true),
            ("a\nb", true),
        ] {
            assert_eq!(KvPath::problem(text).is_some(), bad, "{text:?}");
        }
    }
}
