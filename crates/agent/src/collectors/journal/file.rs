//! A journal file of systemd, read as it grows. The format is systemd's published one, plain or compact, with fields
//! compressed by zstd; what another compression hides is said to be hidden.
//!
//! Always true here: every offset and length is checked against the file, every walk is bounded, and a file that makes
//! no sense ends in an error, not in a loop.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

const SIGNATURE: &[u8; 8] = b"LPKSHHRH";
const COMPRESSED_LZ4: u32 = 2;
const COMPRESSED_XZ: u32 = 1;
const KEYED_HASH: u32 = 4;
const COMPRESSED_ZSTD: u32 = 8;
const COMPACT: u32 = 16;
const KNOWN: u32 = COMPRESSED_LZ4 | COMPRESSED_XZ | KEYED_HASH | COMPRESSED_ZSTD | COMPACT;
const ARCHIVED: u8 = 2;

const DATA: u8 = 1;
const ENTRY: u8 = 3;
const ENTRY_ARRAY: u8 = 6;

/// Of a field.
const FIELD_BYTES_MAX: usize = 192 * 1024;
/// Fields of an entry.
const FIELDS_MAX: usize = 256;
/// Arrays in a chain: each is as large as all before it.
const ARRAYS_MAX: usize = 4_096;
/// Fields that entries share are kept.
const KEPT_MAX: usize = 2_048;
/// And only while they are short.
const KEPT_BYTES_MAX: usize = 512;

/// Fields that somebody asks for.
const WANTED: &[&str] = &[
    "MESSAGE",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "SYSLOG_FACILITY",
    "_COMM",
    "_PID",
    "_SYSTEMD_UNIT",
    "_TRANSPORT",
    "_UID",
];

/// An entry: its number, its time, and the fields that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub seqnum: u64,
    pub realtime_us: u64,
    pub fields: BTreeMap<&'static str, String>,
}

/// Where the next entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At {
    array: u64,
    index: u64,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    file: File,
    flags: u32,
    /// Journals of one life of the machine share it; numbers of entries count up within it.
    pub seqnum_id: [u8; 16],
    first_array: u64,
    at: Option<At>,
    kept: BTreeMap<u64, Option<(&'static str, String)>>,
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a journal: {what}"))
}

fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    let found = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or_else(|| broken("too short"))?;
    Ok(u32::from_le_bytes(found))
}

fn u64_at(bytes: &[u8], at: usize) -> io::Result<u64> {
    let found = bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).ok_or_else(|| broken("too short"))?;
    Ok(u64::from_le_bytes(found))
}

impl Journal {
    /// Reads the header.
    pub fn open(file: File) -> io::Result<Self> {
        let mut header = [0; 208];
        file.read_exact_at(&mut header, 0)?;
        if header.get(..8) != Some(SIGNATURE) {
            return Err(broken("no signature"));
        }
        let flags = u32_at(&header, 12)?;
        if flags & !KNOWN != 0 {
            return Err(io::Error::new(io::ErrorKind::Unsupported, format!("a journal of a newer kind ({flags:#x})")));
        }
        let mut seqnum_id = [0; 16];
        file.read_exact_at(&mut seqnum_id, 72)?;
        let first_array = u64_at(&header, 176)?;
        Ok(Self { file, flags, seqnum_id, first_array, at: None, kept: BTreeMap::new() })
    }

    /// The next read looks for its place by number.
    pub fn seek_again(&mut self) {
        self.at = None;
    }

