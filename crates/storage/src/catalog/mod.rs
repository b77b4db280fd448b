//! The catalog: rules, hosts, teams, documents of detection rules, the places of scheduled ones, the audit of
//! events and of changes, alerts and their state, incidents and silences, users of the Web API and their keys,
//! organisations, tokens for agents, and the agents.
//!
//! One small trait per aggregate, business operations instead of rows, no transaction object: what
//! must happen together is one call. [`Catalog`] is all of them.
//!
//! Promises of every driver (`contract.rs` checks them):
//! * Every change of rules, hosts and teams writes its audit row in the same transaction, and moves
//!   [`RuleStore::revision`], so that workers notice within a second. Documents and settings of detection
//!   rules do so with [`DetectionRuleStore::detection_revision`](detection_rules::DetectionRuleStore). Users
//!   and keys are audited too. Organisations, tokens and agents are, with [`fleet::FleetStore::fleet_revision`].
//! * [`AlertStore::record_planned`] is atomic and idempotent: audit rows by event id, alerts by alert id; an
//!   alert counts once in its incident, and of a key at most one incident is open.
//! * Deleting a rule never touches history.
//! * [`AlertStore::mark_alerts`] takes steps in any order: an alert that was delivered stays so.
//! * Age, for [`AuditStore::purge`], is the time of acceptance in the id: a device with a wrong clock
//!   neither loses its rows early nor keeps them for ever.
//! * Lists are paged by number, as the contract asks, over keys only: a deep page costs what it
//!   skips in an index, never in rows. A page is at most 1,000 rows; a total is always given. The audit
//!   logs are paged by [`Cursor`], too: that costs the same everywhere, and rows that arrive meanwhile
//!   move nothing.
//! * Another organisation's object is `NotFound`.
//! * No text or time of an event makes [`AlertStore::record`] fail: what a store cannot hold it changes,
//!   the same way every time, and finds by the original.
//!
//! To add a driver: a folder beside `sqlite/`, a variant in [`CatalogConfig`], an arm in [`open`].

#[cfg(feature = "contract")]
pub mod contract;
mod detection;
mod detection_changes;
pub mod detection_rules;
mod fields;
pub mod fleet;
mod fleet_changes;
pub mod incidents;
mod postgres;
pub mod retention;
pub mod schedules;
mod sqlite;
pub mod users;

pub use detection::DetectionRecord;
pub(crate) use fields::org_of;
pub use postgres::{PgTls, PostgresConfig, postgres_advice};

use crate::StorageResult;
use crate::correlations::CorrelationStore;
use crate::sqlite::blocking;
use async_trait::async_trait;
use bytes::Bytes;
use incidents::{IncidentId, NewAlert};
use model::{Alert, AlertId, AlertState, EventId, OrgId, Rule, RuleDraft, RuleId, Timestamp};
use std::path::PathBuf;
use std::sync::Arc;

/// Who changes something, and why; goes into the audit row.
#[derive(Debug, Clone)]
pub struct Actor {
    /// A name, never a key or a part of one.
    pub name: String,
    pub reason: Option<String>,
    pub correlation_id: String,
    pub at: Timestamp,
}

#[async_trait]
pub trait RuleStore: Send + Sync {
    /// All rules of an organisation by (priority, id).
    async fn rules(&self, org: &OrgId) -> StorageResult<Vec<Rule>>;
    /// Every organisation's rules; what detection compiles.
    async fn all_rules(&self) -> StorageResult<Vec<(OrgId, Rule)>>;
    async fn rule(&self, org: &OrgId, id: RuleId) -> StorageResult<Rule>;
    async fn create_rule(&self, org: &OrgId, draft: RuleDraft, by: &Actor) -> StorageResult<RuleId>;
    /// Creates all or none.
    async fn create_rules(&self, org: &OrgId, drafts: Vec<RuleDraft>, by: &Actor) -> StorageResult<Vec<RuleId>>;
    /// Replaces the rule, provided it still equals `expected`; `Conflict` otherwise.
    async fn update_rule(
        &self,
        org: &OrgId,
        id: RuleId,
        expected: &RuleDraft,
        draft: RuleDraft,
        by: &Actor,
    ) -> StorageResult<()>;
    async fn delete_rule(&self, org: &OrgId, id: RuleId, by: &Actor) -> StorageResult<()>;
    /// Grows with every change of rules, hosts or teams; cheap to ask often.
    async fn revision(&self) -> StorageResult<u64>;
}

