//! Everything that an organisation can have in force, with how it stands: for people. Made of the
//! library and the catalog alone, so that any process can tell; what only a process that works events
//! knows is laid over where there is one.

use super::guard::RuleCounts;
use super::library::{Library, OrgProblem, Origin};
use super::standing::{Standing, Standings, Why};
use model::Level;
use rules::sigma::correlation::Target;
use rules::sigma::{Header, Place};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use storage::catalog::detection_rules::{OrgDetectionRules, RuleSetting, RuleState};

/// What kind of document it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RuleKind {
    Rule,
    Correlation,
    Filter,
}

impl RuleKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Correlation => "correlation",
            Self::Filter => "filter",
        }
    }
}

/// The rules of one organisation.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Rules, then correlations, then filters, each in the order in which they are read.
    pub rules: Vec<ListedRule>,
    /// Identifiers of rules that settings speak of, and that are nowhere.
    pub unknown: Vec<String>,
    /// What is wrong with its documents.
    pub problems: Vec<OrgProblem>,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct ListedRule {
    /// What the rule says of itself; `header.uid` is its identifier, `header.level` its own level.
    pub header: Header,
    pub kind: RuleKind,
    pub origin: Origin,
    /// The shared rule whose place it takes.
    pub replaces: Option<Origin>,
    pub state: RuleState,
    pub why: Why,
    /// A correlation that is on looks at it, and so it does not alert by itself.
    pub held_back: bool,
    /// What counts: the organisation's word, else the rule's.
    pub level: Level,
    /// What the organisation says about it.
    pub setting: RuleSetting,
    /// Of a correlation: identifiers of what it looks at and is off, and so does not feed it.
    pub inputs_off: Vec<String>,
    /// Of a correlation: what it says of itself in words.
    pub condition: Option<String>,
    /// As written, without its neighbours in the same file.
    pub text: String,
    /// Since this process started; `None` where it does not ask the rule.
    pub counts: Option<RuleCounts>,
}

impl Inventory {
    /// Reads the organisation's documents: takes a while, belongs off the async threads.
    pub fn of(library: &Library, rules: &OrgDetectionRules) -> Self {
        let laid = library.lay(rules);
        let collection = &laid.collection;
        let standings = Standings::of(collection, &rules.settings, library.dry_run());
        let documents: HashMap<&str, &str> = rules.documents.iter().map(|one| (&*one.name, &*one.text)).collect();
        let mut pieces = Pieces::default();
        let setting = |uid: &str| rules.settings.get(uid).cloned().unwrap_or_default();
        let mut listed = |header: &Header, kind, standing: &Standing| {
            let origin = library.origin(&header.place);
            let replaced = laid.replaced.get(&header.uid).filter(|_| matches!(origin, Origin::Document(_)));
            ListedRule {
                header: header.clone(),
                kind,
                origin,
                replaces: replaced.map(|shared| library.origin(&shared.place)),
                state: standing.state,
                why: standing.why,
                held_back: standing.held_back,
                level: standing.level,
                setting: setting(&header.uid),
                inputs_off: Vec::new(),
                condition: None,
                text: pieces.at(&header.place, || library.text(&header.place, &documents)).to_owned(),
                counts: None,
            }
        };
        let of_rules = collection.rules.iter().zip(&standings.rules);
        let mut all: Vec<ListedRule> =
            of_rules.map(|(rule, standing)| listed(&rule.header, RuleKind::Rule, standing)).collect();
        for (correlation, standing) in collection.correlations.iter().zip(&standings.correlations) {
            let input = |target: Target| match target {
                Target::Rule(place) => Some((&collection.rules.get(place)?.header, standings.rules.get(place)?)),
                Target::Correlation(place) => {
                    Some((&collection.correlations.get(place)?.header, standings.correlations.get(place)?))
                }
            };
            let off = correlation.inputs.iter().filter_map(|one| input(one.target));
            let off = off.filter(|(_, standing)| standing.state == RuleState::Off);
            all.push(ListedRule {
                inputs_off: off.map(|(header, _)| header.uid.clone()).collect(),
                condition: Some(correlation.describe()),
                ..listed(&correlation.header, RuleKind::Correlation, standing)
            });
        }
        let on = collection.filters.iter().map(|filter| (&filter.header, RuleState::On, Why::Default));
        let off = laid.filters_off.iter().map(|header| (header, RuleState::Off, Why::Setting));
        for (header, state, why) in on.chain(off) {
            let standing = Standing { state, why, held_back: false, at_once: false, level: header.level, team: None };
            all.push(listed(header, RuleKind::Filter, &standing));
        }
        let known: HashSet<&str> = all.iter().map(|one| &*one.header.uid).collect();
        let unknown = rules.settings.keys().filter(|uid| !known.contains(&***uid)).cloned().collect();
        Self { unknown, problems: library.problems(&laid), rules: all }
    }

    pub fn rule(&self, uid: &str) -> Option<&ListedRule> {
        self.rules.iter().find(|rule| rule.header.uid == uid)
    }
}

/// The documents of texts, each text taken apart once.
#[derive(Default)]
struct Pieces<'t>(HashMap<Arc<str>, Vec<(u64, &'t str)>>);

impl<'t> Pieces<'t> {
    /// The document at a place, as written.
    fn at(&mut self, place: &Place, text: impl FnOnce() -> &'t str) -> &'t str {
        let pieces = self.0.entry(Arc::clone(&place.file)).or_insert_with(|| rules::yaml::pieces(text()));
        let after = pieces.partition_point(|(before, _)| *before < place.line);
        after.checked_sub(1).and_then(|found| pieces.get(found)).map_or("", |(_, piece)| piece.trim())
    }
}
