//! What becomes of documents and settings of detection rules in one change: checked and decided here,
//! the same for every driver. A driver tells what it has and writes what the plan says.

use super::detection_rules::{
    CHANGES_MAX, DOCUMENT_BYTES_MAX, DOCUMENT_NAME_MAX, DOCUMENTS_MAX, DocumentChange, ORG_BYTES_MAX, RULE_UID_MAX,
    RuleSetting, SETTINGS_MAX, VERSIONS_KEPT,
};
use super::fields::{check_text, invalid, json_of, not_found};
use crate::{StorageError, StorageResult};
use model::ErrorKind;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};

/// As everywhere in the catalog.
const TEAM_CHARS_MAX: usize = 100;

/// Tables, as audit rows name them.
pub(super) const DOCUMENTS: &str = "detection_documents";
pub(super) const SETTINGS: &str = "detection_settings";

/// What a text is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Print {
    pub sha256: [u8; 32],
    pub bytes: u64,
}

impl Print {
    fn of(text: &str) -> Self {
        Self { sha256: Sha256::digest(text.as_bytes()).into(), bytes: text.len() as u64 }
    }
}

/// A document that a driver has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub version: u32,
    /// `None`: it was removed.
    pub print: Option<Print>,
}

/// What an organisation has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub documents: usize,
    pub bytes: u64,
    /// Highest version of the documents that are forgotten.
    pub floor: u32,
}

/// Changes whose bounds hold.
pub(super) struct Checked {
    changes: Vec<(DocumentChange, Option<Print>)>,
}

impl Checked {
    /// Reads all texts: off the async threads.
    pub fn new(changes: Vec<DocumentChange>) -> StorageResult<Self> {
        if changes.len() > CHANGES_MAX {
            return Err(invalid(format!("changes are more than {CHANGES_MAX}")));
        }
        let mut names = HashSet::with_capacity(changes.len());
        for change in &changes {
            check_name(&change.name)?;
            if !names.insert(change.name.as_str()) {
                return Err(invalid(format!("name {:?} comes twice", change.name)));
            }
            let text = change.text.as_deref().unwrap_or_default();
            if text.len() > DOCUMENT_BYTES_MAX {
                return Err(invalid(format!("text of {:?} is longer than {DOCUMENT_BYTES_MAX} bytes", change.name)));
            }
            if text.contains('\0') {
                return Err(invalid(format!("text of {:?} contains a NUL character", change.name)));
            }
        }
        let printed = |change: DocumentChange| {
            let print = change.text.as_deref().map(Print::of);
            (change, print)
        };
        Ok(Self { changes: changes.into_iter().map(printed).collect() })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.changes.iter().map(|(change, _)| change.name.as_str())
    }

    /// Decides, by what the names stand for and what the organisation has.
    pub fn plan(self, known: &HashMap<String, Known>, mut held: Held) -> StorageResult<Plan> {
        let mut plan = Plan { versions: Vec::with_capacity(self.changes.len()), steps: Vec::new() };
        for (change, print) in self.changes {
            let known = known.get(&change.name);
            let there = known.and_then(|k| Some((k.version, k.print?)));
            if there.is_none() && change.text.is_none() {
                return Err(not_found("document"));
            }
            let version = there.map_or(0, |(version, _)| version);
            if change.expected.is_some_and(|expected| expected != version) {
                return Err(not_as_expected(&change.name, version));
            }
            if there.is_some() && there.map(|(_, print)| print) == print {
                plan.versions.push(version);
                continue;
            }
            let version = known.map_or(held.floor, |k| k.version);
            let version = version.checked_add(1).ok_or_else(|| invalid("version has no number left"))?;
            match there {
                Some((_, old)) => held.bytes = held.bytes.saturating_sub(old.bytes),
                None => held.documents += 1,
            }
            match print {
                Some(new) => held.bytes += new.bytes,
                None => held.documents = held.documents.saturating_sub(1),
            }
            plan.versions.push(version);
            plan.steps.push(Step { name: change.name, text: change.text, version, print, old: there });
        }
        // Of the outcome: a change that removes some may bring as many.
        let grows = plan.steps.iter().any(|step| step.print.is_some());
        if grows && held.documents > DOCUMENTS_MAX {
            return Err(invalid(format!("documents would be {}, more than {DOCUMENTS_MAX}", held.documents)));
        }
        if grows && held.bytes > ORG_BYTES_MAX {
            return Err(invalid(format!("texts would be {} bytes together, more than {ORG_BYTES_MAX}", held.bytes)));
        }
        Ok(plan)
    }
}

