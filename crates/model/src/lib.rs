//! The words of the product: ids, events, rules, alerts, outcomes, error kinds.
//!
//! Always true here: no clock, no file, no socket, no async. Everything that depends on time takes
//! it as an argument. Domain types carry no serde derives; each edge (wire, API, storage row) has a
//! type of its own and a conversion.

mod alert;
mod dead_letter;
mod detection;
mod error;
mod event;
mod fields;
mod ids;
pub mod json;
mod outcome;
mod rule;
mod severity;
mod time;

pub use alert::{Alert, AlertKind, AlertState};
pub use dead_letter::{DeadLetter, DeadLetterSide};
pub use detection::{Detection, Level};
pub use error::ErrorKind;
pub use event::{Durability, Event, InputKind};
pub use fields::{EventSource, Fields, Leaf, number_text};
pub use ids::{AgentId, AlertId, EventId, EventIdSource, IdError, OrgId};
pub use outcome::{Outcome, RejectReason};
pub use rule::{Environment, Handling, MatchType, Rule, RuleDraft, RuleId};
pub use severity::{AlertSeverity, Severity};
pub use time::Timestamp;
