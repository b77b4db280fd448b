//! How the index finds a predicate: derived from the predicate, never written by hand.
//!
//! Two sound approximations: a *gate* over the few circumstances that can be told before looking
//! at any text (severity, has an OID, has a message), and groups of *keys*: at least one key of
//! each group must be seen. `exact` says that gate and keys together are the whole answer.

use crate::operators::{Anchor, Value};
use crate::{Field, Predicate, View};
use model::Severity;

/// What can be told about an event without looking at its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Circumstance {
    severity: Option<Severity>,
    has_oid: bool,
    has_message: bool,
}

impl Circumstance {
    pub(crate) fn of(view: &View<'_>) -> Self {
        let severity = match view.value(&Field::Severity) {
            Value::Severity(severity) => Some(severity),
            Value::Absent | Value::Text { .. } | Value::Oid(_) => None,
        };
        Self { severity, has_oid: view.has(&Field::TrapOid), has_message: view.has(&Field::Message) }
    }

    pub(crate) fn bit(self) -> Gate {
        let severity = self.severity.map_or(8, |s| u32::from(s.code()));
        Gate(1 << (severity * 4 + u32::from(self.has_oid) * 2 + u32::from(self.has_message)))
    }

    fn all() -> impl Iterator<Item = Self> {
        let severities = Severity::ALL.into_iter().map(Some).chain([None]);
        severities.flat_map(|severity| {
            [(false, false), (false, true), (true, false), (true, true)].map(|(has_oid, has_message)| Self {
                severity,
                has_oid,
                has_message,
            })
        })
    }
}

/// The circumstances in which a predicate may hold, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gate(u64);

impl Gate {
    pub(crate) fn admits(self, circumstance: Gate) -> bool {
        self.0 & circumstance.0 != 0
    }
}

/// Something that the index can look up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Literal(String),
    Oid(String),
}

/// How to find one predicate.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) gate: Gate,
    /// At least one key of each group is seen whenever the predicate holds; none = evaluate it
    /// always.
    pub(crate) groups: Vec<Vec<Key>>,
    /// An open gate and a seen key of each group are the whole answer.
    pub(crate) exact: bool,
}

pub(crate) fn plan(predicate: &Predicate) -> Plan {
    let mut gate = Gate(0);
    for circumstance in Circumstance::all() {
        if decide(predicate, circumstance) != Some(false) {
            gate.0 |= circumstance.bit().0;
        }
    }
    let (groups, exact) = groups(predicate);
    Plan { gate, exact: exact && !groups.is_empty(), groups }
}

/// The answer, if the circumstance alone decides it.
fn decide(predicate: &Predicate, circumstance: Circumstance) -> Option<bool> {
    match predicate {
        Predicate::All(parts) => {
            let answers: Vec<_> = parts.iter().map(|part| decide(part, circumstance)).collect();
            if answers.contains(&Some(false)) {
                return Some(false);
            }
            (!answers.contains(&None)).then_some(true)
        }
        Predicate::Any(parts) => {
            let answers: Vec<_> = parts.iter().map(|part| decide(part, circumstance)).collect();
            if answers.contains(&Some(true)) {
                return Some(true);
            }
            (!answers.contains(&None)).then_some(false)
        }
        Predicate::Not(part) => decide(part, circumstance).map(|answer| !answer),
        Predicate::Present(field) => Some(has(circumstance, field)),
        Predicate::Test(field, _) if !has(circumstance, field) => Some(false),
        Predicate::Test(Field::Severity, operator) => {
            Some(operator.matches(&circumstance.severity.map_or(Value::Absent, Value::Severity)))
        }
        Predicate::Test(Field::Message | Field::TrapOid | Field::Named(_), _)
        | Predicate::Exists(_)
        | Predicate::Null(_)
        | Predicate::AnyField(_)
        | Predicate::Related { .. } => None,
    }
}

fn has(circumstance: Circumstance, field: &Field) -> bool {
    match field {
        Field::Message => circumstance.has_message,
        Field::Severity => circumstance.severity.is_some(),
        Field::TrapOid => circumstance.has_oid,
        // MUTT rows know no other fields.
        Field::Named(_) => false,
    }
}

/// The groups, and whether they are the whole answer as far as no circumstance speaks.
fn groups(predicate: &Predicate) -> (Vec<Vec<Key>>, bool) {
    match predicate {
        Predicate::All(parts) => {
            let mut all = Vec::new();
            let mut exact = true;
            for part in parts.iter().filter(|part| !is_gate(part)) {
                let (groups, part_exact) = groups(part);
                exact &= part_exact && matches!(part, Predicate::Test(..));
                all.extend(groups);
            }
            (all, exact)
        }
        Predicate::Any(parts) => {
            let mut union = Vec::new();
            let mut exact = true;
            for part in parts {
                let (groups, part_exact) = groups(part);
                // A part with a gate of its own is not answered by the common gate.
                exact &= part_exact && groups.len() == 1 && matches!(part, Predicate::Test(..));
                match groups.into_iter().max_by_key(|group| shortest(group)) {
                    Some(best) => union.extend(best),
                    None => return (Vec::new(), false),
                }
            }
            if union.is_empty() { (Vec::new(), false) } else { (vec![union], exact) }
        }
        Predicate::Not(_)
        | Predicate::Present(_)
        | Predicate::Exists(_)
        | Predicate::Null(_)
        | Predicate::AnyField(_)
        | Predicate::Related { .. } => (Vec::new(), false),
        Predicate::Test(_, operator) => match operator.anchor() {
            Anchor::Literal(text) => (vec![vec![Key::Literal(text.to_owned())]], true),
            Anchor::Groups(groups) => {
                let keys = |group: &Vec<String>| group.iter().cloned().map(Key::Literal).collect();
                (groups.iter().map(keys).collect(), false)
            }
            Anchor::Oid(op) => (vec![vec![Key::Oid(op.oid().to_owned())]], true),
            Anchor::None => (Vec::new(), false),
        },
    }
}

/// Whether every circumstance decides it.
fn is_gate(predicate: &Predicate) -> bool {
    Circumstance::all().all(|circumstance| decide(predicate, circumstance).is_some())
}

fn shortest(keys: &[Key]) -> usize {
    keys.iter()
        .map(|key| match key {
            Key::Literal(text) | Key::Oid(text) => text.len(),
        })
        .min()
        .unwrap_or(0)
}
