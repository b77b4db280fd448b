//! Inputs: doors that events come in by.
//!
//! Promises of every input (`contract.rs` checks them):
//! * Parsing is a pure function in a file of its own, and never panics on any bytes.
//! * An event is acknowledged only after [`Sink::accept`] said so; where the protocol has no
//!   acknowledgement, a full sink becomes backpressure (TCP) or a counted loss (UDP).
//! * Malformed input is reported through [`Sink::reject`] with reason and sample, never kills the
//!   listener, and loses nothing of its neighbours.
//! * Memory per connection and in total is bounded; `run` ends soon after its stop is requested,
//!   having handed over what it had read.
//!
//! `datagrams.rs` receives for the inputs that speak UDP, `deliver.rs` hands batches to the sink for
//! those whose senders do not wait for an answer.
//!
//! To add one: a folder beside these with `parse.rs` (pure), `listen.rs` and `mod.rs`. The
//! one to imitate is `http/`.

mod batch;
#[cfg(feature = "contract")]
pub mod contract;
mod datagrams;
mod deliver;
pub mod grpc;
pub mod http;
pub mod snmp;
pub mod syslog;

use async_trait::async_trait;
use bytes::Bytes;
use model::{Durability, EventId, InputKind, OrgId, RejectReason};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// An event at the door: bounded and parsed as far as the protocol goes.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Where the input can tell the event when it comes again; else it is given one at acceptance.
    pub id: Option<EventId>,
    pub org: OrgId,
    pub input: InputKind,
    /// Shared by the events of one request; `None` where the client gave none.
    pub correlation_id: Option<Arc<str>>,
    /// A JSON object in UTF-8: starts with `{`, ends with `}`, no white space around it, and none
    /// of its top-level keys starts with `_` (those are the pipeline's own).
    pub object: Bytes,
}

/// The batch is durable as asked.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// In the order of the batch.
    pub ids: Vec<EventId>,
    /// Unsettled events in the queue, these included.
    pub queue_depth: u64,
}

/// The batch was not taken; nothing of it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub reason: RejectReason,
    /// When asking again makes sense.
    pub retry_after: Duration,
    pub queue_depth: u64,
    pub queue_limit: u64,
}

/// Something that came in and was not an event.
#[derive(Debug, Clone)]
pub struct Reject<'a> {
    pub input: InputKind,
    pub reason: RejectReason,
    /// A sentence about what is wrong; no secret in it.
    pub detail: &'a str,
    pub peer: Option<SocketAddr>,
    /// The bytes, or their beginning; the sink keeps at most a bounded part.
    pub sample: &'a [u8],
}

/// Where inputs put events. Implemented by the pipeline.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Asks the site-wide rate limit for `n` events more of a request of `of` events; all or none. A
    /// request that could never pass is `TooLarge`.
    async fn admit(&self, n: u32, of: u32) -> Result<(), Refused>;

    /// Whether the queue takes events now; asked before parsing where the contract orders it so.
    fn room(&self) -> Result<(), Refused>;

    /// Takes the whole batch durably, or nothing.
    async fn accept(&self, batch: Vec<NewEvent>, durability: Durability) -> Result<Accepted, Refused>;

    /// Counts a refusal and keeps a sample for people to look at.
    fn reject(&self, reject: Reject<'_>);

    /// Counts datagrams that the kernel dropped before we could read them.
    fn lost(&self, input: InputKind, n: u64);
}
