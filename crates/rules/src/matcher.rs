//! Many rules, one pass over the event.
//!
//! Rules are ranked by priority, then id. One Aho–Corasick scan of the lower-case message finds
//! every literal that any rule looks for or requires; a hash of OID prefixes does the same for trap
//! OIDs. The rarest key of a rule makes it a candidate, its other keys have to be seen too.
//! Candidates whose key is not the whole answer are evaluated in rank order, and none that ranks
//! behind the best hit so far. Patterns without a literal come last, if they could still win.

use crate::oid_index::OidIndex;
use crate::operators::{Operator, oid_prefix};
use crate::plan::{Circumstance, Gate, Key, Plan, plan};
use crate::{Field, Predicate, RuleProblem, Subject, View, explain, ir, mutt};
use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use model::Rule;
use regex::{RegexSet, RegexSetBuilder};
use std::cell::RefCell;
use std::collections::HashMap;

/// Literals longer than this in sum are searched with the compact automaton: slower per byte, but
/// the fast one would need about 256 bytes of memory for each of theirs.
const FAST_LITERAL_BYTES_MAX: usize = 64 << 10;
/// From so many patterns without a literal, one combined scan asks first whether any matches.
const COMBINED_PATTERNS_MIN: usize = 3;
const COMBINED_BYTES_MAX: usize = 16 << 20;
/// A longer message's scratch memory is given back.
const SCRATCH_BYTES_KEPT: usize = 64 << 10;
/// No rank.
const NONE: u32 = u32::MAX;

/// The active rules of one catalog, compiled. Immutable: a change compiles a new set.
#[derive(Debug, Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
    predicates: Vec<Predicate>,
    literals: Option<AhoCorasick>,
    oids: OidIndex,
    /// By key (literals first, numbered as in the automaton; then OIDs): the rules that the key
    /// makes candidates, best rank first.
    by_key: Vec<Vec<Posting>>,
    /// By rank: groups of keys of which one each has to be seen too.
    other_groups: Vec<Vec<Vec<usize>>>,
    /// Rules that have to be asked every time, best rank first.
    always: Vec<Always>,
    combined: Option<RegexSet>,
}

/// A rule that a key makes a candidate.
#[derive(Debug, Clone, Copy)]
struct Posting {
    rank: u32,
    gate: Gate,
    /// The key is the whole answer.
    exact: bool,
}

/// A rule that no key finds.
#[derive(Debug, Clone, Copy)]
struct Always {
    rank: u32,
    gate: Gate,
    /// Its number in the combined pattern set.
    combined: Option<u32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Memory reused from event to event, so that matching does not allocate.
#[derive(Default)]
struct Scratch {
    lower: String,
    candidates: Vec<u32>,
    /// By key: the number of the event that has seen it last.
    seen: Vec<u64>,
    event: u64,
}

impl RuleSet {
    /// Compiles the active rules. A rule that cannot be compiled is left out and reported; the
    /// others are not affected.
    pub fn compile(mut rules: Vec<Rule>) -> (Self, Vec<RuleProblem>) {
        rules.retain(|rule| rule.draft.is_active);
        rules.sort_by_key(|rule| (rule.draft.priority, rule.id));
        let mut problems = Vec::new();
        let mut set = Self::default();
        for rule in rules {
            match mutt::predicate(&rule.draft) {
                Ok(predicate) => {
                    set.rules.push(rule);
                    set.predicates.push(predicate);
                }
                Err(error) => problems.push(RuleProblem { id: rule.id, field: error.field(), error }),
            }
        }
        set.index();
        (set, problems)
    }

    /// The first rule, by priority and then id, that matches.
    pub fn first_match(&self, subject: &Subject<'_>) -> Option<&Rule> {
        SCRATCH.with_borrow_mut(|scratch| {
            let rank = self.first_rank(subject, scratch);
            if scratch.lower.capacity() > SCRATCH_BYTES_KEPT {
                scratch.lower = String::new();
            }
            self.rules.get(rank? as usize)
        })
    }

