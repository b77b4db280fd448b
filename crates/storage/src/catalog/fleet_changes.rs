//! What every driver does with organisations, tokens and agents: what it asks of fields, how audit rows say them, and
//! what becomes of an enrolment.

use super::fields::{check_host, check_text, invalid, json_of};
use super::fleet::{
    AGENTS_MAX, Agent, AgentToken, ENDED_TOKENS_KEPT, Enrolled, Enrolment, HostFacts, NewToken, ORGS_MAX, Org,
    Sighting, TOKENS_MAX, TokenId,
};
use super::users::check_label;
use crate::{StorageError, StorageResult};
use model::{ErrorKind, OrgId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

const HOST_CHARS_MAX: usize = 255;
/// Longest text of [`HostFacts`], in characters, and most capabilities.
const FACT_CHARS_MAX: usize = 255;
const CAPABILITIES_MAX: usize = 128;
/// Longest reason of a revocation, in characters.
const WHY_CHARS_MAX: usize = 200;
const STATUS_BYTES_MAX: usize = 16 << 10;
/// How long an agent that was never seen counts as one that is about to connect.
const PENDING_MAX: Duration = Duration::from_secs(60);

/// Whether tokens can carry the name of an organisation.
pub(super) fn check_org(id: &OrgId, title: &str) -> StorageResult<()> {
    if id.as_str().contains('_') {
        return Err(invalid("an organisation's name has a-z, 0-9 and `-` only, so that tokens can carry it"));
    }
    check_title(title)
}

pub(super) fn check_title(title: &str) -> StorageResult<()> {
    if title.contains(char::is_control) {
        return Err(invalid("title contains a control character"));
    }
    check_text("title", title, 200)
}

/// The default organisation is how the fleet is looked after: nobody locks himself out.
pub(super) fn check_disabled(id: &OrgId, disabled: bool) -> StorageResult<()> {
    if disabled && *id == OrgId::default() {
        return Err(invalid("the default organisation stays enabled"));
    }
    Ok(())
}

pub(super) fn check_token(token: &NewToken) -> StorageResult<()> {
    check_label(&token.label)?;
    if token.uses_max == Some(0) {
        return Err(invalid("a token that may be used 0 times is none"));
    }
    match &token.host {
        Some(host) if host.contains(char::is_control) => Err(invalid("host contains a control character")),
        Some(host) => check_host(host),
        None => Ok(()),
    }
}

/// A reason, cut, without control characters.
pub(super) fn kept_why(why: &str) -> String {
    clean(why, WHY_CHARS_MAX)
}

/// A status that is one.
fn kept_status(status: String) -> Option<String> {
    let good = status.len() <= STATUS_BYTES_MAX
        && status.starts_with('{')
        && serde_json::from_str::<serde::de::IgnoredAny>(&status).is_ok();
    good.then_some(status)
}

fn clean(text: &str, chars: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(chars).collect()
}

impl HostFacts {
    /// Cut to what is kept, and without control characters; what every store does with what it is given.
    pub fn bounded(&self) -> Self {
        let text = |text: &str| clean(text, FACT_CHARS_MAX);
        Self {
            hostname: text(&self.hostname),
            machine_id: text(&self.machine_id),
            boot_id: text(&self.boot_id),
            version: text(&self.version),
            os_type: text(&self.os_type),
            os_version: text(&self.os_version),
            ip_address: text(&self.ip_address),
            capabilities: self.capabilities.iter().take(CAPABILITIES_MAX).map(|c| clean(c, 64)).collect(),
        }
    }
}

/// [`HostFacts`] as they lie in a store.
#[derive(Serialize, Deserialize)]
struct FactsRow {
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    machine_id: String,
    #[serde(default)]
    boot_id: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    os_type: String,
    #[serde(default)]
    os_version: String,
    #[serde(default)]
    ip_address: String,
    #[serde(default)]
    capabilities: Vec<String>,
}

pub(super) fn facts_json(facts: &HostFacts) -> StorageResult<String> {
    let HostFacts { hostname, machine_id, boot_id, version, os_type, os_version, ip_address, capabilities } =
        facts.bounded();
    json_of(&FactsRow { hostname, machine_id, boot_id, version, os_type, os_version, ip_address, capabilities })
}

pub(super) fn facts_of(json: &str) -> StorageResult<HostFacts> {
    let row: FactsRow = serde_json::from_str(json)
        .map_err(|e| StorageError::with_source(ErrorKind::Internal, "what the catalog says of a host", e))?;
    let FactsRow { hostname, machine_id, boot_id, version, os_type, os_version, ip_address, capabilities } = row;
    Ok(HostFacts { hostname, machine_id, boot_id, version, os_type, os_version, ip_address, capabilities })
}

/// The newest of each agent by (organisation, id), with what only older ones said, and what must not be kept taken out.
pub(super) fn merged(sightings: Vec<Sighting>) -> Vec<Sighting> {
    let mut merged: BTreeMap<(OrgId, String), Sighting> = BTreeMap::new();
    for mut one in sightings {
        one.status = one.status.and_then(kept_status);
        match merged.entry((one.org.clone(), one.id.clone())) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(one);
            }
            std::collections::btree_map::Entry::Occupied(mut place) => {
                let known = place.get_mut();
                if one.at >= known.at {
                    std::mem::swap(known, &mut one);
                }
                // `one` is the older of both now.
                if known.epoch == one.epoch {
                    known.acked_seq = known.acked_seq.max(one.acked_seq);
                }
                known.facts = known.facts.take().or(one.facts);
                known.status = known.status.take().or(one.status);
            }
        }
    }
    merged.into_values().collect()
}

