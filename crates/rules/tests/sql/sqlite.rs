//! SQLite with our functions, as storage opens it.

use model::Fields;
use rules::Predicate;
use rules::sql::functions::{Answer, FUNCTIONS, Prepared};
use rules::sql::{Dialect, fields_json, source_json, where_clause};
use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::{Value, ValueRef};
use std::error::Error;

pub struct Sqlite(Connection);

impl Sqlite {
    /// With these events, numbered from 0; every second one is kept as JSONB.
    pub fn with(events: &[Fields<'_>]) -> Self {
        let connection = Connection::open_in_memory().unwrap();
        register(&connection);
        connection
            .execute_batch("CREATE TABLE events (n INTEGER PRIMARY KEY, source TEXT, fields TEXT); BEGIN")
            .unwrap();
        for (n, fields) in events.iter().enumerate() {
            let convert = if n % 2 == 0 { "?2" } else { "jsonb(?2)" };
            let insert = format!("INSERT INTO events VALUES (?1, ?3, {convert})");
            connection
                .prepare_cached(&insert)
                .unwrap()
                .execute((n as i64, fields_json(fields), source_json(&fields.source)))
                .unwrap();
        }
        connection.execute_batch("COMMIT").unwrap();
        Self(connection)
    }

    /// With rows that somebody wrote: time, source, fields.
    pub fn of_rows(rows: &[(i64, String, String)]) -> Self {
        let connection = Connection::open_in_memory().unwrap();
        register(&connection);
        connection
            .execute_batch("CREATE TABLE events (n INTEGER PRIMARY KEY, ts INTEGER, source TEXT, fields TEXT)")
            .unwrap();
        for row in rows {
            connection
                .execute("INSERT INTO events (ts, source, fields) VALUES (?1, ?2, ?3)", (row.0, &row.1, &row.2))
                .unwrap();
        }
        Self(connection)
    }

    /// Gives the events their times, in microseconds.
    pub fn set_times(&self, times: &[i64]) {
        self.0.execute_batch("ALTER TABLE events ADD COLUMN ts INTEGER; BEGIN").unwrap();
        for (n, time) in times.iter().enumerate() {
            self.0.execute("UPDATE events SET ts = ?2 WHERE n = ?1", (n as i64, time)).unwrap();
        }
        self.0.execute_batch("COMMIT").unwrap();
    }

    /// The rows of a query: texts, and a number at the end.
    pub fn rows(&self, sql: &str) -> Vec<(Vec<String>, i64)> {
        let found = self.0.prepare(sql).and_then(|mut statement| {
            let last = statement.column_count() - 1;
            let rows = statement.query_map((), |row| {
                let texts: Result<Vec<String>, _> = (0..last).map(|at| row.get(at)).collect();
                Ok((texts?, row.get(last)?))
            })?;
            rows.collect::<Result<Vec<_>, _>>()
        });
        found.unwrap_or_else(|error| panic!("{error} in\n{}", super::beginning(sql)))
    }

    /// The bytes of an expression, in hexadecimal digits.
    pub fn hex(&self, expression: &str) -> String {
        self.0.query_row(&format!("SELECT hex({expression})"), (), |row| row.get(0)).unwrap()
    }

    /// The numbers of the events that match.
    pub fn matching(&self, predicate: &Predicate) -> Vec<usize> {
        self.matching_clause(&where_clause(predicate, Dialect::Sqlite).unwrap())
    }

    /// The same for a condition.
    pub fn matching_clause(&self, clause: &str) -> Vec<usize> {
        let sql = format!("SELECT n FROM events WHERE {clause}");
        let found = self.0.prepare(&sql).and_then(|mut statement| {
            let rows = statement.query_map((), |row| row.get::<_, i64>(0))?;
            rows.map(|n| n.map(|n| usize::try_from(n).unwrap())).collect::<Result<Vec<usize>, _>>()
        });
        let mut found = found.unwrap_or_else(|error| panic!("{error} in\n{}", super::beginning(&sql)));
        found.sort_unstable();
        found
    }
}

fn register(connection: &Connection) {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    for function in FUNCTIONS {
        let arity = i32::try_from(function.arity()).unwrap();
        let plain = function.constant_at.is_none().then(|| function.prepare("").unwrap());
        let call = move |context: &mut rusqlite::functions::Context<'_>| {
            let answer = |prepared: &Prepared| match context.get_raw(function.value_at) {
                ValueRef::Text(bytes) => prepared(std::str::from_utf8(bytes).unwrap()),
                ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => Answer::Null,
            };
            let answer = match (&plain, function.constant_at) {
                (Some(plain), _) => answer(plain),
                (None, at) => {
                    let at = i32::try_from(at.unwrap()).unwrap();
                    let prepared =
                        context.get_or_create_aux(at, |constant| -> Result<Prepared, Box<dyn Error + Send + Sync>> {
                            Ok(function.prepare(constant.as_str()?)?)
                        });
                    answer(&*prepared?)
                }
            };
            Ok(match answer {
                Answer::Text(text) => Value::Text(text),
                Answer::Integer(number) => Value::Integer(number),
                Answer::Real(number) => Value::Real(number),
                Answer::Null => Value::Null,
            })
        };
        connection.create_scalar_function(function.name, arity, flags, call).unwrap();
    }
}
