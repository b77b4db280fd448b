//! What this gateway knows of agents, in memory: pure, no clock, no store.

use connectors::inputs::grpc::Identity;
use model::{OrgId, Timestamp};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use storage::catalog::fleet::{Fingerprint, HostFacts, Sighting};
use tokio::sync::mpsc;
use wire::{Hello, MitigateRequest};

/// Commands that wait for a host, at most.
const COMMANDS_MAX: usize = 100;
/// Commands that nobody took for so long are not given any more.
const COMMAND_LIFE: Duration = Duration::from_secs(600);
/// Spools of one agent whose progress is kept: copies of a host have one each.
const SPOOLS_MAX: usize = 8;

/// Number of a session; never given twice.
pub(super) type SessionNumber = u64;

#[derive(Default)]
pub(super) struct Registry {
    agents: HashMap<(OrgId, Arc<str>), Entry>,
    last: SessionNumber,
    sessions: usize,
}

/// One agent.
pub(super) struct Entry {
    pub identity: Identity,
    /// Of its certificate.
    pub key: Option<Fingerprint>,
    /// The token of a login without certificate.
    pub token: Option<Fingerprint>,
    sessions: Vec<Open>,
    /// Spool → everything up to there is durable; the last used is the last.
    spools: VecDeque<(u64, u64)>,
    seen: Option<Timestamp>,
    facts: Option<HostFacts>,
    status: Option<String>,
    is_changed: bool,
    is_told_copied: bool,
    waiting: VecDeque<(Timestamp, MitigateRequest)>,
    commands: Option<mpsc::Sender<MitigateRequest>>,
}

struct Open {
    number: SessionNumber,
    boot_id: String,
    epoch: u64,
}

/// What a session finds when it opens.
pub(super) struct Opened {
    pub number: SessionNumber,
    /// How far its spool is durable here.
    pub acked: Option<u64>,
}

/// What a session is told with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Good,
    /// Another host sends from the same spool under the same certificate: this one must name its spool anew.
    Copied {
        /// It is the first time that this is seen.
        is_news: bool,
    },
}

/// Beyond every number that an agent can have: it takes another name for its spool.
pub(super) const RENAME: u64 = u64::MAX;

impl Registry {
    pub fn sessions(&self) -> usize {
        self.sessions
    }

    pub fn get(&self, org: &OrgId, agent: &str) -> Option<&Entry> {
        self.agents.get(&(org.clone(), Arc::from(agent)))
    }

    fn get_mut(&mut self, who: &Identity) -> Option<&mut Entry> {
        self.agents.get_mut(&(who.org.clone(), Arc::clone(&who.agent)))
    }

    /// Knows an agent, or that its name or key changed.
    pub fn know(&mut self, who: &Identity, key: Option<Fingerprint>, token: Option<Fingerprint>) -> &mut Entry {
        let name = (who.org.clone(), Arc::clone(&who.agent));
        let entry = self.agents.entry(name).or_insert_with(|| Entry::new(who.clone()));
        entry.identity = who.clone();
        entry.key = key.or(entry.key);
        entry.token = token.or(entry.token);
        entry
    }

    /// What the catalog knows of the spool, for an agent that was not here since the start.
    pub fn remember_spool(&mut self, who: &Identity, epoch: u64, acked_seq: u64) {
        if let Some(entry) = self.get_mut(who)
            && entry.spools.is_empty()
            && acked_seq > 0
        {
            entry.spools.push_back((epoch, acked_seq));
        }
    }

    pub fn open(&mut self, who: &Identity, hello: &Hello, facts: HostFacts, now: Timestamp) -> Opened {
        self.last += 1;
        let number = self.last;
        self.sessions += 1;
        let entry = self.know(who, None, None);
        let session = Open { number, boot_id: hello.boot_id.clone(), epoch: hello.spool_epoch };
        // A host that was told apart, and did not take another name yet.
        let must_rename = entry.is_told_copied && entry.others(&session).next().is_some();
        let known = entry.spools.iter().find(|(epoch, _)| *epoch == hello.spool_epoch).map(|(_, acked)| *acked);
        entry.sessions.push(session);
        entry.seen = Some(now);
        entry.facts = Some(facts);
        entry.is_changed = true;
        Opened { number, acked: if must_rename { Some(RENAME) } else { known } }
    }

    /// A message of a session came.
    pub fn heard(&mut self, who: &Identity, number: SessionNumber, now: Timestamp) -> Standing {
        let Some(entry) = self.get_mut(who) else { return Standing::Good };
        entry.seen = entry.seen.max(Some(now));
        entry.is_changed = true;
        let Some(own) = entry.sessions.iter().find(|open| open.number == number) else { return Standing::Good };
        // One that opened later, of another boot: if this one is alive too, there are two hosts.
        if entry.others(own).all(|other| other.number < number) {
            return Standing::Good;
        }
        let is_news = !entry.is_told_copied;
        entry.is_told_copied = true;
        Standing::Copied { is_news }
    }