pub(super) fn org_values(org: &Org) -> StorageResult<String> {
    #[derive(Serialize)]
    struct Values<'a> {
        id: &'a str,
        title: &'a str,
        agents_max: Option<u32>,
        disabled: bool,
    }
    json_of(&Values { id: org.id.as_str(), title: &org.title, agents_max: org.agents_max, disabled: org.disabled })
}

/// A token in an audit row: never its fingerprint.
pub(super) fn token_values(token: &AgentToken) -> StorageResult<String> {
    #[derive(Serialize)]
    struct Values<'a> {
        id: TokenId,
        label: &'a str,
        host: Option<&'a str>,
        legacy: bool,
        expires_at: String,
        uses_max: Option<u32>,
        revoked: bool,
        followed_by: Option<TokenId>,
    }
    json_of(&Values {
        id: token.id,
        label: &token.label,
        host: token.host.as_deref(),
        legacy: token.legacy,
        expires_at: token.expires_at.rfc3339(),
        uses_max: token.uses_max,
        revoked: token.revoked_at.is_some(),
        followed_by: token.followed_by,
    })
}

pub(super) fn agent_values(agent: &Agent) -> StorageResult<String> {
    #[derive(Serialize)]
    struct Values<'a> {
        id: &'a str,
        host: &'a str,
        revoked: bool,
        why: Option<&'a str>,
    }
    json_of(&Values {
        id: &agent.id,
        host: &agent.host,
        revoked: agent.revoked_at.is_some(),
        why: agent.revoked_why.as_deref(),
    })
}

/// Why an agent was revoked, as people read it.
pub(super) fn why_of(why: Option<String>, replaced_by: Option<String>) -> Option<String> {
    replaced_by.map(|id| format!("replaced by {id}")).or(why)
}

/// The name that whoever enrols asks for.
pub(super) fn wanted_host(enrolment: &Enrolment, token: &AgentToken) -> StorageResult<String> {
    let host = match &token.host {
        Some(host) => host.clone(),
        None => clean(&enrolment.facts.hostname, HOST_CHARS_MAX),
    };
    check_host(&host)?;
    Ok(host)
}

/// The name of an agent that cannot have the one it wants: a piece of its id behind that.
pub(super) fn other_host(wanted: &str, id: &str) -> String {
    beside(wanted, &id[id.len().saturating_sub(6)..])
}

fn beside(wanted: &str, end: &str) -> String {
    let room = HOST_CHARS_MAX.saturating_sub(end.chars().count() + 1);
    format!("{}-{end}", wanted.chars().take(room).collect::<String>())
}

/// Whether an agent may be called so.
pub(super) fn check_agent_id(id: &str) -> StorageResult<()> {
    let good = id.strip_prefix("agt_").is_some_and(|rest| {
        (16..=60).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    });
    if good { Ok(()) } else { Err(invalid("an agent's id is agt_ and letters and digits")) }
}

/// What becomes of an enrolment.
#[derive(Debug)]
pub(super) enum Plan {
    /// Nothing changes.
    Refuse(Box<Enrolled>),
    /// It is this agent, once more.
    Again(String),
    /// A new one of this name.
    New { host: String, instead_of: Option<Box<Agent>> },
}

