//! The rules of `rules/security` with the examples beside them.

use crate::corpus::Entry;
use rules::correlate::{Change, Correlator, Event, Lacking, Limits, Plans, Share};
use rules::sigma::{Collection, Header, Options, Reader};
use rules::stream::{Engine, Scratch};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;

/// Where they lie.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../rules/security")
}

/// All of them, ready to be asked.
pub struct Rulebook {
    pub rules: Collection,
    /// In the order of the files.
    pub evidence: Vec<Evidence>,
    engine: Engine,
    plans: Arc<Plans>,
}

/// A rule that matched or fired.
pub struct Seen<'b> {
    pub rule: &'b str,
    /// Number of the entry.
    pub entry: usize,
    /// Of a correlation: the texts of its `group-by`.
    pub key: Box<[Box<str>]>,
}

/// What stands beside a rule.
#[derive(Debug, Deserialize)]
pub struct Evidence {
    pub name: String,
    pub examples: Examples,
}

#[derive(Debug, Deserialize)]
pub struct Examples {
    #[serde(rename = "match")]
    pub matching: Vec<Example>,
    #[serde(rename = "no_match")]
    pub other: Vec<Example>,
}

/// A line, or a sequence of them with times.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Example {
    Line(String),
    Sequence(Vec<String>),
}

impl Rulebook {
    pub fn load() -> Self {
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
            .unwrap()
            .map(|file| file.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "yml"))
            .collect();
        files.sort();
        let mut reader = Reader::new(Options::default());
        let mut evidence = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            reader.text(&name, &text);
            for document in text.split("\n---\n") {
                evidence.push(serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{name}: {error}")));
            }
        }
        let rules = reader.finish();
        let engine = Engine::compile(rules.rules.iter().map(|rule| (&rule.source, &rule.predicate)));
        let plans = Arc::new(Plans::compile(&rules, Limits::default()));
        Self { rules, evidence, engine, plans }
    }

    pub fn headers(&self) -> impl Iterator<Item = &Header> {
        let rules = self.rules.rules.iter().map(|rule| &rule.header);
        rules.chain(self.rules.correlations.iter().map(|correlation| &correlation.header))
    }

    pub fn header(&self, name: &str) -> &Header {
        self.headers().find(|header| header.name.as_deref() == Some(name)).unwrap_or_else(|| panic!("no rule {name}"))
    }

    /// Whether the rule raises alerts by itself.
    pub fn alerts(&self, name: &str) -> bool {
        let named = |header: &Header| header.name.as_deref() == Some(name);
        let rules = self.rules.rules.iter().zip(self.rules.rules_that_alert());
        let correlations = self.rules.correlations.iter().zip(self.rules.correlations_that_alert());
        rules
            .map(|(rule, alerts)| (&rule.header, alerts))
            .chain(correlations.map(|(correlation, alerts)| (&correlation.header, alerts)))
            .any(|(header, alerts)| alerts && named(header))
    }

    /// Whether it is on unless somebody switches it off.
    pub fn is_on(&self, name: &str) -> bool {
        matches!(&*self.header(name).status, "stable" | "test")
    }

    /// Whether it looks at several events.
    pub fn correlates(&self, name: &str) -> bool {
        self.rules.correlations.iter().any(|correlation| correlation.header.name.as_deref() == Some(name))
    }

    /// All rules that match and all correlations that fire.
    pub fn seen(&self, entries: &[Entry]) -> Vec<Seen<'_>> {
        let (mut scratch, mut matching) = (Scratch::default(), Vec::new());
        let mut correlator = Correlator::new(self.plans.clone(), Share::ALL);
        let (mut lacking, mut seen) = (Lacking::default(), Vec::new());
        for (entry, event) in entries.iter().enumerate() {
            let (fields, mut hits) = (event.fields(), Vec::new());
            matching.clear();
            self.engine.matches(&fields, &mut scratch, &mut matching);
            for rule in &matching {
                let member = Event { id: entry as u128, time: event.at_micros };
                self.plans.hits(*rule as usize, member, &fields, &mut hits, &mut lacking);
                let rule = name(&self.rules.rules[*rule as usize].header);
                seen.push(Seen { rule, entry, key: Box::default() });
            }
            for change in correlator.apply(event.at_micros, hits).changes {
                if let Change::Opened(firing) = change {
                    let rule = name(&self.rules.correlations[firing.correlation].header);
                    seen.push(Seen { rule, entry, key: firing.key });
                }
            }
        }
        seen
    }
}

fn name(header: &Header) -> &str {
    header.name.as_deref().expect("every rule that ships has a name")
}
