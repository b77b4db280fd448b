//! The rules of all organisations, swapped as one.
//!
//! An organisation of which nobody says anything has the shared set; one that has only settings has a
//! view of its own on the same compiled rules; one with documents, or that switched a filter off, has its
//! own compiled ones. What did not change is taken over from the sets before, down to the pointer, so
//! that correlations notice nothing.

use super::library::{Laid, Library, OrgProblem, refused};
use super::set::{Compiled, DetectionSet};
use super::standing::Standings;
use model::OrgId;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use storage::catalog::detection_rules::{OrgDetectionRules, RuleSetting, RuleState};

/// What is in force, for everybody.
#[derive(Debug)]
pub struct Sets {
    library: Arc<Library>,
    /// Of two sets, the later one has the higher.
    number: u64,
    base: Arc<DetectionSet>,
    by_org: HashMap<OrgId, Own>,
}

/// What one organisation has.
#[derive(Debug, Clone)]
struct Own {
    set: Arc<DetectionSet>,
    laid: Arc<Laid>,
    settings: BTreeMap<String, RuleSetting>,
    /// Names and versions of its documents, and the filters that it switched off: what `laid` was made of.
    made_of: (Vec<(String, u32)>, Vec<String>),
    problems: Arc<[OrgProblem]>,
}

impl Default for Sets {
    /// Without rules.
    fn default() -> Self {
        let library = Arc::new(Library::default());
        let compiled = Arc::new(Compiled::new(library.shared(), &[], None));
        let base = Arc::new(DetectionSet::new(compiled, Standings::default()));
        Self { library, number: 0, base, by_org: HashMap::new() }
    }
}

impl Sets {
    /// Compiles what changed since these: other shared rules, or what organisations say. Takes a while.
    pub(super) fn next(&self, library: &Arc<Library>, orgs: Vec<OrgDetectionRules>) -> Self {
        let number = self.number + 1;
        let same_library = Arc::ptr_eq(library, &self.library);
        // What each organisation's rules are, and how they stand.
        let laid: Vec<_> = orgs.into_iter().map(|org| self.laid(library, same_library, org)).collect();

        let shared = Standings::of(library.shared(), &BTreeMap::new(), library.dry_run());
        let mut wanted = wanted(&shared);
        for own in laid.iter().filter(|own| Arc::ptr_eq(&own.laid, library.base())) {
            let more = self::wanted(&own.standings);
            wanted.iter_mut().zip(more).for_each(|(wanted, more)| *wanted |= more);
        }
        let before = self.base.compiled();
        let same = same_library && self.number > 0;
        let compiled = if same && before.serves(&wanted) {
            Arc::clone(before)
        } else {
            Arc::new(Compiled::new(library.shared(), &wanted, Some(before)))
        };
        let base = if same && Arc::ptr_eq(&compiled, before) {
            Arc::clone(&self.base)
        } else {
            Arc::new(DetectionSet::new(Arc::clone(&compiled), shared))
        };
        let by_org = laid.into_iter().map(|own| self.own(own, library, &compiled)).collect();
        Self { library: Arc::clone(library), number, base, by_org }
    }

    fn laid(&self, library: &Arc<Library>, same_library: bool, org: OrgDetectionRules) -> LaidOut {
        let versions = org.documents.iter().map(|document| (document.name.clone(), document.version)).collect();
        let made_of = (versions, library.filters_off(&org.settings));
        let before = self.by_org.get(&org.org).filter(|own| same_library && own.made_of == made_of);
        let laid = match before {
            Some(own) => Arc::clone(&own.laid),
            None => library.lay(&org),
        };
        let standings = Standings::of(&laid.collection, &org.settings, library.dry_run());
        LaidOut { org: org.org, settings: org.settings, made_of, laid, standings }
    }

    fn own(&self, new: LaidOut, library: &Library, base: &Arc<Compiled>) -> (OrgId, Own) {
        let LaidOut { org, settings, made_of, laid, standings } = new;
        let before = self.by_org.get(&org);
        let same = before.filter(|own| Arc::ptr_eq(&own.laid, &laid));
        let wanted = wanted(&standings);
        let compiled = match same.map(|own| own.set.compiled()) {
            _ if Arc::ptr_eq(&laid, library.base()) => Arc::clone(base),
            Some(compiled) if compiled.serves(&wanted) => Arc::clone(compiled),
            Some(_) | None => {
                Arc::new(Compiled::new(&laid.collection, &wanted, before.map(|own| &**own.set.compiled())))
            }
        };
        let kept = same.filter(|own| own.settings == settings && Arc::ptr_eq(own.set.compiled(), &compiled));
        let set = match kept {
            Some(own) => Arc::clone(&own.set),
            None => Arc::new(DetectionSet::new(compiled, standings)),
        };
        let problems = match same {
            Some(own) => Arc::clone(&own.problems),
            None => {
                let problems = library.problems(&laid);
                let (of_documents, replaced) = (refused(&problems), laid.replaced.len());
                if of_documents > 0 {
                    tracing::warn!(%org, refused = of_documents, "detection rules of an organisation were left out");
                }
                if replaced > 0 {
                    tracing::info!(%org, replaced, "an organisation has rules of its own in place of shared ones");
                }
                problems.into()
            }
        };
        (org, Own { set, laid, settings, made_of, problems })
    }

    /// Of two sets, the later one has the higher; 0 = nothing was ever loaded.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The rules of an organisation.
    pub fn of(&self, org: &OrgId) -> &Arc<DetectionSet> {
        self.by_org.get(org).map_or(&self.base, |own| &own.set)
    }

    /// The rules of organisations of which nobody says anything.
    pub fn base(&self) -> &Arc<DetectionSet> {
        &self.base
    }

    /// All sets: the shared one, then those of organisations.
    pub fn all(&self) -> impl Iterator<Item = &Arc<DetectionSet>> {
        std::iter::once(&self.base).chain(self.by_org.values().map(|own| &own.set))
    }

    /// What is wrong with the documents of an organisation.
    pub fn problems(&self, org: &OrgId) -> Arc<[OrgProblem]> {
        self.by_org.get(org).map_or_else(Arc::default, |own| Arc::clone(&own.problems))
    }

    /// Documents of organisations, or what they changed in shared rules, that cannot be used.
    pub(super) fn refused(&self) -> usize {
        self.by_org.values().map(|own| refused(&own.problems)).sum()
    }

    /// Whether anybody has a correlation in force.
    pub fn correlate(&self) -> bool {
        self.all().any(|set| set.correlations().next().is_some())
    }

    /// Whether anybody may have a rule in force that is scheduled.
    pub fn are_scheduled(&self) -> bool {
        self.all().any(|set| !set.compiled().scheduled.is_empty())
    }

    /// Whether nobody has any rule in force.
    pub fn is_empty(&self) -> bool {
        self.all().all(|set| set.rules().next().is_none())
    }
}

/// The rules of an organisation on their way to be compiled.
struct LaidOut {
    org: OrgId,
    settings: BTreeMap<String, RuleSetting>,
    made_of: (Vec<(String, u32)>, Vec<String>),
    laid: Arc<Laid>,
    standings: Standings,
}

/// By place: whether the rule is in force, and asked of each event.
fn wanted(standings: &Standings) -> Vec<bool> {
    standings.rules.iter().map(|standing| standing.state != RuleState::Off && standing.at_once).collect()
}
