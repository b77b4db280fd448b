//! Tables of flattened events that the SQL of detection rules can be asked of, in SQLite. They lie on
//! disk while they are open and are gone afterwards.

use crate::StorageResult;
use crate::sqlite_functions;
use rusqlite::{Connection, OptionalExtension, params};

/// An event as a table keeps it.
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

/// The table of events; `rules::sql` says what its columns hold.
pub struct EventTable(Connection);

impl EventTable {
    pub fn open() -> StorageResult<Self> {
        let db = unnamed(64 << 10)?;
        db.execute_batch(
            "CREATE TABLE events (n INTEGER PRIMARY KEY, ts INTEGER NOT NULL, source TEXT NOT NULL, fields TEXT NOT NULL)
             STRICT;",
        )?;
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

    /// Makes it empty; the room on disk is used again.
    pub fn clear(&mut self) -> StorageResult<()> {
        self.0.execute("DELETE FROM events", [])?;
        Ok(())
    }

    /// Numbers of the events that a condition holds for, ascending. The statement is kept for the next
    /// time it is asked.
    pub fn numbers(&self, condition: &str) -> StorageResult<Vec<u64>> {
        let mut select = self.0.prepare_cached(&format!("SELECT n FROM events WHERE {condition} ORDER BY n"))?;
        let numbers = select.query_map([], |row| row.get::<_, i64>(0))?;
        Ok(numbers.map(|number| number.map(|number| number as u64)).collect::<Result<_, _>>()?)
    }

    /// Answers of a query whose columns are all texts but the last, a number: firings of correlations.
    pub fn firings(&self, query: &str) -> StorageResult<Vec<(Vec<String>, i64)>> {
        firings(&self.0, query)
    }
}

/// An event that a rule matched which correlations look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The event's id.
    pub id: u128,
    pub host: String,
    /// When it happened.
    pub micros: i64,
    /// The rules that it matches (`rules::sql::correlation::members`).
    pub source: String,
    /// The fields that correlations look at, in JSON.
    pub fields: String,
}

/// The table of members: `events`, as the SQL of correlations wants it.
pub struct MemberTable(Connection);

impl MemberTable {
    pub fn open() -> StorageResult<Self> {
        // Many of these may be open for long: what they hold belongs on the disk.
        let db = unnamed(4 << 10)?;
        db.execute_batch(
            "CREATE TABLE events (n INTEGER PRIMARY KEY, ts INTEGER NOT NULL, source TEXT NOT NULL, fields TEXT NOT NULL,
               id BLOB NOT NULL, host TEXT NOT NULL) STRICT;
             CREATE INDEX events_by_time ON events (ts);",
        )?;
        Ok(Self(db))
    }

    /// Adds members; who adds one twice has it twice.
    pub fn add(&mut self, members: &[Member]) -> StorageResult<()> {
        let transaction = self.0.transaction()?;
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO events (ts, source, fields, id, host) VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for member in members {
                let Member { id, host, micros, source, fields } = member;
                insert.execute(params![micros, source, fields, id.to_be_bytes(), host])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Forgets those that happened before; the room on disk is used again.
    pub fn forget_before(&mut self, micros: i64) -> StorageResult<()> {
        self.0.execute("DELETE FROM events WHERE ts < ?1", [micros])?;
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> StorageResult<u64> {
        let count: i64 = self.0.prepare_cached("SELECT count(*) FROM events")?.query_row([], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// The time of the oldest.
    pub fn oldest(&self) -> StorageResult<Option<i64>> {
        let mut select = self.0.prepare_cached("SELECT ts FROM events ORDER BY ts LIMIT 1")?;
        Ok(select.query_row([], |row| row.get(0)).optional()?)
    }

    /// Answers of a query whose columns are all texts but the last, a number: firings of correlations.
    pub fn firings(&self, query: &str) -> StorageResult<Vec<(Vec<String>, i64)>> {
        firings(&self.0, query)
    }

    /// Those that happened at this time, by id.
    pub fn at(&self, micros: i64) -> StorageResult<Vec<Member>> {
        let mut select =
            self.0.prepare_cached("SELECT id, host, ts, source, fields FROM events WHERE ts = ?1 ORDER BY id")?;
        let members = select.query_map([micros], |row| {
            Ok(Member {
                id: u128::from_be_bytes(row.get(0)?),
                host: row.get(1)?,
                micros: row.get(2)?,
                source: row.get(3)?,
                fields: row.get(4)?,
            })
        })?;
        Ok(members.collect::<Result<_, _>>()?)
    }
}

/// A database without a name: SQLite makes a file of its own and removes it, also if the process ends.
fn unnamed(cache_kib: u32) -> StorageResult<Connection> {
    let db = Connection::open("")?;
    let pragmas = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size";
    db.execute_batch(&format!("{pragmas} = -{cache_kib}"))?;
    db.set_prepared_statement_cache_capacity(256);
    sqlite_functions::register(&db)?;
    Ok(db)
}

fn firings(db: &Connection, query: &str) -> StorageResult<Vec<(Vec<String>, i64)>> {
    let mut select = db.prepare(query)?;
    let texts = select.column_count().saturating_sub(1);
    let rows = select.query_map([], |row| {
        let key = (0..texts).map(|at| row.get::<_, String>(at)).collect::<rusqlite::Result<_>>()?;
        Ok((key, row.get(texts)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
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
        table.clear().unwrap();
        assert!(table.numbers(&condition).unwrap().is_empty());
        table.add(&[row(0, r#"{"a":"é-"}"#)]).unwrap();
        assert_eq!(table.numbers(&condition).unwrap(), [0]);
    }

    #[test]
    fn members_are_found_by_their_time_until_they_are_forgotten() {
        let mut table = MemberTable::open().unwrap();
        let member = |id: u128, micros: i64| Member {
            id,
            host: format!("h{id}"),
            micros,
            source: "{}".to_owned(),
            fields: "{}".to_owned(),
        };
        table.add(&[member(u128::MAX, 5), member(1, 5), member(2, -7)]).unwrap();
        assert_eq!(table.at(5).unwrap(), [member(1, 5), member(u128::MAX, 5)]);
        assert_eq!((table.count().unwrap(), table.oldest().unwrap()), (3, Some(-7)));
        table.forget_before(5).unwrap();
        assert_eq!((table.count().unwrap(), table.oldest().unwrap()), (2, Some(5)));
        assert_eq!(table.at(-7).unwrap(), []);
    }
}
