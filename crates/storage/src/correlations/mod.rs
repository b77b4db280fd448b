//! What the correlations of detection rules know, kept over restarts, and the hits on their way to it.
//!
//! Groups of correlations are divided into shards ([`rules::correlate::shard`]). Whoever holds a shard is
//! the only one to change its groups: it takes the hits that wait for the shard, works them in memory,
//! writes the alerts, and then [`commits`](CorrelationStore::commit), in one transaction, that the hits are
//! taken and what the groups are now. So workers on several machines see one stream of events.
//!
//! Promises of every driver (`contract.rs` checks them):
//! * **A hit counts once.** It is known by its organisation, its event, its group and its bytes. Added
//!   again while it waits, or up to [`TAKEN_KEPT`] after it was taken, it is not there twice. What comes
//!   even later is a matter of the correlator, which knows its members by their events.
//! * **Fencing.** Every new holder of a shard gets a higher epoch. With an epoch that is over,
//!   [`load`](CorrelationStore::load), [`waiting`](CorrelationStore::waiting) and
//!   [`commit`](CorrelationStore::commit) are a `Conflict` and change nothing: a worker that was paused
//!   never writes over the state of a newer one.
//! * **All or nothing.** A commit happens as a whole or not at all. Whatever a crash keeps of alerts that
//!   were written before it, the same hits wait again and lead to the same alerts.
//! * **Takeover.** Who does not call [`hold`](CorrelationStore::hold) for [`HOLD_FOR`], by the store's
//!   clock, loses its shards to those who do. Shards are spread evenly, and only as many move as must: after
//!   an outage of the store, in which nobody could call, everybody has what it had.
//! * **Bounded.** A hit has at most [`HIT_BYTES_MAX`] bytes (`Invalid`), and beyond about [`WAITING_MAX`]
//!   hits that wait no more are added (`Full`, the events wait in the queue).
//! * Groups and hits belong to organisations; nothing of one shows in another's.
//!
//! How a worker uses it:
//! 1. Every [`HOLD_EVERY`]: [`hold`](CorrelationStore::hold). For a [`Hold`] that it had not (another shard
//!    or another epoch): forget what is known of the shard and [`load`](CorrelationStore::load) it, into a
//!    correlator with `Share { index: hold.shard, count: store.shards() }` for each organisation. What of a
//!    shard that is held no more is in memory is forgotten.
//! 2. A batch of events: [`add`](CorrelationStore::add) its hits, before the batch is acknowledged.
//! 3. All the time: [`waiting`](CorrelationStore::waiting), apply, commit `Outcome::named`, write the alerts,
//!    [`commit`](CorrelationStore::commit) with the keys of the hits, the records of the outcomes, and
//!    `Outcome::elsewhere` as [`Commit::found`]. After any error forget what is in memory of these shards and
//!    load it again; after a `Conflict`, hold first. The passing of time is committed the same way, with
//!    nothing taken.
//! 4. At the end: [`release`](CorrelationStore::release), so that others need not wait.
//!
//! Where the store is [not shared](CorrelationStore::is_shared) there is one shard and one worker. It may
//! leave out steps 2 and 4 and apply its hits at once, with nothing taken: nobody else's are there.
//!
//! To add a driver: implement the trait, and let [`open`] choose it.

#[cfg(feature = "contract")]
pub mod contract;
mod local;
mod spread;

pub use local::LocalCorrelations;
pub(crate) use spread::{Held as ShardHeld, moves};

use crate::catalog::Catalog;
use crate::{StorageError, StorageResult};
use async_trait::async_trait;
use model::{ErrorKind, EventId, OrgId};
use rules::correlate::{Record, Stored, shard};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Shards of a shared store. Part of what is stored: another number takes a step of the schema.
pub const SHARDS: usize = 8;
/// How long a shard is held after the last [`CorrelationStore::hold`].
pub const HOLD_FOR: Duration = Duration::from_secs(8);
/// How often to call it: what is held by a dead worker is taken over within ten seconds.
pub const HOLD_EVERY: Duration = Duration::from_secs(2);
/// Most bytes of a hit, with what it says about its event.
pub const HIT_BYTES_MAX: usize = 64 << 10;
/// Hits that may wait, about.
pub const WAITING_MAX: u64 = 200_000;
/// How long a hit that was taken is known as such: longer than a batch of events is on its way again.
pub const TAKEN_KEPT: Duration = Duration::from_secs(15 * 60);

/// The stored parts of a group, in the order in which they were stored.
pub type Parts = Vec<Vec<u8>>;

/// A process that works correlations; another number every time that it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u128);

/// The right to change a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hold {
    pub shard: usize,
    /// Grows with every new holder.
    pub epoch: u64,
}

/// What a worker holds now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    /// By shard.
    pub holds: Vec<Hold>,
    /// Hits that wait, of all shards; counted up to [`WAITING_MAX`].
    pub waiting: u64,
}

/// A hit on its way to its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHit {
    pub event: EventId,
    /// `rules::correlate::Hit::group`.
    pub group: u128,
    /// The hit as bytes: the same whenever the same event leads to the same hit.
    pub hit: Vec<u8>,
    /// What an alert needs of the event. Says nothing about which hit it is.
    pub about: Vec<u8>,
}

/// A hit that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// To name it in [`Commit::taken`].
    pub key: HitKey,
    pub group: u128,
    pub hit: Vec<u8>,
    pub about: Vec<u8>,
}

