//! Many texts → rules, correlations and problems.
//!
//! A text holds one document or several (`---`). Documents that are no Sigma at all (no `detection`,
//! no `correlation`, no `filter`) are refused with that reason. Ids and names have to be unique among
//! what is used; the first one stays.

use super::correlation::{self, Correlation, Draft, Gone, Target};
use super::filter::Filter;
use super::header::Entries;
use super::{Fault, Gravity, Header, LogSource, Place, Placeholders, Problem, Schedule, SigmaRule, detection};
use crate::suggest;
use crate::yaml::{self, Node};
use std::collections::HashMap;
use std::sync::Arc;

/// Keys of a document, for suggestions: of Sigma's specification 2.1, and two of ours.
const KEYS: [&str; 26] = [
    "title",
    "id",
    "name",
    "related",
    "taxonomy",
    "status",
    "description",
    "license",
    "author",
    "references",
    "date",
    "modified",
    "logsource",
    "detection",
    "fields",
    "falsepositives",
    "level",
    "tags",
    "scope",
    "correlation",
    "generate",
    "filter",
    "simulation",
    "regression_tests_path",
    "group-by",
    "schedule",
];

/// What the reading depends on beside the texts.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Values for `expand`.
    pub placeholders: Placeholders,
}

/// Everything that was read, filters laid over.
#[derive(Debug, Clone, Default)]
pub struct Collection {
    pub rules: Vec<SigmaRule>,
    pub correlations: Vec<Correlation>,
    pub filters: Vec<Filter>,
    /// In the order of the texts.
    pub problems: Vec<Problem>,
    /// Documents that were looked at.
    pub documents: usize,
}

/// Reads texts, one after the other.
#[derive(Debug, Clone, Default)]
pub struct Reader {
    options: Options,
    collection: Collection,
    /// Correlations wait for the rules that they refer to.
    drafts: Vec<Draft>,
    gone: Vec<Gone>,
}

impl Reader {
    pub fn new(options: Options) -> Self {
        Self { options, ..Self::default() }
    }

    /// Reads a text; `file` is its name in problems.
    pub fn text(&mut self, file: &str, text: &str) {
        let file: Arc<str> = file.into();
        let (documents, broken) = yaml::documents(text);
        for node in &documents {
            self.document(&file, node);
        }
        if let Some(error) = broken {
            self.collection.documents += 1;
            self.collection.problems.push(Problem {
                gravity: Gravity::Refused,
                place: Place { file, line: error.line().unwrap_or(1) },
                rule: None,
                title: None,
                field: None,
                message: error.to_string(),
                suggestion: None,
            });
        }
    }

    /// Notes a text that could not be got at.
    pub fn unreadable(&mut self, file: &str, why: &str) {
        self.collection.problems.push(Problem {
            gravity: Gravity::Refused,
            place: Place { file: file.into(), line: 1 },
            rule: None,
            title: None,
            field: None,
            message: format!("cannot be read: {why}"),
            suggestion: None,
        });
    }

    fn document(&mut self, file: &Arc<str>, node: &Node) {
        self.collection.documents += 1;
        let mut warnings = Vec::new();
        let mut header = None;
        let read = self.read(file, node, &mut header, &mut warnings);
        let mut report = |gravity, fault: Fault| {
            self.collection.problems.push(Problem {
                gravity,
                place: Place { file: file.clone(), line: fault.line },
                rule: header.as_ref().map(|header: &Header| header.uid.clone()),
                title: header.as_ref().map(|header: &Header| header.title.clone()),
                field: fault.field,
                message: fault.message,
                suggestion: fault.suggestion,
            });
        };
        let refused = read.is_err();
        if let Err(fault) = read {
            report(Gravity::Refused, fault);
        }
        for warning in warnings {
            report(Gravity::Warning, warning);
        }
        if refused {
            self.gone.extend(header.map(|header| Gone { header }));
        }
    }

