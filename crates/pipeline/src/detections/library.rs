//! What can be in force: the rules that every organisation has, and what one of them lays over them.
//!
//! Shared are the rules that ship and those of files. The documents of an organisation are read after
//! them: its filters and correlations can speak of shared rules, and a rule of its own takes the place of
//! the shared one with the same identifier. Nothing here is compiled; a process that works no events
//! has a library too.

use model::Timestamp;
use rules::sigma::{Collection, Gravity, Header, Options, Place, Problem, Reader};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use storage::catalog::detection_rules::{OrgDetectionRules, RuleDocument, RuleSetting, RuleState};

/// Before the name of a document, where files and documents are told apart by their names.
const DOCUMENT: &str = "catalog:";
/// Problems that are kept of an organisation.
const PROBLEMS_MAX: usize = 10_000;

/// Threads that read documents, and documents that are worth one.
const THREADS_MAX: usize = 4;
const DOCUMENTS_PER_THREAD_MIN: usize = 64;

/// Where the text of a rule comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// It ships; the name of its file.
    Shipped(String),
    /// A file that the configuration names.
    File(String),
    /// A document of the organisation.
    Document(String),
}

impl Origin {
    /// `shipped`, `file` or `document`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Shipped(_) => "shipped",
            Self::File(_) => "file",
            Self::Document(_) => "document",
        }
    }

    /// Of the file or document.
    pub fn name(&self) -> &str {
        match self {
            Self::Shipped(name) | Self::File(name) | Self::Document(name) => name,
        }
    }
}

/// A text that was read for all organisations.
#[derive(Debug, Clone)]
pub struct SharedText {
    /// As in the places of the rules in it.
    pub name: String,
    pub text: String,
    pub ships: bool,
}

/// Something about the rules of an organisation that it should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrgProblem {
    /// The document that is to blame; `None`: a shared rule, which what the organisation says has made
    /// unusable.
    pub document: Option<String>,
    /// Its file is the document's name, or that of the shared file.
    pub problem: Problem,
}

impl OrgProblem {
    fn key(&self) -> (Option<&str>, u64, &str) {
        (self.document.as_deref(), self.problem.place.line, &self.problem.message)
    }
}

/// The shared rules, read.
#[derive(Debug)]
pub struct Library {
    /// Everything that was read, for documents to be laid over.
    reader: Reader,
    base: Arc<Laid>,
    texts: HashMap<String, SharedText>,
    options: Options,
    dry_run: bool,
}

/// The rules that one organisation can have in force.
#[derive(Debug, Default)]
pub(super) struct Laid {
    pub collection: Collection,
    /// By the identifier of an own rule: the shared one whose place it took.
    pub replaced: HashMap<String, Header>,
    /// Filters that are switched off, and so are not in the collection.
    pub filters_off: Vec<Header>,
}

impl Default for Library {
    /// Without rules.
    fn default() -> Self {
        Self::new(Reader::default(), Vec::new(), Options::default(), false)
    }
}

impl Library {
    /// `reader` has read `texts`, and with these options documents are read too. `dry_run`: nobody is
    /// told of any match.
    pub fn new(reader: Reader, texts: Vec<SharedText>, options: Options, dry_run: bool) -> Self {
        let base = Laid { collection: reader.clone().finish(), ..Laid::default() };
        let texts = texts.into_iter().map(|text| (text.name.clone(), text)).collect();
        Self { reader, base: Arc::new(base), texts, options, dry_run }
    }

    /// The shared rules, and what is wrong with them.
    pub fn shared(&self) -> &Collection {
        &self.base.collection
    }

    /// Whether the server is told to tell nobody.
    pub fn dry_run(&self) -> bool {
        self.dry_run
    }

    pub(super) fn base(&self) -> &Arc<Laid> {
        &self.base
    }

    /// The shared rules with what an organisation says laid over. Reads its documents; takes a while.
    pub(super) fn lay(&self, rules: &OrgDetectionRules) -> Arc<Laid> {
        if rules.documents.is_empty() && self.filters_off(&rules.settings).is_empty() {
            return Arc::clone(&self.base);
        }
        let mut reader = self.reader.clone();
        let replaced = reader.replace_by(self.read(&rules.documents));
        let filters_off = reader.leave_out_filters(|filter| is_off(&rules.settings, &filter.uid));
        let replaced = replaced.into_iter().map(|(shared, own)| (own.uid, shared)).collect();
        Arc::new(Laid { collection: reader.finish(), replaced, filters_off })
    }

