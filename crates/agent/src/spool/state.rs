//! What the spool knows besides its log: a small file, replaced as a whole.

use agent_core::Sent;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use wal::Filesystem;

const VERSION: u32 = 1;
const FILE: &str = "state.json";
/// Far more than any state takes.
const BYTES_MAX: u64 = 16 << 20;

/// True for the log up to `covered_seq`; the entries behind it say the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub version: u32,
    /// Names the spool.
    pub epoch: u64,
    pub first_unacked: u64,
    pub covered_seq: u64,
    /// Below this, only what was rescued is left.
    pub given_up_below: u64,
    pub bookmarks: BTreeMap<String, String>,
    /// First number, last number, time of sending.
    pub marks: Vec<(u64, u64, i64)>,
    /// From and to: entries that a write left that was never whole.
    #[serde(default)]
    pub void: Vec<(u64, u64)>,
    /// The same of the rescued.
    #[serde(default)]
    pub rescued_void: Vec<(u64, u64)>,
    /// Records given up, by stream.
    pub dropped: BTreeMap<String, u64>,
}

impl State {
    pub fn new(epoch: u64) -> Self {
        Self { version: VERSION, epoch, ..Self::default() }
    }

    pub fn sent(&self) -> Vec<Sent> {
        let sent = |(first_seq, through_seq, sent_unix_ms): &(u64, u64, i64)| Sent {
            first_seq: *first_seq,
            through_seq: *through_seq,
            sent_unix_ms: *sent_unix_ms,
        };
        self.marks.iter().map(sent).collect()
    }

    /// Writes it beside the old one, makes it durable, puts it in the old one's place.
    pub fn save(&self, fs: &dyn Filesystem, dir: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        let unfinished = dir.join("state.json.new");
        let file = fs.create(&unfinished)?;
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            done += file.write_at(done as u64, rest)?;
        }
        file.sync_data()?;
        fs.rename(&unfinished, &dir.join(FILE))?;
        fs.sync_dir(dir)
    }

    /// `None` where there is none. One that cannot be read is put aside; one of a newer version is an error.
    pub fn load(fs: &dyn Filesystem, dir: &Path) -> io::Result<Option<Self>> {
        let path = dir.join(FILE);
        let file = match fs.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let len = file.size()?.min(BYTES_MAX) as usize;
        let mut bytes = vec![0; len];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match file.read_at(done as u64, rest)? {
                0 => break,
                n => done += n,
            }
        }
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(state) if state.version <= VERSION => Ok(Some(state)),
            Ok(state) => {
                let why = format!("{} has version {}; this build reads up to {VERSION}", path.display(), state.version);
                Err(io::Error::new(io::ErrorKind::Unsupported, why))
            }
            Err(error) => {
                tracing::error!(%error, file = %path.display(), "the spool's state cannot be read and is put aside");
                fs.rename(&path, &dir.join("state.json.bad"))?;
                fs.sync_dir(dir)?;
                Ok(None)
            }
        }
    }
}
