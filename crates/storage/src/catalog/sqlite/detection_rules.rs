//! Documents and settings of detection rules.

use super::{Change, SqliteCatalog};
use crate::StorageResult;
use crate::catalog::Actor;
use crate::catalog::detection_changes::{
    Checked, DOCUMENTS, Held, Known, Plan, SETTINGS, Step, check_setting, check_settings, known_of, setting_changed,
    setting_value, version_of,
};
use crate::catalog::detection_rules::{
    DOCUMENTS_MAX, DetectionRuleStore, DocumentChange, DocumentVersion, OrgDetectionRules, RuleDocument, RuleSetting,
    RuleState,
};
use crate::catalog::fields::{not_found, org_of};
use crate::sqlite::blocking;
use async_trait::async_trait;
use model::{Level, OrgId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use std::collections::{BTreeMap, HashMap};

/// Of those that are there.
const DOCUMENT: &str = "SELECT d.name, v.text, d.version, v.changed_at, v.changed_by, d.org \
                        FROM detection_documents d JOIN detection_versions v USING (org, name, version) \
                        WHERE d.removed_at IS NULL";
const SETTING: &str = "SELECT rule_uid, state, level, team, org FROM detection_settings";

#[async_trait]
impl DetectionRuleStore for SqliteCatalog {
    async fn rule_documents(&self, org: &OrgId) -> StorageResult<Vec<RuleDocument>> {
        let org = org.clone();
        self.database
            .read(move |c| {
                let mut statement = c.prepare_cached(&format!("{DOCUMENT} AND d.org = ? ORDER BY d.name"))?;
                let mut rows = statement.query([org.as_str()])?;
                let mut documents = Vec::new();
                while let Some(row) = rows.next()? {
                    documents.push(document_of(row)?);
                }
                Ok(documents)
            })
            .await
    }

    async fn rule_document(&self, org: &OrgId, name: &str) -> StorageResult<RuleDocument> {
        let (org, name) = (org.clone(), name.to_owned());
        self.database
            .read(move |c| {
                let mut statement = c.prepare_cached(&format!("{DOCUMENT} AND d.org = ? AND d.name = ?"))?;
                let mut rows = statement.query([org.as_str(), &name])?;
                document_of(rows.next()?.ok_or_else(|| not_found("document"))?)
            })
            .await
    }

    async fn rule_document_versions(&self, org: &OrgId, name: &str) -> StorageResult<Vec<DocumentVersion>> {
        let (org, name) = (org.clone(), name.to_owned());
        self.database
            .read(move |c| {
                let mut statement = c.prepare_cached(
                    "SELECT version, text, changed_at, changed_by, reason FROM detection_versions \
                     WHERE org = ? AND name = ? ORDER BY version DESC",
                )?;
                let mut rows = statement.query([org.as_str(), &name])?;
                let mut versions = Vec::new();
                while let Some(row) = rows.next()? {
                    versions.push(DocumentVersion {
                        version: version_of(row.get(0)?)?,
                        text: row.get(1)?,
                        changed_at: Timestamp::from_micros(row.get(2)?),
                        changed_by: row.get(3)?,
                        reason: row.get(4)?,
                    });
                }
                if versions.is_empty() { Err(not_found("document")) } else { Ok(versions) }
            })
            .await
    }

    async fn change_rule_documents(
        &self,
        org: &OrgId,
        changes: Vec<DocumentChange>,
        by: &Actor,
    ) -> StorageResult<Vec<u32>> {
        let checked = blocking(move || Checked::new(changes)).await?;
        let (org, by) = (org.clone(), by.clone());
        self.database
            .transact(move |t| {
                let known = known(t, &org, &checked)?;
                let plan = checked.plan(&known, held(t, &org)?)?;
                if !plan.steps.is_empty() {
                    write(t, &org, &plan, &by)?;
                    move_detection_revision(t)?;
                }
                Ok(plan.versions)
            })
            .await
    }

    async fn rule_settings(&self, org: &OrgId) -> StorageResult<BTreeMap<String, RuleSetting>> {
        let org = org.clone();
        self.database
            .read(move |c| {
                let mut statement = c.prepare_cached(&format!("{SETTING} WHERE org = ?"))?;
                let settings = statement.query_map([org.as_str()], setting_of)?;
                Ok(settings.collect::<rusqlite::Result<_>>()?)
            })
            .await
    }

    async fn set_rule(
        &self,
        org: &OrgId,
        uid: &str,
        expected: &RuleSetting,
        setting: RuleSetting,
        by: &Actor,
    ) -> StorageResult<()> {
        check_setting(uid, &setting)?;
        let (org, uid, expected, by) = (org.clone(), uid.to_owned(), expected.clone(), by.clone());
        self.database
            .transact(move |t| {
                let find = format!("{SETTING} WHERE org = ? AND rule_uid = ?");
                let old = t.query_row(&find, [org.as_str(), &uid], setting_of).optional()?;
                let old = old.map(|(_, setting)| setting).unwrap_or_default();
                if old != expected {
                    return Err(setting_changed());
                }
                if old == setting {
                    return Ok(());
                }
                if setting.is_empty() {
                    t.execute("DELETE FROM detection_settings WHERE org = ? AND rule_uid = ?", [org.as_str(), &uid])?;
                } else {
                    if old.is_empty() {
                        let count = "SELECT count(*) FROM detection_settings WHERE org = ?";
                        let there: i64 = t.query_row(count, [org.as_str()], |row| row.get(0))?;
                        check_settings(u64::try_from(there).unwrap_or(0))?;
                    }
                    t.execute(
                        "INSERT INTO detection_settings (org, rule_uid, state, level, team) VALUES (?, ?, ?, ?, ?) \
                         ON CONFLICT (org, rule_uid) DO UPDATE \
                         SET state = excluded.state, level = excluded.level, team = excluded.team",
                        params![
                            org.as_str(),
                            uid,
                            setting.state.map(RuleState::as_str),
                            setting.level.map(Level::as_str),
                            setting.team,
                        ],
                    )?;
                }
                let (old, new) = (setting_value(&uid, &old)?, setting_value(&uid, &setting)?);
                Change { table: SETTINGS, record_id: 0, old, new, org: &org, by: &by }.write(t)?;
                move_detection_revision(t)
            })
            .await
    }

    async fn all_detection_rules(&self) -> StorageResult<Vec<OrgDetectionRules>> {
        self.database
            .read(|c| {
                let mut all: BTreeMap<String, OrgDetectionRules> = BTreeMap::new();
                let mut statement = c.prepare_cached(&format!("{DOCUMENT} ORDER BY d.org, d.name"))?;
                let mut rows = statement.query([])?;
                while let Some(row) = rows.next()? {
                    all.entry(row.get(5)?).or_default().documents.push(document_of(row)?);
                }
                let mut statement = c.prepare_cached(SETTING)?;
                let mut rows = statement.query([])?;
                while let Some(row) = rows.next()? {
                    let (uid, setting) = setting_of(row)?;
                    all.entry(row.get(4)?).or_default().settings.insert(uid, setting);
                }
                all.into_iter().map(|(org, rules)| Ok(OrgDetectionRules { org: org_of(&org)?, ..rules })).collect()
            })
            .await
    }

    async fn detection_revision(&self) -> StorageResult<u64> {
        self.database
            .read(|c| {
                let mut statement = c.prepare_cached("SELECT value FROM meta WHERE name = 'detection_revision'")?;
                let revision: i64 = statement.query_row([], |row| row.get(0))?;
                Ok(u64::try_from(revision).unwrap_or(0))
            })
            .await
    }
}

fn move_detection_revision(t: &Transaction<'_>) -> StorageResult<()> {
    t.execute("UPDATE meta SET value = value + 1 WHERE name = 'detection_revision'", [])?;
    Ok(())
}

fn held(c: &Connection, org: &OrgId) -> StorageResult<Held> {
    let (documents, bytes): (i64, i64) = c.query_row(
        "SELECT count(*), coalesce(sum(bytes), 0) FROM detection_documents WHERE org = ? AND removed_at IS NULL",
        [org.as_str()],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let floor = "SELECT version_floor FROM detection_orgs WHERE org = ?";
    let floor = c.query_row(floor, [org.as_str()], |row| row.get(0)).optional()?.unwrap_or(0);
    Ok(Held {
        documents: usize::try_from(documents).unwrap_or(0),
        bytes: u64::try_from(bytes).unwrap_or(0),
        floor: version_of(floor)?,
    })
}

fn known(c: &Connection, org: &OrgId, checked: &Checked) -> StorageResult<HashMap<String, Known>> {
    let mut find =
        c.prepare_cached("SELECT version, sha256, bytes FROM detection_documents WHERE org = ? AND name = ?")?;
    let mut known = HashMap::new();
    for name in checked.names() {
        let mut rows = find.query([org.as_str(), name])?;
        if let Some(row) = rows.next()? {
            known.insert(name.to_owned(), known_of(row.get(0)?, row.get(1)?, row.get(2)?)?);
        }
    }
    Ok(known)
}

fn write(t: &Transaction<'_>, org: &OrgId, plan: &Plan, by: &Actor) -> StorageResult<()> {
    for step in &plan.steps {
        write_step(t, org, step, by)?;
        let (old, new) = step.values()?;
        Change { table: DOCUMENTS, record_id: 0, old, new, org, by }.write(t)?;
    }
    if plan.removes() {
        forget(t, org)?;
    }
    Ok(())
}

fn write_step(t: &Transaction<'_>, org: &OrgId, step: &Step, by: &Actor) -> StorageResult<()> {
    t.prepare_cached(
        "INSERT INTO detection_documents (org, name, version, sha256, bytes, removed_at) VALUES (?, ?, ?, ?, ?, ?) \
         ON CONFLICT (org, name) DO UPDATE SET version = excluded.version, sha256 = excluded.sha256, \
         bytes = excluded.bytes, removed_at = excluded.removed_at",
    )?
    .execute(params![
        org.as_str(),
        step.name,
        step.version,
        step.print.map(|print| print.sha256),
        step.print.map_or(0, |print| i64::try_from(print.bytes).unwrap_or(i64::MAX)),
        step.print.is_none().then_some(by.at.micros()),
    ])?;
    t.prepare_cached(
        "INSERT INTO detection_versions (org, name, version, text, changed_at, changed_by, reason) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![org.as_str(), step.name, step.version, step.text, by.at.micros(), by.name, by.reason])?;
    if let Some(outdated) = step.outdated() {
        t.prepare_cached("DELETE FROM detection_versions WHERE org = ? AND name = ? AND version <= ?")?
            .execute(params![org.as_str(), step.name, outdated])?;
    }
    Ok(())
}

/// Of removed documents too many: those that are gone the longest.
fn forget(t: &Transaction<'_>, org: &OrgId) -> StorageResult<()> {
    let removed: i64 = t.query_row(
        "SELECT count(*) FROM detection_documents WHERE org = ? AND removed_at IS NOT NULL",
        [org.as_str()],
        |row| row.get(0),
    )?;
    let over = removed - i64::try_from(DOCUMENTS_MAX).unwrap_or(i64::MAX);
    if over <= 0 {
        return Ok(());
    }
    let mut delete = t.prepare(
        "DELETE FROM detection_documents WHERE org = ?1 AND name IN (SELECT name FROM detection_documents \
         WHERE org = ?1 AND removed_at IS NOT NULL ORDER BY removed_at, name LIMIT ?2) RETURNING version",
    )?;
    let mut floor = 0;
    for version in delete.query_map(params![org.as_str(), over], |row| row.get::<_, i64>(0))? {
        floor = floor.max(version?);
    }
    t.execute(
        "INSERT INTO detection_orgs (org, version_floor) VALUES (?, ?) \
         ON CONFLICT (org) DO UPDATE SET version_floor = max(version_floor, excluded.version_floor)",
        params![org.as_str(), floor],
    )?;
    Ok(())
}

/// A row of [`DOCUMENT`].
fn document_of(row: &Row<'_>) -> StorageResult<RuleDocument> {
    Ok(RuleDocument {
        name: row.get(0)?,
        text: row.get(1)?,
        version: version_of(row.get(2)?)?,
        changed_at: Timestamp::from_micros(row.get(3)?),
        changed_by: row.get(4)?,
    })
}

/// A row of [`SETTING`]. The CHECKs of the columns name the same words.
fn setting_of(row: &Row<'_>) -> rusqlite::Result<(String, RuleSetting)> {
    let text = |column| row.get::<_, Option<String>>(column);
    let setting = RuleSetting {
        state: text(1)?.as_deref().and_then(RuleState::parse),
        level: text(2)?.as_deref().and_then(Level::parse),
        team: text(3)?,
    };
    Ok((row.get(0)?, setting))
}
