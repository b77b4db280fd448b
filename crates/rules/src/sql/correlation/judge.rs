//! Whether the condition holds at an anchor.

use super::arithmetic::{self, Number, UNIT};
use super::{Query, clickhouse};
use crate::sigma::correlation::{Bound, Condition, Correlation, Expr, Kind, Op};
use crate::sql::functions::IN_ORDER;
use crate::sql::{Dialect, SqlError};

impl Query<'_> {
    /// The condition over the columns of the anchors.
    pub(super) fn holds(&self, correlation: &Correlation) -> Result<String, SqlError> {
        let bounds = match &correlation.condition {
            Condition::Compare(bounds) => bounds,
            Condition::Rules(expr) => return Ok(occur(expr)),
        };
        let count = |metric: &str| {
            let tests: Vec<String> = bounds.iter().map(|bound| count_test(metric, *bound)).collect();
            tests.join(" AND ")
        };
        Ok(match correlation.kind {
            Kind::EventCount | Kind::ValueCount => count("metric"),
            Kind::Temporal => {
                let present: Vec<String> = (0..correlation.inputs.len()).map(|at| format!("(i{at} > 0)")).collect();
                count(&format!("({})", present.join(" + ")))
            }
            Kind::TemporalOrdered => match self.dialect {
                Dialect::Sqlite => count(&format!("{IN_ORDER}(list, '{} 0')", u64::MAX)),
                Dialect::ClickHouse => count(&clickhouse::in_order("list")),
            },
            Kind::ValueSum | Kind::ValueAvg => {
                let parts = if correlation.kind == Kind::ValueAvg { "n" } else { "1" };
                let tests: Vec<String> = bounds
                    .iter()
                    .map(|bound| match self.dialect {
                        Dialect::Sqlite => sum_test(*bound, parts),
                        Dialect::ClickHouse => {
                            let limit = arithmetic::millionths(bound.value);
                            format!("total {} toInt128('{limit}') * {parts}", bound.op.sign())
                        }
                    })
                    .collect();
                tests.join(" AND ")
            }
            Kind::ValuePercentile | Kind::ValueMedian => {
                return Err(self.unsupported("a percentile that is no list"));
            }
        })
    }
}

/// Which inputs occur: `i0` … count their members.
fn occur(expr: &Expr) -> String {
    let joined = |parts: &[Expr], word: &str, none: &str| {
        let parts: Vec<String> = parts.iter().map(occur).collect();
        if parts.is_empty() { none.to_owned() } else { format!("({})", parts.join(word)) }
    };
    match expr {
        Expr::Input(input) => format!("i{input} > 0"),
        Expr::All(parts) => joined(parts, " AND ", "1"),
        Expr::Any(parts) => joined(parts, " OR ", "0"),
        Expr::Not(part) => format!("NOT ({})", occur(part)),
    }
}

/// A whole number against a bound that may be none.
fn count_test(metric: &str, bound: Bound) -> String {
    let millionths = arithmetic::millionths(bound.value);
    let (below, whole) = (millionths.div_euclid(1_000_000), millionths.rem_euclid(1_000_000) == 0);
    match bound.op {
        Op::Gte if !whole => format!("{metric} > {below}"),
        Op::Lt if !whole => format!("{metric} <= {below}"),
        Op::Eq if !whole => "0".to_owned(),
        Op::Neq if !whole => "1".to_owned(),
        Op::Gt | Op::Gte | Op::Lt | Op::Lte | Op::Eq | Op::Neq => format!("{metric} {} {below}", bound.op.sign()),
    }
}

/// The sum `h * 10^9 + l` against `parts` times the bound, in SQLite's 64 bits: what is left of both
/// parts, carried so that the lower one is not negative.
fn sum_test(bound: Bound, parts: &str) -> String {
    let limit = Number::of(arithmetic::millionths(bound.value));
    let low = format!("(l - {} * {parts})", limit.low);
    let rest = format!("(({low} % {UNIT} + {UNIT}) % {UNIT})");
    let high = format!("(h - {} * {parts} + ({low} - {rest}) / {UNIT})", limit.high);
    match bound.op {
        Op::Gte => format!("{high} >= 0"),
        Op::Lt => format!("{high} < 0"),
        Op::Gt => format!("({high} > 0 OR {high} = 0 AND {rest} > 0)"),
        Op::Lte => format!("({high} < 0 OR {high} = 0 AND {rest} = 0)"),
        Op::Eq => format!("({high} = 0 AND {rest} = 0)"),
        Op::Neq => format!("({high} <> 0 OR {rest} <> 0)"),
    }
}
