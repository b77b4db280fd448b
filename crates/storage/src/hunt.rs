//! A table of flattened events that the SQL of detection rules can be asked of, in SQLite. It lies on
//! disk while it is open and is gone afterwards.

use crate::StorageResult;
use crate::sqlite_functions;
use rusqlite::{Connection, params};

/// An event as the table keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Column `n`.
    pub number: u64,
    /// When it happened: column `ts`.
    pub micros: i64,
    /// What is known about its log source, in JSON (`rules::sql::source_json`).
    pub source: String,
    /// Its fields, in the JSON of the engine.
    pub fields: String,
}

/// The table; `rules::sql` says what its columns hold.
pub struct EventTable(Connection);

impl EventTable {
    pub fn open() -> StorageResult<Self> {
        // No name: SQLite makes a file of its own and removes it.
        let db = Connection::open("")?;
        db.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;
             CREATE TABLE events (n INTEGER PRIMARY KEY, ts INTEGER NOT NULL, source TEXT NOT NULL, fields TEXT NOT NULL)
             STRICT;",
        )?;
        sqlite_functions::register(&db)?;
        Ok(Self(db))
    }

    /// Adds rows.
    pub fn add(&mut self, rows: &[Row]) -> StorageResult<()> {
        let transaction = self.0.transaction()?;
        {
            let mut insert =
                transaction.prepare_cached("INSERT INTO events (n, ts, source, fields) VALUES (?1, ?2, ?3, ?4)")?;
            for row in rows {
                insert.execute(params![row.number as i64, row.micros, row.source, row.fields])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Numbers of the events that a condition holds for, ascending.
    pub fn numbers(&self, condition: &str) -> StorageResult<Vec<u64>> {
        let mut select = self.0.prepare(&format!("SELECT n FROM events WHERE {condition} ORDER BY n"))?;
        let numbers = select.query_map([], |row| row.get::<_, i64>(0))?;
        Ok(numbers.map(|number| number.map(|number| number as u64)).collect::<Result<_, _>>()?)
    }

    /// Answers of a query whose columns are all texts but the last, a number: firings of correlations.
    pub fn firings(&self, query: &str) -> StorageResult<Vec<(Vec<String>, i64)>> {
        let mut select = self.0.prepare(query)?;
        let texts = select.column_count().saturating_sub(1);
        let rows = select.query_map([], |row| {
            let key = (0..texts).map(|at| row.get::<_, String>(at)).collect::<rusqlite::Result<_>>()?;
            Ok((key, row.get(texts)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rules::Predicate;
    use rules::sql::{Dialect, where_clause};

    #[test]
    fn conditions_of_rules_are_asked_with_their_functions() {
        let mut table = EventTable::open().unwrap();
        let row =
            |number: u64, fields: &str| Row { number, micros: 0, source: "{}".to_owned(), fields: fields.to_owned() };
        table.add(&[row(0, r#"{"a":"é-10.0.0.1"}"#), row(7, r#"{"a":["x","ÉTÉ"]}"#), row(9, r#"{"b":null}"#)]).unwrap();
        let mut reader = rules::sigma::Reader::new(rules::sigma::Options::default());
        reader.text(
            "r",
            "title: t\nlogsource: {product: linux}\ndetection:\n  s: {'a|contains': ['É-', 'été']}\n  condition: s\n",
        );
        let predicate: Predicate = reader.finish().rules.remove(0).predicate;
        let condition = where_clause(&predicate, Dialect::Sqlite).unwrap();
        assert_eq!(table.numbers(&condition).unwrap(), [0, 7], "{condition}");
        assert!(table.numbers("no such column").is_err());
    }
}