#[async_trait]
pub trait HostStore: Send + Sync {
    /// Development hosts, sorted.
    async fn dev_hosts(&self, org: &OrgId) -> StorageResult<Vec<String>>;
    /// `Conflict` when it is there already.
    async fn add_dev_host(&self, org: &OrgId, host: &str, by: &Actor) -> StorageResult<()>;
    async fn remove_dev_host(&self, org: &OrgId, host: &str, by: &Actor) -> StorageResult<()>;
    /// (host, team), sorted by host.
    async fn teams(&self, org: &OrgId) -> StorageResult<Vec<(String, String)>>;
    async fn add_team(&self, org: &OrgId, host: &str, team: &str, by: &Actor) -> StorageResult<()>;
    async fn update_team(&self, org: &OrgId, host: &str, team: &str, by: &Actor) -> StorageResult<()>;
    async fn remove_team(&self, org: &OrgId, host: &str, by: &Actor) -> StorageResult<()>;
    /// Every organisation's development hosts and teams; what detection loads.
    async fn all_hosts(&self) -> StorageResult<Vec<OrgHosts>>;
}

/// Development hosts and teams of one organisation.
#[derive(Debug, Clone, Default)]
pub struct OrgHosts {
    pub org: OrgId,
    pub dev_hosts: Vec<String>,
    pub teams: Vec<(String, String)>,
}

/// A row of `event_audit_log` before it has an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    pub event_id: EventId,
    pub event_timestamp: Timestamp,
    pub hostname: String,
    pub matched_rule_id: RuleId,
    pub handling_decision: String,
    pub forwarded: bool,
    /// JSON of the whole event.
    pub raw_message: Bytes,
}

/// A row of `event_audit_log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    pub id: i64,
    pub entry: AuditEntry,
    /// False for a row of another program that has none; `raw_message` is empty then.
    pub has_raw: bool,
}

/// A row of `config_audit_log`; values are JSON texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    pub id: i64,
    pub changed_at: Timestamp,
    pub changed_by: String,
    /// `CREATE`, `UPDATE` or `DELETE`.
    pub operation: String,
    pub table_name: String,
    /// The rule's id; 0 for rows whose key is text (that key is in the values).
    pub record_id: i64,
    pub old_values: Option<String>,
    pub new_values: Option<String>,
    pub reason: Option<String>,
    pub correlation_id: Option<String>,
}

/// One page of a list, newest first.
#[derive(Debug, Clone)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// All rows that match the filter.
    pub total: u64,
    /// Where the next page begins, when this one is full and its list can be paged so.
    pub next: Option<Cursor>,
}

/// A place in an audit log: behind its row with this time and id, whether or not that row is still
/// there. The numbers are the driver's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub(crate) time: i64,
    pub(crate) id: i64,
}

impl Cursor {
    /// Reads what [`Display`](std::fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (time, id) = text.split_once('.')?;
        Some(Self { time: time.parse().ok()?, id: id.parse().ok()? })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.time, self.id)
    }
}

/// Which page: number from 1 as the contract pages (0 is 1), and rows on it, at most 1,000.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest {
    pub page: u64,
    pub limit: u64,
}

#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    pub hostname: Option<String>,
    pub rule_id: Option<RuleId>,
    pub event_id: Option<EventId>,
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
    /// Begins the page here, whatever its number; says nothing about the total.
    pub after: Option<Cursor>,
}

#[derive(Debug, Clone, Default)]
pub struct ConfigChangeFilter {
    /// Substring, any case.
    pub changed_by: Option<String>,
    /// Upper-case.
    pub operation: Option<String>,
    pub table_name: Option<String>,
    pub record_id: Option<i64>,
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
    /// Begins the page here, whatever its number; says nothing about the total.
    pub after: Option<Cursor>,
}

#[async_trait]
pub trait AuditStore: Send + Sync {
    async fn audit_log(&self, org: &OrgId, filter: &AuditFilter, page: PageRequest) -> StorageResult<Page<AuditRow>>;
    async fn config_changes(
        &self,
        org: &OrgId,
        filter: &ConfigChangeFilter,
        page: PageRequest,
    ) -> StorageResult<Page<ConfigChange>>;
    /// Writes a change that has no table of its own in the catalog (live settings).
    async fn record_config_change(&self, org: &OrgId, change: ConfigChange) -> StorageResult<()>;
    /// Removes event audit rows and settled alerts older than `events_before` and change rows older
    /// than `changes_before`, at most `limit` rows of each; returns how many went.
    async fn purge(&self, events_before: Timestamp, changes_before: Timestamp, limit: u64) -> StorageResult<Purged>;
    /// Moves event audit rows older than `before` out of the log into the archive, at most `limit`;
    /// returns how many went. A driver without an archive answers 0; one with an archive purges into
    /// it, too.
    async fn archive(&self, _before: Timestamp, _limit: u64) -> StorageResult<u64> {
        Ok(0)
    }
    /// Removes archived rows older than `before`, at most `limit`; returns how many went.
    async fn purge_archive(&self, _before: Timestamp, _limit: u64) -> StorageResult<u64> {
        Ok(0)
    }
}

/// Rows that [`AuditStore::purge`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purged {
    /// Audit rows of events.
    pub events: u64,
    pub alerts: u64,
    /// Closed incidents, and silences that are over.
    pub incidents: u64,
    /// Audit rows of changes of rules, hosts, teams and settings.
    pub changes: u64,
}

