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
//!   that was stored before leads to none.
//! * **Bounded.** Members a group, groups a correlation, bytes in all ([`Limits`]); what is pushed out
//!   is counted ([`Counters`]). Settled members are thinned where that changes no answer: a count
//!   needs its newest few, distinct values need each value's newest, an order needs the newest of
//!   those in line. A group that was pushed out begins anew. Judging a batch is linear in the members
//!   of the groups it touches, and for events in order in the batch; putting a late event in its place
//!   moves at most half of its group's members, 24 or 32 bytes each.
//! * **Workers.** Groups are independent; [`shard`] says whose a group is. A correlation of
//!   correlations can need a group of another worker: [`Outcome::elsewhere`].
//!
//! Of chains: a lower correlation that is rising and cannot be corrected downwards (counts, temporal)
//! tells higher ones at once; one that calculates, or is closing, tells when it is settled, and the
//! higher one waits that much longer for late events.

mod carried;
mod correlator;
mod encode;
mod group;
mod hit;
mod members;
mod number;
mod plan;
mod ranks;
mod runs;
mod window;

pub use correlator::{Change, Correlator, Counters, Firing, Outcome, Record, Share, Stored};
pub use encode::StateError;
pub use hit::{Hit, shard};
pub use plan::{Event, Lacking, Limits, Plans};

#[cfg(test)]
mod tests;
