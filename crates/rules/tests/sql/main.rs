//! SQL against the reference: generated rules over generated events, every pair compared, on the
//! real engines.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

mod generate;
mod sqlite;

use fastrand::Rng;
use model::Fields;
use rules::{FieldsView, Predicate};
use sqlite::Sqlite;

fn reference(rule: &Predicate, events: &[Fields<'_>]) -> Vec<usize> {
    (0..events.len()).filter(|n| rule.matches(&FieldsView(&events[*n]))).collect()
}

fn differing(rule: &Predicate, events: &[Fields<'_>], expected: &[usize], found: &[usize]) -> String {
    let first = (0..events.len()).find(|n| expected.contains(n) != found.contains(n)).unwrap();
    format!("{rule:?}\nexpected to match: {}\n{:?}", expected.contains(&first), events[first].leaves())
}

#[test]
fn sqlite_answers_as_the_reference_does() {
    let mut rng = Rng::with_seed(5);
    let events: Vec<_> = (0..500).map(|_| generate::event(&mut rng)).collect();
    let engine = Sqlite::with(&events);
    let (mut matches, mut pairs, mut telling) = (0, 0, 0);
    for _ in 0..1000 {
        let rule = generate::rule(&mut rng);
        let expected = reference(&rule, &events);
        let found = engine.matching(&rule);
        let sql = rules::sql::where_clause(&rule, rules::sql::Dialect::Sqlite).unwrap();
        assert!(expected == found, "{sql}\n{}", differing(&rule, &events, &expected, &found));
        pairs += events.len();
        matches += expected.len();
        telling += usize::from(!expected.is_empty() && expected.len() < events.len());
    }
    println!("{pairs} pairs, {matches} matches, {telling} rules that match some events and not others");
    assert!(telling > 500, "most rules have to tell events apart: {telling}");
}