    /// Every rule in order, what it asked and what was found, up to the winner. Slow and exact:
    /// uses no index.
    pub fn explain(&self, subject: &Subject<'_>) -> explain::Explanation {
        explain::explain(self.rules.iter().zip(&self.predicates), subject)
    }

    /// The rules in the order in which they are tried.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// How many rules take part.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether no rule takes part.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    fn index(&mut self) {
        let plans: Vec<Plan> = self.predicates.iter().map(plan).collect();
        let keys = Keys::number(&plans);
        self.literals = automaton(&keys.literals);
        for (oid, key) in keys.oids {
            self.oids.insert(oid, key);
        }
        self.by_key = vec![Vec::new(); keys.uses.len()];
        let searchable = self.literals.is_some() || keys.literals.is_empty();
        let mut combined: Vec<&str> = Vec::new();
        for (rank, Plan { gate, groups, exact }) in (0u32..).zip(&plans) {
            let mut groups: Vec<Vec<usize>> =
                groups.iter().map(|group| group.iter().map(|key| keys.ids[key]).collect()).collect();
            // The rarest group makes candidates; the others are looked up for candidates only.
            let rarest = (0..groups.len()).min_by_key(|i| groups[*i].iter().map(|key| keys.uses[*key]).sum::<usize>());
            match rarest {
                Some(rarest) if searchable => {
                    let primary = groups.swap_remove(rarest);
                    let exact = *exact && groups.is_empty();
                    for key in primary {
                        self.by_key[key].push(Posting { rank, gate: *gate, exact });
                    }
                }
                _ => {
                    let number = sole_pattern(&self.predicates[rank as usize]).map(|pattern| {
                        combined.push(pattern);
                        combined.len() as u32 - 1
                    });
                    self.always.push(Always { rank, gate: *gate, combined: number });
                }
            }
            self.other_groups.push(groups);
        }
        if combined.len() >= COMBINED_PATTERNS_MIN {
            self.combined = RegexSetBuilder::new(combined)
                .case_insensitive(true)
                .size_limit(COMBINED_BYTES_MAX)
                .dfa_size_limit(COMBINED_BYTES_MAX)
                .build()
                .ok();
        }
    }

    fn first_rank(&self, subject: &Subject<'_>, scratch: &mut Scratch) -> Option<u32> {
        let Scratch { lower, candidates, seen, event } = scratch;
        candidates.clear();
        *event += 1;
        if seen.len() < self.by_key.len() {
            seen.resize(self.by_key.len(), 0);
        }
        ir::lower_into(subject.message, lower);
        let view = View::new(*subject, lower);
        let circumstance = Circumstance::of(&view).bit();
        let mut best = NONE;
        let mut visit = |key: usize, exact_counts: bool| {
            if std::mem::replace(&mut seen[key], *event) == *event {
                return;
            }
            for posting in &self.by_key[key] {
                if posting.rank >= best {
                    break;
                }
                if posting.gate.admits(circumstance) {
                    if posting.exact && exact_counts {
                        best = posting.rank;
                        break;
                    }
                    candidates.push(posting.rank);
                }
            }
        };
        if let Some(oid) = subject.trap_oid {
            self.oids.visit(oid_prefix::strip_leading_dot(oid), |key| visit(key, true));
        }
        if let Some(literals) = &self.literals {
            for found in literals.find_overlapping_iter(&*lower) {
                visit(found.pattern().as_usize(), true);
            }
            // `(?i)s` also matches the long s, which lower case leaves alone.
            if !lower.is_ascii() && lower.contains('ſ') {
                for found in literals.find_overlapping_iter(&lower.replace('ſ', "s")) {
                    visit(found.pattern().as_usize(), false);
                }
            }
        }
        let is_seen = |group: &Vec<usize>| group.iter().any(|key| seen[*key] == *event);
        candidates.retain(|rank| *rank < best && self.other_groups[*rank as usize].iter().all(is_seen));
        candidates.sort_unstable();
        candidates.dedup();
        if let Some(rank) = candidates.iter().find(|rank| self.predicates[**rank as usize].matches(&view)) {
            best = *rank;
        }
        best = self.ask_always(&view, circumstance, best);
        (best != NONE).then_some(best)
    }

