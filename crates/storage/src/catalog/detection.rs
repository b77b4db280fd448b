//! A detection as JSON: the same in the catalog's column and in queue records. What a newer version
//! adds is passed over, what an older one left out is empty.

use model::{Detection, Level};
use serde::{Deserialize, Serialize};

/// A detection on its way to disk and back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DetectionRecord {
    rule_uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    title: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    level: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    references: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    false_positives: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<(String, String)>,
    events: u64,
}

impl From<&Detection> for DetectionRecord {
    fn from(detection: &Detection) -> Self {
        Self {
            rule_uid: detection.rule_uid.clone(),
            name: detection.name.clone(),
            title: detection.title.clone(),
            description: detection.description.clone(),
            level: detection.level.as_str().to_owned(),
            tags: detection.tags.clone(),
            references: detection.references.clone(),
            false_positives: detection.false_positives.clone(),
            fields: detection.fields.clone(),
            events: detection.events,
        }
    }
}

impl From<DetectionRecord> for Detection {
    fn from(record: DetectionRecord) -> Self {
        Self {
            rule_uid: record.rule_uid,
            name: record.name,
            title: record.title,
            description: record.description,
            level: Level::parse(&record.level).unwrap_or_default(),
            tags: record.tags,
            references: record.references,
            false_positives: record.false_positives,
            fields: record.fields,
            events: record.events,
        }
    }
}

/// The column's text. JSON escapes what a database's text cannot hold (NUL).
pub(super) fn column(detection: Option<&Detection>) -> Option<String> {
    detection.map(|d| serde_json::to_string(&DetectionRecord::from(d)).expect("texts and numbers always encode"))
}

/// What the column says; a text that is none of ours says nothing.
pub(super) fn of_column(text: Option<&str>) -> Option<Box<Detection>> {
    let record: DetectionRecord = serde_json::from_str(text?).ok()?;
    Some(Box::new(record.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detection_comes_back_and_other_versions_are_read() {
        let detection = Detection {
            rule_uid: "5a1f".into(),
            name: "login_guessed".into(),
            title: "Login \0 guessed".into(),
            description: "d".into(),
            level: Level::High,
            tags: vec!["attack.t1110".into()],
            references: vec!["https://example.org/1".into()],
            false_positives: vec!["a scanner of ours".into()],
            fields: vec![("SourceIp".into(), "192.0.2.1".into()), ("SourceIp".into(), "192.0.2.2".into())],
            events: 7,
        };
        let text = column(Some(&detection)).unwrap();
        assert!(!text.contains('\0'));
        assert_eq!(of_column(Some(&text)).as_deref(), Some(&detection));
        let older = of_column(Some(r#"{"rule_uid":"x","level":"none such","mood":1}"#)).unwrap();
        assert_eq!((older.rule_uid.as_str(), older.level, older.events), ("x", Level::Medium, 0));
        assert_eq!((of_column(Some("[")), of_column(None), column(None)), (None, None, None));
    }
}
