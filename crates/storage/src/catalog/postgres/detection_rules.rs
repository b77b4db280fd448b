//! Documents and settings of detection rules. Triggers move their revision.
//!
//! Whoever changes an organisation's documents or settings holds its row of `muttd_detection_orgs`, so
//! writers of one organisation come one after another and never meet in a circle.

use super::pool::Access;
use super::values::{Time, fit, no_nul};
use super::{CHANGED_BY_CHARS, Change, PostgresCatalog, write_changes};
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
use model::{Level, OrgId};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use std::collections::{BTreeMap, HashMap};

const DOCUMENTS_OF_ORG: &str = "SELECT d.name, v.text, d.version, v.changed_at, v.changed_by \
     FROM muttd_detection_documents d JOIN muttd_detection_versions v USING (org, name, version) \
     WHERE d.removed_at IS NULL AND d.org = $1 ORDER BY d.name";
const DOCUMENT: &str = "SELECT d.name, v.text, d.version, v.changed_at, v.changed_by \
     FROM muttd_detection_documents d JOIN muttd_detection_versions v USING (org, name, version) \
     WHERE d.removed_at IS NULL AND d.org = $1 AND d.name = $2";
const ALL_DOCUMENTS: &str = "SELECT d.name, v.text, d.version, v.changed_at, v.changed_by, d.org \
     FROM muttd_detection_documents d JOIN muttd_detection_versions v USING (org, name, version) \
     WHERE d.removed_at IS NULL ORDER BY d.org, d.name";
const SETTINGS_OF_ORG: &str = "SELECT rule_uid, state, level, team FROM muttd_detection_settings WHERE org = $1";
const SETTING: &str =
    "SELECT rule_uid, state, level, team FROM muttd_detection_settings WHERE org = $1 AND rule_uid = $2";
const ALL_SETTINGS: &str = "SELECT rule_uid, state, level, team, org FROM muttd_detection_settings";

/// Rows and bytes of one INSERT at most.
const CHUNK_ROWS: usize = 2_000;
const CHUNK_BYTES: usize = 8 << 20;

#[async_trait]
impl DetectionRuleStore for PostgresCatalog {
    async fn rule_documents(&self, org: &OrgId) -> StorageResult<Vec<RuleDocument>> {
        let org = org.clone();
        self.pool
            .run(Access::Read, |c| {
                Box::pin(async move {
                    let rows = sqlx::query(DOCUMENTS_OF_ORG).bind(org.as_str()).fetch_all(c).await?;
                    rows.iter().map(document_of).collect()
                })
            })
            .await
    }

    async fn rule_document(&self, org: &OrgId, name: &str) -> StorageResult<RuleDocument> {
        let (org, name) = (org.clone(), searched(name)?.to_owned());
        self.pool
            .run(Access::Read, |c| {
                Box::pin(async move {
                    let row = sqlx::query(DOCUMENT).bind(org.as_str()).bind(name).fetch_optional(c).await?;
                    document_of(&row.ok_or_else(|| not_found("document"))?)
                })
            })
            .await
    }

