//! Kinds that look at all that is in a window: `temporal_ordered` at its inputs in order, `value_percentile`
//! and `value_median` at its values.

use super::arithmetic::Percentile;
use super::steps::listed;
use super::{Query, clickhouse, groups, partition};
use crate::sigma::correlation::{Condition, Correlation, Kind, Term};
use crate::sql::functions::{IN_ORDER, PERCENTILE};
use crate::sql::{Dialect, SqlError};

impl Query<'_> {
    /// The steps from facts to what is judged.
    pub(super) fn lists(&mut self, prefix: &str, facts: &str, correlation: &Correlation) -> Result<(), SqlError> {
        let ordered = correlation.kind == Kind::TemporalOrdered;
        let holds = match &correlation.condition {
            Condition::Compare(_) if ordered => self.holds(correlation)?,
            Condition::Compare(bounds) => match self.dialect {
                Dialect::Sqlite => {
                    let constant = Percentile::new(correlation.percentile, bounds).written();
                    format!("{PERCENTILE}(list, '{constant}')")
                }
                Dialect::ClickHouse => clickhouse::percentile("list", correlation.percentile, bounds),
            },
            Condition::Rules(expr) => {
                let terms = expr.terms().ok_or_else(|| self.unsupported("a condition with too many alternatives"))?;
                let tests: Vec<String> = terms.iter().map(|term| self.term(term)).collect();
                if tests.is_empty() { "0".to_owned() } else { tests.join("\n  OR ") }
            }
        };
        let statement = match self.dialect {
            Dialect::Sqlite if ordered => self.framed_orders(prefix, facts, correlation),
            Dialect::Sqlite => framed_values(facts, correlation),
            Dialect::ClickHouse => joined(facts, correlation),
        };
        let anchors = self.step(format!("{prefix}_anchors"), statement);
        let listed = listed(correlation);
        self.step(format!("{prefix}_judged"), format!("SELECT {listed}ts, ({holds}) AS holds\nFROM {anchors}"));
        Ok(())
    }

    /// SQLite's frames are measured in one number: time and input make one, so that a list is in order.
    fn framed_orders(&mut self, prefix: &str, facts: &str, correlation: &Correlation) -> String {
        let (listed, count) = (listed(correlation), i64::try_from(correlation.inputs.len()).unwrap_or(i64::MAX));
        let last = count - 1;
        let reach = correlation.timespan.micros.saturating_mul(count).saturating_add(last);
        let (anchor, frame) = match correlation.closing() {
            true => (format!("ts * {count}"), format!("CURRENT ROW AND {reach} FOLLOWING")),
            false => (format!("ts * {count} + {last}"), format!("{reach} PRECEDING AND CURRENT ROW")),
        };
        let rows = self.step(
            format!("{prefix}_rows"),
            format!(
                "SELECT DISTINCT {listed}ts, anchor,\n  CASE anchor WHEN 0 THEN ts * {count} + input ELSE {anchor} END AS \
                 place,\n  CASE anchor WHEN 0 THEN input END AS picked\nFROM {facts}, \
                 (SELECT 0 AS anchor UNION ALL SELECT 1)"
            ),
        );
        format!(
            "SELECT {listed}ts, list\nFROM (\n  SELECT {listed}ts, anchor, group_concat(picked) OVER w AS list\n  FROM {rows}\n  \
             WINDOW w AS ({}ORDER BY place RANGE BETWEEN {frame})\n)\nWHERE anchor = 1",
            partition(&groups(correlation))
        )
    }

    /// The term's inputs are in the window's list in order, and those that must be absent are not.
    fn term(&self, term: &Term) -> String {
        let wanted = term.present.count_ones();
        match self.dialect {
            Dialect::Sqlite => format!("{IN_ORDER}(list, '{} {}') = {wanted}", term.present, term.absent),
            Dialect::ClickHouse => {
                let found = clickhouse::in_order(&clickhouse::only("list", term.present));
                let absent = clickhouse::only("list", term.absent);
                format!("({found} = {wanted} AND empty({absent}))")
            }
        }
    }
}

/// The values of each window; an anchor has a row for each of its facts, all the same.
fn framed_values(facts: &str, correlation: &Correlation) -> String {
    let (listed, span) = (listed(correlation), correlation.timespan.micros);
    let frame = match correlation.closing() {
        true => format!("CURRENT ROW AND {span} FOLLOWING"),
        false => format!("{span} PRECEDING AND CURRENT ROW"),
    };
    let groups = groups(correlation);
    let mut anchor = groups.clone();
    anchor.push("ts".to_owned());
    format!(
        "SELECT {listed}ts, list\nFROM (\n  SELECT {listed}ts,\n    group_concat(high || ':' || low) OVER \
         ({}ORDER BY ts RANGE BETWEEN {frame}) AS list,\n    row_number() OVER ({}) AS place\n  FROM {facts}\n)\nWHERE place = 1",
        partition(&groups),
        partition(&anchor)
    )
}

/// ClickHouse's frames reach 32 bits far, about 70 minutes. So anchors are joined with the facts of the two
/// stretches of a timespan's length that their window can touch.
fn joined(facts: &str, correlation: &Correlation) -> String {
    let span = correlation.timespan.micros;
    let stretch = format!("intDiv(ts, {span}) - (ts % {span} < 0)");
    let (other, from, to) = match correlation.closing() {
        true => ("+ 1", "a.ts".to_owned(), format!("a.ts + {span}")),
        false => ("- 1", format!("a.ts - {span}"), "a.ts".to_owned()),
    };
    let groups = groups(correlation);
    let (mut anchor, mut same, mut by) = (String::new(), String::new(), String::new());
    for group in &groups {
        anchor.push_str(&format!("a.{group} AS {group}, "));
        same.push_str(&format!(" AND f.{group} = a.{group}"));
        by.push_str(&format!("a.{group}, "));
    }
    let list = match correlation.kind {
        Kind::TemporalOrdered => "arrayMap(fact -> fact.2, arraySort(groupArray((f.ts, f.input))))",
        Kind::EventCount
        | Kind::ValueCount
        | Kind::Temporal
        | Kind::ValueSum
        | Kind::ValueAvg
        | Kind::ValuePercentile
        | Kind::ValueMedian => "arraySort(groupArray(f.number))",
    };
    let listed = listed(correlation);
    format!(
        "SELECT {anchor}a.ts AS ts, {list} AS list\nFROM (\n  SELECT DISTINCT {listed}ts, \
         arrayJoin([{stretch}, {stretch} {other}]) AS stretch FROM {facts}\n) AS a\nJOIN (\n  \
         SELECT *, {stretch} AS stretch FROM {facts}\n) AS f ON f.stretch = a.stretch{same}\n\
         WHERE f.ts BETWEEN {from} AND {to}\nGROUP BY {by}a.ts"
    )
}
