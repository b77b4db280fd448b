//! Rules: rows of the catalog and rule files → one predicate IR → matcher, explanation and SQL.
//!
//! Always true here: no clock, no file, no socket. A rule that cannot be right is refused when it is
//! compiled; matching cannot fail and takes time linear in the message, whatever an author or an
//! attacker writes.
//!
//! | module | what |
//! |---|---|
//! | [`ir`] | [`Predicate`], the one meaning of every rule |
//! | [`mutt`] | rule rows → predicate, validation |
//! | [`mod@sigma`] | Sigma rules → predicate, metadata, correlations |
//! | [`mod@correlate`] | correlations over a stream of matches, in event time |
//! | [`operators`] | what can be asked of a field; **to add an operator**, read its page |
//! | `plan`, `literals`, `oid_index` | what the index may look for, derived from the predicate |
//! | [`matcher`] | [`RuleSet`]: all rows in one pass, the first that matches |
//! | [`stream`] | [`stream::Engine`]: all detection rules in one pass, every one that matches |
//! | [`explain`] | why, in sentences |
//! | [`trial`] | rules tried on a few events, and on the examples beside them |
//! | [`sql`] | the same questions for SQLite and ClickHouse |
//! | [`mod@lint`] | rules that are allowed but probably not meant |
//! | [`mod@file`] | rule files in YAML, with their own tests |
//! | [`field_map`] | files that say what events call the fields of the taxonomy |
//! | [`yaml`] | bounded YAML trees with lines |
//! | [`mod@template`] | the shape of a message, and the key of a fault |
//!
//! **To add a kind of rule** (a new front end): translate it to [`Predicate`] in a file beside
//! [`mutt`]. **To add an output**: one `match` over [`Predicate`] beside [`explain`].

pub mod correlate;
pub mod error;
pub mod explain;
pub mod field_map;
pub mod file;
pub mod ir;
pub mod lint;
mod literals;
pub mod matcher;
pub mod mutt;
mod oid_index;
pub mod operators;
mod plan;
pub mod sigma;
pub mod sql;
pub mod stream;
mod suggest;
pub mod template;
pub mod trial;
pub mod yaml;

pub use error::{FieldProblem, RuleError, RuleProblem};
pub use explain::{Check, Explanation, Step};
pub use file::{FileProblem, FileRule, TestResult};

pub use ir::{Field, FieldsView, Lookup, Predicate, Relation, Subject, View};
pub use lint::{SetWarning, Warning, lint, lint_set};
pub use matcher::RuleSet;
pub use mutt::validate;
pub use operators::{Operator, Value};
pub use template::{fault_key, fingerprint, fingerprint_hex, template};
