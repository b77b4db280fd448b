//! Correlations over a stream of events, in event time.
//!
//! What a correlation means is written in [`correlation`](crate::sigma::correlation), as a statement
//! about the set of all events. Here it is worked out while the events come in: late, twice, in
//! batches, over restarts. No clock, no IO: the caller says what time it is and stores what it is given.
//!
//! # What always holds
//!
//! * **Order and repetition do not matter.** After all events, the firings that were opened, moved as
//!   [`Change::Moved`] says, without those that were merged or withdrawn, are those of the definition:
//!   whatever the order of arrival, as long as no event is later than [`Limits::lateness_micros`]
//!   (against the newest of its group, not against other groups: a host that catches up after an
//!   outage is judged in its own time).
//! * **At once.** A rising condition fires with the event that makes it hold, not when lateness is
//!   over. Nobody can have all three: at once, one firing a run, and never a word taken back; so a
//!   late event can *correct* what was said. For events that come in order nothing is corrected, except
//!   above correlations that tell what they find only when it is settled (see chains, below).
//!   Closing conditions fire once, `lateness` after their window is over, and are never corrected;
//!   their windows end by events of their group or by [`Correlator::pass`], whichever is first: what
//!   a host delivers hours later cannot undo a silence that was told.
//! * **Restart.** State is a function of the batches alone. [`Outcome::records`] stored in one
//!   transaction with the changes, and read back with [`Correlator::restore`], give the state as it
//!   was: a batch that comes again after a crash leads to the same changes with the same ids, one
//!   that was stored before leads to none. Where changes are told before the records are stored,
//!   [`Outcome::named`] is stored before both: then events that come back in other batches lead to
//!   firings with the ids that were told.
//! * **Bounded.** Members a group, groups a correlation, bytes in all ([`Limits`]); what is pushed out
//!   is counted ([`Counters`]). Settled members are thinned where that changes no answer: a count
//!   needs its newest few, distinct values need each value's newest, an order needs the newest of
//!   those in line. A group that was pushed out begins anew. Judging a batch is linear in the members
//!   of the groups it touches, and for events in order in the batch; putting a late event in its place
//!   moves at most half of its group's members, 24 or 32 bytes each.
//! * **Workers.** Groups are independent; [`shard`] says whose a group is. A correlation of
//!   correlations can need a group of another worker: [`Outcome::elsewhere`].
//!
//! # Use
//!
//! ```
//! use model::{EventSource, Fields};
//! use rules::correlate::{Change, Correlator, Event, Lacking, Limits, Plans, Share};
//! use rules::sigma::{Options, Reader};
//! use std::sync::Arc;
//!
//! let mut reader = Reader::new(Options::default());
//! reader.text("rules.yml", "
//! title: Login failed
//! name: failed
//! logsource: {product: linux, service: sshd}
//! detection: {s: {outcome: failure}, condition: s}
//! ---
//! title: Many failed logins
//! correlation: {type: event_count, rules: [failed], group-by: [src_ip], timespan: 5m, condition: {gte: 3}}
//! ");
//! let plans = Arc::new(Plans::compile(&reader.finish(), Limits::default()));
//! let mut correlator = Correlator::new(plans.clone(), Share::ALL);
//!
//! let (mut hits, mut lacking) = (Vec::new(), Lacking::default());
//! for second in 0..3 {
//!     let mut fields = Fields::new(EventSource::default());
//!     fields.push("src_ip", "192.0.2.7");
//!     let event = Event { id: second as u128, time: second * 1_000_000 };
//!     plans.hits(0, event, &fields, &mut hits, &mut lacking); // rule 0 matched it
//! }
//! let outcome = correlator.apply(3_000_000, hits);
//! assert!(matches!(&outcome.changes[..], [Change::Opened(firing)] if firing.anchor == 2_000_000));
//! // Store `outcome.records` and what comes of `outcome.changes` in one transaction; call
//! // `correlator.pass(now)` each second or so, and store its outcome the same way.
//! ```
//!
//! # Chains
//!
//! A lower correlation that is rising and cannot be corrected downwards (counts, temporal)
//! tells higher ones at once; one that calculates, or is closing, tells when it is settled, and the
//! higher one waits that much longer for late events.

mod carried;
mod correlator;
mod encode;
mod group;
mod hit;
mod members;
mod named;
mod number;
mod outcome;
mod plan;
mod ranks;
mod runs;
mod window;

pub use correlator::{Correlator, Share};
pub use encode::StateError;
pub use hit::{Hit, shard};
pub use outcome::{Change, Counters, Firing, Outcome, Record, Stored};
pub use plan::{Event, Lacking, Limits, Plans};

#[cfg(test)]
mod tests;
