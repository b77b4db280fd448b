//! ClickHouse with the events in a table, asked for many rules at once.

use model::Fields;
use rules::Predicate;
use rules::sql::{Dialect, fields_map_json, source_json, where_clause};
use std::fmt::Write;
use testkit::servers;

/// Rules in one statement.
const BATCH: usize = 50;

pub struct ClickHouse(servers::ClickHouse);

impl ClickHouse {
    /// With these events, numbered from 0.
    pub fn with(events: &[Fields<'_>]) -> Self {
        let server = servers::ClickHouse::start();
        server.query("CREATE TABLE events (n UInt32, source Map(String, Array(String)), fields Map(String, Array(String))) ENGINE = MergeTree ORDER BY n");
        let mut rows = String::new();
        for (n, fields) in events.iter().enumerate() {
            let (source, fields) = (source_json(&fields.source), fields_map_json(fields));
            writeln!(rows, "{{\"n\":{n},\"source\":{source},\"fields\":{fields}}}").unwrap();
        }
        server.insert("events", "JSONEachRow", rows.as_bytes());
        Self(server)
    }

    /// The bytes of an expression, in hexadecimal digits.
    pub fn hex(&self, expression: &str) -> String {
        self.0.query(&format!("SELECT hex({expression})")).trim_end().to_owned()
    }

    /// For every rule, the numbers of the events that match. They must have SQL.
    pub fn matching(&self, rules: &[Predicate]) -> Vec<Vec<usize>> {
        let clauses: Vec<String> = rules.iter().map(|rule| where_clause(rule, Dialect::ClickHouse).unwrap()).collect();
        self.matching_clauses(&clauses)
    }

    /// The same for conditions.
    pub fn matching_clauses(&self, clauses: &[String]) -> Vec<Vec<usize>> {
        clauses.chunks(BATCH).flat_map(|batch| self.matching_batch(batch)).collect()
    }

    fn matching_batch(&self, conditions: &[String]) -> Vec<Vec<usize>> {
        let ask = |conditions: &[String]| {
            let arrays: Vec<String> =
                conditions.iter().map(|sql| format!("arraySort(groupArrayIf(n, {sql}))")).collect();
            self.0.try_query(&format!("SELECT [{}] FROM events FORMAT JSONCompactEachRow", arrays.join(",\n")))
        };
        let answer = ask(conditions).unwrap_or_else(|error| {
            let culprit = conditions.iter().find(|sql| ask(std::slice::from_ref(sql)).is_err());
            panic!("{error} in {culprit:?}")
        });
        let [found]: [Vec<Vec<usize>>; 1] = serde_json::from_str(&answer).unwrap();
        found
    }
}
