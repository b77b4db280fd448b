//! Our own SNMP engine: its name and how often it started (RFC 3411 §5, RFC 3414 §2.2).
//!
//! A device that sends informs remembers both; a boots counter that ran backwards would let old
//! messages count as new. So both live in a file, and the counter is written before it is used.

use super::BindError;
use std::io::{self, Write as _};
use std::path::Path;

/// RFC 3414 §2.2.1: at this count, an engine must get a new name.
pub(super) const BOOTS_MAX: u32 = 0x7fff_ffff;
/// Octets of an engine's name (RFC 3411 §5).
pub(super) const ID_OCTETS: std::ops::RangeInclusive<usize> = 5..=32;

/// Which engine we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub id: Vec<u8>,
    /// Starts so far, this one included.
    pub boots: u32,
}

impl Identity {
    /// The next start of the engine that `file` names; without a file, a new engine that nobody
    /// will meet again. A `wanted` name goes before the file's.
    pub(super) fn next(file: Option<&Path>, wanted: Option<&[u8]>) -> Result<Self, BindError> {
        let Some(file) = file else {
            let id = match wanted {
                Some(id) => id.to_vec(),
                None => new_id().map_err(BindError::Random)?,
            };
            return Ok(Self { id, boots: 1 });
        };
        let failed = |source| BindError::EngineFile { file: file.to_owned(), source };
        let last = match std::fs::read_to_string(file) {
            Ok(text) => Some(parse(&text).ok_or_else(|| {
                failed(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "expected the lines `engine_id = HEX` and `boots = N`",
                ))
            })?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(failed(e)),
        };
        let next = match (last, wanted) {
            (Some(last), wanted) if wanted.is_none_or(|id| id == last.id) => {
                if last.boots >= BOOTS_MAX {
                    let why = "the engine has started 2^31-1 times; remove the file, and a new engine begins";
                    return Err(failed(io::Error::other(why)));
                }
                Self { id: last.id, boots: last.boots + 1 }
            }
            (_, Some(id)) => Self { id: id.to_vec(), boots: 1 },
            (_, None) => Self { id: new_id().map_err(BindError::Random)?, boots: 1 },
        };
        write(file, &next).map_err(failed)?;
        Ok(next)
    }
}

fn parse(text: &str) -> Option<Identity> {
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == name).then(|| value.trim())
        })
    };
    let id = unhex(value("engine_id")?).filter(|id| ID_OCTETS.contains(&id.len()))?;
    let boots = value("boots")?.parse().ok().filter(|boots| *boots <= BOOTS_MAX)?;
    Some(Identity { id, boots })
}

/// Durably, or not at all.
fn write(file: &Path, identity: &Identity) -> io::Result<()> {
    let folder = file.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = folder.join(name);
    let mut out = std::fs::File::create(&new)?;
    write!(
        out,
        "# The SNMP engine of this listener. Devices know it by these: keep the file.\nengine_id = {}\nboots = {}\n",
        hex(&identity.id),
        identity.boots
    )?;
    out.sync_all()?;
    std::fs::rename(&new, file)?;
    std::fs::File::open(folder)?.sync_all()
}

/// RFC 3411 §5, format 5: an enterprise number, then octets that are ours. The number is the one for
/// documentation (RFC 5612); the random octets make the name unique.
fn new_id() -> Result<Vec<u8>, getrandom::Error> {
    const ENTERPRISE: u32 = 32_473;
    let mut id = (0x8000_0000 | ENTERPRISE).to_be_bytes().to_vec();
    id.push(5);
    let mut random = [0; 12];
    getrandom::fill(&mut random)?;
    id.extend_from_slice(&random);
    Ok(id)
}

/// Lower case, without separators.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Reads hex digits, with or without `0x` before and `:` between them; `None` for anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    let digits: Vec<u8> =
        text.strip_prefix("0x").unwrap_or(text).bytes().filter(|b| !matches!(b, b':' | b' ')).collect();
    let (pairs, odd) = digits.as_chunks::<2>();
    if !odd.is_empty() {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_keeps_its_name_and_counts_its_starts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state").join("snmp-engine");
        let first = Identity::next(Some(&file), None).unwrap();
        assert_eq!(first.boots, 1);
        assert!(first.id[0] & 0x80 != 0 && ID_OCTETS.contains(&first.id.len()));
        let second = Identity::next(Some(&file), None).unwrap();
        assert_eq!((second.id.clone(), second.boots), (first.id.clone(), 2));
        let wanted = Identity::next(Some(&file), Some(b"12345")).unwrap();
        assert_eq!((wanted.id.as_slice(), wanted.boots), (&b"12345"[..], 1), "another engine starts anew");
        assert_eq!(Identity::next(Some(&file), Some(b"12345")).unwrap().boots, 2);
        assert_ne!(Identity::next(None, None).unwrap().id, first.id);
    }

    #[test]
    fn a_file_that_cannot_be_understood_stops_the_start_and_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("snmp-engine");
        for bad in ["", "engine_id = 8000\nboots = 1\n", "engine_id = 80001f8880\n", "engine_id = xx\nboots = 1\n"] {
            std::fs::write(&file, bad).unwrap();
            let error = Identity::next(Some(&file), None).unwrap_err();
            assert!(error.to_string().contains("snmp-engine"), "{error}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), bad);
        }
        std::fs::write(&file, "engine_id = 80001f8880\nboots = 2147483647\n").unwrap();
        assert!(Identity::next(Some(&file), None).is_err(), "the last boot was the last");
    }

    #[test]
    fn hex_is_read_as_people_write_it() {
        assert_eq!(unhex("0x80:00:1F"), Some(vec![0x80, 0, 0x1f]));
        assert_eq!(unhex(&hex(b"\x00\xff")), Some(vec![0, 255]));
        assert_eq!((unhex("8"), unhex("zz"), unhex("+1")), (None, None, None));
    }
}
