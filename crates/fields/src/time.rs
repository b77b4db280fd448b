//! When an event happened, by what it says itself.

use model::{Fields, Timestamp};

/// Names under which logs give the time of an event, best first.
const NAMES: [&str; 16] = [
    "timestamp",
    "@timestamp",
    "TimeCreated_SystemTime",
    "UtcTime",
    "eventTime",
    "event_time",
    "EventTime",
    "time",
    "ts",
    "datetime",
    "date",
    "published",
    "createdDateTime",
    "activityDateTime",
    "requestReceivedTimestamp",
    "CreationTime",
];

/// The first of the usual fields that holds a time, as [`Timestamp::parse`] reads it.
pub fn event_time(event: &Fields<'_>) -> Option<Timestamp> {
    NAMES.iter().find_map(|name| event.first(name).and_then(Timestamp::parse))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_field_that_is_a_time_counts() {
        for (object, expected) in [
            (r#"{"timestamp":"2026-01-02T03:04:05Z","ts":1}"#, Some("2026-01-02T03:04:05.000000Z")),
            (r#"{"timestamp":"yesterday","ts":1767323045.5}"#, Some("2026-01-02T03:04:05.500000Z")),
            (
                r##"{"Event":{"System":{"TimeCreated":{"#attributes":{"SystemTime":"2026-01-02T03:04:05.5Z"}}}}}"##,
                Some("2026-01-02T03:04:05.500000Z"),
            ),
            (r#"{"UtcTime":"2026-01-02 03:04:05.498"}"#, Some("2026-01-02T03:04:05.498000Z")),
            (r#"{"message":"2026-01-02T03:04:05Z"}"#, None),
        ] {
            let mut fields = Fields::default();
            crate::from_json(object, &mut fields).expect(object);
            assert_eq!(event_time(&fields).map(Timestamp::rfc3339).as_deref(), expected, "{object}");
        }
    }
}
