//! What was added for agents that keep their records until these are durable at the other end.

use crate::{LogEvent, MetricEvent, MitigateRequest, MitigateResponse};
use std::collections::BTreeMap;

/// Changes an enrolment token for a certificate.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EnrollRequest {
    #[prost(string, tag = "1")]
    pub token: String,
    /// PKCS #10; its key never leaves the host.
    #[prost(bytes = "vec", tag = "2")]
    pub csr_der: Vec<u8>,
    #[prost(string, tag = "3")]
    pub hostname: String,
    /// Of the operating system; the same on clones.
    #[prost(string, tag = "4")]
    pub machine_id: String,
    /// Changes with every boot.
    #[prost(string, tag = "5")]
    pub boot_id: String,
    #[prost(string, tag = "6")]
    pub agent_version: String,
    #[prost(string, tag = "7")]
    pub os_type: String,
    #[prost(string, tag = "8")]
    pub os_version: String,
    #[prost(string, tag = "9")]
    pub ip_address: String,
    #[prost(string, repeated, tag = "10")]
    pub capabilities: Vec<String>,
}

/// A certificate, and whom to believe from now on.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EnrollResponse {
    #[prost(string, tag = "1")]
    pub agent_id: String,
    /// The agent's certificate first.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub certificate_chain_der: Vec<Vec<u8>>,
    /// During a change of the authority, the old one and the new.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub ca_bundle_der: Vec<Vec<u8>>,
    #[prost(int64, tag = "4")]
    pub not_after_unix_s: i64,
    #[prost(int64, tag = "5")]
    pub renew_after_unix_s: i64,
}

/// Asks for a certificate in place of the one that the connection shows.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RenewRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub csr_der: Vec<u8>,
}

/// From the agent, within a session.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AgentMessage {
    #[prost(oneof = "agent_message::Body", tags = "1, 2, 3, 4")]
    pub body: Option<agent_message::Body>,
}

/// What an agent says.
pub mod agent_message {
    /// Of a body that this build does not know, nothing arrives.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Body {
        #[prost(message, tag = "1")]
        Hello(super::Hello),
        #[prost(message, tag = "2")]
        Batch(super::Batch),
        #[prost(message, tag = "3")]
        Status(super::Status),
        #[prost(message, tag = "4")]
        MitigateResponse(super::MitigateResponse),
    }
}

/// The first message of a session.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Hello {
    #[prost(string, tag = "1")]
    pub agent_id: String,
    #[prost(string, tag = "2")]
    pub machine_id: String,
    #[prost(string, tag = "3")]
    pub boot_id: String,
    #[prost(string, tag = "4")]
    pub version: String,
    #[prost(string, repeated, tag = "5")]
    pub capabilities: Vec<String>,
    #[prost(string, tag = "6")]
    pub os_type: String,
    #[prost(string, tag = "7")]
    pub os_version: String,
    #[prost(string, tag = "8")]
    pub hostname: String,
    #[prost(string, tag = "9")]
    pub ip_address: String,
    /// Names the spool; drawn when it is made. Numbers of records mean something within it only.
    #[prost(uint64, tag = "10")]
    pub spool_epoch: u64,
    /// The lowest number that the agent still keeps.
    #[prost(uint64, tag = "11")]
    pub first_unacked: u64,
}

/// Records with the numbers `first_seq`, `first_seq` + 1, …
#[derive(Clone, PartialEq, prost::Message)]
pub struct Batch {
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    #[prost(uint64, tag = "2")]
    pub first_seq: u64,
    /// When a record of it was sent for the first time, by the clock of the server. A batch that is sent again says
    /// the same, so who receives it can make the same ids of it.
    #[prost(int64, tag = "3")]
    pub sent_unix_ms: i64,
    #[prost(message, repeated, tag = "4")]
    pub records: Vec<Record>,
}

/// One record.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Record {
    #[prost(oneof = "record::Body", tags = "1, 2")]
    pub body: Option<record::Body>,
}

/// What a record holds.
pub mod record {
    /// Of a kind that this build does not know, nothing arrives; its number is used all the same.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Body {
        #[prost(message, tag = "1")]
        Log(super::LogEvent),
        #[prost(message, tag = "2")]
        Metric(super::MetricEvent),
    }
}

/// How the agent is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Status {
    /// Records that wait.
    #[prost(uint64, tag = "1")]
    pub spool_records: u64,
    #[prost(uint64, tag = "2")]
    pub spool_bytes: u64,
    /// For how long the oldest waits.
    #[prost(uint64, tag = "3")]
    pub lag_ms: u64,
    /// Records that were given up, by stream, since the spool was made.
    #[prost(btree_map = "string, uint64", tag = "4")]
    pub dropped: BTreeMap<String, u64>,
    /// What cannot run here, and why.
    #[prost(btree_map = "string, string", tag = "5")]
    pub collectors: BTreeMap<String, String>,
    #[prost(uint64, tag = "6")]
    pub rss_bytes: u64,
}

/// From the server, within a session.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ServerMessage {
    #[prost(oneof = "server_message::Body", tags = "1, 2, 3, 4, 5")]
    pub body: Option<server_message::Body>,
}

/// What a server says.
pub mod server_message {
    /// Of a body that this build does not know, nothing arrives.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Body {
        #[prost(message, tag = "1")]
        Welcome(super::Welcome),
        #[prost(message, tag = "2")]
        Ack(super::BatchAck),
        #[prost(message, tag = "3")]
        MitigateRequest(super::MitigateRequest),
        #[prost(message, tag = "4")]
        Policy(super::Policy),
        #[prost(message, tag = "5")]
        RetryLater(super::RetryLater),
    }
}

/// The answer to a hello.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Welcome {
    #[prost(int64, tag = "1")]
    pub server_time_unix_ms: i64,
    #[prost(int64, tag = "2")]
    pub heartbeat_interval_seconds: i64,
    #[prost(message, optional, tag = "3")]
    pub acked: Option<BatchAck>,
    #[prost(message, optional, tag = "4")]
    pub policy: Option<Policy>,
}

/// Everything up to `through_seq` is durable.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct BatchAck {
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    #[prost(uint64, tag = "2")]
    pub through_seq: u64,
}

/// What the server wishes of the agent; 0 is the agent's own.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Policy {
    #[prost(uint64, tag = "1")]
    pub version: u64,
    #[prost(uint32, tag = "2")]
    pub batch_records_max: u32,
    #[prost(uint32, tag = "3")]
    pub batch_bytes_max: u32,
    #[prost(uint32, tag = "4")]
    pub batches_in_flight_max: u32,
}

/// Not now.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RetryLater {
    #[prost(uint64, tag = "1")]
    pub after_ms: u64,
    #[prost(string, tag = "2")]
    pub reason: String,
}