    fn read(
        &mut self,
        file: &Arc<str>,
        node: &Node,
        kept: &mut Option<Header>,
        warnings: &mut Vec<Fault>,
    ) -> Result<(), Fault> {
        let entries = Entries::of(node)?;
        if let Some(action) = entries.get("action") {
            return Err(Fault::new(action.line, "`action` documents (global, repeat, reset) belonged to Sigma 1")
                .at("action")
                .suggest("write each rule as a document of its own, and correlations with `correlation`"));
        }
        let kinds = ["detection", "correlation", "filter"].map(|kind| entries.get(kind).is_some());
        if kinds == [false; 3] {
            return Err(slip(
                &entries,
                Fault::new(node.line, "this is no Sigma rule: it has no `detection`, `correlation` or `filter`"),
            ));
        }
        let place = Place { file: file.clone(), line: node.line };
        let mut header = Header::read(&entries, place, warnings)?;
        *kept = Some(header.clone());
        header.schedule = Schedule::read(&entries)?;
        for (key, value) in entries.all {
            if !KEYS.contains(&&**key)
                && let Some(closest) = suggest::closest(key, &KEYS)
                && entries.get(closest).is_none()
            {
                let warning = Fault::new(value.line, "this key is unknown and ignored").at(&**key);
                warnings.push(warning.suggest(format!("did you mean `{closest}`?")));
            }
        }
        let placeholders = &self.options.placeholders;
        match kinds {
            [true, false, _] => {
                let source = LogSource::read(&entries)?;
                let detection =
                    entries.get("detection").ok_or_else(|| Fault::new(node.line, "a detection is required"))?;
                let predicate = detection::predicate(detection, "detection", &[], placeholders, warnings)?;
                let fields = entries.texts("fields").unwrap_or_else(|fault| {
                    warnings.push(fault);
                    Vec::new()
                });
                let group_by = entries.texts("group-by")?;
                self.collection.rules.push(SigmaRule { header, source, predicate, fields, group_by });
            }
            [false, true, _] => self.drafts.push(Draft::read(header, &entries, warnings)?),
            [true, true, _] => {
                return Err(Fault::new(node.line, "a document has either a `detection` or a `correlation`"));
            }
            [false, false, _] => {
                if let Some(node) = entries.get("schedule") {
                    warnings.push(Fault::new(node.line, "a filter has no schedule of its own").at("schedule"));
                }
                self.collection.filters.push(Filter::read(header, &entries, placeholders, warnings)?);
            }
        }
        Ok(())
    }

    /// Adds what another reader read, as if this one had read it next: texts can be read by several
    /// threads.
    pub fn append(&mut self, other: Self) {
        let Collection { rules, correlations: _, filters, problems, documents } = other.collection;
        self.collection.rules.extend(rules);
        self.drafts.extend(other.drafts);
        self.gone.extend(other.gone);
        self.collection.filters.extend(filters);
        self.collection.problems.extend(problems);
        self.collection.documents += documents;
    }

    /// Adds what another reader read, in place of what is here and has the same `uid`: somebody's own
    /// rule instead of one for everybody. The headers of what is gone, with those that took its place.
    pub fn replace_by(&mut self, other: Self) -> Vec<(Header, Header)> {
        let Collection { rules, filters, .. } = &other.collection;
        let theirs = rules.iter().map(|rule| &rule.header);
        let theirs = theirs.chain(filters.iter().map(|filter| &filter.header));
        let theirs = theirs.chain(other.drafts.iter().map(|draft| &draft.header));
        let theirs: HashMap<&str, &Header> = theirs.map(|header| (&*header.uid, header)).collect();
        let mut replaced = Vec::new();
        let mut stays = |mine: &Header| {
            let theirs = theirs.get(&*mine.uid);
            replaced.extend(theirs.map(|theirs| (mine.clone(), (*theirs).clone())));
            theirs.is_none()
        };
        self.collection.rules.retain(|rule| stays(&rule.header));
        self.collection.filters.retain(|filter| stays(&filter.header));
        self.drafts.retain(|draft| stays(&draft.header));
        self.append(other);
        replaced
    }

    /// Leaves out the filters for which this says so: they are laid over nothing. Their headers.
    pub fn leave_out_filters(&mut self, out: impl Fn(&Header) -> bool) -> Vec<Header> {
        let filters = std::mem::take(&mut self.collection.filters);
        let (gone, kept): (Vec<_>, Vec<_>) = filters.into_iter().partition(|filter| out(&filter.header));
        self.collection.filters = kept;
        gone.into_iter().map(|filter| filter.header).collect()
    }

