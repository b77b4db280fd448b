//! What SQLite says in its own way.

use super::super::functions::MILLIONTHS;
use crate::sql::sqlite::first_value;

/// The first value of a field, or NULL.
pub(super) fn first(name: &str) -> String {
    first_value(name)
}

pub(super) fn is_number(value: &str) -> String {
    format!("{MILLIONTHS}({value}, 'high') IS NOT NULL")
}
