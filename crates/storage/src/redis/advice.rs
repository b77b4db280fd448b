//! What a Redis that keeps queues should be, compared with what it is.

use super::{RedisClient, RedisConfig};
use crate::StorageResult;
use std::collections::BTreeMap;

/// What of this Redis can lose acknowledged events or refuse to work; a sentence each, with the
/// setting to change. Empty: nothing.
pub async fn advice(config: &RedisConfig) -> StorageResult<Vec<String>> {
    let client = RedisClient::connect(config).await?;
    let info: String = client.query(redis::cmd("INFO").arg("server")).await?;
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("0").trim().to_owned();
    let mut settings = BTreeMap::new();
    for name in ["appendonly", "appendfsync", "maxmemory", "maxmemory-policy"] {
        // An access list may forbid it: then nothing is known, and that is said.
        if let Ok(found) = client.query::<BTreeMap<String, String>>(redis::cmd("CONFIG").arg("GET").arg(name)).await {
            settings.extend(found);
        }
    }
    let replicas: Vec<redis::Value> = client.query(&redis::cmd("ROLE")).await.unwrap_or_default();
    let is_master = replicas.first().is_none_or(|role| *role == redis::Value::BulkString(b"master".to_vec()));
    Ok(judge(&version, &settings, is_master))
}

fn judge(version: &str, settings: &BTreeMap<String, String>, is_master: bool) -> Vec<String> {
    let mut advice = Vec::new();
    let major: u32 = version.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    if major < 6 {
        advice.push(format!("Redis {version} is too old: 6.0 is needed"));
    }
    if !is_master {
        advice.push("this Redis is a replica: it refuses writes; name the master, or the Sentinels".to_owned());
    }
    let setting = |name: &str| settings.get(name).map(String::as_str);
    match (setting("appendonly"), setting("appendfsync")) {
        (Some("no"), _) => advice.push(
            "appendonly is no: a restart of Redis loses every event since its last snapshot; set `appendonly yes`"
                .to_owned(),
        ),
        (Some(_), Some("everysec")) => advice.push(
            "appendfsync is everysec: a crash of the machine loses up to a second of acknowledged events (a crash of \
             Redis alone loses none); `appendfsync always` loses none"
                .to_owned(),
        ),
        (Some(_), Some("no")) => advice.push(
            "appendfsync is no: a crash of the machine loses what the kernel had not written yet (often 30 s); set \
             `appendfsync always` or `everysec`"
                .to_owned(),
        ),
        (None, _) => advice.push(
            "CONFIG GET is forbidden here, so it is not known what a crash of this Redis loses: see appendfsync"
                .to_owned(),
        ),
        _ => {}
    }
    if setting("maxmemory").is_some_and(|bytes| bytes != "0")
        && let Some(policy) = setting("maxmemory-policy").filter(|policy| *policy != "noeviction")
    {
        advice.push(format!(
            "maxmemory-policy is {policy}: Redis throws keys away when it is full, queues included; set `noeviction`"
        ));
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn what_loses_events_is_said_and_what_does_not_is_not() {
        let good = settings(&[("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory", "0")]);
        assert!(judge("7.0.15", &good, true).is_empty());
        for (changed, value, says) in [
            ("appendonly", "no", "appendonly yes"),
            ("appendfsync", "everysec", "up to a second"),
            ("appendfsync", "no", "kernel"),
        ] {
            let mut settings = good.clone();
            settings.insert(changed.to_owned(), value.to_owned());
            let advice = judge("7.0.15", &settings, true);
            assert!(advice.len() == 1 && advice[0].contains(says), "{advice:?}");
        }
        let mut evicting = good.clone();
        evicting.extend(settings(&[("maxmemory", "1000"), ("maxmemory-policy", "allkeys-lru")]));
        assert!(judge("6.0.0", &evicting, true)[0].contains("noeviction"));
        assert!(judge("5.0.7", &good, false).len() == 2);
        assert!(judge("7.2.0", &settings(&[]), true)[0].contains("forbidden"));
    }
}
