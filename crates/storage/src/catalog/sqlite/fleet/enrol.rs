//! How agents come in.

use super::{agents, find_org, tokens};
use crate::StorageResult;
use crate::catalog::fields::not_found;
use crate::catalog::fleet::{Agent, Enrolled, Enrolment};
use crate::catalog::fleet_changes::{
    Plan, check_agent_id, facts_json, is_good, is_revoked, other_host, plan, wanted_host,
};
use model::{ErrorKind, OrgId, Timestamp};
use rusqlite::{OptionalExtension, Transaction, params};

pub fn enrol(t: &Transaction<'_>, enrolment: &Enrolment) -> StorageResult<Enrolled> {
    check_agent_id(&enrolment.id)?;
    let (org, token) = match (find_org(t, &enrolment.org), tokens::find(t, &enrolment.org, enrolment.token)) {
        (Ok(org), Ok(token)) => (org, token),
        (Err(e), _) | (_, Err(e)) if e.kind() == ErrorKind::NotFound => return Ok(Enrolled::BadToken),
        (Err(e), _) | (_, Err(e)) => return Err(e),
    };
    if !is_good(&token, &org.0, enrolment) {
        return Ok(Enrolled::BadToken);
    }
    let wanted = wanted_host(enrolment, &token)?;
    let same = same_agent(t, enrolment, &wanted)?;
    let holders = agents::called(t, &enrolment.org, &wanted, &other_host(&wanted, &enrolment.id))?;
    match plan(enrolment, &token, (&org.0, org.1), same.as_ref(), &wanted, holders) {
        Plan::Refuse(answer) => Ok(*answer),
        Plan::Again(id) => again(t, enrolment, &id).map(Enrolled::Again),
        Plan::New { host, instead_of } => {
            if enrolment.key.is_some() {
                t.execute("UPDATE agent_tokens SET uses = uses + 1 WHERE id = ?", [token.id])?;
            }
            let instead_of = match instead_of {
                Some(old) => {
                    agents::replace(t, &old, &enrolment.id, enrolment.at)?;
                    Some(old.id)
                }
                None => None,
            };
            let agent = add(t, enrolment, &host, &wanted)?;
            Ok(Enrolled::New { agent, instead_of })
        }
    }
}

/// The agent of this key; or the old one that calls itself so: one that was replaced may come back as another.
fn same_agent(t: &Transaction<'_>, enrolment: &Enrolment, wanted: &str) -> StorageResult<Option<Agent>> {
    match enrolment.key {
        Some(key) => agents::first(t, "org = ? AND key = ?", params![enrolment.org.as_str(), key]),
        None => agents::first(
            t,
            "org = ? AND old_name = ? AND replaced_by IS NULL ORDER BY revoked_at IS NOT NULL, enrolled_at DESC",
            params![enrolment.org.as_str(), wanted],
        ),
    }
}

fn again(t: &Transaction<'_>, enrolment: &Enrolment, id: &str) -> StorageResult<Agent> {
    t.execute(
        "UPDATE agents SET facts = ?2, certificate_ends_at = coalesce(?3, certificate_ends_at), token = ?4 WHERE id = ?1",
        params![
            id,
            facts_json(&enrolment.facts)?,
            enrolment.certificate_ends_at.map(Timestamp::micros),
            enrolment.token
        ],
    )?;
    agents::find(t, &enrolment.org, id)
}

fn add(t: &Transaction<'_>, enrolment: &Enrolment, host: &str, wanted: &str) -> StorageResult<Agent> {
    t.execute(
        "INSERT INTO agents (id, org, host, facts, key, old_name, token, enrolled_at, certificate_ends_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            enrolment.id,
            enrolment.org.as_str(),
            host,
            facts_json(&enrolment.facts)?,
            enrolment.key,
            enrolment.key.is_none().then_some(wanted),
            enrolment.token,
            enrolment.at.micros(),
            enrolment.certificate_ends_at.map(Timestamp::micros)
        ],
    )?;
    t.execute("UPDATE orgs SET agents = agents + 1 WHERE id = ?", [enrolment.org.as_str()])?;
    agents::find(t, &enrolment.org, &enrolment.id)
}

pub fn renewed(t: &Transaction<'_>, org: &OrgId, id: &str, ends_at: Timestamp) -> StorageResult<()> {
    let mut statement = t.prepare_cached("SELECT revoked_at IS NOT NULL FROM agents WHERE org = ? AND id = ?")?;
    let found: Option<bool> = statement.query_row([org.as_str(), id], |row| row.get(0)).optional()?;
    if found.ok_or_else(|| not_found("agent"))? {
        return Err(is_revoked());
    }
    t.execute(
        "UPDATE agents SET certificate_ends_at = max(?2, coalesce(certificate_ends_at, ?2)) WHERE id = ?1",
        params![id, ends_at.micros()],
    )?;
    Ok(())
}
