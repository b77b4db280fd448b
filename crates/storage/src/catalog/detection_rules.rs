//! Detection rules that organisations keep in the catalog: documents (the text of one file of Sigma
//! rules, correlations and filters), their versions, and what an organisation says about single rules
//! without touching their text.
//!
//! The catalog keeps texts and asks nothing of them: who puts a document there has read it before.

use super::Actor;
use crate::StorageResult;
use async_trait::async_trait;
use model::{Level, OrgId, Timestamp};
use std::collections::BTreeMap;

/// Longest name of a document, in characters.
pub const DOCUMENT_NAME_MAX: usize = 255;
/// Longest text of a document, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// Most documents of an organisation. As many removed ones are remembered; of more, the longest gone are
/// forgotten, and what is new then counts from above the highest version that any of them had.
pub const DOCUMENTS_MAX: usize = 20_000;
/// Most bytes of an organisation's documents together.
pub const ORG_BYTES_MAX: u64 = 256 << 20;
/// Most changes of one call: enough to replace everything.
pub const CHANGES_MAX: usize = 2 * DOCUMENTS_MAX;
/// Versions of a document that are kept; the oldest go.
pub const VERSIONS_KEPT: u32 = 100;
/// Longest identifier of a rule, in characters.
pub const RULE_UID_MAX: usize = 255;
/// Most rules of which an organisation says something.
pub const SETTINGS_MAX: usize = 50_000;

/// A document as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleDocument {
    /// As a path: `linux/auditd/passwd.yml`. Unique in its organisation.
    pub name: String,
    pub text: String,
    /// Counts from 1 and never back, also when a removed document returns.
    pub version: u32,
    pub changed_at: Timestamp,
    pub changed_by: String,
}

/// What a document was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentVersion {
    pub version: u32,
    /// `None`: with this version the document was removed.
    pub text: Option<String>,
    pub changed_at: Timestamp,
    pub changed_by: String,
    pub reason: Option<String>,
}

/// What is to become of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentChange {
    pub name: String,
    /// `None` removes it.
    pub text: Option<String>,
    /// The version that it has to have, 0 = it is not there (or was removed); `None` = any.
    pub expected: Option<u32>,
}

/// Whether a rule is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RuleState {
    /// It is not asked.
    Off,
    /// Its matches are counted, and nobody is told.
    DryRun,
    /// It alerts.
    On,
}

impl RuleState {
    pub const ALL: [Self; 3] = [Self::Off, Self::DryRun, Self::On];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::DryRun => "dry-run",
            Self::On => "on",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// What an organisation says about a rule, wherever its text comes from; what is `None` stays as the
/// rule and the server say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleSetting {
    pub state: Option<RuleState>,
    pub level: Option<Level>,
    pub team: Option<String>,
}

impl RuleSetting {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Everything of one organisation.
#[derive(Debug, Clone, Default)]
pub struct OrgDetectionRules {
    pub org: OrgId,
    /// By name.
    pub documents: Vec<RuleDocument>,
    /// By the rule's identifier.
    pub settings: BTreeMap<String, RuleSetting>,
}

#[async_trait]
pub trait DetectionRuleStore: Send + Sync {
    /// All documents, by name.
    async fn rule_documents(&self, org: &OrgId) -> StorageResult<Vec<RuleDocument>>;
    async fn rule_document(&self, org: &OrgId, name: &str) -> StorageResult<RuleDocument>;
    /// What a document was, newest first; also one that was removed.
    async fn rule_document_versions(&self, org: &OrgId, name: &str) -> StorageResult<Vec<DocumentVersion>>;
    /// Changes all or none: `Conflict` where a document is not as expected, `NotFound` where one to be
    /// removed is not there (whatever is expected), `Invalid` past a bound or where a name comes twice. A text that is there already is no change and makes
    /// no version. Returns the version that each has now, in the order of `changes`.
    async fn change_rule_documents(
        &self,
        org: &OrgId,
        changes: Vec<DocumentChange>,
        by: &Actor,
    ) -> StorageResult<Vec<u32>>;
    /// By the rule's identifier.
    async fn rule_settings(&self, org: &OrgId) -> StorageResult<BTreeMap<String, RuleSetting>>;
    /// Replaces what is said about a rule, provided it is still `expected`; `Conflict` otherwise. An
    /// empty one is forgotten, and one that is said already is no change.
    async fn set_rule(
        &self,
        org: &OrgId,
        uid: &str,
        expected: &RuleSetting,
        setting: RuleSetting,
        by: &Actor,
    ) -> StorageResult<()>;
    /// Of every organisation that has any; what detection compiles.
    async fn all_detection_rules(&self) -> StorageResult<Vec<OrgDetectionRules>>;
    /// Grows with every change of documents or settings; cheap to ask often.
    async fn detection_revision(&self) -> StorageResult<u64>;
}