/// Whether a token may be used at all; its uses are another matter.
pub(super) fn is_good(token: &AgentToken, org: &Org, enrolment: &Enrolment) -> bool {
    token.org == enrolment.org
        && !org.disabled
        && token.revoked_at.is_none()
        && token.expires_at > enrolment.at
        && (token.legacy || enrolment.key.is_some())
}

/// Decides, with a token that [`is_good`].
///
/// `agents` are those of the organisation that are not revoked, `same` is the agent of this key, or the old agent that
/// calls itself so and was not replaced; `holders` are those that have the wanted name and [`other_host`].
pub(super) fn plan(
    enrolment: &Enrolment,
    token: &AgentToken,
    (org, agents): (&Org, u64),
    same: Option<&Agent>,
    wanted: &str,
    holders: Vec<Agent>,
) -> Plan {
    if let Some(same) = same {
        return match same.revoked_at {
            Some(_) => Plan::Refuse(Box::new(Enrolled::Revoked)),
            None => Plan::Again(same.id.clone()),
        };
    }
    // Logins of old agents take no use.
    if enrolment.key.is_some() && token.uses_max.is_some_and(|max| token.uses >= max) {
        return Plan::Refuse(Box::new(Enrolled::BadToken));
    }
    let other = other_host(wanted, &enrolment.id);
    let is_taken = holders.iter().any(|agent| agent.host == other);
    let plan = match holders.into_iter().find(|agent| agent.host == wanted) {
        None => Plan::New { host: wanted.to_owned(), instead_of: None },
        Some(holder) if gives_way(&holder, enrolment) => {
            return Plan::New { host: wanted.to_owned(), instead_of: Some(Box::new(holder)) };
        }
        // The whole id is nobody's.
        Some(_) if is_taken => Plan::New { host: beside(wanted, &enrolment.id), instead_of: None },
        Some(_) => Plan::New { host: other, instead_of: None },
    };
    if agents >= org.agents_max.map_or(AGENTS_MAX, u64::from).min(AGENTS_MAX) {
        return Plan::Refuse(Box::new(Enrolled::TooMany));
    }
    plan
}

/// Whether the agent that has a name gives it to the one that enrols.
fn gives_way(holder: &Agent, enrolment: &Enrolment) -> bool {
    match (&holder.key, &enrolment.key) {
        // An old agent proves nothing but a token that others may have, too.
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(_), Some(_)) if holder.connected => false,
        // Copies of one host that start at once are not to push each other out before they were seen; a host that
        // tries again is still in the same boot.
        (Some(_), Some(_)) => {
            let boot = &enrolment.facts.boot_id;
            holder.last_seen_at.is_some()
                || holder.enrolled_at.plus(PENDING_MAX) <= enrolment.at
                || (!boot.is_empty() && *boot == holder.facts.boot_id)
        }
    }
}

/// The token that follows another one.
pub(super) fn following(old: &AgentToken, fingerprint: [u8; 32], expires_at: Timestamp) -> StorageResult<NewToken> {
    let refused = |text: &str| StorageError::new(ErrorKind::Conflict, text);
    if old.revoked_at.is_some() {
        return Err(refused("the token is revoked; create another one"));
    }
    if let Some(id) = old.followed_by {
        return Err(refused(&format!("the token was rotated already; rotate token {id}, which follows it")));
    }
    Ok(NewToken {
        fingerprint,
        label: old.label.clone(),
        host: old.host.clone(),
        legacy: old.legacy,
        expires_at,
        uses_max: old.uses_max,
    })
}

pub(super) fn org_exists() -> StorageError {
    StorageError::new(ErrorKind::Conflict, "an organisation of this name exists already")
}

pub(super) fn too_many_orgs() -> StorageError {
    invalid(format!("there are {ORGS_MAX} organisations already, which is the bound"))
}

pub(super) fn token_exists() -> StorageError {
    StorageError::new(ErrorKind::Conflict, "this token exists already")
}

pub(super) fn too_many_tokens() -> StorageError {
    invalid(format!("the organisation has {TOKENS_MAX} tokens, which is the bound; revoke one first"))
}

pub(super) fn is_online() -> StorageError {
    StorageError::new(ErrorKind::Conflict, "the agent is online; revoke it first")
}

pub(super) fn is_revoked() -> StorageError {
    StorageError::new(ErrorKind::Denied, "the agent is revoked")
}

pub(super) fn count32(n: i64) -> u32 {
    u32::try_from(n.max(0)).unwrap_or(u32::MAX)
}

pub(super) const ENDED_KEPT: i64 = ENDED_TOKENS_KEPT as i64;
