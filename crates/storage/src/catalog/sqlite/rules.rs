//! Rules.

use super::{Change, SqliteCatalog, move_revision, revision};
use crate::StorageResult;
use crate::catalog::fields::{changed_meanwhile, check_rule, not_found, org_of, rule_values};
use crate::catalog::{Actor, RuleStore};
use crate::error::StorageError;
use async_trait::async_trait;
use model::{ErrorKind, Handling, MatchType, OrgId, Rule, RuleDraft, RuleId};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

const TABLE: &str = "alert_rules";
const COLUMNS: &str = "id, match_string, trap_oid, syslog_severity, match_type, priority, prod_handling, dev_handling, \
                       team_assignment, is_active";

#[async_trait]
impl RuleStore for SqliteCatalog {
    async fn rules(&self, org: &OrgId) -> StorageResult<Vec<Rule>> {
        let org = org.clone();
        self.database
            .read(move |c| {
                let sql = format!("SELECT {COLUMNS} FROM alert_rules WHERE org = ? ORDER BY priority, id");
                let mut statement = c.prepare_cached(&sql)?;
                let rules = statement.query_map([org.as_str()], rule_of)?;
                Ok(rules.collect::<rusqlite::Result<_>>()?)
            })
            .await
    }

    async fn all_rules(&self) -> StorageResult<Vec<(OrgId, Rule)>> {
        self.database
            .read(|c| {
                let sql = format!("SELECT {COLUMNS}, org FROM alert_rules ORDER BY org, priority, id");
                let mut statement = c.prepare_cached(&sql)?;
                let rules = statement.query_map([], |row| Ok((row.get::<_, String>("org")?, rule_of(row)?)))?;
                let mut all = Vec::new();
                for rule in rules {
                    let (org, rule) = rule?;
                    all.push((org_of(&org)?, rule));
                }
                Ok(all)
            })
            .await
    }

    async fn rule(&self, org: &OrgId, id: RuleId) -> StorageResult<Rule> {
        let org = org.clone();
        self.database.read(move |c| find(c, &org, id)).await
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
        self.database
            .transact(move |t| {
                let mut ids = Vec::with_capacity(drafts.len());
                for draft in &drafts {
                    ids.push(insert(t, &org, draft, &by)?);
                }
                move_revision(t)?;
                Ok(ids)
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
        self.database
            .transact(move |t| {
                let current = find(t, &org, id)?;
                if current.draft != expected {
                    return Err(changed_meanwhile());
                }
                t.execute(
                    "UPDATE alert_rules SET match_string = ?, trap_oid = ?, syslog_severity = ?, match_type = ?, \
                     priority = ?, prod_handling = ?, dev_handling = ?, team_assignment = ?, is_active = ? \
                     WHERE org = ? AND id = ?",
                    params![
                        draft.match_string,
                        draft.trap_oid,
                        draft.syslog_severity,
                        draft.match_type.as_str(),
                        draft.priority,
                        draft.prod_handling.as_str(),
                        draft.dev_handling.as_str(),
                        draft.team_assignment,
                        draft.is_active,
                        org.as_str(),
                        id,
                    ],
                )?;
                let (old, new) = (Some(rule_values(id, &current.draft)?), Some(rule_values(id, &draft)?));
                Change { table: TABLE, record_id: id, old, new, org: &org, by: &by }.write(t)?;
                move_revision(t)
            })
            .await
    }

    async fn delete_rule(&self, org: &OrgId, id: RuleId, by: &Actor) -> StorageResult<()> {
        let (org, by) = (org.clone(), by.clone());
        self.database
            .transact(move |t| {
                let old = find(t, &org, id)?;
                t.execute("DELETE FROM alert_rules WHERE org = ? AND id = ?", params![org.as_str(), id])?;
                let old = Some(rule_values(id, &old.draft)?);
                Change { table: TABLE, record_id: id, old, new: None, org: &org, by: &by }.write(t)?;
                move_revision(t)
            })
            .await
    }

    async fn revision(&self) -> StorageResult<u64> {
        self.database.read(revision).await
    }
}

fn find(connection: &Connection, org: &OrgId, id: RuleId) -> StorageResult<Rule> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM alert_rules WHERE id = ? AND org = ?"))?;
    statement.query_row(params![id, org.as_str()], rule_of).optional()?.ok_or_else(|| not_found("rule"))
}

fn insert(t: &Transaction<'_>, org: &OrgId, draft: &RuleDraft, by: &Actor) -> StorageResult<RuleId> {
    let mut statement = t.prepare_cached(
        "INSERT INTO alert_rules (org, match_string, trap_oid, syslog_severity, match_type, priority, prod_handling, \
         dev_handling, team_assignment, is_active) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    let id = statement.insert(params![
        org.as_str(),
        draft.match_string,
        draft.trap_oid,
        draft.syslog_severity,
        draft.match_type.as_str(),
        draft.priority,
        draft.prod_handling.as_str(),
        draft.dev_handling.as_str(),
        draft.team_assignment,
        draft.is_active,
    ])?;
    let new = Some(rule_values(id, draft)?);
    Change { table: TABLE, record_id: id, old: None, new, org, by }.write(t)?;
    Ok(id)
}

fn rule_of(row: &Row<'_>) -> rusqlite::Result<Rule> {
    let match_type: String = row.get(4)?;
    Ok(Rule {
        id: row.get(0)?,
        draft: RuleDraft {
            match_string: row.get(1)?,
            trap_oid: row.get(2)?,
            syslog_severity: row.get(3)?,
            // The CHECK of the column names the same three.
            match_type: MatchType::parse(&match_type).unwrap_or(MatchType::Contains),
            priority: row.get(5)?,
            prod_handling: Handling::new(row.get::<_, String>(6)?),
            dev_handling: Handling::new(row.get::<_, String>(7)?),
            team_assignment: row.get(8)?,
            is_active: row.get(9)?,
        },
    })
}
