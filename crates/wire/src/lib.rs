//! What agents and control plane say to each other: the messages of `proto.AgentIngest`, their bounds, and the way from
//! a message to an event.
//!
//! Always true here:
//! * No field or call of an old agent has another number, type or name than it had (`tests/contract.rs`); what is added
//!   gets new numbers. Unknown fields are passed over.
//! * [`decode`] counts before it builds: a message of a few megabytes cannot become gigabytes of empty records.
//! * What a message becomes, it becomes again: the same record of the same batch has the same [`RecordKey::event_id`].
//! * No service code: whoever speaks gRPC brings the calls ([`method`]) to its library by a few lines.

mod bounds;
mod event;
mod messages;
mod session;

pub use bounds::{Bounded, DecodeError, Shape, decode};
pub use event::{BadRecord, EventBounds, RecordKey, log_object, metric_object, to_log, to_metric};
pub use messages::{
    Ack, AuthRequest, AuthResponse, BlockIpAction, KillProcessAction, LogEvent, MetricEvent, MitigateRequest,
    MitigateResponse, mitigate_request,
};
pub use session::{
    AgentMessage, Batch, BatchAck, EnrollRequest, EnrollResponse, Hello, Policy, Record, RenewRequest, RetryLater,
    ServerMessage, Status, Welcome, agent_message, record, server_message,
};

/// Paths of the calls.
pub mod method {
    /// `AuthRequest` → `AuthResponse`.
    pub const AUTHENTICATE: &str = "/proto.AgentIngest/Authenticate";
    /// Stream of `LogEvent` → `Ack`.
    pub const STREAM_EVENTS: &str = "/proto.AgentIngest/StreamEvents";
    /// Stream of `MitigateResponse` → stream of `MitigateRequest`.
    pub const RECEIVE_COMMANDS: &str = "/proto.AgentIngest/ReceiveCommands";
    /// `EnrollRequest` → `EnrollResponse`.
    pub const ENROLL: &str = "/proto.AgentIngest/Enroll";
    /// `RenewRequest` → `EnrollResponse`.
    pub const RENEW: &str = "/proto.AgentIngest/Renew";
    /// Stream of `AgentMessage` → stream of `ServerMessage`.
    pub const SESSION: &str = "/proto.AgentIngest/Session";
}

/// Most records in a batch.
pub const BATCH_RECORDS_MAX: usize = 4_096;
/// Most bytes of a message: what gRPC libraries take when nothing else is said.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most labels of a record.
pub const LABELS_MAX: usize = 128;
