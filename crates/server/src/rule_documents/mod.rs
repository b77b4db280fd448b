//! Documents of detection rules on their way in and out: their names, archives, and folders.
//!
//! What always holds: a name is a relative path without `.`, `..` and what a reader cannot see; nothing
//! is unpacked beyond the bounds, whatever an archive claims; what is no rule file is said to be passed
//! over, not lost in silence.

mod archive;
mod folder;
mod name;

pub use archive::{pack, unpack};
pub use folder::{Gathered, gather};
pub use name::normal_name;

use std::collections::BTreeMap;
use storage::catalog::detection_rules::{DOCUMENT_BYTES_MAX, DOCUMENTS_MAX};

/// Largest archive, in bytes.
pub const ARCHIVE_BYTES_MAX: usize = 32 << 20;
/// Most bytes of all texts together.
pub const TEXT_BYTES_MAX: usize = 64 << 20;

/// Whether there are only blank lines, comments and separators.
pub fn holds_nothing(text: &str) -> bool {
    let nothing = |line: &str| line.is_empty() || line.starts_with('#') || matches!(line, "---" | "...");
    text.lines().map(str::trim).all(nothing)
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Text by name.
    pub documents: BTreeMap<String, String>,
    /// What is left out and was not asked for: no rule files.
    pub skipped: Vec<Unused>,
    /// What was meant and cannot be used.
    pub refused: Vec<Unused>,
    bytes: usize,
}

/// Something that is no document, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct Unused {
    pub name: String,
    pub why: String,
}

/// Names that are kept for the report.
const UNUSED_MAX: usize = 1_000;

impl Found {
    /// Documents that are given as texts.
    pub fn of_texts(texts: impl IntoIterator<Item = (String, String)>) -> Result<Self, String> {
        let mut found = Self::default();
        for (name, text) in texts {
            found.add(&name, text.into_bytes())?;
        }
        Ok(found)
    }

    /// Adds what is called so; `Err` where all of it together is too much.
    fn add(&mut self, written: &str, bytes: Vec<u8>) -> Result<(), String> {
        self.count(bytes.len())?;
        let name = match normal_name(written) {
            Ok(name) => name,
            Err(why) => {
                self.refuse(written, why);
                return Ok(());
            }
        };
        if bytes.len() > DOCUMENT_BYTES_MAX {
            self.refuse(written, format!("it has more than {DOCUMENT_BYTES_MAX} bytes"));
            return Ok(());
        }
        if self.documents.len() >= DOCUMENTS_MAX {
            return Err(format!("there are more than {DOCUMENTS_MAX} documents"));
        }
        match String::from_utf8(bytes) {
            Ok(text) if text.contains('\0') => self.refuse(written, "it has a NUL in it"),
            Ok(text) if holds_nothing(&text) => self.skip(written, "there is nothing in it"),
            Ok(text) => {
                if self.documents.insert(name, text).is_some() {
                    self.refuse(written, "another one has the same name");
                }
            }
            Err(_) => self.refuse(written, "it is not UTF-8"),
        }
        Ok(())
    }

    /// Counts what was read, whatever becomes of it.
    fn count(&mut self, bytes: usize) -> Result<(), String> {
        self.bytes += bytes;
        if self.bytes > TEXT_BYTES_MAX {
            return Err(format!("the documents have more than {} MiB together", TEXT_BYTES_MAX >> 20));
        }
        Ok(())
    }

    fn skip(&mut self, name: &str, why: impl Into<String>) {
        note(&mut self.skipped, name, why.into());
    }

    fn refuse(&mut self, name: &str, why: impl Into<String>) {
        note(&mut self.refused, name, why.into());
    }
}

fn note(list: &mut Vec<Unused>, name: &str, why: String) {
    const NAME_CHARS_MAX: usize = 300;
    if list.len() < UNUSED_MAX {
        let name = name.chars().map(|c| if name::is_hidden(c) { '\u{fffd}' } else { c }).take(NAME_CHARS_MAX);
        list.push(Unused { name: name.collect(), why });
    }
}
