//! The names of the keys: those of the contract, and for names and hosts of any bytes a spelling that
//! is bounded and never the same for two.

use super::RedisCoordinationConfig;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// Longest spelling of a host or name in a key, bytes.
const PART_BYTES_MAX: usize = 255;
const DIGEST_CHARS: usize = 32;
/// Name under which the pipeline asks for the ingest limit.
const INGEST: &str = "ingestor";
/// The contract's name of the one breaker it has.
const MOOGSOFT: &str = "moogsoft";

/// Unit of a window's scores (contract mutt §2.4, §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreUnit {
    Seconds,
    Milliseconds,
}

impl ScoreUnit {
    pub const fn micros(self) -> u64 {
        match self {
            Self::Seconds => 1_000_000,
            Self::Milliseconds => 1_000,
        }
    }
}

/// The keys of one breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerKeys {
    /// state, failures, open_time, probe_time, trips.
    pub machine: [String; 5],
    /// Open flag and failures of the second family.
    pub second: Option<[String; 2]>,
}

impl RedisCoordinationConfig {
    /// Key and score unit of the window `name`.
    pub(super) fn window(&self, name: &str) -> (String, ScoreUnit) {
        if name == INGEST {
            return (self.ingest_rate_limit_key.clone(), ScoreUnit::Seconds);
        }
        if name == self.moog_channel {
            return (self.moog_rate_limit_key.clone(), ScoreUnit::Milliseconds);
        }
        let mut key = format!("{}:{}", self.rate_limit_prefix, spell(name, b""));
        if key == self.ingest_rate_limit_key || key == self.moog_rate_limit_key {
            key.push('~');
        }
        (key, ScoreUnit::Milliseconds)
    }

    pub(super) fn breaker(&self, name: &str) -> BreakerKeys {
        let is_moog = name == self.moog_channel;
        let spelled = match name {
            _ if is_moog => MOOGSOFT.to_owned(),
            MOOGSOFT => format!("{MOOGSOFT}~"),
            _ => spell(name, b""),
        };
        let machine = ["state", "failures", "open_time", "probe_time", "trips"]
            .map(|part| format!("{}:{spelled}:{part}", self.circuit_breaker_prefix));
        let second = is_moog.then(|| ["open", "failures"].map(|part| format!("{}:{part}", self.moog_circuit_prefix)));
        BreakerKeys { machine, second }
    }

    /// `<prefix>:<host>:<shape>`, or `<prefix>:<org>/<host>:<shape>` outside the default organisation.
    pub(super) fn unhandled(&self, org: &str, host: &str, shape: &str) -> String {
        let mut key = format!("{}:", self.unhandled_prefix);
        if org != model::OrgId::DEFAULT {
            key.push_str(org);
            key.push('/');
        }
        // Colons stay, as in addresses of IPv6: the shape, which is the last part, has none.
        key.push_str(&spell(host, b":"));
        key.push(':');
        // No shape may look like the end of another counter's second key.
        match shape {
            "triggered" | "until" => {
                key.push_str(shape);
                key.push('~');
            }
            _ => key.push_str(&spell(shape, b"")),
        }
        key
    }

    pub(super) fn setting(&self, name: &str) -> String {
        format!("{}:{name}", self.config_prefix)
    }

    pub(super) fn settings_channel(&self) -> String {
        format!("{}:updates", self.config_prefix)
    }
}

/// Of a piece of work that one process has for itself.
pub(super) fn claim(name: &str) -> String {
    format!("mutt:claim:{}", spell(name, b""))
}

/// `text` with everything but letters, digits, `-_.` and `also` as `%XX`; too long, its beginning and
/// a digest after `~`, which no other spelling holds.
fn spell(text: &str, also: &[u8]) -> String {
    let mut out = String::with_capacity(text.len().min(PART_BYTES_MAX));
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) || also.contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        if out.len() > PART_BYTES_MAX {
            out.truncate(PART_BYTES_MAX - DIGEST_CHARS - 1);
            out.push('~');
            for byte in &Sha256::digest(text.as_bytes())[..DIGEST_CHARS / 2] {
                let _ = write!(out, "{byte:02x}");
            }
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use runtime::{Credentials, Secret};

    fn config() -> RedisCoordinationConfig {
        let redis = crate::RedisConfig::server("127.0.0.1", 6379, Credentials::fixed(None, Secret::new("")));
        RedisCoordinationConfig::new(redis)
    }

    #[test]
    fn windows_have_the_keys_and_units_of_the_contract() {
        let config = config();
        let of = |name: &str| config.window(name);
        assert_eq!(of("ingestor"), ("mutt:rate_limit:ingestor".into(), ScoreUnit::Seconds));
        assert_eq!(of("moogsoft"), ("mutt:rate_limit:moog".into(), ScoreUnit::Milliseconds));
        assert_eq!(of("hook").0, "mutt:rate_limit:hook");
        assert_eq!(of("moog").0, "mutt:rate_limit:moog~", "another channel that is only called so");
        let config = RedisCoordinationConfig { moog_channel: "moog".into(), ..config };
        assert_eq!(config.window("moog").0, "mutt:rate_limit:moog");
    }

    #[test]
    fn breakers_have_the_keys_of_the_contract() {
        let config = RedisCoordinationConfig { moog_channel: "moog".into(), ..config() };
        let moog = config.breaker("moog");
        assert_eq!(moog.machine[0], "mutt:circuit_breaker:moogsoft:state");
        assert_eq!(moog.second.unwrap(), ["mutt:circuit:moog:open", "mutt:circuit:moog:failures"]);
        let other = config.breaker("moogsoft");
        assert_eq!((other.machine[2].as_str(), other.second), ("mutt:circuit_breaker:moogsoft~:open_time", None));
    }

    #[test]
    fn hosts_are_spelled_readably_and_bounded() {
        let config = config();
        let of = |org: &str, host: &str| config.unhandled(org, host, "00112233445566ff");
        assert_eq!(of("default", "router-1.example"), "mutt:unhandled:router-1.example:00112233445566ff");
        assert_eq!(of("default", "fe80::1"), "mutt:unhandled:fe80::1:00112233445566ff");
        assert_eq!(of("acme", "a"), "mutt:unhandled:acme/a:00112233445566ff");
        assert_eq!(of("default", "acme/a"), "mutt:unhandled:acme%2Fa:00112233445566ff");
        assert_eq!(of("default", "a\r\nb\0"), "mutt:unhandled:a%0D%0Ab%00:00112233445566ff");
        let (long, longer) = (of("default", &"x".repeat(100_000)), of("default", &"x".repeat(100_001)));
        assert_ne!(long, longer);
        assert_eq!(long.len(), "mutt:unhandled:".len() + PART_BYTES_MAX + 17);
        assert_ne!(
            config.unhandled("default", "a:b", "triggered"),
            format!("{}:triggered", config.unhandled("default", "a", "b"))
        );
    }

    proptest! {
        #[test]
        fn two_hosts_never_share_a_key(a in "[a-c/:%~\\x00é]{0,12}", b in "[a-c/:%~\\x00é]{0,12}", org in "default|a|b") {
            let config = config();
            let other = |host: &str| config.unhandled("default", host, "00112233445566ff");
            let mine = config.unhandled(&org, &a, "00112233445566ff");
            prop_assert_eq!(mine == other(&b), org == "default" && a == b);
        }
    }
}
