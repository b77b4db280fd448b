//! Organisations, tokens for agents, and the agents themselves (contract security-manager §2.2, §6).
//!
//! A token is 160 random bits in a readable form that its owner alone has; here is only its SHA-256. It names an
//! organisation, perhaps a host, ends at a time, and can be used so many times; whoever shows one may get a certificate
//! ([`FleetStore::enrol`]) or, where it says so, use it at each connection as old agents do.

use super::{Actor, Page, PageRequest};
use crate::StorageResult;
use async_trait::async_trait;
use model::{OrgId, Timestamp};

pub use super::users::Fingerprint;

/// Number of a token; never given twice.
pub type TokenId = i64;

/// Organisations at most.
pub const ORGS_MAX: u64 = 100_000;
/// Tokens of one organisation that count, at most.
pub const TOKENS_MAX: u64 = 100_000;
/// Revoked and ended tokens of one organisation that are still listed; older ones are only in the audit log.
pub const ENDED_TOKENS_KEPT: u64 = 1_000;
/// Agents of one organisation that are not revoked, at most, whatever the organisation says.
pub const AGENTS_MAX: u64 = 200_000;
/// Revoked agents of one organisation that are still listed; older ones are forgotten, and stay barred.
pub const REVOKED_AGENTS_KEPT: u64 = 10_000;

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Org {
    pub id: OrgId,
    /// For people; may be empty.
    pub title: String,
    pub created_at: Timestamp,
    /// Agents that may be enrolled; `None`: as many as there are.
    pub agents_max: Option<u32>,
    /// Nobody of it gets in until it is enabled again; nothing of it is removed.
    pub disabled: bool,
}

/// A token without what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentToken {
    pub id: TokenId,
    pub org: OrgId,
    /// What it is for; may be empty.
    pub label: String,
    /// Only for the agent of this host.
    pub host: Option<String>,
    /// May be used at each connection, without a certificate.
    pub legacy: bool,
    pub created_at: Timestamp,
    pub created_by: String,
    pub expires_at: Timestamp,
    /// Certificates that it gets at most; `None`: any number. Logins of old agents do not count.
    pub uses_max: Option<u32>,
    pub uses: u32,
    /// About when it was used last, within a minute.
    pub last_used_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// The token that follows it, when it was rotated.
    pub followed_by: Option<TokenId>,
}

/// A token that is to be.
#[derive(Debug, Clone)]
pub struct NewToken {
    pub fingerprint: Fingerprint,
    pub label: String,
    pub host: Option<String>,
    pub legacy: bool,
    pub expires_at: Timestamp,
    pub uses_max: Option<u32>,
}

/// A token that somebody shows, with what must be known of its organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenLogin {
    pub token: AgentToken,
    pub fingerprint: Fingerprint,
    pub org_disabled: bool,
}

/// What an agent says of its host. Stores keep it [`HostFacts::bounded`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostFacts {
    pub hostname: String,
    pub machine_id: String,
    pub boot_id: String,
    pub version: String,
    pub os_type: String,
    pub os_version: String,
    pub ip_address: String,
    pub capabilities: Vec<String>,
}

/// An agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// `agt_` and 26 characters; never given twice.
    pub id: String,
    pub org: OrgId,
    /// The name of its host in events; unique in the organisation among agents that are not revoked.
    pub host: String,
    pub facts: HostFacts,
    /// SHA-256 of its public key; `None` for old agents, which have none.
    pub key: Option<Fingerprint>,
    pub token: Option<TokenId>,
    pub enrolled_at: Timestamp,
    pub certificate_ends_at: Option<Timestamp>,
    pub last_seen_at: Option<Timestamp>,
    /// Somebody holds a connection of it now, as far as is known. Nobody does of one that is silent.
    pub connected: bool,
    /// It was told to be silent; back to `false` when it is seen again.
    pub silent: bool,
    pub revoked_at: Option<Timestamp>,
    /// Why it was revoked; `replaced by agt_…` where another took its host's name.
    pub revoked_why: Option<String>,
    /// The spool it sends from and how far it is durable here; bits of both as they are on the wire.
    pub epoch: u64,
    pub acked_seq: u64,
    /// Its last status, a JSON object of at most 16 KiB.
    pub status: Option<String>,
}

