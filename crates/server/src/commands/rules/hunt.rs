//! `muttd rules hunt`: hunt in the events that are kept.

use super::super::Global;
use super::past::{self, PastArgs};
use crate::hunt::history::Sink;
use anyhow::Result;
use clap::Args;
use fields::Aliases;
use model::Timestamp;
use pipeline::codec;
use pipeline::history::{Fired, flattened};
use rules::sigma::{Collection, Header};
use serde_json::{Map, Value, json};
use std::io::Write as _;
use std::sync::Arc;
use storage::events::StoredEvent;

#[derive(Debug, Args)]
#[command(after_help = "A JSON object a match on standard output: rule_id, event (its id), host, title, level …\n\n\
    Example:\n  muttd rules hunt my-rules --days 30 | jq -r .event | xargs -n1 muttd trace")]
pub struct HuntArgs {
    #[command(flatten)]
    past: PastArgs,
}

/// Writes a line for each match.
struct Lines {
    collection: Arc<Collection>,
    aliases: Arc<Aliases>,
    alert: (Vec<bool>, Vec<bool>),
    matches: u64,
}

impl Lines {
    fn line(&mut self, header: &Header, more: Value) {
        let mut line = json!({"rule_id": header.uid, "title": header.title, "level": header.level.as_str()});
        if let (Value::Object(line), Value::Object(more)) = (&mut line, more) {
            line.extend(more);
            if !header.tags.is_empty() {
                line.insert("tags".to_owned(), json!(header.tags));
            }
        }
        self.matches += 1;
        if writeln!(std::io::stdout().lock(), "{line}").is_err() {
            std::process::exit(0); // Whoever reads wants no more.
        }
    }
}

impl Sink for Lines {
    fn matched(&mut self, rule: usize, event: &StoredEvent) {
        if !self.alert.0[rule] {
            return;
        }
        let collection = Arc::clone(&self.collection);
        let rule = &collection.rules[rule];
        let object = codec::public_object(&event.raw);
        let fields = flattened(&object, &self.aliases).unwrap_or_default();
        let value = |name: &String| Some((name.clone(), json!(fields.first(name)?)));
        let shown: Map<String, Value> = rule.fields.iter().filter_map(value).collect();
        let accepted = event.id.accepted().rfc3339();
        let about = json!({"event": event.id.to_string(), "host": event.host, "accepted": accepted, "fields": shown});
        self.line(&rule.header, about);
    }

    fn fired(&mut self, correlation: usize, fired: &Fired) {
        if !self.alert.1[correlation] {
            return;
        }
        let collection = Arc::clone(&self.collection);
        let correlation = &collection.correlations[correlation];
        let fields: Map<String, Value> =
            correlation.group_by.iter().cloned().zip(fired.key.iter().map(|value| json!(value))).collect();
        let at = Timestamp::from_micros(fired.at).rfc3339();
        let about = json!({
            "event": fired.event.to_string(),
            "host": fired.host,
            "accepted": fired.event.accepted().rfc3339(),
            "fields": fields,
            "correlation": {"at": at},
        });
        self.line(&correlation.header, about);
    }
}

pub async fn run(global: &Global, args: &HuntArgs) -> Result<()> {
    let past = args.past.open(global)?;
    let alert = (past.collection.rules_that_alert(), past.collection.correlations_that_alert());
    let (collection, aliases) = (Arc::clone(&past.collection), Arc::clone(&past.aliases));
    let lines = Lines { collection, aliases, alert, matches: 0 };
    let (lines, told) = past::hunt(&past, lines).await?;
    let summary = json!({
        "rules_loaded": past.collection.rules.len() + past.collection.correlations.len(),
        "rules_refused": past.refused,
        "events": told.events,
        "events_late": told.late,
        "matches": lines.matches,
    });
    let _ = writeln!(std::io::stderr(), "{summary}");
    Ok(())
}
