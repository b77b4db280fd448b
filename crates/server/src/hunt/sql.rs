//! The hunt by SQL: events go into a table, each rule is one question.

use super::{Fired, Found, Source, Summary, clickhouse, input};
use anyhow::{Context, Result};
use model::{Fields, Timestamp};
use rules::sigma::Collection;
use rules::sql::correlation::{Events, firings};
use rules::sql::{Dialect, fields_json, fields_map_json, rule_clause, source_json};
use std::io::Write;
use storage::hunt::{EventTable, Row};

/// Rows that are handed over at once.
const ROWS: usize = 4_096;

/// Where the questions are asked.
pub enum Engine {
    Sqlite(EventTable),
    ClickHouse(clickhouse::Table),
}

impl Engine {
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::ClickHouse(_) => Dialect::ClickHouse,
        }
    }

    fn add(&mut self, rows: &[Row]) -> Result<()> {
        match self {
            Self::Sqlite(table) => table.add(rows).context("cannot fill the table of events"),
            Self::ClickHouse(table) => table.add(rows),
        }
    }

    fn table(&self) -> &str {
        match self {
            Self::Sqlite(_) => "events",
            Self::ClickHouse(table) => table.name(),
        }
    }

    fn firings(&self, query: &str) -> Result<Vec<(Vec<String>, i64)>> {
        match self {
            Self::Sqlite(table) => Ok(table.firings(query)?),
            Self::ClickHouse(table) => table.firings(query),
        }
    }

    fn numbers(&self, condition: &str) -> Result<Vec<u64>> {
        match self {
            Self::Sqlite(table) => Ok(table.numbers(condition)?),
            Self::ClickHouse(table) => table.numbers(condition),
        }
    }
}

/// Hunts, and writes a line for each match to `out`, by event and then in the order of the rules.
pub fn hunt(
    collection: &Collection,
    mut engine: Engine,
    from: Source<'_>,
    out: &mut impl Write,
    mut progress: impl FnMut(&Summary),
    summary: &mut Summary,
) -> Result<()> {
    let dialect = engine.dialect();
    let mut rows = Vec::with_capacity(ROWS);
    let mut failed = None;
    input::read(from.files, |block| {
        for (line, text) in block.events() {
            let mut fields = Fields::default();
            match fields::from_json_bytes(text, &mut fields) {
                Ok(()) => {
                    from.aliases.apply(&mut fields);
                    let encoded = match dialect {
                        Dialect::Sqlite => fields_json(&fields),
                        Dialect::ClickHouse => fields_map_json(&fields),
                    };
                    let micros = fields::event_time(&fields).unwrap_or_default().micros();
                    let source = source_json(&fields.source);
                    rows.push(Row { number: summary.events, micros, source, fields: encoded });
                }
                Err(error) => summary.invalid(&block.file, line, &error),
            }
            summary.events += 1;
            if rows.len() == ROWS {
                if let Err(error) = engine.add(&rows) {
                    failed = Some(error);
                    return false;
                }
                rows.clear();
            }
        }
        summary.bytes += block.text.len() as u64;
        progress(summary);
        true
    })?;
    match failed {
        Some(error) => return Err(error),
        None => engine.add(&rows)?,
    }
    let mut hits: Vec<(u64, usize)> = Vec::new();
    let alerting = collection.rules_that_alert();
    for (number, rule) in collection.rules.iter().enumerate().filter(|(number, _)| alerting[*number]) {
        match rule_clause(&rule.source, &rule.predicate, dialect) {
            Ok(condition) => {
                let found = engine.numbers(&condition).with_context(|| format!("rule {:?}", rule.header.title))?;
                hits.extend(found.into_iter().map(|event| (event, number)));
            }
            Err(error) => summary.without_sql(&rule.header, &error),
        }
        progress(summary);
    }
    hits.sort_unstable();
    for (event, rule) in hits {
        let rule = &collection.rules[rule];
        serde_json::to_writer(&mut *out, &Found::new(&rule.header, event))?;
        out.write_all(b"\n")?;
        summary.count(&rule.header);
    }
    let alerting = collection.correlations_that_alert();
    for (place, correlation) in collection.correlations.iter().enumerate().filter(|(place, _)| alerting[*place]) {
        let events = Events { table: engine.table(), id: "n", time: "ts" };
        let query = match firings(collection, place, events, None, dialect) {
            Ok(query) => query,
            Err(error) => {
                summary.without_sql(&correlation.header, &error);
                continue;
            }
        };
        let fired = engine.firings(&query).with_context(|| format!("rule {:?}", correlation.header.title))?;
        for (key, anchor) in fired {
            let at_anchor = engine.numbers(&format!("ts = {anchor}"))?;
            let mut found = Found::new(&correlation.header, at_anchor.last().copied().unwrap_or_default());
            found.fields = correlation.group_by.iter().map(|name| &**name).zip(key).collect();
            let at = Timestamp::from_micros(anchor).rfc3339();
            found.correlation = Some(Fired { at, metric: None, events: Vec::new() });
            serde_json::to_writer(&mut *out, &found)?;
            out.write_all(b"\n")?;
            summary.count(&correlation.header);
        }
    }
    out.flush()?;
    Ok(())
}