    async fn rule_document_versions(&self, org: &OrgId, name: &str) -> StorageResult<Vec<DocumentVersion>> {
        let (org, name) = (org.clone(), searched(name)?.to_owned());
        self.pool
            .run(Access::Read, |c| {
                Box::pin(async move {
                    let rows = sqlx::query(
                        "SELECT version, text, changed_at, changed_by, reason FROM muttd_detection_versions \
                         WHERE org = $1 AND name = $2 ORDER BY version DESC",
                    )
                    .bind(org.as_str())
                    .bind(name)
                    .fetch_all(c)
                    .await?;
                    if rows.is_empty() {
                        return Err(not_found("document"));
                    }
                    rows.iter().map(document_version_of).collect()
                })
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
        self.pool
            .run(Access::Write, |c| {
                Box::pin(async move {
                    let held = hold(c, &org).await?;
                    let known = known(c, &org, &checked).await?;
                    let plan = checked.plan(&known, held)?;
                    if !plan.steps.is_empty() {
                        write(c, &org, &plan, &by).await?;
                    }
                    Ok(plan.versions)
                })
            })
            .await
    }

    async fn rule_settings(&self, org: &OrgId) -> StorageResult<BTreeMap<String, RuleSetting>> {
        let org = org.clone();
        self.pool
            .run(Access::Read, |c| {
                Box::pin(async move {
                    let rows = sqlx::query(SETTINGS_OF_ORG).bind(org.as_str()).fetch_all(c).await?;
                    Ok(rows.iter().map(setting_of).collect::<sqlx::Result<_>>()?)
                })
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
        self.pool
            .run(Access::Write, |c| {
                Box::pin(async move {
                    lock(c, &org).await?;
                    let old = sqlx::query(SETTING).bind(org.as_str()).bind(&uid).fetch_optional(&mut *c).await?;
                    let old = old.as_ref().map(setting_of).transpose()?.map(|(_, setting)| setting);
                    let old = old.unwrap_or_default();
                    if old != expected {
                        return Err(setting_changed());
                    }
                    if old == setting {
                        return Ok(());
                    }
                    put_setting(c, &org, &uid, &old, &setting).await?;
                    let (old, new) = (setting_value(&uid, &old)?, setting_value(&uid, &setting)?);
                    Change { table: SETTINGS, record_id: 0, old, new, org: &org, by: &by }.write(c).await
                })
            })
            .await
    }

    async fn all_detection_rules(&self) -> StorageResult<Vec<OrgDetectionRules>> {
        self.pool
            .run(Access::Read, |c| {
                Box::pin(async move {
                    let mut all: BTreeMap<String, OrgDetectionRules> = BTreeMap::new();
                    for row in sqlx::query(ALL_DOCUMENTS).fetch_all(&mut *c).await? {
                        all.entry(row.try_get(5)?).or_default().documents.push(document_of(&row)?);
                    }
                    for row in sqlx::query(ALL_SETTINGS).fetch_all(&mut *c).await? {
                        let (uid, setting) = setting_of(&row)?;
                        all.entry(row.try_get(4)?).or_default().settings.insert(uid, setting);
                    }
                    all.into_iter().map(|(org, rules)| Ok(OrgDetectionRules { org: org_of(&org)?, ..rules })).collect()
                })
            })
            .await
    }

    async fn detection_revision(&self) -> StorageResult<u64> {
        self.pool
            .run(Access::Read, |c| {
                Box::pin(async move {
                    let sql = "SELECT value FROM muttd_meta WHERE name = 'detection_revision'";
                    let revision: i64 = sqlx::query_scalar(sql).fetch_one(c).await?;
                    Ok(u64::try_from(revision).unwrap_or(0))
                })
            })
            .await
    }
}

/// A name with a NUL is the name of nothing, and no text of PostgreSQL's either.
fn searched(name: &str) -> StorageResult<&str> {
    if name.contains('\0') { Err(not_found("document")) } else { Ok(name) }
}

/// Takes the organisation's row and tells its floor.
async fn lock(c: &mut PgConnection, org: &OrgId) -> StorageResult<u32> {
    let floor: i64 = sqlx::query_scalar(
        "INSERT INTO muttd_detection_orgs (org) VALUES ($1) \
         ON CONFLICT (org) DO UPDATE SET org = excluded.org RETURNING version_floor",
    )
    .bind(org.as_str())
    .fetch_one(c)
    .await?;
    version_of(floor)
}

async fn hold(c: &mut PgConnection, org: &OrgId) -> StorageResult<Held> {
    let floor = lock(c, org).await?;
    let row = sqlx::query(
        "SELECT count(*), coalesce(sum(bytes), 0)::int8 FROM muttd_detection_documents \
         WHERE org = $1 AND removed_at IS NULL",
    )
    .bind(org.as_str())
    .fetch_one(c)
    .await?;
    let (documents, bytes): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Held { documents: usize::try_from(documents).unwrap_or(0), bytes: u64::try_from(bytes).unwrap_or(0), floor })
}

async fn known(c: &mut PgConnection, org: &OrgId, checked: &Checked) -> StorageResult<HashMap<String, Known>> {
    let rows = sqlx::query(
        "SELECT name, version, sha256, bytes FROM muttd_detection_documents WHERE org = $1 AND name = ANY ($2)",
    )
    .bind(org.as_str())
    .bind(checked.names().collect::<Vec<_>>())
    .fetch_all(c)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, known_of(row.try_get(1)?, row.try_get(2)?, row.try_get(3)?)?))).collect()
}

async fn write(c: &mut PgConnection, org: &OrgId, plan: &Plan, by: &Actor) -> StorageResult<()> {
    let mut rest = &plan.steps[..];
    while !rest.is_empty() {
        let (mut rows, mut bytes) = (0, 0);
        while rows < rest.len().min(CHUNK_ROWS) && (rows == 0 || bytes < CHUNK_BYTES) {
            bytes += rest[rows].text.as_ref().map_or(0, String::len);
            rows += 1;
        }
        let (chunk, later) = rest.split_at(rows);
        write_chunk(c, org, chunk, by).await?;
        rest = later;
    }
    if plan.removes() {
        forget(c, org).await?;
    }
    Ok(())
}