/// Somebody who shows a token and wants to be an agent.
#[derive(Debug, Clone)]
pub struct Enrolment {
    pub org: OrgId,
    pub token: TokenId,
    /// The id it gets if it is new.
    pub id: String,
    /// `None`: an old agent that registers by its login. The token's host or [`HostFacts::hostname`] names it.
    pub key: Option<Fingerprint>,
    pub facts: HostFacts,
    pub certificate_ends_at: Option<Timestamp>,
    pub at: Timestamp,
}

/// What became of an enrolment.
#[derive(Debug, Clone, PartialEq)]
pub enum Enrolled {
    /// A new agent. `instead_of` was revoked: it had the same host's name and is not connected.
    New { agent: Agent, instead_of: Option<String> },
    /// The agent of this key (or, of an old agent, of this host), once more.
    Again(Agent),
    /// The token is unknown, revoked, used up or over; or its organisation is disabled.
    BadToken,
    /// The key's agent was revoked.
    Revoked,
    /// The organisation has as many agents as it may.
    TooMany,
}

/// What was seen of an agent since it was written last.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    pub org: OrgId,
    pub id: String,
    pub at: Timestamp,
    pub connected: bool,
    pub epoch: u64,
    pub acked_seq: u64,
    /// `None`: as before.
    pub facts: Option<HostFacts>,
    /// `None`, or no JSON object of at most 16 KiB: as before.
    pub status: Option<String>,
}

/// Which agents.
#[derive(Debug, Clone, Default)]
pub struct AgentFilter {
    /// Part of the host's name, any case.
    pub host: Option<String>,
    pub state: Option<AgentState>,
}

/// How an agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AgentState {
    Online,
    /// Not seen for longer than agents may be silent.
    Offline,
    /// Enrolled and never seen.
    Pending,
    Revoked,
}

impl AgentState {
    pub const ALL: [Self; 4] = [Self::Online, Self::Offline, Self::Pending, Self::Revoked];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Pending => "pending",
            Self::Revoked => "revoked",
        }
    }

    /// Reads a state, any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str().eq_ignore_ascii_case(text.trim()))
    }
}

impl Agent {
    /// Revoked before anything; then never seen; then silent or not.
    pub fn state(&self) -> AgentState {
        match (self.revoked_at, self.last_seen_at) {
            (Some(_), _) => AgentState::Revoked,
            (None, None) => AgentState::Pending,
            (None, Some(_)) if self.silent => AgentState::Offline,
            (None, Some(_)) => AgentState::Online,
        }
    }
}

/// Organisations, tokens and agents. Changes that people make write their audit row (`orgs`, `agent_tokens`, `agents`;
/// never a fingerprint) in the same transaction, and move [`FleetStore::fleet_revision`].
#[async_trait]
pub trait FleetStore: Send + Sync {
    /// All by id. The default organisation is always there, and enabled.
    async fn orgs(&self) -> StorageResult<Vec<Org>>;
    async fn org(&self, id: &OrgId) -> StorageResult<Org>;
    /// `Conflict` when it exists; `Invalid` for one too many or a name that tokens cannot carry (with `_`).
    async fn create_org(&self, id: &OrgId, title: &str, agents_max: Option<u32>, by: &Actor) -> StorageResult<()>;
    async fn change_org(
        &self,
        id: &OrgId,
        title: &str,
        agents_max: Option<u32>,
        disabled: bool,
        by: &Actor,
    ) -> StorageResult<()>;

