//! A filesystem in memory that loses, tears and refuses as a real one may: what the log is tested against.
//!
//! * A write is pending until its file is synced. A crash keeps any subset of the 512-byte sectors of each pending
//!   write, in any combination; a pending truncation may or may not have happened.
//! * A creation, rename or removal is pending until its directory is synced. A crash keeps any subset of them.
//! * A failed sync writes any subset of what was pending and forgets the rest; the next sync reports success.
//!   What is read afterwards is either still the written data or what is on the disk.
//! * Any call can be told to fail, or to be the moment of the crash; after a crash every call fails, and old handles
//!   stay dead, until [`SimFilesystem::restart`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::fs::{Filesystem, LockGuard, LogFile};
use crate::segment::locked;

const SECTOR: usize = 512;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The machine dies during the call, which may have happened or not.
    Crash,
    /// An I/O error; a write may have happened in part, a sync forgets what it did not write.
    Eio,
    /// No space; only calls that need space fail, a write after writing in part.
    Enospc,
}

/// How often each fault happens by chance, per thousand calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chances {
    /// [`Fault::Crash`]
    pub crash: u64,
    /// [`Fault::Eio`] of anything but reading.
    pub eio: u64,
    /// [`Fault::Enospc`]
    pub enospc: u64,
}

/// See the module. Clones are the same filesystem.
#[derive(Clone)]
pub struct SimFilesystem(Arc<Mutex<State>>);

struct State {
    files: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<NameChange>,
    locks: BTreeMap<PathBuf, Arc<()>>,
    next_id: u64,
    /// Handles of an earlier life are dead.
    life: u64,
    crashed: bool,
    calls: u64,
    fault_at: Option<(u64, Fault)>,
    chances: Chances,
    capacity: u64,
    random: u64,
}

#[derive(Clone)]
enum NameChange {
    Add(PathBuf, u64),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, u64),
}

#[derive(Default)]
struct Inode {
    /// What is on the disk.
    disk: Vec<u8>,
    /// What reading returns.
    cached: Vec<u8>,
    pending: Vec<Change>,
}

enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

struct SimFile {
    state: Arc<Mutex<State>>,
    id: u64,
    life: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Sync,
    Space,
    Free,
}

impl SimFilesystem {
    /// An empty disk; `seed` decides all that is left to chance.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            locks: BTreeMap::new(),
            next_id: 0,
            life: 0,
            crashed: false,
            calls: 0,
            fault_at: None,
            chances: Chances::default(),
            capacity: u64::MAX,
            random: seed.wrapping_add(0x9E37_79B9_7F4A_7C15),
        })))
    }

    /// Calls made so far.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// The call with this index (counted as [`calls`](Self::calls) does) meets the fault.
    pub fn fail_at(&self, call: u64, fault: Fault) {
        self.state().fault_at = Some((call, fault));
    }

    /// From now on calls fail by chance.
    pub fn set_chances(&self, chances: Chances) {
        self.state().chances = chances;
    }

    /// The size of the disk.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Whether the machine is down.
    pub fn is_crashed(&self) -> bool {
        self.state().crashed
    }

    /// Pulls the plug, now.
    pub fn crash(&self) {
        self.state().crash();
    }

    /// Boots. What was synced is there; of the rest, whatever chance kept.
    pub fn restart(&self) {
        let mut state = self.state();
        state.crashed = false;
        state.fault_at = None;
        state.locks.clear();
    }

    /// The bytes of a file as a reader sees them, to look at or to damage.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let id = state.names.get(path)?;
        state.files.get(id).map(|inode| inode.cached.clone())
    }

    /// Replaces a file, durably.
    pub fn set_contents(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let id = state.next_id;
        state.next_id += 1;
        state.files.insert(id, Inode { disk: bytes.clone(), cached: bytes, pending: Vec::new() });
        state.names.insert(path.into(), id);
        state.durable_names.insert(path.into(), id);
    }

    /// All paths, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.0)
    }
}

fn crashed() -> io::Error {
    io::Error::other("the machine is down")
}

fn eio() -> io::Error {
    io::Error::other("injected I/O error")
}

impl State {
    // splitmix64
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn coin(&mut self) -> bool {
        self.random() & 1 == 0
    }

