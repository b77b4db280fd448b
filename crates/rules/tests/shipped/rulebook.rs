//! The rules of `rules/security` with the examples beside them.

use model::Fields;
use rules::sigma::examples::{self, Examples, Sample};
use rules::sigma::{Header, Options, Reader};
use rules::trial::{Extract, Seen, Trial};
use std::path::PathBuf;

/// Where they lie.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../rules/security")
}

/// All of them, ready to be asked.
pub struct Rulebook {
    pub trial: Trial,
    /// In the order of the files.
    pub evidence: Vec<Examples>,
}

/// Reads events as the pipeline does.
struct Accepted;

impl Extract for Accepted {
    fn fields<'a>(&'a self, object: &'a str, out: &mut Fields<'a>) {
        fields::from_event(object, out).unwrap();
    }
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
            let (examples, problems) = examples::read(&name, &text);
            assert_eq!(problems, []);
            evidence.extend(examples);
        }
        Self { trial: Trial::new(reader.finish(), Accepted), evidence }
    }

    pub fn headers(&self) -> impl Iterator<Item = &Header> {
        let rules = self.trial.rules().rules.iter().map(|rule| &rule.header);
        rules.chain(self.trial.rules().correlations.iter().map(|correlation| &correlation.header))
    }

    pub fn header(&self, name: &str) -> &Header {
        self.headers().find(|header| header.name.as_deref() == Some(name)).unwrap_or_else(|| panic!("no rule {name}"))
    }

    /// Names of the rules, in the order of the files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.evidence.iter().map(|examples| name(self.trial.find(&examples.uid).unwrap().header()))
    }

    /// Whether the rule raises alerts by itself.
    pub fn alerts(&self, name: &str) -> bool {
        let named = |header: &Header| header.name.as_deref() == Some(name);
        let all = self.trial.rules();
        let rules = all.rules.iter().zip(all.rules_that_alert());
        let correlations = all.correlations.iter().zip(all.correlations_that_alert());
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
        self.trial.rules().correlations.iter().any(|correlation| correlation.header.name.as_deref() == Some(name))
    }

    /// All rules that match and all correlations that fire.
    pub fn seen(&self, samples: &[Sample]) -> Vec<Seen<'_>> {
        self.trial.seen(samples)
    }
}

/// The name of a rule that ships.
pub fn name(header: &Header) -> &str {
    header.name.as_deref().expect("every rule that ships has a name")
}
