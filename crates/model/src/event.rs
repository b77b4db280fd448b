//! An accepted event as the pipeline sees it.

use crate::{EventId, OrgId, Severity, Timestamp};
use bytes::Bytes;

/// Which door an event came in by; a label of counters and of `trace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InputKind {
    Http,
    SyslogUdp,
    SyslogTcp,
    SyslogTls,
    /// SNMP notifications of our own listener.
    Snmp,
    /// Agents and what speaks their protocol, by gRPC.
    Agent,
    /// Made by the product itself or replayed by an operator.
    Internal,
}

impl InputKind {
    pub const ALL: [Self; 7] =
        [Self::Http, Self::SyslogUdp, Self::SyslogTcp, Self::SyslogTls, Self::Snmp, Self::Agent, Self::Internal];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::SyslogUdp => "syslog_udp",
            Self::SyslogTcp => "syslog_tcp",
            Self::SyslogTls => "syslog_tls",
            Self::Snmp => "snmp",
            Self::Agent => "agent",
            Self::Internal => "internal",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == text)
    }
}

/// An event after normalisation: the fields every rule may ask for, and the whole object as it
/// was stored.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: EventId,
    pub org: OrgId,
    pub input: InputKind,
    /// Given by the client or made at acceptance; the event id's text where nobody gave one.
    pub correlation_id: String,
    /// `hostname` of the event; never empty.
    pub host: String,
    /// `message`; numbers and booleans are kept as their JSON text.
    pub message: String,
    /// `timestamp` as the sender wrote it.
    pub timestamp_text: String,
    /// The sender's time, or the time of acceptance where it cannot be read.
    pub timestamp: Timestamp,
    /// From `syslog_severity`, else `severity`; a number or a word.
    pub severity: Option<Severity>,
    /// `trap_oid` without a leading dot, when it is a well-formed OID.
    pub trap_oid: Option<String>,
    /// The JSON object as it lies in the queue, internal `_…` keys included.
    pub raw: Bytes,
}

/// What an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// On disk (`fdatasync`): survives a power cut.
    #[default]
    Strict,
    /// Handed to the kernel: survives `kill -9`; on disk after at most the configured delay.
    Batched,
    /// Handed to the kernel, synced when the kernel likes.
    Memory,
}

impl Durability {
    pub const ALL: [Self; 3] = [Self::Strict, Self::Batched, Self::Memory];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Batched => "batched",
            Self::Memory => "memory",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.as_str() == text)
    }
}