    /// Records of a spool are durable up to there.
    pub fn acked(&mut self, who: &Identity, epoch: u64, through_seq: u64) {
        let Some(entry) = self.get_mut(who) else { return };
        let before = entry.spools.iter().position(|(known, _)| *known == epoch).and_then(|at| entry.spools.remove(at));
        let through_seq = before.map_or(through_seq, |(_, acked)| acked.max(through_seq));
        entry.spools.push_back((epoch, through_seq));
        while entry.spools.len() > SPOOLS_MAX {
            entry.spools.pop_front();
        }
        entry.is_changed = true;
    }

    pub fn status(&mut self, who: &Identity, status: String) {
        if let Some(entry) = self.get_mut(who) {
            entry.status = Some(status);
            entry.is_changed = true;
        }
    }

    pub fn close(&mut self, who: &Identity, number: SessionNumber) {
        let Some(entry) = self.get_mut(who) else { return };
        let before = entry.sessions.len();
        entry.sessions.retain(|open| open.number != number);
        entry.is_changed = true;
        // Whoever is alone needs no other name.
        entry.is_told_copied &= entry.sessions.len() > 1 || before > 1;
        let closed = before - entry.sessions.len();
        self.sessions = self.sessions.saturating_sub(closed);
    }

    /// Somebody without a session was there.
    pub fn seen(&mut self, who: &Identity, now: Timestamp) {
        if let Some(entry) = self.get_mut(who) {
            entry.seen = entry.seen.max(Some(now));
            entry.is_changed = true;
        }
    }

    /// What changed since the last call.
    pub fn changes(&mut self) -> Vec<Sighting> {
        let mut changes = Vec::new();
        for ((org, id), entry) in &mut self.agents {
            let (true, Some(at)) = (std::mem::take(&mut entry.is_changed), entry.seen) else { continue };
            let (epoch, acked_seq) = entry.spools.back().copied().unwrap_or_default();
            changes.push(Sighting {
                org: org.clone(),
                id: id.to_string(),
                at,
                connected: !entry.sessions.is_empty(),
                epoch,
                acked_seq,
                facts: entry.facts.take(),
                status: entry.status.take(),
            });
        }
        changes
    }

    /// Changes that could not be written: what was newer meanwhile stays.
    pub fn put_back(&mut self, changes: Vec<Sighting>) {
        for change in changes {
            if let Some(entry) = self.agents.get_mut(&(change.org, Arc::from(change.id))) {
                entry.facts = entry.facts.take().or(change.facts);
                entry.status = entry.status.take().or(change.status);
                entry.is_changed = true;
            }
        }
    }

    /// Forgets who is not connected, was not seen since then, and for whom no command waits.
    pub fn forget(&mut self, before: Timestamp) {
        self.agents.retain(|_, entry| {
            !entry.sessions.is_empty()
                || entry.is_changed
                || !entry.waiting.is_empty()
                || entry.commands.as_ref().is_some_and(|commands| !commands.is_closed())
                || entry.seen.is_none_or(|seen| seen >= before)
        });
    }

    /// Logins by token, to be looked at again.
    pub fn token_logins(&self) -> Vec<(OrgId, Arc<str>, Fingerprint)> {
        let logins = self.agents.iter().filter_map(|((org, id), entry)| Some((org.clone(), id.clone(), entry.token?)));
        logins.collect()
    }

    /// Gives a command to a host's agent, now or when it comes. `false`: too many wait.
    pub fn command(&mut self, who: &Identity, command: MitigateRequest, now: Timestamp) -> bool {
        let entry = self.know(who, None, None);
        entry.drop_old(now);
        let command = match &entry.commands {
            Some(commands) => match commands.try_send(command) {
                Ok(()) => return true,
                Err(mpsc::error::TrySendError::Full(command) | mpsc::error::TrySendError::Closed(command)) => command,
            },
            None => command,
        };
        if entry.waiting.len() >= COMMANDS_MAX {
            return false;
        }
        entry.waiting.push_back((now, command));
        true
    }

    /// Commands of an agent go there from now on.
    pub fn take_commands(&mut self, who: &Identity, now: Timestamp) -> mpsc::Receiver<MitigateRequest> {
        let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
        let entry = self.know(who, None, None);
        entry.drop_old(now);
        while let Some((at, command)) = entry.waiting.pop_front() {
            if let Err(error) = sender.try_send(command) {
                entry.waiting.push_front((at, error.into_inner()));
                break;
            }
        }
        entry.commands = Some(sender);
        receiver
    }
}

impl Entry {
    fn new(identity: Identity) -> Self {
        Self {
            identity,
            key: None,
            token: None,
            sessions: Vec::new(),
            spools: VecDeque::new(),
            seen: None,
            facts: None,
            status: None,
            is_changed: false,
            is_told_copied: false,
            waiting: VecDeque::new(),
            commands: None,
        }
    }

    /// Open sessions of another host that send from the same spool.
    fn others<'a>(&'a self, own: &'a Open) -> impl Iterator<Item = &'a Open> {
        self.sessions.iter().filter(|open| open.epoch == own.epoch && open.boot_id != own.boot_id)
    }

    fn drop_old(&mut self, now: Timestamp) {
        while self.waiting.front().is_some_and(|(at, _)| now.since(*at) > COMMAND_LIFE) {
            self.waiting.pop_front();
        }
    }
}
