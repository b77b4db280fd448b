//! What is asked of history, written as SQL once.

use rules::sigma::correlation::Target;
use rules::sigma::{Collection, Header};
use rules::sql::correlation::firings;
use rules::sql::correlation::members::{self, Needs, Reach};
use rules::sql::{Dialect, SqlError, rule_clause};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// A rule or correlation that cannot be asked so.
#[derive(Debug)]
pub struct NoSql {
    pub uid: String,
    pub title: String,
    pub why: SqlError,
}

/// A rule of which every slice is asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub place: usize,
    pub condition: String,
    /// Whether its own matches are of interest.
    pub wanted: bool,
    /// Fields that correlations look at; `None` where none looks at the rule.
    pub fields: Option<BTreeSet<String>>,
}

/// Rules and correlations of a collection.
#[derive(Debug, Clone)]
pub struct Questions {
    rules: Vec<Asked>,
    /// The collection for members.
    of_matched: Arc<Collection>,
    /// By place, of the correlations that are asked.
    correlations: BTreeMap<usize, (Needs, Reach)>,
}

impl Questions {
    /// Writes what is `wanted`, with the rules below the correlations among it; what has no SQL is left out
    /// and told.
    pub fn compile(collection: &Collection, wanted: impl Fn(Target) -> bool) -> (Self, Vec<NoSql>) {
        Self::of(collection, Arc::new(members::of_matched(collection)), wanted)
    }

    /// The same; `of_matched` is the collection's other form.
    pub fn of(
        collection: &Collection,
        of_matched: Arc<Collection>,
        wanted: impl Fn(Target) -> bool,
    ) -> (Self, Vec<NoSql>) {
        let mut left_out = Vec::new();
        let mut conditions: BTreeMap<usize, Asked> = BTreeMap::new();
        let mut no_sql = |header: &Header, why| {
            left_out.push(NoSql { uid: header.uid.clone(), title: header.title.clone(), why });
        };
        for (place, rule) in collection.rules.iter().enumerate().filter(|(place, _)| wanted(Target::Rule(*place))) {
            match rule_clause(&rule.source, &rule.predicate, Dialect::Sqlite) {
                Ok(condition) => {
                    conditions.insert(place, Asked { place, condition, wanted: true, fields: None });
                }
                Err(why) => no_sql(&rule.header, why),
            }
        }
        let mut correlations = BTreeMap::new();
        for (place, correlation) in collection.correlations.iter().enumerate() {
            if !wanted(Target::Correlation(place)) {
                continue;
            }
            let needs = members::needs(collection, place);
            match below(collection, &of_matched, place, &needs) {
                Ok(rules) => {
                    for (rule, condition) in rules {
                        let asked = Asked { place: rule, condition, wanted: false, fields: None };
                        let asked = conditions.entry(rule).or_insert(asked);
                        asked
                            .fields
                            .get_or_insert_default()
                            .extend(needs.fields.get(&rule).into_iter().flatten().cloned());
                    }
                    correlations.insert(place, (needs, members::reach(collection, place)));
                }
                Err(why) => no_sql(&correlation.header, why),
            }
        }
        (Self { rules: conditions.into_values().collect(), of_matched, correlations }, left_out)
    }

    pub(super) fn rules(&self) -> &[Asked] {
        &self.rules
    }

    pub(super) fn of_matched(&self) -> &Collection {
        &self.of_matched
    }

    /// Those of rules that are not `off`, by place.
    pub fn without(questions: &Arc<Self>, off: impl Fn(usize) -> bool) -> Arc<Self> {
        if !questions.rules.iter().any(|asked| off(asked.place)) {
            return Arc::clone(questions);
        }
        let rules = questions.rules.iter().filter(|asked| !off(asked.place)).cloned().collect();
        Arc::new(Self { rules, ..Self::clone(questions) })
    }

    /// The same for questions that have the same answers.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        for asked in &self.rules {
            (asked.place, &asked.condition, asked.wanted, &asked.fields).hash(&mut hash);
        }
        for (place, (needs, reach)) in &self.correlations {
            (place, &needs.ways, reach.back_micros, reach.ahead_micros).hash(&mut hash);
            let query = firings(&self.of_matched, *place, super::MEMBERS, None, Dialect::Sqlite);
            query.unwrap_or_default().hash(&mut hash);
        }
        hash.finish()
    }

    /// Places of the correlations that are asked.
    pub fn correlations(&self) -> impl Iterator<Item = usize> {
        self.correlations.keys().copied()
    }

    /// How far from its anchors a correlation looks.
    pub fn reach(&self, correlation: usize) -> Reach {
        self.correlations.get(&correlation).map(|(_, reach)| *reach).unwrap_or_default()
    }

    /// Whether correlations look at this field of an event that these rules match.
    pub(super) fn needs(&self, places: &[usize], field: &str) -> bool {
        places.iter().any(|place| {
            let at = self.rules.binary_search_by_key(place, |asked| asked.place);
            let asked = at.ok().and_then(|at| self.rules[at].fields.as_ref());
            asked.is_some_and(|fields| fields.contains(field))
        })
    }

    /// The groups of a correlation that a kept event may be in.
    pub(super) fn keys(&self, correlation: usize, source: &str, fields: &str) -> Vec<Vec<String>> {
        let Some((needs, _)) = self.correlations.get(&correlation) else { return Vec::new() };
        let fields: BTreeMap<String, serde_json::Value> = serde_json::from_str(fields).unwrap_or_default();
        let first = |name: &String| match fields.get(name)? {
            serde_json::Value::Array(all) => all.iter().find_map(|value| value.as_str().map(str::to_owned)),
            other => other.as_str().map(str::to_owned),
        };
        let ways = needs.ways.iter().filter(|(rule, _)| members::is_matched(source, *rule));
        ways.filter_map(|(_, names)| names.iter().map(first).collect()).collect()
    }
}

/// The conditions of the rules below a correlation that can be asked.
fn below(
    collection: &Collection,
    of_matched: &Collection,
    place: usize,
    needs: &Needs,
) -> Result<Vec<(usize, String)>, SqlError> {
    firings(of_matched, place, super::MEMBERS, None, Dialect::Sqlite)?;
    let rules = needs.fields.keys().filter_map(|rule| Some((*rule, collection.rules.get(*rule)?)));
    rules.map(|(place, rule)| Ok((place, rule_clause(&rule.source, &rule.predicate, Dialect::Sqlite)?))).collect()
}