/// What is to be written.
pub(super) struct Plan {
    /// What each change's document has afterwards.
    pub versions: Vec<u32>,
    pub steps: Vec<Step>,
}

impl Plan {
    pub fn removes(&self) -> bool {
        self.steps.iter().any(|step| step.print.is_none())
    }
}

/// A document's new version.
pub(super) struct Step {
    pub name: String,
    pub text: Option<String>,
    pub version: u32,
    pub print: Option<Print>,
    old: Option<(u32, Print)>,
}

impl Step {
    /// The versions up to this one go.
    pub fn outdated(&self) -> Option<u32> {
        self.version.checked_sub(VERSIONS_KEPT).filter(|version| *version > 0)
    }

    /// The audit row's old and new value. The text stays in the versions.
    pub fn values(&self) -> StorageResult<(Option<String>, Option<String>)> {
        let new = self.print.map(|print| (self.version, print));
        Ok((self.value(self.old)?, self.value(new)?))
    }

    fn value(&self, of: Option<(u32, Print)>) -> StorageResult<Option<String>> {
        #[derive(Serialize)]
        struct Values<'a> {
            name: &'a str,
            version: u32,
            bytes: u64,
            sha256: String,
        }
        of.map(|(version, print)| {
            let sha256 = print.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
            json_of(&Values { name: &self.name, version, bytes: print.bytes, sha256 })
        })
        .transpose()
    }
}

fn check_name(name: &str) -> StorageResult<()> {
    if name.is_empty() {
        return Err(invalid("name is required"));
    }
    check_text("name", name, DOCUMENT_NAME_MAX)?;
    if name.chars().any(char::is_control) {
        return Err(invalid("name contains a control character"));
    }
    Ok(())
}

fn not_as_expected(name: &str, version: u32) -> StorageError {
    let what = match version {
        0 => format!("document {name:?} is not there"),
        version => format!("document {name:?} is at version {version}: somebody else changed it"),
    };
    StorageError::new(ErrorKind::Conflict, what)
}

/// Whether what is said about a rule may be kept.
pub(super) fn check_setting(uid: &str, setting: &RuleSetting) -> StorageResult<()> {
    if uid.is_empty() {
        return Err(invalid("uid is required"));
    }
    check_text("uid", uid, RULE_UID_MAX)?;
    match setting.team.as_deref() {
        Some("") => Err(invalid("team is empty")),
        Some(team) => check_text("team", team, TEAM_CHARS_MAX),
        None => Ok(()),
    }
}

/// One more setting of an organisation that has so many.
pub(super) fn check_settings(there: u64) -> StorageResult<()> {
    if there >= SETTINGS_MAX as u64 {
        return Err(invalid(format!("settings are {SETTINGS_MAX} already")));
    }
    Ok(())
}

/// A setting in an audit row; an empty one is none.
pub(super) fn setting_value(uid: &str, setting: &RuleSetting) -> StorageResult<Option<String>> {
    #[derive(Serialize)]
    struct Values<'a> {
        rule_uid: &'a str,
        state: Option<&'a str>,
        level: Option<&'a str>,
        team: Option<&'a str>,
    }
    let values = Values {
        rule_uid: uid,
        state: setting.state.map(|state| state.as_str()),
        level: setting.level.map(|level| level.as_str()),
        team: setting.team.as_deref(),
    };
    if setting.is_empty() { Ok(None) } else { json_of(&values).map(Some) }
}

/// A number of a document's version as the driver holds it.
pub(super) fn version_of(n: i64) -> StorageResult<u32> {
    let none = |e| StorageError::with_source(ErrorKind::Internal, "a version in the catalog", e);
    u32::try_from(n).map_err(none)
}

/// Of a document as the driver holds it.
pub(super) fn known_of(version: i64, sha256: Option<Vec<u8>>, bytes: i64) -> StorageResult<Known> {
    let print = |sha256: Vec<u8>| {
        let wrong = |_| StorageError::new(ErrorKind::Internal, "a SHA-256 in the catalog is none");
        Ok::<_, StorageError>(Print {
            sha256: sha256.try_into().map_err(wrong)?,
            bytes: u64::try_from(bytes).unwrap_or(0),
        })
    };
    Ok(Known { version: version_of(version)?, print: sha256.map(print).transpose()? })
}

pub(super) fn setting_changed() -> StorageError {
    StorageError::new(ErrorKind::Conflict, "what is said about the rule was changed by somebody else")
}