/// An alert with where it is on its way.
#[derive(Debug, Clone)]
pub struct AlertRecord {
    pub alert: Alert,
    pub state: AlertState,
    /// When the state was entered.
    pub state_at: Timestamp,
    /// Tries so far.
    pub attempts: u32,
    /// The receipt of the channel, why it is dead, or why nobody was told.
    pub detail: Option<String>,
    /// The incident that it joined.
    pub incident: Option<IncidentId>,
}

/// How far delivery of an alert came.
#[derive(Debug, Clone)]
pub struct AlertProgress {
    pub id: AlertId,
    pub state: AlertState,
    pub at: Timestamp,
    pub attempts: u32,
    pub detail: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct AlertFilter {
    pub event_id: Option<EventId>,
    pub hostname: Option<String>,
    pub state: Option<AlertState>,
    pub incident: Option<IncidentId>,
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
}

#[async_trait]
pub trait AlertStore: Send + Sync {
    /// Writes audit rows and alerts of a worked batch in one transaction, durably. Rows that exist
    /// are left as they are; new
    /// alerts go as planned, and join their incidents; of an alert that exists nothing counts again. The
    /// answer is the state of each alert now, in their order.
    async fn record_planned(
        &self,
        org: &OrgId,
        audits: Vec<AuditEntry>,
        alerts: Vec<NewAlert>,
    ) -> StorageResult<Vec<AlertState>>;
    /// The same, and somebody is told of every alert.
    async fn record(&self, org: &OrgId, audits: Vec<AuditEntry>, alerts: Vec<Alert>) -> StorageResult<()> {
        let alerts = alerts.into_iter().map(NewAlert::from).collect();
        self.record_planned(org, audits, alerts).await.map(drop)
    }
    /// The states of these alerts; unknown ones are left out.
    async fn alert_states(&self, ids: &[AlertId]) -> StorageResult<Vec<(AlertId, AlertState)>>;
    /// How far delivery came. Unknown alerts are passed over; delivered ones stay as they are.
    async fn mark_alerts(&self, progress: Vec<AlertProgress>) -> StorageResult<()>;
    /// Pending alerts of every organisation by (creation, id), after the given one: the outbox, for
    /// whatever a crash or a full queue kept from the queue.
    async fn pending_alerts(&self, after: Option<(Timestamp, AlertId)>, limit: usize) -> StorageResult<Vec<Alert>>;
    async fn alert(&self, org: &OrgId, id: AlertId) -> StorageResult<AlertRecord>;
    async fn alerts(&self, org: &OrgId, filter: &AlertFilter, page: PageRequest) -> StorageResult<Page<AlertRecord>>;
}

/// All aggregates of the catalog.
#[async_trait]
pub trait Catalog:
    RuleStore
    + HostStore
    + AuditStore
    + AlertStore
    + detection_rules::DetectionRuleStore
    + fleet::FleetStore
    + incidents::IncidentStore
    + retention::RetentionStore
    + schedules::ScheduleStore
    + users::UserStore
    + 'static
{
    /// A cheap question that fails when the store cannot be used.
    async fn ping(&self) -> StorageResult<()>;
    /// The state of correlations, where it is kept here: in a catalog that is shared.
    fn correlations(self: Arc<Self>) -> Option<Arc<dyn CorrelationStore>> {
        None
    }
}

/// Which driver keeps the catalog.
#[derive(Debug, Clone)]
pub enum CatalogConfig {
    Sqlite {
        file: PathBuf,
    },
    /// Shared by many processes; adopts a database of MUTT 2.5.
    Postgres(PostgresConfig),
}

/// Opens the catalog and brings its schema up to date.
pub async fn open(config: CatalogConfig) -> StorageResult<Arc<dyn Catalog>> {
    match config {
        CatalogConfig::Sqlite { file } => {
            let catalog = blocking(move || sqlite::SqliteCatalog::open(&file)).await?;
            Ok(Arc::new(catalog))
        }
        CatalogConfig::Postgres(config) => Ok(Arc::new(postgres::PostgresCatalog::open(config).await?)),
    }
}

/// Opens the catalog to look at: brings nothing up to date and makes no partitions.
pub async fn open_as_it_is(config: CatalogConfig) -> StorageResult<Arc<dyn Catalog>> {
    match config {
        CatalogConfig::Postgres(config) => Ok(Arc::new(postgres::PostgresCatalog::as_it_is(config)?)),
        CatalogConfig::Sqlite { .. } => open(config).await, // which changes nothing where no step is pending
    }
}

/// Steps of the schema that [`open`] would make now, by number and name; changes nothing.
pub async fn pending_steps(config: &CatalogConfig) -> StorageResult<Vec<String>> {
    match config {
        CatalogConfig::Sqlite { file } => {
            let file = file.clone();
            blocking(move || sqlite::pending_steps(&file)).await
        }
        CatalogConfig::Postgres(config) => postgres::pending_steps(config).await,
    }
}
