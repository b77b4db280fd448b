//! The messages of the first three generations of agents, with what was added under new numbers.

use std::collections::BTreeMap;

/// One line of a log, or something that a host observed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LogEvent {
    #[prost(string, tag = "1")]
    pub org_id: String,
    #[prost(string, tag = "2")]
    pub host_id: String,
    #[prost(int64, tag = "3")]
    pub ts_unix_ns: i64,
    #[prost(string, tag = "4")]
    pub stream: String,
    #[prost(string, tag = "5")]
    pub message: String,
    #[prost(btree_map = "string, string", tag = "6")]
    pub labels: BTreeMap<String, String>,
    /// Counts up within the spool of an agent; 0 from agents that do not count.
    #[prost(uint64, tag = "7")]
    pub seq: u64,
}

/// A number that a host measured.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetricEvent {
    #[prost(string, tag = "1")]
    pub org_id: String,
    #[prost(string, tag = "2")]
    pub host_id: String,
    #[prost(int64, tag = "3")]
    pub ts_unix_ns: i64,
    #[prost(string, tag = "4")]
    pub stream: String,
    #[prost(string, tag = "5")]
    pub name: String,
    #[prost(double, tag = "6")]
    pub value: f64,
    #[prost(string, tag = "7")]
    pub unit: String,
    #[prost(btree_map = "string, string", tag = "8")]
    pub labels: BTreeMap<String, String>,
    #[prost(uint64, tag = "9")]
    pub seq: u64,
}

/// The end of `StreamEvents`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Ack {}

/// Who asks to be believed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AuthRequest {
    #[prost(string, tag = "1")]
    pub org_id: String,
    #[prost(string, tag = "2")]
    pub token: String,
    #[prost(string, tag = "3")]
    pub agent_version: String,
    #[prost(string, tag = "4")]
    pub hostname: String,
    #[prost(string, tag = "5")]
    pub ip_address: String,
    #[prost(string, tag = "6")]
    pub os_type: String,
    #[prost(string, tag = "7")]
    pub os_version: String,
    #[prost(string, repeated, tag = "8")]
    pub capabilities: Vec<String>,
}

/// Whether the credentials were good. Bad ones are an answer too, never an error of the call.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AuthResponse {
    #[prost(bool, tag = "1")]
    pub authenticated: bool,
    #[prost(string, tag = "2")]
    pub error_message: String,
    #[prost(int64, tag = "3")]
    pub heartbeat_interval_seconds: i64,
    #[prost(bool, tag = "4")]
    pub registered: bool,
    #[prost(string, tag = "5")]
    pub agent_id: String,
}

/// A command for a host.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MitigateRequest {
    #[prost(string, tag = "1")]
    pub request_id: String,
    #[prost(string, tag = "2")]
    pub org_id: String,
    #[prost(string, tag = "3")]
    pub host_id: String,
    #[prost(oneof = "mitigate_request::Action", tags = "4, 5")]
    pub action: Option<mitigate_request::Action>,
}

/// What a command asks for.
pub mod mitigate_request {
    /// Of an action that this build does not know, nothing arrives.
    #[derive(Clone, PartialEq, Eq, prost::Oneof)]
    pub enum Action {
        #[prost(message, tag = "4")]
        BlockIp(super::BlockIpAction),
        #[prost(message, tag = "5")]
        KillProcess(super::KillProcessAction),
    }
}

/// Drop packets from an address.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BlockIpAction {
    #[prost(string, tag = "1")]
    pub ip_address: String,
    /// 0: until it is undone.
    #[prost(int32, tag = "2")]
    pub duration_minutes: i32,
}

/// End a process, if it still is the one that is meant.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct KillProcessAction {
    #[prost(int32, tag = "1")]
    pub pid: i32,
    #[prost(string, tag = "2")]
    pub process_name: String,
}

/// What became of a command.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MitigateResponse {
    #[prost(string, tag = "1")]
    pub request_id: String,
    #[prost(bool, tag = "2")]
    pub success: bool,
    /// On success, old agents put a sentence in here too.
    #[prost(string, tag = "3")]
    pub error_message: String,
}
