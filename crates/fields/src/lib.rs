//! Turns events of any shape into [`model::Fields`], in the field names of the Sigma taxonomy, so
//! that rules of that language match them. `docs/fields.md` lists the names for those who write
//! rules.
//!
//! * [`from_json`]: one JSON object as found in files of events: Windows events in any of their
//!   JSON forms, cloud audit logs, Zeek, web access logs, or anything. What passes a bound is an
//!   error that names the bound.
//! * [`from_event`]: one accepted event of the pipeline. All of the above, and what the parser of
//!   its program reads in the message text ([`parsers`] says how to add one). What passes a bound
//!   is left out.
//!
//! Always true:
//! * A part of `Fields::source` is known only where the event leaves no doubt. Unknown costs time,
//!   since more rules are asked; a wrong claim would keep a rule from being asked.
//! * Text that somebody else than the program chose (a user name, a path, a user agent) never ends
//!   up as the address, the user or the outcome of something else. Parsers are anchored to what the
//!   program itself writes.
//! * Time and memory are linear in the input, nothing panics, and what can be borrowed is borrowed.

mod aliases;
mod connection;
mod error;
mod event;
mod flatten;
mod json;
pub mod parsers;
mod sources;
mod time;

pub use aliases::{Aliases, Mapping, SourceFilter};
pub use error::FieldsError;
pub use event::{from_event, from_event_bytes};
pub use time::event_time;

use flatten::{Bounds, flatten};
use model::Fields;

/// Levels of objects and arrays within each other, the outermost counted.
pub const DEPTH_MAX: usize = 64;
/// Values of one event.
pub const LEAVES_MAX: usize = 10_000;
/// Bytes of a field's name, dots and all.
pub const NAME_MAX: usize = 1024;

/// Adds the fields of one JSON object to `out`, and says in `out.source` what kind of event it is.
pub fn from_json<'a>(text: &'a str, out: &mut Fields<'a>) -> Result<(), FieldsError> {
    let found = flatten(text, Bounds::Refuse, out)?;
    sources::recognise(&found, out);
    Ok(())
}

/// As [`from_json`], for bytes.
pub fn from_json_bytes<'a>(bytes: &'a [u8], out: &mut Fields<'a>) -> Result<(), FieldsError> {
    from_json(utf8(bytes)?, out)
}

fn utf8(bytes: &[u8]) -> Result<&str, FieldsError> {
    std::str::from_utf8(bytes).map_err(|error| FieldsError::NotUtf8 { at: error.valid_up_to() })
}
