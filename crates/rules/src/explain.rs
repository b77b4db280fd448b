//! Why a rule matched or did not, in sentences: derived from the predicates, without the index.

use crate::ir::Lookup;
use crate::{Field, Predicate, Subject, View, ir};
use model::{Rule, RuleId};
use std::fmt;

/// Longest quotation in an explanation, in characters.
const QUOTE_CHARS_MAX: usize = 80;

/// The rules that were tried, in order, ending at the winner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// One step a rule.
    pub steps: Vec<Step>,
    /// The rule that matched first.
    pub winner: Option<RuleId>,
}

/// One rule's part of an explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The rule.
    pub rule: RuleId,
    /// Its priority.
    pub priority: i32,
    /// Whether it matched.
    pub hit: bool,
    /// What was asked, in order; nothing is asked after the answer is known.
    pub checks: Vec<Check>,
}

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// A sentence that holds exactly if `passed`: `the message contains "x"`.
    pub asked: String,
    /// What the event has.
    pub found: String,
    /// The answer.
    pub passed: bool,
}

pub(crate) fn explain<'a>(
    rules: impl Iterator<Item = (&'a Rule, &'a Predicate)>,
    subject: &Subject<'_>,
) -> Explanation {
    let mut lower = String::new();
    ir::lower_into(subject.message, &mut lower);
    let view = View::new(*subject, &lower);
    let mut steps = Vec::new();
    for (rule, predicate) in rules {
        let mut checks = Vec::new();
        let hit = ask(predicate, &view, &mut checks);
        steps.push(Step { rule: rule.id, priority: rule.draft.priority, hit, checks });
        if hit {
            return Explanation { steps, winner: Some(rule.id) };
        }
    }
    Explanation { steps, winner: None }
}

/// Explains one predicate; the answer and what was asked on the way.
pub fn ask(predicate: &Predicate, event: &impl Lookup, checks: &mut Vec<Check>) -> bool {
    match predicate {
        Predicate::All(parts) => parts.iter().all(|part| ask(part, event, checks)),
        Predicate::Any(parts) => parts.iter().any(|part| ask(part, event, checks)),
        Predicate::Not(part) => {
            if let Predicate::Present(field) = &**part {
                let passed = !event.present(field);
                checks.push(Check {
                    asked: format!("{} is absent", field.label()),
                    found: found(field, event),
                    passed,
                });
                return passed;
            }
            let mut inner = Vec::new();
            let passed = !ask(part, event, &mut inner);
            checks.extend(inner.into_iter().map(|check| Check {
                asked: format!("it is not so that {}", check.asked),
                passed: !check.passed,
                found: check.found,
            }));
            passed
        }
        Predicate::Present(_)
        | Predicate::Test(..)
        | Predicate::Exists(_)
        | Predicate::Null(_)
        | Predicate::AnyField(_)
        | Predicate::Related { .. } => {
            let passed = predicate.matches(event);
            checks.push(Check { asked: asked(predicate), found: answered(predicate, event), passed });
            passed
        }
    }
}

/// Lines of a predicate in words, at most.
const LINES_MAX: usize = 200;

/// What a predicate asks, in words: a line a question, parts of a question indented below it.
pub fn words(predicate: &Predicate) -> Vec<String> {
    let mut lines = Vec::new();
    say(predicate, 0, "", &mut lines);
    if lines.len() > LINES_MAX {
        let more = lines.len() - LINES_MAX;
        lines.truncate(LINES_MAX);
        lines.push(format!("and {more} lines more"));
    }
    lines
}

fn say(predicate: &Predicate, depth: usize, not: &str, lines: &mut Vec<String>) {
    let mut line = |text: String| lines.push(format!("{:indent$}{not}{text}", "", indent = depth * 2));
    let parts = match predicate {
        Predicate::All(parts) if parts.len() != 1 => {
            line(if parts.is_empty() { "always" } else { "all of" }.to_owned());
            parts
        }
        Predicate::Any(parts) if parts.len() != 1 => {
            line(if parts.is_empty() { "never" } else { "one of" }.to_owned());
            parts
        }
        Predicate::All(parts) | Predicate::Any(parts) => return say(&parts[0], depth, not, lines),
        Predicate::Not(part) => return say(part, depth, if not.is_empty() { "not: " } else { "" }, lines),
        Predicate::Present(_)
        | Predicate::Test(..)
        | Predicate::Exists(_)
        | Predicate::Null(_)
        | Predicate::AnyField(_)
        | Predicate::Related { .. } => {
            line(asked(predicate));
            return;
        }
    };
    parts.iter().for_each(|part| say(part, depth + 1, "", lines));
}

/// The question in words; of predicates without parts.
fn asked(predicate: &Predicate) -> String {
    match predicate {
        Predicate::All(_) | Predicate::Any(_) | Predicate::Not(_) => String::new(),
        Predicate::Present(field) => format!("{} is present", field.label()),
        Predicate::Test(field, operator) => format!("{} {}", field.label(), operator.describe()),
        Predicate::Exists(name) => format!("{name} exists"),
        Predicate::Null(name) => format!("{name} has no value"),
        Predicate::AnyField(operator) => format!("some field {}", operator.describe()),
        Predicate::Related { field, relation, other, cased } => {
            let case = if *cased { " (upper and lower case differ)" } else { "" };
            format!("{field} {} {other}{case}", relation.words())
        }
    }
}

/// What the event has where the question looks.
fn answered(predicate: &Predicate, event: &impl Lookup) -> String {
    let named = |name: &str| found(&Field::Named(name.into()), event);
    match predicate {
        Predicate::All(_) | Predicate::Any(_) | Predicate::Not(_) => String::new(),
        Predicate::Present(field) | Predicate::Test(field, _) => found(field, event),
        Predicate::Exists(name) | Predicate::Null(name) => named(name),
        Predicate::AnyField(_) => "the whole event".to_owned(),
        Predicate::Related { field, other, .. } => format!("{} and {}", named(field), named(other)),
    }
}

fn found(field: &Field, event: &impl Lookup) -> String {
    const VALUES_MAX: usize = 4;
    let values = event.shown(field);
    if values.is_empty() {
        return "absent".to_owned();
    }
    let show = |value: &String| match field {
        Field::Severity => value.clone(),
        Field::Message | Field::TrapOid | Field::Named(_) => quote(value),
    };
    let mut shown: Vec<String> = values.iter().take(VALUES_MAX).map(show).collect();
    if values.len() > VALUES_MAX {
        shown.push(format!("{} more", values.len() - VALUES_MAX));
    }
    shown.join(", ")
}

/// Quoted, with control characters escaped, and cut.
fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARS_MAX) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.hit { "match" } else { "no match" };
        write!(f, "rule {} (priority {}): {verdict}", self.rule, self.priority)?;
        for (i, check) in self.checks.iter().enumerate() {
            let start = if i == 0 { ": " } else { "; " };
            let mark = if check.passed { "yes" } else { "no" };
            write!(f, "{start}{}? {mark}, it is {}", check.asked, check.found)?;
        }
        Ok(())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        match self.winner {
            Some(id) => write!(f, "rule {id} wins"),
            None if self.steps.is_empty() => write!(f, "no rule matches: there are no active rules"),
            None => write!(f, "no rule matches: the event counts as unhandled"),
        }
    }
}
