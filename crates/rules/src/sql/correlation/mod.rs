//! Correlations as one query over the table of events. What a correlation means is written in
//! [`sigma::correlation`](crate::sigma::correlation), as a statement about the set of all events; the
//! query says the same, window ends included, so it finds the firings that the stream settles on.
//!
//! # The query
//!
//! A chain of named steps, for each correlation below the asked one and then for it (`c0_`, `c1_`, …):
//!
//! | step | rows |
//! |---|---|
//! | `members` | one for each member and input: the event, its time, the values of `group-by` (`g0` …), what counts (`v0` …), and fields that correlations above ask for (`x0` …) |
//! | `facts` | what counts once: an event, a value, an input |
//! | `steps` | times at which a window's content changes, and by how much: a fact counts for all anchors from one time to another |
//! | `anchors` | times of members, with what their windows hold: the running sum of the changes |
//! | `judged` | anchors, and whether the condition holds there |
//!
//! Windows are sums of changes, not joins, so the time is that of sorting the members; only
//! `temporal_ordered`, `value_percentile` and `value_median` look at each window's rows.
//!
//! Times have to be so far from the ends of 64 bits that timespans can be added, and for
//! `temporal_ordered` that they can be multiplied by the number of inputs: with 64 inputs, before the
//! year 6500. The table must not have columns with the names above.
//!
//! The result has a row for each firing: the group (`g0` …) and the anchor (`ts`), in microseconds.

pub(super) mod arithmetic;
mod clickhouse;
mod judge;
mod lists;
pub mod members;
mod sqlite;
mod steps;

use super::{Dialect, SqlError, rule_clause};
use crate::sigma::Collection;
use crate::sigma::correlation::{Correlation, Input, Kind, Target};
use std::fmt::Write;

/// Most inputs of one correlation in SQL.
pub const SQL_INPUTS_MAX: usize = 400;

/// Most tables that SQLite reads for correlations above each other, a step counted as often as it is named.
/// SQLite itself refuses a step that it comes to after 1,000.
const CURSORS_MAX: usize = 900;
/// Tables that the steps after the members read.
const STEPS: usize = 8;

/// The table that is asked; its names stand in the SQL as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Events<'t> {
    /// With the columns of [`sql`](super).
    pub table: &'t str,
    /// The column that tells events apart.
    pub id: &'t str,
    /// The column with the event's time, in microseconds since 1970: a 64-bit integer.
    pub time: &'t str,
}

/// Anchors that are asked for, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Between {
    pub from_micros: i64,
    pub to_micros: i64,
}

/// The firings of a correlation of the collection, all or those with anchors in a stretch of time. For
/// a stretch only the events that matter for it are looked at; they must all be there.
pub fn firings(
    collection: &Collection,
    correlation: usize,
    events: Events<'_>,
    between: Option<Between>,
    dialect: Dialect,
) -> Result<String, SqlError> {
    let mut query = Query { collection, events, dialect, steps: Vec::new(), count: 0 };
    let unknown = || query.unsupported("a correlation that is not there");
    let correlation = collection.correlations.get(correlation).ok_or_else(unknown)?;
    // The anchor before decides whether a firing is new.
    let span = correlation.timespan.micros;
    let judged = between.map(|between| Between { from_micros: between.from_micros.saturating_sub(span), ..between });
    let (name, _) = query.judged(correlation, &[], judged)?;
    let mut sql = String::from("WITH\n");
    for (at, (name, step)) in query.steps.iter().enumerate() {
        let comma = if at + 1 < query.steps.len() { "," } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(sql, "{name} AS (\n  {}\n){comma}", step.replace('\n', "\n  "));
    }
    sql.push_str(&query.new_ones(correlation, &name, between));
    if sql.len() > super::SQL_BYTES_MAX {
        return Err(SqlError::TooLong { max: super::SQL_BYTES_MAX });
    }
    Ok(sql)
}

/// The query so far.
struct Query<'c> {
    collection: &'c Collection,
    events: Events<'c>,
    dialect: Dialect,
    /// Name and statement of each.
    steps: Vec<(String, String)>,
    /// Correlations so far.
    count: usize,
}