    /// Tokens of an organisation, newest first.
    async fn tokens(&self, org: &OrgId) -> StorageResult<Vec<AgentToken>>;
    /// `NotFound` where the organisation does not exist; `Conflict` when the fingerprint is known already; `Invalid` for
    /// one too many.
    async fn add_token(&self, org: &OrgId, token: NewToken, by: &Actor) -> StorageResult<TokenId>;
    /// Revoking again changes nothing.
    async fn revoke_token(&self, org: &OrgId, id: TokenId, by: &Actor) -> StorageResult<()>;
    /// A new token with the host, label, bounds and rights of an old one, which ends at `old_until` at the latest.
    /// `Conflict` for one that is revoked, or was rotated already.
    async fn rotate_token(
        &self,
        org: &OrgId,
        id: TokenId,
        fingerprint: Fingerprint,
        expires_at: Timestamp,
        old_until: Timestamp,
        by: &Actor,
    ) -> StorageResult<TokenId>;
    /// The token of this fingerprint, also one that ended.
    async fn token_login(&self, fingerprint: &Fingerprint) -> StorageResult<Option<TokenLogin>>;
    /// A token was used at a login, about then. No audit row.
    async fn token_used(&self, id: TokenId, at: Timestamp) -> StorageResult<()>;

    /// Gives a token's certificate to whoever has the key: takes one use of the token (none where the agent of the key
    /// enrols again, which a token that is used up allows, too), and makes or finds the agent, in one transaction.
    ///
    /// The host's name is the token's, else the one in `facts`. Where an agent with another key has that name:
    /// * if it is not connected, it is revoked and the new one takes the name. One that enrolled within the last minute,
    ///   was never seen and is not of the same boot counts as connected: copies of a host may start at once;
    /// * if it is connected, the new one is called `<host>-<last 6 characters of its id>`.
    ///
    /// The name of an old agent is taken over in any case. An old agent takes no name: where it is in use, it gets one
    /// like that, and the same one at every login; once revoked by people, it stays so until it is removed.
    async fn enrol(&self, enrolment: Enrolment) -> StorageResult<Enrolled>;
    /// A certificate was renewed. `NotFound` for unknown agents, `Denied` for revoked ones.
    async fn renewed(&self, org: &OrgId, id: &str, ends_at: Timestamp) -> StorageResult<()>;
    async fn agent(&self, org: &OrgId, id: &str) -> StorageResult<Agent>;
    /// By host.
    async fn agents(&self, org: &OrgId, filter: &AgentFilter, page: PageRequest) -> StorageResult<Page<Agent>>;
    /// How many are in each state.
    async fn agent_counts(&self, org: &OrgId) -> StorageResult<Vec<(AgentState, u64)>>;
    /// Its certificate does not count any more. Revoking again changes nothing.
    async fn revoke_agent(&self, org: &OrgId, id: &str, why: &str, by: &Actor) -> StorageResult<()>;
    /// Forgets a revoked or silent agent; `Conflict` for one that is online.
    async fn remove_agent(&self, org: &OrgId, id: &str, by: &Actor) -> StorageResult<()>;
    /// Writes what was seen, in one transaction; times only move forward, unknown and revoked agents are passed over.
    /// Returns those that had been told to be silent and are back. No audit rows.
    async fn sighted(&self, sightings: Vec<Sighting>) -> StorageResult<Vec<Agent>>;
    /// Tells agents that were not seen since `before` to be silent, at most `limit`; each is returned once, whoever asks.
    async fn fell_silent(&self, before: Timestamp, limit: u32) -> StorageResult<Vec<Agent>>;
    /// Ids of agents that must not get in: of those that were revoked, or removed, those whose certificates have not
    /// ended by then, and revoked ones that never had one; and all of disabled organisations.
    async fn barred_agents(&self, now: Timestamp) -> StorageResult<Vec<(OrgId, String)>>;
    /// Grows with every change of organisations and tokens that people make, and when agents are revoked or removed;
    /// cheap to ask often.
    async fn fleet_revision(&self) -> StorageResult<u64>;
}
