//! SQL against the reference: generated rules over generated events, every pair compared, on the
//! real engines.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

mod clickhouse;
mod correlations;
mod edges;
mod generate;
mod sqlite;

use clickhouse::ClickHouse;
use fastrand::Rng;
use model::{EventSource, Fields};
use rules::sigma::LogSource;
use rules::sql::{Dialect, SqlError, rule_clause, where_clause};
use rules::stream::{Engine, Scratch};
use rules::{FieldsView, Predicate};
use sqlite::Sqlite;

/// A million pairs for every engine.
const EVENTS: usize = 500;
const RULES: usize = 2000;

fn generated() -> (Vec<Fields<'static>>, Vec<Predicate>) {
    let mut rng = Rng::with_seed(20_261_126);
    let events = (0..EVENTS).map(|_| generate::event(&mut rng)).collect();
    (events, (0..RULES).map(|_| generate::rule(&mut rng)).collect())
}

fn reference(rule: &Predicate, events: &[Fields<'_>]) -> Vec<usize> {
    (0..events.len()).filter(|n| rule.matches(&FieldsView(&events[*n]))).collect()
}

/// As much of a statement as a reader wants to see.
fn beginning(sql: &str) -> String {
    sql.chars().take(10_000).collect()
}

/// Compares what an engine found with the reference, and that most rules tell events apart.
fn compare(engine: &str, events: &[Fields<'_>], rules: &[Predicate], found: &[Vec<usize>]) {
    assert_eq!(rules.len(), found.len());
    let mut telling = 0;
    for (rule, found) in rules.iter().zip(found) {
        let expected = reference(rule, events);
        if let Some(n) = (0..events.len()).find(|n| expected.contains(n) != found.contains(n)) {
            let (matches, event) = (expected.contains(&n), events[n].leaves());
            let sql = [Dialect::Sqlite, Dialect::ClickHouse].map(|dialect| where_clause(rule, dialect));
            panic!("{engine}: {rule:?}\n{sql:#?}\nhas to match: {matches}, event {n}: {event:?}");
        }
        telling += usize::from(!expected.is_empty() && expected.len() < events.len());
    }
    assert!(telling * 2 > rules.len(), "{telling} of {} rules tell events apart", rules.len());
}

#[test]
fn sqlite_answers_as_the_reference_does() {
    let (events, rules) = generated();
    let engine = Sqlite::with(&events);
    let found: Vec<Vec<usize>> = rules.iter().map(|rule| engine.matching(rule)).collect();
    compare("SQLite", &events, &rules, &found);
}

#[test]
fn clickhouse_answers_as_the_reference_does_or_says_that_it_cannot() {
    let (events, mut rules) = generated();
    rules.retain(|rule| match where_clause(rule, Dialect::ClickHouse) {
        Ok(_) => true,
        Err(SqlError::Unsupported { .. }) => false,
        Err(other) => panic!("{other} for {rule:?}"),
    });
    println!("{} of {RULES} rules have no SQL for ClickHouse", RULES - rules.len());
    assert!(rules.len() > RULES * 98 / 100);
    let engine = ClickHouse::with(&events);
    compare("ClickHouse", &events, &rules, &engine.matching(&rules));
}

#[test]
fn what_is_known_about_the_source_counts() {
    let parts = [None, Some("linux"), Some("Windows"), Some("it's"), Some("")].map(|part| part.map(str::to_owned));
    let lists: [Option<Vec<&str>>; 5] =
        [None, Some(vec![]), Some(vec!["LINUX"]), Some(vec!["a", "windows"]), Some(vec!["It's", ""])];
    let mut events = Vec::new();
    let mut sources = Vec::new();
    for one in 0..5 {
        for two in 0..5 {
            let list = |of: usize| lists[of].clone().map(|list| list.into_iter().map(Into::into).collect());
            for product in &parts {
                let product = product.clone().map(Into::into);
                events.push(Fields::new(EventSource { product, categories: list(one), services: list(two) }));
            }
            for product in parts.clone() {
                sources.push(LogSource { product, category: parts[one].clone(), service: parts[two].clone() });
            }
        }
    }
    let (sqlite, clickhouse) = (Sqlite::with(&events), ClickHouse::with(&events));
    let always = Predicate::All(Vec::new());
    let clauses =
        |dialect| sources.iter().map(|source| rule_clause(source, &always, dialect).unwrap()).collect::<Vec<_>>();
    let found = clickhouse.matching_clauses(&clauses(Dialect::ClickHouse));
    for ((source, clause), found) in sources.iter().zip(clauses(Dialect::Sqlite)).zip(found) {
        let expected: Vec<usize> = (0..events.len()).filter(|n| source.admits(&events[*n].source)).collect();
        assert_eq!(sqlite.matching_clause(&clause), expected, "{source:?}");
        assert_eq!(found, expected, "{source:?}");
    }
}

#[test]
fn the_stream_answers_as_the_reference_does() {
    let (events, rules) = generated();
    let anywhere = LogSource::default();
    let engine = Engine::compile(rules.iter().map(|rule| (&anywhere, rule)));
    let (mut scratch, mut hits) = (Scratch::default(), Vec::new());
    let mut found = vec![Vec::new(); rules.len()];
    for (n, event) in events.iter().enumerate() {
        hits.clear();
        engine.matches(event, &mut scratch, &mut hits);
        hits.iter().for_each(|rule| found[*rule as usize].push(n));
    }
    compare("the stream", &events, &rules, &found);
}