impl Query<'_> {
    fn unsupported(&self, what: impl Into<String>) -> SqlError {
        SqlError::Unsupported { dialect: self.dialect, what: what.into() }
    }

    fn step(&mut self, name: String, statement: String) -> String {
        self.steps.push((name.clone(), statement));
        name
    }

    /// The steps of a correlation; their prefix, and how many tables they read. `extras`: fields, as this correlation calls them, that
    /// its members have to show. `judged`: the anchors that matter.
    fn judged(
        &mut self,
        correlation: &Correlation,
        extras: &[String],
        judged: Option<Between>,
    ) -> Result<(String, usize), SqlError> {
        if correlation.inputs.len() > SQL_INPUTS_MAX {
            return Err(self.unsupported(format!("more than {SQL_INPUTS_MAX} inputs of one correlation")));
        }
        let span = correlation.timespan.micros;
        let looked_at = judged.map(|judged| match correlation.closing() {
            true => Between { to_micros: judged.to_micros.saturating_add(span), ..judged },
            false => Between { from_micros: judged.from_micros.saturating_sub(span), ..judged },
        });
        let (mut selects, mut cursors, mut chained) = (Vec::new(), STEPS, false);
        for (number, input) in correlation.inputs.iter().enumerate() {
            selects.push(match input.target {
                Target::Rule(rule) => self.of_rule(rule, number, correlation, input, extras, looked_at)?,
                Target::Correlation(lower) => {
                    let (select, below) = self.of_correlation(lower, number, correlation, input, extras, looked_at)?;
                    // Its members are named twice: to judge them, and to show them.
                    cursors += 2 * below;
                    chained = true;
                    select
                }
            });
        }
        let prefix = format!("c{}", self.count);
        self.count += 1;
        let members = selects.join("\nUNION ALL\n");
        cursors += members.matches("json_each(").count() + members.matches("json_tree(").count() + selects.len();
        if self.dialect == Dialect::Sqlite && chained && cursors > CURSORS_MAX {
            return Err(self.unsupported("correlations above each other whose rules ask about so many fields"));
        }
        self.step(format!("{prefix}_members"), members);
        self.windows(&prefix, correlation)?;
        Ok((prefix, cursors))
    }

    /// Members that a rule has.
    fn of_rule(
        &self,
        rule: usize,
        number: usize,
        correlation: &Correlation,
        input: &Input,
        extras: &[String],
        looked_at: Option<Between>,
    ) -> Result<String, SqlError> {
        let unknown = || self.unsupported("a rule that is not there");
        let rule = self.collection.rules.get(rule).ok_or_else(unknown)?;
        let first = |name: &str| match self.dialect {
            Dialect::Sqlite => sqlite::first(name),
            Dialect::ClickHouse => clickhouse::first(name),
        };
        let Events { table, id, time } = self.events;
        let mut sql = format!("SELECT {id} AS event, {time} AS ts, {number} AS input");
        let columns = columns(correlation, input, extras);
        for (column, field) in &columns {
            let _ = write!(sql, ",\n  {} AS {column}", first(field));
        }
        let condition = rule_clause(&rule.source, &rule.predicate, self.dialect)?;
        let _ = write!(sql, "\nFROM {table}\nWHERE (\n    {}\n  )", condition.replace('\n', "\n    "));
        if let Some(Between { from_micros, to_micros }) = looked_at {
            let _ = write!(sql, "\n  AND {time} BETWEEN {from_micros} AND {to_micros}");
        }
        let alias = |column: &str| column.to_owned();
        for test in self.needed(correlation, &columns, &alias) {
            let _ = write!(sql, "\n  AND {test}");
        }
        Ok(sql)
    }

    /// Members that a lower correlation has: its own, at anchors where it holds.
    fn of_correlation(
        &mut self,
        lower: usize,
        number: usize,
        correlation: &Correlation,
        input: &Input,
        extras: &[String],
        looked_at: Option<Between>,
    ) -> Result<(String, usize), SqlError> {
        let collection = self.collection;
        let unknown = || self.unsupported("a correlation that is not there");
        let lower = collection.correlations.get(lower).ok_or_else(unknown)?;
        let columns = columns(correlation, input, extras);
        let asked: Vec<String> = columns.iter().map(|(_, field)| field.clone()).collect();
        let (below, cursors) = self.judged(lower, &asked, looked_at)?;
        let place = |column: &str| {
            let at = columns.iter().position(|(name, _)| name == column).unwrap_or_default();
            format!("m.x{at}")
        };
        let mut sql = format!("SELECT m.event AS event, m.ts AS ts, {number} AS input");
        for (at, (column, _)) in columns.iter().enumerate() {
            let _ = write!(sql, ", m.x{at} AS {column}");
        }
        sql.push_str(&match self.dialect {
            Dialect::Sqlite => sqlite::held(&below, &groups(lower), columns.len()),
            Dialect::ClickHouse => clickhouse::held(&below, &groups(lower)),
        });
        if let Some(Between { from_micros, to_micros }) = looked_at {
            let _ = write!(sql, "\n  AND m.ts BETWEEN {from_micros} AND {to_micros}");
        }
        for test in self.needed(correlation, &columns, &place) {
            let _ = write!(sql, "\n  AND {test}");
        }
        Ok((sql, cursors))
    }

    /// What a member must have; `value`: what SQL calls a column there.
    fn needed(
        &self,
        correlation: &Correlation,
        columns: &[(String, String)],
        value: &dyn Fn(&str) -> String,
    ) -> Vec<String> {
        let mut tests = Vec::new();
        for column in columns.iter().map(|(column, _)| column).filter(|column| !column.starts_with('x')) {
            tests.push(format!("{} IS NOT NULL", value(column)));
            if correlation.kind.numeric() && column.starts_with('v') {
                tests.push(match self.dialect {
                    Dialect::Sqlite => sqlite::is_number(&value(column)),
                    Dialect::ClickHouse => clickhouse::is_number(&value(column)),
                });
            }
        }
        tests
    }

    /// Anchors that hold while the one before, in the same window, does not.
    fn new_ones(&self, correlation: &Correlation, name: &str, between: Option<Between>) -> String {
        let groups = groups(correlation);
        let listed: String = groups.iter().map(|group| format!("{group}, ")).collect();
        let partition = partition(&groups);
        let before = |what: &str| match self.dialect {
            Dialect::Sqlite => format!("lag({what}, 1, 0) OVER w"),
            Dialect::ClickHouse => format!("lagInFrame({what}, 1, 0) OVER w"),
        };
        let within = between.map_or_else(String::new, |between| {
            format!("\n  AND ts BETWEEN {} AND {}", between.from_micros, between.to_micros)
        });
        format!(
            "SELECT {listed}ts\nFROM (\n  SELECT {listed}ts, holds, {} AS held, {} AS ts_before\n  FROM {name}_judged\n  \
             WINDOW w AS ({partition}ORDER BY ts ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)\n)\n\
             WHERE holds AND NOT (held AND ts - ts_before <= {}){within}\nORDER BY {listed}ts",
            before("holds"),
            before("ts"),
            correlation.timespan.micros
        )
    }
}

/// Names of the columns with the values of `group-by`.
fn groups(correlation: &Correlation) -> Vec<String> {
    (0..correlation.group_by.len()).map(|at| format!("g{at}")).collect()
}

fn partition(columns: &[String]) -> String {
    if columns.is_empty() { String::new() } else { format!("PARTITION BY {} ", columns.join(", ")) }
}

/// The columns of an input's members, and the field of its events that each shows.
fn columns(correlation: &Correlation, input: &Input, extras: &[String]) -> Vec<(String, String)> {
    let named = |letter: char, fields: Vec<String>| {
        fields.into_iter().enumerate().map(move |(at, field)| (format!("{letter}{at}"), field))
    };
    let values = match correlation.kind {
        Kind::EventCount | Kind::Temporal | Kind::TemporalOrdered => Vec::new(),
        Kind::ValueCount | Kind::ValueSum | Kind::ValueAvg | Kind::ValuePercentile | Kind::ValueMedian => {
            input.value_fields.clone()
        }
    };
    let extras = extras.iter().map(|name| input.field(name).to_owned()).collect();
    named('g', input.group_fields.clone()).chain(named('v', values)).chain(named('x', extras)).collect()
}
