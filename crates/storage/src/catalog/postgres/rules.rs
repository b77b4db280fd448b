//! Rules.

use super::pool::Access;
use super::{Change, PostgresCatalog};
use crate::catalog::fields::{changed_meanwhile, check_rule, not_found, org_of, rule_values};
use crate::catalog::{Actor, RuleStore};
use crate::{StorageError, StorageResult};
use async_trait::async_trait;
use model::{ErrorKind, Handling, MatchType, OrgId, Rule, RuleDraft, RuleId};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgConnection, PgRow, Postgres};
use sqlx::query::Query;

const TABLE: &str = "alert_rules";
const ALL_OF_ORG: &str = "SELECT id::int8, match_string, trap_oid, syslog_severity, match_type, priority, \
                          prod_handling, dev_handling, team_assignment, is_active FROM alert_rules WHERE org = $1 \
                          ORDER BY priority, id";
const ALL: &str = "SELECT id::int8, match_string, trap_oid, syslog_severity, match_type, priority, prod_handling, \
                   dev_handling, team_assignment, is_active, org FROM alert_rules ORDER BY org COLLATE \"C\", \
                   priority, id";
const ONE: &str = "SELECT id::int8, match_string, trap_oid, syslog_severity, match_type, priority, prod_handling, \
                   dev_handling, team_assignment, is_active FROM alert_rules WHERE org = $1 AND id = $2";
const ONE_LOCKED: &str = "SELECT id::int8, match_string, trap_oid, syslog_severity, match_type, priority, \
                          prod_handling, dev_handling, team_assignment, is_active FROM alert_rules \
                          WHERE org = $1 AND id = $2 FOR UPDATE";

#[async_trait]
impl RuleStore for PostgresCatalog {
    async fn rules(&self, org: &OrgId) -> StorageResult<Vec<Rule>> {
        let org = org.clone();
        self.pool
            .run(Access::Read, |c| {
                Box::pin(async move {
                    let rows = sqlx::query(ALL_OF_ORG).bind(org.as_str()).fetch_all(c).await?;
                    Ok(rows.iter().map(rule_of).collect::<sqlx::Result<_>>()?)
                })
            })
            .await
    }

    async fn all_rules(&self) -> StorageResult<Vec<(OrgId, Rule)>> {
        self.pool
            .run(Access::Read, |c| {
                Box::pin(async move {
                    let rows = sqlx::query(ALL).fetch_all(c).await?;
                    rows.iter().map(|row| Ok((org_of(row.try_get(10)?)?, rule_of(row)?))).collect()
                })
            })
            .await
    }

    async fn rule(&self, org: &OrgId, id: RuleId) -> StorageResult<Rule> {
        let org = org.clone();
        self.pool.run(Access::Read, move |c| Box::pin(async move { find(c, ONE, &org, id).await })).await
    }

    async fn create_rule(&self, org: &OrgId, draft: RuleDraft, by: &Actor) -> StorageResult<RuleId> {
        let ids = self.create_rules(org, vec![draft], by).await?;
        ids.first().copied().ok_or_else(|| StorageError::new(ErrorKind::Internal, "no rule was created"))
    }

    async fn create_rules(&self, org: &OrgId, drafts: Vec<RuleDraft>, by: &Actor) -> StorageResult<Vec<RuleId>> {
        for draft in &drafts {
            check_rule(draft)?;
        }
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        let (org, by) = (org.clone(), by.clone());
        self.pool
            .run(Access::Write, |c| {
                Box::pin(async move {
                    let mut ids = Vec::with_capacity(drafts.len());
                    for draft in &drafts {
                        ids.push(insert(c, &org, draft, &by).await?);
                    }
                    Ok(ids)
                })
            })
            .await
    }

