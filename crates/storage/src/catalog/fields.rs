//! What every driver asks of the fields it is given, and how audit rows and errors say them.

use super::users::{KeyId, Role};
use crate::{StorageError, StorageResult};
use model::{AlertSeverity, AlertState, ErrorKind, EventId, OrgId, RuleDraft, RuleId, Timestamp};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// Rows of one page at most, whatever is asked.
pub(super) const PAGE_ROWS_MAX: u64 = 1_000;

/// What the CHECKs of the rules' table ask for, as sentences.
pub(super) fn check_rule(draft: &RuleDraft) -> StorageResult<()> {
    if draft.match_string.is_none() && draft.trap_oid.is_none() {
        return Err(invalid("either match_string or trap_oid is required"));
    }
    if draft.syslog_severity.is_some_and(|s| s > 7) {
        return Err(invalid("syslog_severity must be 0 to 7"));
    }
    for (name, value, max) in [
        ("match_string", draft.match_string.as_deref().unwrap_or(""), 255),
        ("trap_oid", draft.trap_oid.as_deref().unwrap_or(""), 255),
        ("prod_handling", draft.prod_handling.as_str(), 100),
        ("dev_handling", draft.dev_handling.as_str(), 100),
        ("team_assignment", draft.team_assignment.as_str(), 100),
    ] {
        check_text(name, value, max)?;
    }
    Ok(())
}

pub(super) fn check_host(host: &str) -> StorageResult<()> {
    if host.is_empty() {
        return Err(invalid("hostname is required"));
    }
    check_text("hostname", host, 255)
}

pub(super) fn check_team(team: &str) -> StorageResult<()> {
    if team.is_empty() {
        return Err(invalid("team_assignment is required"));
    }
    check_text("team_assignment", team, 100)
}

pub(super) fn check_operation(operation: &str) -> StorageResult<()> {
    if !["CREATE", "UPDATE", "DELETE"].contains(&operation) {
        return Err(invalid("operation must be CREATE, UPDATE or DELETE"));
    }
    Ok(())
}

/// At most `max` characters, and none that a database text cannot hold.
pub(super) fn check_text(name: &str, value: &str, max: usize) -> StorageResult<()> {
    if value.chars().count() > max {
        return Err(invalid(format!("{name} is longer than {max} characters")));
    }
    if value.contains('\0') {
        return Err(invalid(format!("{name} contains a NUL character")));
    }
    Ok(())
}

/// The operation of a change with these values.
pub(super) fn operation_of(old: Option<&String>, new: Option<&String>) -> &'static str {
    match (old, new) {
        (None, _) => "CREATE",
        (Some(_), Some(_)) => "UPDATE",
        (Some(_), None) => "DELETE",
    }
}

/// A rule in an audit row.
#[derive(Serialize)]
struct RuleValues<'a> {
    id: RuleId,
    match_string: Option<&'a str>,
    trap_oid: Option<&'a str>,
    syslog_severity: Option<u8>,
    match_type: &'a str,
    priority: i32,
    prod_handling: &'a str,
    dev_handling: &'a str,
    team_assignment: &'a str,
    is_active: bool,
}

pub(super) fn rule_values(id: RuleId, draft: &RuleDraft) -> StorageResult<String> {
    json_of(&RuleValues {
        id,
        match_string: draft.match_string.as_deref(),
        trap_oid: draft.trap_oid.as_deref(),
        syslog_severity: draft.syslog_severity,
        match_type: draft.match_type.as_str(),
        priority: draft.priority,
        prod_handling: draft.prod_handling.as_str(),
        dev_handling: draft.dev_handling.as_str(),
        team_assignment: &draft.team_assignment,
        is_active: draft.is_active,
    })
}

#[derive(Serialize)]
struct HostValues<'a> {
    hostname: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    team_assignment: Option<&'a str>,
}

pub(super) fn host_values(hostname: &str) -> StorageResult<String> {
    json_of(&HostValues { hostname, team_assignment: None })
}

