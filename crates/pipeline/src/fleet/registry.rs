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
    sessions: Vec<SessionNumber>,
    /// The last used is the last.
    spools: VecDeque<Spool>,
    seen: Option<Timestamp>,
    facts: Option<HostFacts>,
    status: Option<String>,
    is_changed: bool,
    waiting: VecDeque<(Timestamp, MitigateRequest)>,
    commands: Option<mpsc::Sender<MitigateRequest>>,
}

/// What an agent sends from.
#[derive(Default)]
struct Spool {
    epoch: u64,
    /// Everything up to there is durable.
    acked: Option<u64>,
    /// Boots of the host, the newest last. None comes back after another: when one does, there are two hosts.
    boots: VecDeque<String>,
    is_told_copied: bool,
}

/// What a session finds when it opens.
pub(super) struct Opened {
    pub number: SessionNumber,
    pub spool: Standing,
}

/// How the spool of a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Everything up to there is durable here; `None`: nothing is known.
    Acked(Option<u64>),
    /// Two hosts send from it under one certificate: this one must name it anew.
    Copied {
        /// It is the first time that this is seen.
        is_news: bool,
    },
}

/// Boots of a host that are known again.
const BOOTS_MAX: usize = 8;

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
            entry.spools.push_back(Spool { epoch, acked: Some(acked_seq), ..Spool::default() });
        }
    }

    pub fn open(&mut self, who: &Identity, hello: &Hello, facts: HostFacts, now: Timestamp) -> Opened {
        self.last += 1;
        let number = self.last;
        self.sessions += 1;
        let entry = self.know(who, None, None);
        entry.sessions.push(number);
        entry.seen = Some(now);
        entry.facts = Some(facts);
        entry.is_changed = true;
        Opened { number, spool: entry.spool(hello.spool_epoch).booted(&hello.boot_id) }
    }

    /// Records of a spool are durable up to there.
    pub fn acked(&mut self, who: &Identity, epoch: u64, through_seq: u64) {
        let Some(entry) = self.get_mut(who) else { return };
        let spool = entry.spool(epoch);
        spool.acked = spool.acked.max(Some(through_seq));
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
        entry.sessions.retain(|open| *open != number);
        entry.is_changed = true;
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
            let last = entry.spools.back().and_then(|spool| Some((spool.epoch, spool.acked?)));
            let (epoch, acked_seq) = last.unwrap_or_default();
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
            waiting: VecDeque::new(),
            commands: None,
        }
    }

    /// The spool of this name, which is the last used now.
    fn spool(&mut self, epoch: u64) -> &mut Spool {
        let known = self.spools.iter().position(|spool| spool.epoch == epoch).and_then(|at| self.spools.remove(at));
        if self.spools.len() >= SPOOLS_MAX {
            self.spools.pop_front();
        }
        self.spools.push_back(known.unwrap_or(Spool { epoch, ..Spool::default() }));
        self.spools.back_mut().expect("one was just put there")
    }

    fn drop_old(&mut self, now: Timestamp) {
        while self.waiting.front().is_some_and(|(at, _)| now.since(*at) > COMMAND_LIFE) {
            self.waiting.pop_front();
        }
    }
}

impl Spool {
    /// A host of this boot begins to send from it.
    fn booted(&mut self, boot_id: &str) -> Standing {
        if self.boots.back().is_some_and(|last| last == boot_id) {
            return Standing::Acked(self.acked);
        }
        if self.boots.iter().any(|earlier| earlier == boot_id) {
            let is_news = !self.is_told_copied;
            self.is_told_copied = true;
            return Standing::Copied { is_news };
        }
        if self.boots.len() >= BOOTS_MAX {
            self.boots.pop_front();
        }
        self.boots.push_back(boot_id.to_owned());
        Standing::Acked(self.acked)
    }
}
