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

    /// Gives the events their times, in microseconds.
    pub fn set_times(&self, times: &[i64]) {
        let times: Vec<String> = times.iter().map(i64::to_string).collect();
        let all = format!("arrayElement([{}], n + 1)", times.join(","));
        self.0.query(&format!("ALTER TABLE events ADD COLUMN ts Int64 DEFAULT {all}"));
    }

    /// The rows of a query: texts, and a number at the end.
    pub fn rows(&self, sql: &str) -> Vec<(Vec<String>, i64)> {
        let answer = self.0.try_query(&format!(
            "{sql}\nSETTINGS output_format_json_quote_64bit_integers = 0 FORMAT JSONCompactEachRow"
        ));
        let answer = answer.unwrap_or_else(|error| panic!("{error} in\n{}", super::beginning(sql)));
        let row = |line: &str| {
            let mut row: Vec<serde_json::Value> = serde_json::from_str(line).unwrap();
            let last = row.pop().and_then(|last| last.as_i64()).unwrap();
            (row.into_iter().map(|text| text.as_str().unwrap().to_owned()).collect(), last)
        };
        answer.lines().map(row).collect()
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
