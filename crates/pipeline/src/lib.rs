//! The product's flow: accept → detect → deliver → remediate.
//!
//! It knows the traits of the edges (`storage`, `connectors`) and names no driver; it owns every
//! retry, limit and breaker, once for all of them. Always true here:
//! * every step may be repeated after a crash without changing what a user sees, because ids are
//!   derived and every store is idempotent by them;
//! * a step settles its input only after its output is durable;
//! * what cannot be worked ends in the dead letters with a reason, never nowhere.

pub mod accept;
pub mod codec;
pub mod deliver;
pub mod detect;
pub mod detections;
pub mod fleet;
pub mod foreign;
pub mod history;
mod live;
pub mod metrics;
pub mod notify;
pub mod outbox;
pub mod rejects;
pub mod remediate;
pub mod rulebook;
pub mod schedule;

pub use live::{Live, LiveSettings, RetentionPolicy, ShedMode};
