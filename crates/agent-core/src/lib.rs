//! What the agent decides: when to connect, what to send, what may be forgotten, when to ask for a certificate, what
//! to give up when its disk space is used.
//!
//! Always true here:
//! * No clock, no randomness of its own, no IO: [`Core::step`] takes the time and one thing that happened, says what
//!   to do, in order. Each [`Output`] is to be finished before the next is begun.
//! * A record is forgotten only after the other end said that it is durable there.
//! * A batch that is sent again says the same time of its first sending, also after a crash: [`Output::Cut`] has it
//!   marked before the first [`Output::Send`] of the batch, and what was marked is handed back in [`Restored`].
//! * Nothing here stops collecting: without trust, without a server, with a refused certificate, the agent goes on to
//!   observe and to keep. A key is never thrown away.

mod backoff;
mod core;
mod giving_up;
mod trust;
mod upload;

pub use crate::core::{Config, Core, Failure, Input, Line, Now, Output, Restored};
pub use giving_up::{Dropped, Room, is_critical};
pub use trust::{Certificate, Trust};
pub use upload::{Cut, Limits, Sent};