    /// Reads documents, many of them by several threads.
    fn read(&self, documents: &[RuleDocument]) -> Reader {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let size = documents.len().div_ceil(threads).max(DOCUMENTS_PER_THREAD_MIN);
        let read = |documents: &[RuleDocument]| {
            let mut reader = Reader::new(self.options.clone());
            for document in documents {
                reader.text(&format!("{DOCUMENT}{}", document.name), &document.text);
            }
            reader
        };
        std::thread::scope(|scope| {
            let read = &read;
            let work = |documents| scope.spawn(move || read(documents));
            // All are started before the first is waited for.
            let readers: Vec<_> = documents.chunks(size).map(work).collect();
            let mut all = Reader::new(self.options.clone());
            for reader in readers {
                match reader.join() {
                    Ok(reader) => all.append(reader),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            all
        })
    }

    /// Shared filters that an organisation has switched off, in the order in which they were read.
    pub(super) fn filters_off(&self, settings: &BTreeMap<String, RuleSetting>) -> Vec<String> {
        let uids = self.base.collection.filters.iter().map(|filter| &filter.header.uid);
        uids.filter(|uid| is_off(settings, uid)).cloned().collect()
    }

    /// What is wrong with the rules of an organisation, and not with the shared ones alone.
    pub(super) fn problems(&self, laid: &Laid) -> Vec<OrgProblem> {
        let known = &self.base.collection.problems;
        let own = laid.collection.problems.iter().filter_map(|problem| {
            let mut problem = problem.clone();
            let document = problem.place.file.strip_prefix(DOCUMENT).map(str::to_owned);
            match &document {
                None if known.contains(&problem) => return None,
                None => {}
                Some(name) => problem.place.file = name.as_str().into(),
            }
            // Neighbours are named as the organisation knows them.
            problem.message = problem.message.replace(DOCUMENT, "");
            Some(OrgProblem { document, problem })
        });
        own.take(PROBLEMS_MAX).collect()
    }

    /// What a change of documents would bring: everything about those that are new or other than
    /// `before`, and what it does to the rest. `Refused` among it says that something would not work.
    pub fn check(&self, before: &[RuleDocument], after: &[RuleDocument]) -> Vec<OrgProblem> {
        let problems = |documents: &[RuleDocument]| {
            let rules = OrgDetectionRules { documents: documents.to_vec(), ..OrgDetectionRules::default() };
            self.problems(&self.lay(&rules))
        };
        let texts: HashMap<&str, &str> = before.iter().map(|document| (&*document.name, &*document.text)).collect();
        let same = |document: &&RuleDocument| texts.get(&*document.name) == Some(&&*document.text);
        let same: HashSet<&str> = after.iter().filter(same).map(|document| &*document.name).collect();
        let (before, mut after) = (problems(before), problems(after));
        let known: HashSet<_> = before.iter().map(OrgProblem::key).collect();
        after.retain(|found| {
            let untouched = found.document.as_deref().is_none_or(|name| same.contains(name));
            !(untouched && known.contains(&found.key()))
        });
        after
    }

    /// What an organisation can have in force, to be tried on events. Reads its documents; takes a while.
    pub fn collection(&self, rules: &OrgDetectionRules) -> Collection {
        self.lay(rules).collection.clone()
    }

    /// Where a rule is written.
    pub fn origin(&self, place: &Place) -> Origin {
        let name = &*place.file;
        match name.strip_prefix(DOCUMENT) {
            Some(name) => Origin::Document(name.to_owned()),
            None if self.texts.get(name).is_some_and(|text| text.ships) => Origin::Shipped(name.to_owned()),
            None => Origin::File(name.to_owned()),
        }
    }

    /// The text in which a rule is written: a shared one, or one of `documents`.
    pub(super) fn text<'t>(&'t self, place: &Place, documents: &HashMap<&str, &'t str>) -> &'t str {
        match place.file.strip_prefix(DOCUMENT) {
            Some(name) => documents.get(name).copied().unwrap_or_default(),
            None => self.texts.get(&*place.file).map_or("", |text| &text.text),
        }
    }
}

/// A document that is to be tried, and is in no catalog.
pub fn draft_document(name: &str, text: &str) -> RuleDocument {
    RuleDocument {
        name: name.to_owned(),
        text: text.to_owned(),
        version: 0,
        changed_at: Timestamp::from_micros(0),
        changed_by: String::new(),
    }
}

fn is_off(settings: &BTreeMap<String, RuleSetting>, uid: &str) -> bool {
    settings.get(uid).and_then(|setting| setting.state) == Some(RuleState::Off)
}

/// How many of these keep something from being used.
pub fn refused(problems: &[OrgProblem]) -> usize {
    problems.iter().filter(|found| found.problem.gravity == Gravity::Refused).count()
}
