//! How agents come in.

use super::{LOCK, agents, find_org, tokens};
use crate::StorageResult;
use crate::catalog::fleet::{Agent, Enrolled, Enrolment};
use crate::catalog::fleet_changes::{
    Plan, check_agent_id, facts_json, is_good, is_revoked, other_host, plan, wanted_host,
};
use crate::catalog::postgres::values::Time;
use model::{ErrorKind, OrgId, Timestamp};
use sqlx::postgres::PgConnection;

pub async fn enrol(c: &mut PgConnection, enrolment: &Enrolment) -> StorageResult<Enrolled> {
    check_agent_id(&enrolment.id)?;
    let org = find_org(c, &enrolment.org, LOCK).await;
    let token = match &org {
        Ok(_) => tokens::find(c, &enrolment.org, enrolment.token, LOCK).await,
        Err(e) => Err(e.clone()),
    };
    let (org, token) = match (org, token) {
        (Ok(org), Ok(token)) => (org, token),
        (Err(e), _) | (_, Err(e)) if e.kind() == ErrorKind::NotFound => return Ok(Enrolled::BadToken),
        (Err(e), _) | (_, Err(e)) => return Err(e),
    };
    if !is_good(&token, &org.0, enrolment) {
        return Ok(Enrolled::BadToken);
    }
    let wanted = wanted_host(enrolment, &token)?;
    let same = match enrolment.key {
        Some(key) => agents::of_key(c, &enrolment.org, &key).await?,
        None => agents::of_old_name(c, &enrolment.org, &wanted).await?,
    };
    let holders = agents::called(c, &enrolment.org, &wanted, &other_host(&wanted, &enrolment.id)).await?;
    match plan(enrolment, &token, (&org.0, org.1), same.as_ref(), &wanted, holders) {
        Plan::Refuse(answer) => Ok(*answer),
        Plan::Again(id) => again(c, enrolment, &id).await.map(Enrolled::Again),
        Plan::New { host, instead_of } => {
            if enrolment.key.is_some() {
                let sql = "UPDATE muttd_agent_tokens SET uses = uses + 1 WHERE id = $1";
                sqlx::query(sql).bind(token.id).execute(&mut *c).await?;
            }
            let instead_of = match instead_of {
                Some(old) => {
                    agents::replace(c, &old, &enrolment.id, enrolment.at).await?;
                    Some(old.id)
                }
                None => None,
            };
            let agent = add(c, enrolment, &host, &wanted).await?;
            Ok(Enrolled::New { agent, instead_of })
        }
    }
}

async fn again(c: &mut PgConnection, enrolment: &Enrolment, id: &str) -> StorageResult<Agent> {
    let sql = "UPDATE muttd_agents SET facts = $2::jsonb, certificate_ends_at = coalesce($3, certificate_ends_at), \
               token = $4 WHERE id = $1";
    let query = sqlx::query(sql).bind(id).bind(facts_json(&enrolment.facts)?);
    let query = query.bind(enrolment.certificate_ends_at.map(Time)).bind(enrolment.token);
    query.execute(&mut *c).await?;
    agents::find(c, &enrolment.org, id, "").await
}

async fn add(c: &mut PgConnection, enrolment: &Enrolment, host: &str, wanted: &str) -> StorageResult<Agent> {
    let sql = "INSERT INTO muttd_agents (id, org, host, facts, key, old_name, token, enrolled_at, certificate_ends_at) \
               VALUES ($1, $2, $3, $4::jsonb, $5, $6, $7, $8, $9)";
    let query = sqlx::query(sql).bind(&enrolment.id).bind(enrolment.org.as_str()).bind(host);
    let query = query.bind(facts_json(&enrolment.facts)?).bind(enrolment.key.as_ref().map(|key| &key[..]));
    let query = query.bind(enrolment.key.is_none().then_some(wanted)).bind(enrolment.token).bind(Time(enrolment.at));
    query.bind(enrolment.certificate_ends_at.map(Time)).execute(&mut *c).await?;
    let sql = "UPDATE muttd_orgs SET agents = agents + 1 WHERE id = $1";
    sqlx::query(sql).bind(enrolment.org.as_str()).execute(&mut *c).await?;
    agents::find(c, &enrolment.org, &enrolment.id, "").await
}

pub async fn renewed(c: &mut PgConnection, org: &OrgId, id: &str, ends_at: Timestamp) -> StorageResult<()> {
    let agent = agents::find(c, org, id, LOCK).await?;
    if agent.revoked_at.is_some() {
        return Err(is_revoked());
    }
    let sql = "UPDATE muttd_agents SET certificate_ends_at = greatest(certificate_ends_at, $2) WHERE id = $1";
    sqlx::query(sql).bind(id).bind(Time(ends_at)).execute(c).await?;
    Ok(())
}