    /// Counts the call and says what becomes of it.
    fn enter(&mut self, kind: Kind) -> io::Result<Option<Fault>> {
        if self.crashed {
            return Err(crashed());
        }
        let call = self.calls;
        self.calls += 1;
        let planned = self.fault_at.filter(|(at, _)| *at == call).map(|(_, fault)| fault);
        let roll = self.random() % 1000;
        let Chances { crash, eio, enospc } = self.chances;
        let by_chance = match roll {
            _ if roll < crash => Some(Fault::Crash),
            _ if roll < crash + eio && kind != Kind::Read => Some(Fault::Eio),
            _ if roll >= crash + eio && roll < crash + eio + enospc => Some(Fault::Enospc),
            _ => None,
        };
        Ok(planned.or(by_chance).filter(|f| *f != Fault::Enospc || matches!(kind, Kind::Write | Kind::Space)))
    }

    /// For calls that happen whole or not at all: `change` is what the call does.
    fn atomic<T>(&mut self, kind: Kind, change: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        match self.enter(kind)? {
            None => change(self),
            Some(Fault::Crash) => {
                if self.coin() {
                    change(self)?;
                }
                self.crash();
                Err(crashed())
            }
            Some(Fault::Eio) => {
                if kind != Kind::Read && self.coin() {
                    change(self)?;
                }
                Err(eio())
            }
            Some(Fault::Enospc) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn crash(&mut self) {
        self.crashed = true;
        self.life += 1;
        for change in std::mem::take(&mut self.pending_names) {
            if self.coin() {
                apply_name(&mut self.durable_names, &change);
            }
        }
        self.names = self.durable_names.clone();
        let ids: Vec<u64> = self.files.keys().copied().collect();
        for id in ids {
            self.write_some_pending(id);
            if let Some(inode) = self.files.get_mut(&id) {
                inode.cached = inode.disk.clone();
            }
        }
    }

    /// Writes any subset of the sectors that were pending; the rest is forgotten.
    fn write_some_pending(&mut self, id: u64) {
        let pending = self.files.get_mut(&id).map(|inode| std::mem::take(&mut inode.pending)).unwrap_or_default();
        // Everything, nothing and anything between should all be common.
        let (whole, keep_of_8) = (self.random().is_multiple_of(4), self.random() % 9);
        for change in pending {
            match change {
                Change::Write(offset, data) => {
                    let mut at = offset;
                    let end = offset + data.len();
                    while at < end {
                        let sector_end = ((at / SECTOR + 1) * SECTOR).min(end);
                        if whole || self.random() % 8 < keep_of_8 {
                            let piece = &data[at - offset..sector_end - offset];
                            if let Some(inode) = self.files.get_mut(&id) {
                                put(&mut inode.disk, at, piece);
                            }
                        }
                        at = sector_end;
                    }
                }
                Change::Truncate(len) => {
                    if (whole || self.coin())
                        && let Some(inode) = self.files.get_mut(&id)
                    {
                        inode.disk.resize(len, 0);
                    }
                }
            }
        }
    }

    fn used(&self) -> u64 {
        self.names.values().filter_map(|id| self.files.get(id)).map(|inode| inode.cached.len() as u64).sum()
    }

    fn change_name(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.pending_names.push(change);
    }

    fn inode(&mut self, id: u64) -> io::Result<&mut Inode> {
        self.files.get_mut(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

fn apply_name(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    match change {
        NameChange::Add(path, id) => {
            names.insert(path.clone(), *id);
        }
        NameChange::Remove(path) => {
            names.remove(path);
        }
        NameChange::Rename(from, to, id) => {
            names.remove(from);
            names.insert(to.clone(), *id);
        }
    }
}

impl NameChange {
    fn is_in(&self, dir: &Path) -> bool {
        match self {
            Self::Add(path, _) | Self::Remove(path) => path.parent() == Some(dir),
            Self::Rename(from, to, _) => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }
}

impl Filesystem for SimFilesystem {
    // Directories are not what is tested here: they exist, durably.
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        self.state().atomic(Kind::Space, |_| Ok(()))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        self.state().atomic(Kind::Read, |state| {
            if state.locks.get(path).is_some_and(|held| Arc::strong_count(held) > 1) {
                return Ok(None);
            }
            let held = Arc::new(());
            state.locks.insert(path.into(), held.clone());
            Ok(Some(Box::new(held) as LockGuard))
        })
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let mut state = self.state();
        let (id, life) = state.atomic(Kind::Space, |state| {
            if let Some(id) = state.names.get(path).copied() {
                let inode = state.inode(id)?;
                inode.cached.clear();
                inode.pending.push(Change::Truncate(0));
                return Ok((id, state.life));
            }
            let id = state.next_id;
            state.next_id += 1;
            state.files.insert(id, Inode::default());
            state.change_name(NameChange::Add(path.into(), id));
            Ok((id, state.life))
        })?;
        Ok(Arc::new(SimFile { state: self.0.clone(), id, life }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let mut state = self.state();
        let (id, life) = state.atomic(Kind::Read, |state| {
            let id = state.names.get(path).copied().ok_or(io::Error::from(io::ErrorKind::NotFound))?;
            Ok((id, state.life))
        })?;
        Ok(Arc::new(SimFile { state: self.0.clone(), id, life }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        self.state().atomic(Kind::Read, |state| {
            let in_dir = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
            let named = in_dir.filter_map(|(path, id)| {
                let len = state.files.get(id).map_or(0, |inode| inode.cached.len() as u64);
                Some((path.file_name()?.to_str()?.to_string(), len))
            });
            Ok(named.collect())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().atomic(Kind::Free, |state| {
            if !state.names.contains_key(path) {
                return Err(io::ErrorKind::NotFound.into());
            }
            state.change_name(NameChange::Remove(path.into()));
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state().atomic(Kind::Space, |state| {
            let id = state.names.get(from).copied().ok_or(io::Error::from(io::ErrorKind::NotFound))?;
            state.change_name(NameChange::Rename(from.into(), to.into(), id));
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.state().atomic(Kind::Sync, |state| {
            let pending = std::mem::take(&mut state.pending_names);
            let (durable, pending) = pending.into_iter().partition(|change| change.is_in(dir));
            state.pending_names = pending;
            let durable: Vec<NameChange> = durable;
            for change in &durable {
                apply_name(&mut state.durable_names, change);
            }
            Ok(())
        })
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        self.state().atomic(Kind::Read, |state| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&state.random().to_le_bytes());
            bytes[8..].copy_from_slice(&state.random().to_le_bytes());
            Ok(bytes)
        })
    }
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = locked(&self.state);
        if state.life != self.life { Err(crashed()) } else { Ok(state) }
    }
}

impl LogFile for SimFile {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<usize> {
        let mut state = self.state()?;
        let fault = state.enter(Kind::Write)?;
        let len = state.inode(self.id)?.cached.len() as u64;
        let grows = (offset + data.len() as u64).saturating_sub(len);
        let free = state.capacity.saturating_sub(state.used());
        let fits = data.len() - grows.saturating_sub(free).min(data.len() as u64) as usize;
        let done = match fault {
            None if fits == 0 => return Err(io::ErrorKind::StorageFull.into()),
            None => fits,
            Some(_) => (state.random() % (fits as u64 + 1)) as usize,
        };
        let inode = state.inode(self.id)?;
        put(&mut inode.cached, offset as usize, &data[..done]);
        inode.pending.push(Change::Write(offset as usize, data[..done].to_vec()));
        match fault {
            None => Ok(done),
            Some(Fault::Crash) => {
                state.crash();
                Err(crashed())
            }
            Some(Fault::Eio) => Err(eio()),
            Some(Fault::Enospc) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<usize> {
        self.state()?.atomic(Kind::Read, |state| {
            let cached = &state.inode(self.id)?.cached;
            let from = cached.len().min(offset as usize);
            let n = data.len().min(cached.len() - from);
            data[..n].copy_from_slice(&cached[from..from + n]);
            Ok(n)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        match state.enter(Kind::Sync)? {
            Some(Fault::Crash) => {
                state.crash();
                return Err(crashed());
            }
            Some(Fault::Eio | Fault::Enospc) => {
                state.write_some_pending(self.id);
                if state.coin() {
                    let inode = state.inode(self.id)?;
                    inode.cached = inode.disk.clone();
                }
                return Err(eio());
            }
            None => {}
        }
        let Inode { disk, pending, .. } = state.inode(self.id)?;
        for change in pending.drain(..) {
            match change {
                Change::Write(offset, data) => put(disk, offset, &data),
                Change::Truncate(len) => disk.resize(len, 0),
            }
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.state()?.atomic(Kind::Free, |state| {
            let inode = state.inode(self.id)?;
            inode.cached.resize(len as usize, 0);
            inode.pending.push(Change::Truncate(len as usize));
            Ok(())
        })
    }

    fn size(&self) -> io::Result<u64> {
        self.state()?.atomic(Kind::Read, |state| Ok(state.inode(self.id)?.cached.len() as u64))
    }
}
