//! Which live settings there are, and which values each takes (contract mutt §8.2). An unknown key or
//! a value of the wrong kind is refused: nobody learns of a typing mistake from a setting that silently
//! does nothing.

use super::slo;
use pipeline::LiveSettings;
use runtime::config::nearest;

/// What becomes of a setting that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Acts,
    /// The contract knows it; nothing here reads it.
    Kept,
}

/// Why a setting is refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such setting; the sentence names those there are.
    Key(String),
    /// The value is none for this setting.
    Value(String),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Whole(u64, u64),
}

/// Settings of the contract that nothing here reads, so that the original's seeding scripts work:
/// rules are looked at every second, rounds of retention are hourly.
const KEPT: [(&str, Kind); 4] = [
    ("cache_reload_interval", Kind::Whole(1, 86_400)),
    ("metrics_retention_days", Kind::Whole(1, 36_500)),
    ("log_retention_days", Kind::Whole(1, 36_500)),
    ("retention_check_interval_hours", Kind::Whole(1, 8_760)),
];
const TEAM_CHARS_MAX: usize = 100;

/// Every key that is taken.
pub fn keys() -> Vec<String> {
    let mut keys: Vec<String> = LiveSettings::KEYS.iter().map(|key| (*key).to_owned()).collect();
    keys.extend(KEPT.iter().map(|(key, _)| (*key).to_owned()));
    keys.extend(slo::setting_keys());
    keys
}

/// Judges a setting before it is made.
pub fn check(key: &str, value: &str, live: &LiveSettings) -> Result<Effect, Refusal> {
    if LiveSettings::KEYS.contains(&key) {
        if key == "unhandled_default_team" {
            team(key, value)?;
        }
        return live.clone().set(key, value).map(|()| Effect::Acts).map_err(Refusal::Value);
    }
    if let Some((_, kind)) = KEPT.iter().find(|(known, _)| *known == key) {
        return kind.check(key, value).map(|()| Effect::Kept);
    }
    if let Some(checked) = slo::check_setting(key, value) {
        return checked.map(|()| Effect::Acts).map_err(Refusal::Value);
    }
    let all = keys();
    let hint =
        nearest(key, all.iter().map(String::as_str)).map_or(String::new(), |k| format!(" (did you mean `{k}`?)"));
    let shown: String = key.chars().take(80).collect();
    Err(Refusal::Key(format!(
        "key: there is no setting `{shown}`{hint}; there are {}, and others that the list `allowed` has",
        LiveSettings::KEYS.join(", ")
    )))
}

fn team(key: &str, value: &str) -> Result<(), Refusal> {
    let name = value.trim();
    if name.is_empty() || name.chars().count() > TEAM_CHARS_MAX || name.contains(char::is_control) {
        return Err(Refusal::Value(format!("{key}: it must be 1 to {TEAM_CHARS_MAX} printable characters")));
    }
    Ok(())
}

impl Kind {
    fn check(self, key: &str, value: &str) -> Result<(), Refusal> {
        let value = value.trim();
        let Self::Whole(least, most) = self;
        let good = value.parse::<u64>().is_ok_and(|n| (least..=most).contains(&n));
        let expected = format!("a whole number from {least} to {most}");
        if good { Ok(()) } else { Err(Refusal::Value(format!("{key}: `{value}` is not {expected}"))) }
    }
}