    fn header_u64(&self, at: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The number of its newest entry; 0 where there is none.
    pub fn newest(&self) -> io::Result<u64> {
        self.header_u64(160)
    }

    /// Whether nothing is added to it any more.
    pub fn is_archived(&self) -> io::Result<bool> {
        let mut state = [0];
        self.file.read_exact_at(&mut state, 16)?;
        Ok(state == [ARCHIVED])
    }

    /// The object at an offset: its size and flags.
    fn object(&self, offset: u64, kind: u8) -> io::Result<(u64, u8)> {
        let mut head = [0; 16];
        if offset == 0 || !offset.is_multiple_of(8) {
            return Err(broken("an odd offset"));
        }
        self.file.read_exact_at(&mut head, offset)?;
        let size = u64_at(&head, 8)?;
        if head.first() != Some(&kind) || size < 24 {
            return Err(broken("another object than expected"));
        }
        Ok((size, head.get(1).copied().unwrap_or(0)))
    }

    fn is_compact(&self) -> bool {
        self.flags & COMPACT != 0
    }

    fn item_bytes(&self) -> u64 {
        if self.is_compact() { 4 } else { 8 }
    }

    /// Next array, and how many items this one has room for.
    fn array(&self, offset: u64) -> io::Result<(u64, u64)> {
        let (size, _) = self.object(offset, ENTRY_ARRAY)?;
        Ok((self.header_u64(offset + 16)?, (size - 24) / self.item_bytes()))
    }

    /// The offset of an entry; 0 where there is none yet.
    fn item(&self, array: u64, index: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        let len = self.item_bytes() as usize;
        let at = array.saturating_add(24).saturating_add(index.saturating_mul(self.item_bytes()));
        if let Some(bytes) = bytes.get_mut(..len) {
            self.file.read_exact_at(bytes, at)?;
        }
        Ok(u64::from_le_bytes(bytes))
    }

    fn seqnum(&self, entry: u64) -> io::Result<u64> {
        self.object(entry, ENTRY)?;
        self.header_u64(entry + 16)
    }

    /// Finds the first entry behind a number.
    fn seek(&self, after: u64) -> io::Result<Option<At>> {
        let mut array = if self.first_array == 0 { self.header_u64(176)? } else { self.first_array };
        for _ in 0..ARRAYS_MAX {
            if array == 0 {
                return Ok(None);
            }
            let (next, items) = self.array(array)?;
            let (mut low, mut high) = (0, items);
            while low < high {
                let middle = low + (high - low) / 2;
                let entry = self.item(array, middle)?;
                if entry != 0 && self.seqnum(entry)? <= after {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            // A full array goes on in the next, once there is one.
            if low < items || next == 0 {
                return Ok(Some(At { array, index: low }));
            }
            array = next;
        }
        Err(broken("an endless chain"))
    }

    /// At most so many entries behind a number, in order. Called with the last one's number, it goes on from there.
    pub fn read(&mut self, after: u64, entries_max: usize) -> io::Result<Vec<Entry>> {
        let mut found: Vec<Entry> = Vec::new();
        let mut at = match self.at {
            Some(at) => at,
            None => match self.seek(after)? {
                Some(at) => at,
                None => return Ok(found),
            },
        };
        while found.len() < entries_max {
            let (next, items) = self.array(at.array)?;
            if at.index >= items {
                if next == 0 {
                    break;
                }
                if next <= at.array {
                    return Err(broken("an array that points back"));
                }
                at = At { array: next, index: 0 };
                continue;
            }
            let offset = self.item(at.array, at.index)?;
            if offset == 0 {
                break;
            }
            let entry = self.entry(offset)?;
            at.index += 1;
            if entry.seqnum > after {
                found.push(entry);
            }
        }
        self.at = Some(at);
        Ok(found)
    }

    fn entry(&mut self, offset: u64) -> io::Result<Entry> {
        let (size, _) = self.object(offset, ENTRY)?;
        let item = if self.is_compact() { 4 } else { 16 };
        let count = (size.saturating_sub(64) / item).min(FIELDS_MAX as u64);
        let mut bytes = vec![0; (64 + count * item) as usize];
        self.file.read_exact_at(&mut bytes, offset)?;
        let mut fields = BTreeMap::new();
        for i in 0..count {
            let at = (64 + i * item) as usize;
            let data = if self.is_compact() { u64::from(u32_at(&bytes, at)?) } else { u64_at(&bytes, at)? };
            if let Some((name, value)) = self.field(data)? {
                fields.entry(name).or_insert(value);
            }
        }
        Ok(Entry { seqnum: u64_at(&bytes, 16)?, realtime_us: u64_at(&bytes, 24)?, fields })
    }

    fn field(&mut self, offset: u64) -> io::Result<Option<(&'static str, String)>> {
        if let Some(kept) = self.kept.get(&offset) {
            return Ok(kept.clone());
        }
        let field = self.read_field(offset)?;
        if field.as_ref().is_none_or(|(_, value)| value.len() <= KEPT_BYTES_MAX) {
            if self.kept.len() >= KEPT_MAX {
                self.kept.clear();
            }
            self.kept.insert(offset, field.clone());
        }
        Ok(field)
    }

    fn read_field(&self, offset: u64) -> io::Result<Option<(&'static str, String)>> {
        let (size, compression) = self.object(offset, DATA)?;
        let head = if self.is_compact() { 72 } else { 64 };
        let len = size.saturating_sub(head).min(FIELD_BYTES_MAX as u64) as usize;
        let mut payload = vec![0; len];
        self.file.read_exact_at(&mut payload, offset + head)?;
        let payload = match u32::from(compression) & 7 {
            0 => payload,
            4 => {
                let mut plain = Vec::new();
                let decoder = zstd::stream::read::Decoder::new(payload.as_slice())?;
                // What is cut off at the bound is an error at the end; what came before it counts.
                let _ = decoder.take(FIELD_BYTES_MAX as u64).read_to_end(&mut plain);
                plain
            }
            // Only long fields are compressed, and of those only one is wanted.
            other => {
                let how = if other == 2 { "LZ4" } else { "XZ" };
                return Ok(Some(("MESSAGE", format!("[a long message, compressed by {how}, which is not read]"))));
            }
        };
        let Some(at) = payload.iter().take(64).position(|byte| *byte == b'=') else { return Ok(None) };
        let (name, value) = payload.split_at(at);
        let name = WANTED.iter().find(|wanted| wanted.as_bytes() == name);
        Ok(name.map(|name| (*name, String::from_utf8_lossy(value.get(1..).unwrap_or_default()).into_owned())))
    }
}
