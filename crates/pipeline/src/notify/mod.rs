//! Who is told of an alert, and when not: the routing tree, what alerts are gathered into one
//! incident, silences.
//!
//! Everything that decides is pure: functions of an alert, the configured tree, the silences and
//! `now`. Always true:
//! * Without routes every alert goes to every channel, and alerts of MUTT's rules are never gathered.
//! * A tree names configured channels only; that is checked at the start.
//! * Nothing vanishes: an alert that nobody is told of is kept, with a state that says why.

mod glob;
mod keeper;
mod matcher;
mod plan;
mod route;
mod span;
mod tree;

pub use keeper::Keeper;
pub use matcher::{Matcher, MatcherSpec, SpecProblem, severity_of};
pub use plan::{Planner, read_matcher};
pub use route::{Escalation, GroupBy, Policy, PolicySpec, RouteSpec};
pub use span::{parse_span, span_text};
pub use tree::{Hit, RouteView, Router};
