//! From members to anchors.

use super::{Query, clickhouse, groups, partition};
use crate::sigma::correlation::{Correlation, Kind};
use crate::sql::functions::MILLIONTHS;
use crate::sql::{Dialect, SqlError};

/// A column that a window sums up: its name, and what one fact adds to it.
type Weight = (String, String);

impl Query<'_> {
    /// The steps after the members.
    pub(super) fn windows(&mut self, prefix: &str, correlation: &Correlation) -> Result<(), SqlError> {
        let facts = self.facts(prefix, correlation);
        match correlation.kind {
            Kind::EventCount | Kind::ValueCount | Kind::Temporal | Kind::ValueSum | Kind::ValueAvg => {
                self.sums(prefix, &facts, correlation)
            }
            Kind::TemporalOrdered | Kind::ValuePercentile | Kind::ValueMedian => {
                self.lists(prefix, &facts, correlation)
            }
        }
    }

    /// What counts, once.
    fn facts(&mut self, prefix: &str, correlation: &Correlation) -> String {
        let mut columns = groups(correlation);
        columns.push("ts".to_owned());
        match correlation.kind {
            Kind::EventCount => columns.push("event".to_owned()),
            Kind::ValueCount => columns.extend(values(correlation)),
            Kind::Temporal | Kind::TemporalOrdered => columns.push("input".to_owned()),
            Kind::ValueSum | Kind::ValueAvg | Kind::ValuePercentile | Kind::ValueMedian => {
                columns.push("event".to_owned());
                match self.dialect {
                    Dialect::Sqlite => {
                        columns.extend(["high", "low"].map(|part| format!("{MILLIONTHS}(v0, '{part}') AS {part}")));
                    }
                    Dialect::ClickHouse => columns.push(format!("{} AS number", clickhouse::millionths("v0"))),
                }
            }
        }
        let statement = format!("SELECT DISTINCT {}\nFROM {prefix}_members", columns.join(", "));
        self.step(format!("{prefix}_facts"), statement)
    }

    /// Kinds whose metric is a sum over the facts of the window: each fact counts for the anchors from
    /// one time to another, so sums change at those times only.
    fn sums(&mut self, prefix: &str, facts: &str, correlation: &Correlation) -> Result<(), SqlError> {
        let span = correlation.timespan.micros;
        let (listed, groups) = (listed(correlation), groups(correlation));
        let (mut from, mut to) = match correlation.closing() {
            true => (format!("ts - {span}"), "ts".to_owned()),
            false => ("ts".to_owned(), format!("ts + {span}")),
        };
        if correlation.kind == Kind::ValueCount {
            // A value counts once: until it comes again, or not before it came last.
            let mut same = groups.clone();
            same.extend(values(correlation));
            let frame = match self.dialect {
                Dialect::Sqlite => "",
                Dialect::ClickHouse => " ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
            };
            let over = format!("OVER ({}ORDER BY ts{frame})", partition(&same));
            let neighbour = |function: &str, without: &str| match self.dialect {
                Dialect::Sqlite => format!("{function}(ts, 1, {without}) {over}"),
                Dialect::ClickHouse => format!("{function}InFrame(ts, 1, {without}) {over}"),
            };
            let (least, most) = match self.dialect {
                Dialect::Sqlite => ("max", "min"),
                Dialect::ClickHouse => ("greatest", "least"),
            };
            if correlation.closing() {
                from = format!("{least}(ts - {span}, {} + 1)", neighbour("lag", &format!("ts - {span} - 1")));
            } else {
                to = format!("{most}(ts + {span}, {} - 1)", neighbour("lead", &format!("ts + {span} + 1")));
            }
        }
        let weights = self.weights(correlation);
        let each = |of: &dyn Fn(&str) -> String| weights.iter().map(|(name, _)| of(name)).collect::<String>();
        let added: String = weights.iter().map(|(name, one)| format!(", {one} AS {name}")).collect();
        let covered = self.step(
            format!("{prefix}_covered"),
            format!("SELECT {listed}ts, {from} AS first_ts, {to} AS last_ts{added}\nFROM {facts}"),
        );
        // A fact comes and goes, and its own time is an anchor. Steps are named once only: ClickHouse works
        // out each name anew, and SQLite counts the tables below it again.
        let changes = match self.dialect {
            Dialect::Sqlite => {
                let summed = each(&|name| {
                    format!(",\n  sum(CASE change WHEN 0 THEN {name} WHEN 1 THEN -{name} ELSE 0 END) AS {name}_by")
                });
                format!(
                    "SELECT {listed}CASE change WHEN 0 THEN first_ts WHEN 1 THEN last_ts + 1 ELSE ts END AS at{summed},\n  \
                     max(change = 2) AS is_anchor\nFROM {covered}, (SELECT 0 AS change UNION ALL SELECT 1 UNION ALL SELECT 2)\n\
                     GROUP BY {listed}at"
                )
            }
            Dialect::ClickHouse => {
                let summed: String = (weights.iter().zip(3..))
                    .map(|((name, _), place)| format!(", sum(change.{place}) AS {name}_by"))
                    .collect();
                let (comes, goes, anchor) = (
                    each(&|name| format!(", {name}")),
                    each(&|name| format!(", -{name}")),
                    each(&|_| ", 0".to_owned()),
                );
                format!(
                    "SELECT {listed}change.1 AS at{summed}, max(change.2) AS is_anchor\nFROM {covered}\nARRAY JOIN [\n  \
                     (first_ts, 0{comes}),\n  (last_ts + 1, 0{goes}),\n  (ts, 1{anchor})\n] AS change\nGROUP BY {listed}at"
                )
            }
        };
        let steps = self.step(format!("{prefix}_steps"), changes);
        let running = each(&|name| format!(", sum({name}_by) OVER w AS {name}"));
        let anchors = self.step(
            format!("{prefix}_anchors"),
            format!(
                "SELECT *\nFROM (\n  SELECT {listed}at AS ts, is_anchor{running}\n  FROM {steps}\n  WINDOW w AS \
                 ({}ORDER BY at ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)\n)\nWHERE is_anchor = 1",
                partition(&groups)
            ),
        );
        let holds = self.holds(correlation)?;
        self.step(format!("{prefix}_judged"), format!("SELECT {listed}ts, ({holds}) AS holds\nFROM {anchors}"));
        Ok(())
    }

    fn weights(&self, correlation: &Correlation) -> Vec<Weight> {
        let one = |name: &str, what: &str| (name.to_owned(), what.to_owned());
        match correlation.kind {
            Kind::Temporal => (0..correlation.inputs.len())
                .map(|at| (format!("i{at}"), self.integer(&format!("input = {at}"))))
                .collect(),
            Kind::ValueSum | Kind::ValueAvg => {
                let mut weights = vec![("n".to_owned(), self.integer("1"))];
                match self.dialect {
                    Dialect::Sqlite => weights.extend([one("h", "high"), one("l", "low")]),
                    Dialect::ClickHouse => weights.push(one("total", "number")),
                }
                weights
            }
            Kind::EventCount | Kind::ValueCount | Kind::TemporalOrdered | Kind::ValuePercentile | Kind::ValueMedian => {
                vec![("metric".to_owned(), self.integer("1"))]
            }
        }
    }

    /// As a signed number, where 0 and 1 are not.
    fn integer(&self, what: &str) -> String {
        match self.dialect {
            Dialect::Sqlite if what.contains(' ') => format!("({what})"),
            Dialect::Sqlite => what.to_owned(),
            Dialect::ClickHouse => format!("toInt64({what})"),
        }
    }
}

/// The columns of the groups, each with a comma behind it.
pub(super) fn listed(correlation: &Correlation) -> String {
    groups(correlation).iter().map(|group| format!("{group}, ")).collect()
}

fn values(correlation: &Correlation) -> impl Iterator<Item = String> {
    (0..correlation.value_fields.len()).map(|at| format!("v{at}"))
}