    async fn update_rule(
        &self,
        org: &OrgId,
        id: RuleId,
        expected: &RuleDraft,
        draft: RuleDraft,
        by: &Actor,
    ) -> StorageResult<()> {
        check_rule(&draft)?;
        let (org, expected, by) = (org.clone(), expected.clone(), by.clone());
        self.pool
            .run(Access::Write, move |c| {
                Box::pin(async move {
                    let current = find(c, ONE_LOCKED, &org, id).await?;
                    if current.draft != expected {
                        return Err(changed_meanwhile());
                    }
                    let update = sqlx::query(
                        "UPDATE alert_rules SET match_string = $1, trap_oid = $2, syslog_severity = $3, \
                         match_type = $4, priority = $5, prod_handling = $6, dev_handling = $7, \
                         team_assignment = $8, is_active = $9 WHERE org = $10 AND id = $11",
                    );
                    bind_draft(update, &draft).bind(org.as_str()).bind(id).execute(&mut *c).await?;
                    let (old, new) = (Some(rule_values(id, &current.draft)?), Some(rule_values(id, &draft)?));
                    Change { table: TABLE, record_id: id, old, new, org: &org, by: &by }.write(c).await
                })
            })
            .await
    }

    async fn delete_rule(&self, org: &OrgId, id: RuleId, by: &Actor) -> StorageResult<()> {
        let (org, by) = (org.clone(), by.clone());
        self.pool
            .run(Access::Write, move |c| {
                Box::pin(async move {
                    let old = find(c, ONE_LOCKED, &org, id).await?;
                    sqlx::query("DELETE FROM alert_rules WHERE org = $1 AND id = $2")
                        .bind(org.as_str())
                        .bind(id)
                        .execute(&mut *c)
                        .await?;
                    let old = Some(rule_values(id, &old.draft)?);
                    Change { table: TABLE, record_id: id, old, new: None, org: &org, by: &by }.write(c).await
                })
            })
            .await
    }

    async fn revision(&self) -> StorageResult<u64> {
        self.pool.run(Access::Read, |c| Box::pin(revision(c))).await
    }
}

/// Moved by triggers, so every program's edits count.
pub(super) async fn revision(c: &mut PgConnection) -> StorageResult<u64> {
    let revision: i64 = sqlx::query_scalar("SELECT value FROM muttd_meta WHERE name = 'revision'").fetch_one(c).await?;
    Ok(u64::try_from(revision).unwrap_or(0))
}

async fn find(c: &mut PgConnection, sql: &'static str, org: &OrgId, id: RuleId) -> StorageResult<Rule> {
    let row = sqlx::query(sql).bind(org.as_str()).bind(id).fetch_optional(c).await?;
    Ok(rule_of(&row.ok_or_else(|| not_found("rule"))?)?)
}

async fn insert(c: &mut PgConnection, org: &OrgId, draft: &RuleDraft, by: &Actor) -> StorageResult<RuleId> {
    let insert = sqlx::query(
        "INSERT INTO alert_rules (match_string, trap_oid, syslog_severity, match_type, priority, prod_handling, \
         dev_handling, team_assignment, is_active, org) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         RETURNING id::int8",
    );
    let id: RuleId = bind_draft(insert, draft).bind(org.as_str()).fetch_one(&mut *c).await?.try_get(0)?;
    let new = Some(rule_values(id, draft)?);
    Change { table: TABLE, record_id: id, old: None, new, org, by }.write(c).await?;
    Ok(id)
}

/// The nine columns in the order of the contract.
fn bind_draft<'q>(query: Query<'q, Postgres, PgArguments>, draft: &'q RuleDraft) -> Query<'q, Postgres, PgArguments> {
    query
        .bind(draft.match_string.as_deref())
        .bind(draft.trap_oid.as_deref())
        .bind(draft.syslog_severity.map(i32::from))
        .bind(draft.match_type.as_str())
        .bind(draft.priority)
        .bind(draft.prod_handling.as_str())
        .bind(draft.dev_handling.as_str())
        .bind(&draft.team_assignment)
        .bind(draft.is_active)
}

fn rule_of(row: &PgRow) -> sqlx::Result<Rule> {
    let severity: Option<i32> = row.try_get(3)?;
    Ok(Rule {
        id: row.try_get(0)?,
        draft: RuleDraft {
            match_string: row.try_get(1)?,
            trap_oid: row.try_get(2)?,
            syslog_severity: severity.and_then(|s| u8::try_from(s).ok()),
            // The CHECK of the column names the same three.
            match_type: MatchType::parse(row.try_get(4)?).unwrap_or(MatchType::Contains),
            priority: row.try_get(5)?,
            prod_handling: Handling::new(row.try_get::<String, _>(6)?),
            dev_handling: Handling::new(row.try_get::<String, _>(7)?),
            team_assignment: row.try_get(8)?,
            is_active: row.try_get(9)?,
        },
    })
}
