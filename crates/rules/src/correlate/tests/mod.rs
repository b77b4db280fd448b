mod examples;
mod naive;
mod state;
mod stream;

use super::*;
use crate::sigma::{Collection, Gravity, Options, Reader};
use model::{EventSource, Fields};
use naive::{Fact, Sample};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const SECOND: i64 = 1_000_000;

/// Rules `a`, `b` and `c`, indices 0 to 2, and these correlations: name and the lines of `correlation`.
fn collection(correlations: &[(&str, &str)]) -> Collection {
    let mut reader = Reader::new(Options::default());
    for name in ["a", "b", "c"] {
        let rule = format!(
            "title: {name}\nname: {name}\nlogsource: {{product: linux}}\ndetection: {{s: {{x: {name}}}, condition: s}}"
        );
        reader.text("rules.yml", &rule);
    }
    for (name, part) in correlations {
        let part = part.trim().replace('\n', "\n  ");
        reader.text("correlations.yml", &format!("title: {name}\nname: {name}\ncorrelation:\n  {part}\n"));
    }
    let collection = reader.finish();
    let refused: Vec<_> = collection.problems.iter().filter(|problem| problem.gravity == Gravity::Refused).collect();
    assert!(refused.is_empty(), "{refused:?}");
    collection
}

fn hits(plans: &Plans, sample: &Sample) -> Vec<Hit> {
    let mut fields = Fields::new(EventSource::default());
    for (name, text) in &sample.fields {
        fields.push(*name, text.as_str());
    }
    let (mut hits, mut lacking) = (Vec::new(), Lacking::default());
    for rule in &sample.rules {
        plans.hits(*rule, Event { id: sample.id, time: sample.time }, &fields, &mut hits, &mut lacking);
    }
    hits
}

/// The firings that live, by id, as one who listens to the changes knows them.
#[derive(Debug, Clone, Default, PartialEq)]
struct Heard(BTreeMap<u128, Fact>);

impl Heard {
    fn hear(&mut self, changes: &[Change]) {
        let fact = |firing: &Firing| {
            (firing.correlation, firing.key.iter().map(|text| text.to_string()).collect::<Vec<_>>(), firing.anchor)
        };
        for change in changes {
            match change {
                Change::Opened(firing) => {
                    assert_eq!(self.0.insert(firing.id, fact(firing)), None, "opened twice: {firing:?}");
                }
                Change::GoesOn(firing) => assert_eq!(self.0.get(&firing.id), Some(&fact(firing))),
                Change::Moved(firing) => {
                    assert!(self.0.insert(firing.id, fact(firing)).is_some(), "moved, and never opened: {firing:?}");
                }
                Change::Merged { id, into, .. } => {
                    assert!(self.0.remove(id).is_some() && self.0.contains_key(into), "{change:?}");
                }
                Change::Withdrawn { id, .. } => assert!(self.0.remove(id).is_some(), "{change:?}"),
            }
        }
    }

    fn facts(&self) -> BTreeSet<Fact> {
        let facts: BTreeSet<Fact> = self.0.values().cloned().collect();
        assert_eq!(facts.len(), self.0.len(), "one firing has two names");
        facts
    }
}

/// One worker fed with samples in batches, then told that time is over.
fn run(plans: &Arc<Plans>, samples: &[Sample], batch: usize) -> (Heard, Correlator) {
    let mut correlator = Correlator::new(plans.clone(), Share::ALL);
    let mut heard = Heard::default();
    for samples in samples.chunks(batch.max(1)) {
        let hits = samples.iter().flat_map(|sample| hits(plans, sample)).collect();
        heard.hear(&correlator.apply(i64::MAX / 2, hits).changes);
    }
    heard.hear(&correlator.pass(i64::MAX).changes);
    (heard, correlator)
}

fn limits(lateness_seconds: i64) -> Limits {
    Limits { lateness_micros: lateness_seconds * SECOND, kept_min: 2, ..Limits::default() }
}
