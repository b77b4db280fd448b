//! Records that other programs put into the queues have no id of ours. The queue gives them one when
//! they are first taken, in front of their own keys, so that two equal records are two events and a
//! record that is delivered again is the same one.

use storage::queue::ForeignIds;

/// For records of events: those of [`crate::codec::encode_event`] have an id already.
pub const EVENTS: ForeignIds =
    ForeignIds { key: "_event_id", ours: ",\"_event_id\":\"evt_", ours_within_bytes: 200, closing: 1 };

/// For records of alerts: those of [`crate::codec::encode_alert`] name their alert and its event.
pub const ALERTS: ForeignIds =
    ForeignIds { key: "_event_id", ours: ",\"_alert\":{", ours_within_bytes: 1_000, closing: 2 };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use bytes::Bytes;
    use connectors::inputs::NewEvent;
    use model::{EventId, InputKind, Timestamp};

    #[test]
    fn our_own_records_are_known_and_texts_in_messages_are_not_taken_for_ids() {
        let id = EventId::new(Timestamp::from_millis(1_700_000_000_000), 7, 9);
        for (org, object) in [
            ("default", r#"{"hostname":"h","message":"m","timestamp":1}"#),
            ("acme", r#"{"hostname":"h","message":"a } b","timestamp":1,"list":[{"_event_id":"evt_x"}]}"#),
        ] {
            let (org, object) = (org.parse().unwrap(), Bytes::from_static(object.as_bytes()));
            let event = NewEvent { id: None, org, input: InputKind::Http, correlation_id: Some("c".into()), object };
            assert!(EVENTS.are_in(&codec::encode_event(&event, id)));
        }
        let alert = testkit::builders::alert().build();
        assert!(ALERTS.are_in(&codec::encode_alert(&alert, None)));
        for foreign in [
            r#"{"hostname":"h","message":"m","timestamp":1}"#,
            r#"{"hostname":"h","timestamp":1,"message":"x,\"_event_id\":\"evt_00000000000000000000000000\""}"#,
            r#"{"hostname":"h","timestamp":1,"message":"m","x":{"a":1,"_event_id":"evt_00000000000000000000000000"}}"#,
        ] {
            assert!(!EVENTS.are_in(foreign.as_bytes()), "{foreign}");
        }
    }
}