async fn write_chunk(c: &mut PgConnection, org: &OrgId, steps: &[Step], by: &Actor) -> StorageResult<()> {
    let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    let versions: Vec<i64> = steps.iter().map(|step| i64::from(step.version)).collect();
    let prints: Vec<Option<&[u8]>> = steps.iter().map(|s| s.print.as_ref().map(|p| &p.sha256[..])).collect();
    let bytes: Vec<i64> =
        steps.iter().map(|s| s.print.map_or(0, |p| i64::try_from(p.bytes).unwrap_or(i64::MAX))).collect();
    sqlx::query(
        "INSERT INTO muttd_detection_documents (org, name, version, sha256, bytes, removed_at) \
         SELECT $1, n, v, s, b, CASE WHEN s IS NULL THEN $6 END \
         FROM UNNEST($2::text[], $3::int8[], $4::bytea[], $5::int8[]) AS u (n, v, s, b) \
         ON CONFLICT (org, name) DO UPDATE SET version = excluded.version, sha256 = excluded.sha256, \
         bytes = excluded.bytes, removed_at = excluded.removed_at",
    )
    .bind(org.as_str())
    .bind(&names)
    .bind(&versions)
    .bind(prints)
    .bind(bytes)
    .bind(Time(by.at))
    .execute(&mut *c)
    .await?;
    sqlx::query(
        "INSERT INTO muttd_detection_versions (org, name, version, text, changed_at, changed_by, reason) \
         SELECT $1, n, v, t, $5, $6, $7 FROM UNNEST($2::text[], $3::int8[], $4::text[]) AS u (n, v, t)",
    )
    .bind(org.as_str())
    .bind(&names)
    .bind(&versions)
    .bind(steps.iter().map(|step| step.text.as_deref()).collect::<Vec<_>>())
    .bind(Time(by.at))
    .bind(fit(&by.name, CHANGED_BY_CHARS))
    .bind(by.reason.as_deref().map(no_nul))
    .execute(&mut *c)
    .await?;
    let (names, outdated): (Vec<&str>, Vec<i64>) =
        steps.iter().filter_map(|step| Some((step.name.as_str(), i64::from(step.outdated()?)))).unzip();
    if !names.is_empty() {
        sqlx::query(
            "DELETE FROM muttd_detection_versions v USING UNNEST($2::text[], $3::int8[]) AS u (n, o) \
             WHERE v.org = $1 AND v.name = u.n AND v.version <= u.o",
        )
        .bind(org.as_str())
        .bind(names)
        .bind(outdated)
        .execute(&mut *c)
        .await?;
    }
    let values = steps.iter().map(Step::values).collect::<StorageResult<Vec<_>>>()?;
    write_changes(c, org, by, DOCUMENTS, &values).await
}

/// Of removed documents too many: those that are gone the longest.
async fn forget(c: &mut PgConnection, org: &OrgId) -> StorageResult<()> {
    sqlx::query(
        "WITH gone AS ( \
             DELETE FROM muttd_detection_documents WHERE org = $1 AND name IN ( \
                 SELECT name FROM muttd_detection_documents WHERE org = $1 AND removed_at IS NOT NULL \
                 ORDER BY removed_at DESC, name DESC OFFSET $2) \
             RETURNING version) \
         UPDATE muttd_detection_orgs SET version_floor = greatest(version_floor, (SELECT max(version) FROM gone)) \
         WHERE org = $1",
    )
    .bind(org.as_str())
    .bind(i64::try_from(DOCUMENTS_MAX).unwrap_or(i64::MAX))
    .execute(c)
    .await?;
    Ok(())
}

async fn put_setting(
    c: &mut PgConnection,
    org: &OrgId,
    uid: &str,
    old: &RuleSetting,
    setting: &RuleSetting,
) -> StorageResult<()> {
    if setting.is_empty() {
        sqlx::query("DELETE FROM muttd_detection_settings WHERE org = $1 AND rule_uid = $2")
            .bind(org.as_str())
            .bind(uid)
            .execute(c)
            .await?;
        return Ok(());
    }
    if old.is_empty() {
        let count = "SELECT count(*) FROM muttd_detection_settings WHERE org = $1";
        let there: i64 = sqlx::query_scalar(count).bind(org.as_str()).fetch_one(&mut *c).await?;
        check_settings(u64::try_from(there).unwrap_or(0))?;
    }
    sqlx::query(
        "INSERT INTO muttd_detection_settings (org, rule_uid, state, level, team) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (org, rule_uid) DO UPDATE \
         SET state = excluded.state, level = excluded.level, team = excluded.team",
    )
    .bind(org.as_str())
    .bind(uid)
    .bind(setting.state.map(RuleState::as_str))
    .bind(setting.level.map(Level::as_str))
    .bind(setting.team.as_deref())
    .execute(c)
    .await?;
    Ok(())
}

/// The five columns that every statement about documents asks for first.
fn document_of(row: &PgRow) -> StorageResult<RuleDocument> {
    let Time(changed_at) = row.try_get(3)?;
    Ok(RuleDocument {
        name: row.try_get(0)?,
        text: row.try_get(1)?,
        version: version_of(row.try_get(2)?)?,
        changed_at,
        changed_by: row.try_get(4)?,
    })
}

fn document_version_of(row: &PgRow) -> StorageResult<DocumentVersion> {
    let Time(changed_at) = row.try_get(2)?;
    Ok(DocumentVersion {
        version: version_of(row.try_get(0)?)?,
        text: row.try_get(1)?,
        changed_at,
        changed_by: row.try_get(3)?,
        reason: row.try_get(4)?,
    })
}

/// The CHECKs of the columns name the same words.
fn setting_of(row: &PgRow) -> sqlx::Result<(String, RuleSetting)> {
    let text = |column: usize| row.try_get::<Option<String>, _>(column);
    let setting = RuleSetting {
        state: text(1)?.as_deref().and_then(RuleState::parse),
        level: text(2)?.as_deref().and_then(Level::parse),
        team: text(3)?,
    };
    Ok((row.try_get(0)?, setting))
}