    /// Asks the rules that no index can find, as far as they rank before `best`.
    fn ask_always(&self, view: &View<'_>, circumstance: Gate, best: u32) -> u32 {
        let open = || self.always.iter().take_while(|p| p.rank < best).filter(|p| p.gate.admits(circumstance));
        let mut winners = None;
        if let Some(combined) = &self.combined
            && open().filter(|posting| posting.combined.is_some()).count() >= COMBINED_PATTERNS_MIN
            && let crate::Value::Text { raw, .. } = view.value(&Field::Message)
            && !raw.ends_with('\n')
        {
            winners = Some(combined.is_match(raw).then(|| combined.matches(raw)));
        }
        for posting in open() {
            let hit = match (&winners, posting.combined) {
                (Some(None), Some(_)) => false,
                (Some(Some(winners)), Some(number)) if !winners.matched(number as usize) => false,
                _ => self.predicates[posting.rank as usize].matches(view),
            };
            if hit {
                return posting.rank;
            }
        }
        best
    }
}

/// The pattern without which the predicate cannot hold, where there is one.
fn sole_pattern(predicate: &Predicate) -> Option<&str> {
    match predicate {
        Predicate::Test(Field::Message, Operator::Regex(op)) => Some(op.engine_pattern()),
        Predicate::All(parts) => parts.iter().find_map(sole_pattern),
        Predicate::Any(_)
        | Predicate::Not(_)
        | Predicate::Present(_)
        | Predicate::Test(..)
        | Predicate::Exists(_)
        | Predicate::Null(_)
        | Predicate::AnyField(_)
        | Predicate::Related { .. } => None,
    }
}

/// All keys of all rules, numbered.
#[derive(Default)]
struct Keys<'a> {
    ids: HashMap<&'a Key, usize>,
    /// In the order of their numbers, from 0.
    literals: Vec<&'a str>,
    /// Numbered after the literals.
    oids: Vec<(&'a str, usize)>,
    /// By number: how many groups have the key.
    uses: Vec<usize>,
}

impl<'a> Keys<'a> {
    fn number(plans: &'a [Plan]) -> Self {
        let mut keys = Self::default();
        let all = || plans.iter().flat_map(|plan| plan.groups.iter().flatten());
        for key in all() {
            if let Key::Literal(text) = key {
                let literals = &mut keys.literals;
                keys.ids.entry(key).or_insert_with(|| {
                    literals.push(text);
                    literals.len() - 1
                });
            }
        }
        for key in all() {
            if let Key::Oid(oid) = key {
                let (next, oids) = (keys.ids.len(), &mut keys.oids);
                keys.ids.entry(key).or_insert_with(|| {
                    oids.push((oid, next));
                    next
                });
            }
        }
        keys.uses = vec![0; keys.ids.len()];
        all().for_each(|key| keys.uses[keys.ids[key]] += 1);
        keys
    }
}

fn automaton(literals: &[&str]) -> Option<AhoCorasick> {
    if literals.is_empty() {
        return None;
    }
    let bytes: usize = literals.iter().map(|literal| literal.len()).sum();
    let kind = if bytes <= FAST_LITERAL_BYTES_MAX { AhoCorasickKind::DFA } else { AhoCorasickKind::ContiguousNFA };
    let build = |kind| AhoCorasick::builder().match_kind(MatchKind::Standard).kind(kind).build(literals);
    build(Some(kind)).or_else(|_| build(None)).ok()
}
