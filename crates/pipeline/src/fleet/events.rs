//! What is told about agents: events of their organisation, in the stream `security`.

use super::Inner;
use connectors::inputs::NewEvent;
use connectors::inputs::grpc::Identity;
use model::{Durability, InputKind, OrgId};
use serde_json::json;
use std::collections::BTreeMap;
use storage::catalog::fleet::Agent;
use wire::{EventBounds, LogEvent, Status};

/// The organisation of the published token.
pub const DEMO_ORG: &str = "demo";

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About<'a> {
    Enrolled,
    /// It has the host's name of an agent that was not there, which counts no more.
    Replaced {
        old: &'a str,
    },
    Silent,
    Back,
    Copied,
}

impl About<'_> {
    const fn event_type(self) -> &'static str {
        match self {
            Self::Enrolled => "agent_enrolled",
            Self::Replaced { .. } => "agent_replaced",
            Self::Silent => "agent_silent",
            Self::Back => "agent_back",
            Self::Copied => "agent_copied",
        }
    }

    const fn severity(self) -> &'static str {
        match self {
            Self::Enrolled | Self::Back => "info",
            Self::Replaced { .. } | Self::Silent => "warning",
            Self::Copied => "critical",
        }
    }

    fn message(self, host: &str) -> String {
        match self {
            Self::Enrolled => format!("An agent was enrolled for {host}"),
            Self::Replaced { old } => {
                format!("A new agent took the name {host}; the certificate of {old} counts no more")
            }
            Self::Silent => format!("The agent of {host} is silent"),
            Self::Back => format!("The agent of {host} is back"),
            Self::Copied => format!("Two hosts show the certificate of {host}: one is a copy, or the key was stolen"),
        }
    }
}

impl Inner {
    /// Tells of an agent. An event that cannot be taken now is logged: nobody waits for it.
    pub(super) async fn tell(&self, agent: &Agent, about: About<'_>) {
        self.tell_of((&agent.org, &agent.id, &agent.host), about).await;
    }

    pub(super) async fn tell_copied(&self, who: &Identity) {
        self.tell_of((&who.org, &who.agent, &who.host), About::Copied).await;
    }

    async fn tell_of(&self, (org, agent, host): (&OrgId, &str, &str), about: About<'_>) {
        let now = self.clock.now();
        let labels = [("event_type", about.event_type()), ("severity", about.severity()), ("agent_id", agent)];
        let event = LogEvent {
            host_id: host.to_owned(),
            ts_unix_ns: now.micros().saturating_mul(1_000),
            stream: "security".to_owned(),
            message: about.message(host),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ..LogEvent::default()
        };
        let Ok(object) = wire::log_object(&event, now, &EventBounds::default()) else { return };
        let event = NewEvent {
            org: org.clone(),
            input: InputKind::Internal,
            correlation_id: None,
            object: object.into(),
            id: None,
        };
        if let Err(refused) = self.sink.accept(vec![event], Durability::default()).await {
            let reason = refused.reason.as_str();
            tracing::warn!(%org, agent, reason, about = about.event_type(), "an event about an agent was not taken");
        }
    }
}

/// A status as the catalog keeps it, with the first of its maps where all would be too long.
pub(super) fn status_text(status: &Status, bytes_max: usize) -> String {
    let mut most = 64;
    loop {
        let text = json!({
            "spool_records": status.spool_records,
            "spool_bytes": status.spool_bytes,
            "lag_ms": status.lag_ms,
            "rss_bytes": status.rss_bytes,
            "dropped": first(&status.dropped, most, |n| json!(n)),
            "collectors": first(&status.collectors, most, |why| json!(why.chars().take(200).collect::<String>())),
        })
        .to_string();
        if text.len() <= bytes_max || most == 0 {
            return text;
        }
        most /= 2;
    }
}

fn first<T>(
    map: &BTreeMap<String, T>,
    most: usize,
    value: impl Fn(&T) -> serde_json::Value,
) -> serde_json::Map<String, serde_json::Value> {
    map.iter().take(most).map(|(key, of)| (key.chars().take(64).collect(), value(of))).collect()
}