pub(super) fn team_values(hostname: &str, team: &str) -> StorageResult<String> {
    json_of(&HostValues { hostname, team_assignment: Some(team) })
}

/// The values of a row as the JSON object that audit rows hold.
pub(super) fn json_of(row: &impl Serialize) -> StorageResult<String> {
    serde_json::to_string(row).map_err(|e| StorageError::with_source(ErrorKind::Internal, "values of an audit row", e))
}

pub(super) fn user_values(name: &str, role: Role) -> StorageResult<String> {
    #[derive(Serialize)]
    struct Values<'a> {
        name: &'a str,
        role: &'static str,
    }
    json_of(&Values { name, role: role.as_str() })
}

/// A key in an audit row: never its fingerprint.
pub(super) fn key_values(
    id: KeyId,
    user: &str,
    label: &str,
    expires_at: Option<Timestamp>,
    revoked: bool,
) -> StorageResult<String> {
    #[derive(Serialize)]
    struct Values<'a> {
        id: KeyId,
        user: &'a str,
        label: &'a str,
        expires_at: Option<String>,
        revoked: bool,
    }
    json_of(&Values { id, user, label, expires_at: expires_at.map(Timestamp::rfc3339), revoked })
}

pub(super) fn role_of(text: &str) -> StorageResult<Role> {
    Role::parse(text).ok_or_else(|| StorageError::new(ErrorKind::Internal, "a role in the catalog is none of ours"))
}

pub(super) fn not_found(what: &str) -> StorageError {
    StorageError::new(ErrorKind::NotFound, format!("{what} not found"))
}

pub(super) fn invalid(text: impl Into<String>) -> StorageError {
    StorageError::new(ErrorKind::Invalid, text)
}

pub(super) fn changed_meanwhile() -> StorageError {
    StorageError::new(ErrorKind::Conflict, "the rule was changed by somebody else")
}

pub(super) fn foreign_alert() -> StorageError {
    StorageError::new(ErrorKind::Invalid, "an alert of another organisation in the batch")
}

pub(crate) fn org_of(text: &str) -> StorageResult<OrgId> {
    text.parse().map_err(|e| StorageError::with_source(ErrorKind::Internal, "an organisation in the catalog", e))
}

/// The CHECK of the column names the same.
pub(super) fn state_of(text: &str) -> AlertState {
    AlertState::parse(text).unwrap_or(AlertState::Pending)
}

pub(super) fn severity_of(code: u8) -> AlertSeverity {
    use AlertSeverity as S;
    [S::Clear, S::Info, S::Minor, S::Warning, S::Major, S::Critical]
        .into_iter()
        .find(|s| s.code() == code)
        .unwrap_or(S::Warning)
}

/// Ids of events and alerts begin with the time of acceptance; devices with a wrong clock cannot
/// escape retention by their own timestamps.
pub(super) fn first_id_at(time: Timestamp) -> u128 {
    EventId::new(Timestamp::from_millis(time.millis().max(0)), 0, 0).to_u128()
}

/// A text that every database can hold: NUL becomes U+FFFD.
pub(super) fn no_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// The same, of at most `max` characters (20 or more): a longer text is cut and ends in `…` and 16
/// hex digits of its SHA-256, so that different texts stay different and the same stay the same.
pub(super) fn fit(text: &str, max: usize) -> Cow<'_, str> {
    const MARK: usize = 17;
    let text = no_nul(text);
    if text.len() <= max || text.chars().count() <= max {
        return text;
    }
    let digest = Sha256::digest(text.as_bytes());
    let mut short: String = text.chars().take(max.saturating_sub(MARK)).collect();
    short.push('…');
    for byte in &digest[..8] {
        short.push_str(&format!("{byte:02x}"));
    }
    Cow::Owned(short)
}

/// `%text%` for `LIKE … ESCAPE '\'`, in which `text` means itself.
pub(super) fn like_substring(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_in_a_search_text_mean_themselves() {
        assert_eq!(like_substring(r"50%_a\b"), r"%50\%\_a\\b%");
    }
}