    /// The collection: what takes a name that is taken left out, filters laid over their rules,
    /// references of correlations resolved.
    pub fn finish(self) -> Collection {
        let mut collection = self.collection;
        let mut names = Names::default();
        let problems = &mut collection.problems;
        collection.rules.retain(|rule| names.take(&rule.header, problems));
        let (mut drafts, mut gone) = (self.drafts, self.gone);
        drafts.retain(|draft| {
            names.take(&draft.header, problems) || {
                gone.push(Gone { header: draft.header.clone() });
                false
            }
        });
        collection.filters.retain(|filter| names.take(&filter.header, problems));
        let filters = std::mem::take(&mut collection.filters);
        for filter in &filters {
            let mut covered = 0;
            for rule in collection.rules.iter_mut().filter(|rule| filter.covers(rule)) {
                filter.lay_over(rule);
                covered += 1;
            }
            if covered == 0 {
                collection.problems.push(problem(&filter.header, Gravity::Warning, "the filter is laid over no rule"));
            }
        }
        let headers = collection.rules.iter().map(|rule| &rule.header);
        let (correlations, refused, warnings) =
            correlation::resolve(headers, filters.iter().map(|filter| &filter.header), &gone, drafts);
        let told = refused.into_iter().map(|(draft, fault)| (Gravity::Refused, draft.header, fault));
        let told = told.chain(warnings.into_iter().map(|(header, fault)| (Gravity::Warning, header, fault)));
        for (gravity, header, fault) in told {
            let place = Place { line: fault.line, ..header.place.clone() };
            let Fault { field, message, suggestion, .. } = fault;
            collection.problems.push(Problem { place, field, suggestion, ..problem(&header, gravity, message) });
        }
        collection.correlations = correlations;
        collection.filters = filters;
        collection
    }
}

impl Collection {
    /// For each rule, whether it alerts by itself: no correlation uses it, or one that does says
    /// `generate: true`.
    pub fn rules_that_alert(&self) -> Vec<bool> {
        self.alerting(self.rules.len(), |target| match target {
            Target::Rule(index) => Some(index),
            Target::Correlation(_) => None,
        })
    }

    /// The same for correlations.
    pub fn correlations_that_alert(&self) -> Vec<bool> {
        self.alerting(self.correlations.len(), |target| match target {
            Target::Rule(_) => None,
            Target::Correlation(index) => Some(index),
        })
    }

    fn alerting(&self, count: usize, index: impl Fn(Target) -> Option<usize>) -> Vec<bool> {
        let (mut used, mut generated) = (vec![false; count], vec![false; count]);
        for correlation in &self.correlations {
            for index in correlation.inputs.iter().filter_map(|input| index(input.target)) {
                used[index] = true;
                generated[index] |= correlation.generate;
            }
        }
        used.into_iter().zip(generated).map(|(used, generated)| !used || generated).collect()
    }
}

/// Ids and names that are taken, and by whom.
#[derive(Default)]
struct Names {
    ids: HashMap<String, (String, Place)>,
    names: HashMap<String, (String, Place)>,
}

impl Names {
    /// Takes the header's id and name; if one is taken already, says so and takes neither.
    fn take(&mut self, header: &Header, problems: &mut Vec<Problem>) -> bool {
        let mine = [("id", &header.id, &self.ids), ("name", &header.name, &self.names)];
        for (what, value, taken) in mine {
            if let Some(value) = value
                && let Some((title, place)) = taken.get(value)
            {
                let message = format!("the {what} `{value}` is taken by {title:?} in {place}");
                let refused = problem(header, Gravity::Refused, message);
                problems.push(Problem { field: Some(what.to_owned()), ..refused });
                return false;
            }
        }
        let owner = || (header.title.clone(), header.place.clone());
        self.ids.extend(header.id.clone().map(|id| (id, owner())));
        self.names.extend(header.name.clone().map(|name| (name, owner())));
        true
    }
}

fn problem(header: &Header, gravity: Gravity, message: impl Into<String>) -> Problem {
    Problem {
        gravity,
        place: header.place.clone(),
        rule: Some(header.uid.clone()),
        title: Some(header.title.clone()),
        field: None,
        message: message.into(),
        suggestion: None,
    }
}

/// Names the key that looks like a slip of a needed one.
fn slip(entries: &Entries<'_>, fault: Fault) -> Fault {
    let needed = ["detection", "correlation", "filter"];
    match entries.all.iter().find_map(|(key, _)| suggest::closest(key, &needed).map(|closest| (key, closest))) {
        Some((key, closest)) => fault.suggest(format!("did you mean `{closest}` where it says `{key}`?")),
        None => fault,
    }
}