/// Which hit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HitKey {
    pub(crate) shard: usize,
    pub(crate) event: u128,
    /// Digest of its group and its bytes.
    pub(crate) name: u128,
    pub(crate) org: OrgId,
}

impl HitKey {
    pub fn org(&self) -> &OrgId {
        &self.org
    }

    pub fn event(&self) -> EventId {
        EventId::from_u128(self.event)
    }

    pub fn shard(&self) -> usize {
        self.shard
    }

    pub(crate) fn of(org: &OrgId, hit: &NewHit, shards: usize) -> Self {
        let mut hash = Sha256::new_with_prefix(hit.group.to_be_bytes());
        hash.update(&hit.hit);
        let digest: [u8; 32] = hash.finalize().into();
        let mut name = [0; 16];
        name.copy_from_slice(&digest[..16]);
        Self {
            shard: shard(hit.group, shards),
            event: hit.event.to_u128(),
            name: u128::from_be_bytes(name),
            org: org.clone(),
        }
    }
}

/// What happens together.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Hits that were worked. Of the shards that are held.
    pub taken: Vec<HitKey>,
    /// What became of groups, in the order in which it happened. Of the shards that are held.
    pub records: Vec<(OrgId, Vec<Record>)>,
    /// Hits that were found by working these (`Outcome::elsewhere`). Of any shard.
    pub found: Vec<(OrgId, NewHit)>,
}

impl Commit {
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.found.is_empty() && self.records.iter().all(|(_, records)| records.is_empty())
    }
}

/// See the module for how it is used.
#[async_trait]
pub trait CorrelationStore: Send + Sync + 'static {
    /// How many shards there are.
    fn shards(&self) -> usize;
    /// Whether other workers may be there.
    fn is_shared(&self) -> bool;
    /// Says that the worker lives, and tells what it holds now: what it had, what became free, less what
    /// others are to have.
    async fn hold(&self, worker: WorkerId) -> StorageResult<Held>;
    /// Gives up all that the worker holds.
    async fn release(&self, worker: WorkerId) -> StorageResult<()>;
    /// All groups of a shard: organisation, group, its parts.
    async fn load(&self, hold: Hold) -> StorageResult<Vec<(OrgId, u128, Parts)>>;
    /// Adds hits of any shard, durably; all or none. Those that are known are left out.
    async fn add(&self, org: &OrgId, hits: Vec<NewHit>) -> StorageResult<()>;
    /// Hits that wait for these shards: of each the oldest by acceptance, about `limit` in all.
    async fn waiting(&self, holds: &[Hold], limit: usize) -> StorageResult<Vec<Waiting>>;
    /// Takes hits and stores what became of it; all or nothing, durably.
    async fn commit(&self, holds: &[Hold], commit: Commit) -> StorageResult<()>;
}

/// The store that goes with the catalog: in it where it is shared, otherwise `file`.
pub fn open(catalog: &Arc<dyn Catalog>, file: &Path) -> StorageResult<Arc<dyn CorrelationStore>> {
    match Arc::clone(catalog).correlations() {
        Some(shared) => Ok(shared),
        None => Ok(Arc::new(LocalCorrelations::open(file)?)),
    }
}

/// What is to be stored of a group: what was before goes or stays, and these parts come.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fold {
    pub anew: bool,
    pub parts: Parts,
}

/// What several changes of groups are together. `Invalid` where a group's shard is not held.
pub(crate) fn fold(
    records: Vec<(OrgId, Vec<Record>)>,
    shards: usize,
    holds: &[Hold],
) -> StorageResult<BTreeMap<(OrgId, u128), Fold>> {
    let mut folds: BTreeMap<(OrgId, u128), Fold> = BTreeMap::new();
    for (org, records) in records {
        for record in records {
            check_held(shard(record.group, shards), holds)?;
            let fold = folds.entry((org.clone(), record.group)).or_default();
            match record.stored {
                Stored::Whole(part) => *fold = Fold { anew: true, parts: vec![part] },
                Stored::More(part) => fold.parts.push(part),
                Stored::Gone => *fold = Fold { anew: true, parts: Vec::new() },
            }
        }
    }
    Ok(folds)
}

pub(crate) fn check_held(shard: usize, holds: &[Hold]) -> StorageResult<()> {
    if holds.iter().any(|hold| hold.shard == shard) {
        Ok(())
    } else {
        Err(StorageError::new(ErrorKind::Invalid, format!("shard {shard} of the correlations is not held")))
    }
}

pub(crate) fn check_hit(hit: &NewHit) -> StorageResult<()> {
    let bytes = hit.hit.len() + hit.about.len();
    if bytes > HIT_BYTES_MAX {
        let text = format!("a hit of a correlation has {bytes} bytes, more than {HIT_BYTES_MAX}");
        return Err(StorageError::new(ErrorKind::Invalid, text));
    }
    Ok(())
}

pub(crate) fn check_room(waiting: u64) -> StorageResult<()> {
    if waiting >= WAITING_MAX {
        let text = format!("{waiting} hits of correlations wait to be worked, more than {WAITING_MAX}");
        return Err(StorageError::new(ErrorKind::Full, text));
    }
    Ok(())
}

pub(crate) fn fenced() -> StorageError {
    StorageError::new(ErrorKind::Conflict, "a shard of the correlations is somebody else's by now")
}

pub(crate) fn taken_already() -> StorageError {
    StorageError::new(ErrorKind::Conflict, "hits of correlations were taken already")
}
