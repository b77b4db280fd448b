//! What SQLite says in its own way.

use super::super::functions::MILLIONTHS;
use crate::sql::sqlite::first_value;

/// The first value of a field, or NULL.
pub(super) fn first(name: &str) -> String {
    first_value(name)
}

/// The members `m` of a correlation at anchors where it holds, with so many columns `x0` …. A join would be
/// planned as a search of all events for each anchor; this is one sorting.
pub(super) fn held(prefix: &str, groups: &[String], columns: usize) -> String {
    let groups: String = groups.iter().map(|group| format!("{group}, ")).collect();
    let shown: String = (0..columns).map(|at| format!("x{at}, ")).collect();
    let none = "NULL, ".repeat(columns);
    format!(
        "\nFROM (\n  SELECT event, ts, {shown}is_member, max(holds) OVER (PARTITION BY {groups}ts) AS held\n  FROM (\n    \
         SELECT event, ts, {groups}{shown}1 AS is_member, 0 AS holds FROM {prefix}_members\n    UNION ALL\n    \
         SELECT NULL, ts, {groups}{none}0, holds FROM {prefix}_judged\n  )\n) AS m\nWHERE m.is_member AND m.held"
    )
}

pub(super) fn is_number(value: &str) -> String {
    format!("{MILLIONTHS}({value}, 'high') IS NOT NULL")
}
