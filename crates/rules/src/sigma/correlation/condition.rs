//! Conditions: `{gte: 5, lt: 10, field: User}`, or `rule_a and not rule_b` (temporal kinds).

use super::{Bound, Kind, Op};
use crate::operators::compare;
use crate::sigma::Fault;
use crate::sigma::header::Entries;
use crate::suggest;
use crate::yaml::{Node, NodeValue};

/// Largest absolute value that a metric is compared with.
const BOUND_MAX: f64 = 1e15;
/// Largest number of words and signs of an expression.
const TOKENS_MAX: usize = 1_024;
/// Deepest nesting of an expression.
const DEPTH_MAX: usize = 32;

/// A condition as a mapping.
#[derive(Debug, Clone, Default)]
pub(super) struct Map {
    pub bounds: Vec<Bound>,
    pub fields: Vec<String>,
    pub percentile: Option<u8>,
}

/// An expression over names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Names {
    Name(String),
    All(Vec<Names>),
    Any(Vec<Names>),
    Not(Box<Names>),
}

impl Names {
    /// The names, each once, in order of appearance.
    pub fn all(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.visit(&mut |name| {
            if !names.contains(&name) {
                names.push(name);
            }
        });
        names
    }

    fn visit<'n>(&'n self, see: &mut dyn FnMut(&'n str)) {
        match self {
            Self::Name(name) => see(name),
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.visit(see)),
            Self::Not(part) => part.visit(see),
        }
    }
}

pub(super) fn map(node: &Node, kind: Kind, warnings: &mut Vec<Fault>) -> Result<Map, Fault> {
    let entries = Entries::of(node)?;
    let mut read = Map::default();
    let mut known: Vec<&str> = Op::ALL.iter().map(|op| op.as_str()).collect();
    known.extend(["field", "percentile"]);
    for (key, value) in entries.all {
        let at = |fault: Fault| Fault { field: Some(format!("correlation.condition.{key}")), ..fault };
        if let Some(op) = Op::ALL.into_iter().find(|op| op.as_str() == key) {
            read.bounds.push(Bound { op, value: number(&entries, key, value.line).map_err(at)? });
        } else if key == "field" {
            read.fields = fields(&entries, value.line, kind).map_err(at)?;
        } else if key == "percentile" {
            let text = entries.text(key).map_err(at)?.unwrap_or_default().trim();
            let percentile = text.parse().ok().filter(|percentile| *percentile <= 100);
            let message = format!("`{text}` is no percentile: a whole number from 0 to 100 is expected");
            read.percentile = Some(percentile.ok_or_else(|| at(Fault::new(value.line, message)))?);
        } else {
            let fault = at(Fault::new(value.line, "a condition has no such key"));
            return Err(match suggest::closest(key, &known) {
                Some(closest) => fault.suggest(format!("did you mean `{closest}`?")),
                None => fault.suggest(format!("it has {}", known.join(", "))),
            });
        }
    }
    let fault = |message: String| Fault::new(node.line, message).at("correlation.condition");
    if read.bounds.is_empty() {
        let ops = Op::ALL.map(Op::as_str).join(", ");
        return Err(fault("nothing is compared".to_owned()).suggest(format!("say one of {ops}, or two for a range")));
    }
    let counts = matches!(kind, Kind::ValueCount) || kind.numeric();
    if counts && read.fields.is_empty() {
        return Err(
            fault(format!("`{kind}` needs the field whose values count")).suggest("add `field: …` to the condition")
        );
    }
    if kind == Kind::ValuePercentile && read.percentile.is_none() {
        return Err(
            fault("`value_percentile` needs a percentile".to_owned()).suggest("add `percentile: 95` to the condition")
        );
    }
    // The reference implementation takes these, and does without them too.
    if !counts && !read.fields.is_empty() {
        read.fields.clear();
        warnings.push(
            Fault::new(node.line, format!("`{kind}` looks at no field; this one is ignored"))
                .at("correlation.condition.field")
                .suggest("use `value_count` to count the distinct values of a field"),
        );
    }
    if kind != Kind::ValuePercentile && read.percentile.take().is_some() {
        let message = format!("`{kind}` has no percentile; this one is ignored");
        warnings.push(Fault::new(node.line, message).at("correlation.condition.percentile"));
    }
    Ok(read)
}

fn number(entries: &Entries<'_>, key: &str, line: u64) -> Result<f64, Fault> {
    let text = entries.text(key)?.unwrap_or_default().trim();
    match compare::number(text) {
        Some(number) if number.abs() <= BOUND_MAX => Ok(number),
        Some(_) => Err(Fault::new(line, format!("`{text}` is larger than {BOUND_MAX}"))),
        None => Err(Fault::new(line, format!("`{text}` is no number"))),
    }
}

fn fields(entries: &Entries<'_>, line: u64, kind: Kind) -> Result<Vec<String>, Fault> {
    const FIELDS_MAX: usize = 16;
    let fields = entries.texts("field")?;
    if fields.is_empty() || fields.iter().any(|field| field.trim().is_empty()) {
        return Err(Fault::new(line, "the name of a field is expected"));
    }
    if fields.len() > 1 && kind.numeric() {
        return Err(Fault::new(line, format!("`{kind}` calculates with one field, these are {}", fields.len())));
    }
    if fields.len() > FIELDS_MAX {
        return Err(Fault::new(
            line,
            format!("at most {FIELDS_MAX} fields can be combined, these are {}", fields.len()),
        ));
    }
    Ok(fields)
}

/// What never or always holds, in a sentence.
pub(super) fn oddity(kind: Kind, bounds: &[Bound], inputs: usize) -> Option<String> {
    let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
    if !kind.numeric() {
        // A window has a member, so its counts begin at one.
        low = 1.0;
        if kind.temporal() {
            high = inputs as f64;
        }
    }
    let (least, most) = (low, high);
    let (mut open_low, mut open_high) = (false, false);
    for bound in bounds {
        let value = bound.value;
        match bound.op {
            Op::Gte if value > low => (low, open_low) = (value, false),
            Op::Gt if value >= low => (low, open_low) = (value, true),
            Op::Lte if value < high => (high, open_high) = (value, false),
            Op::Lt if value <= high => (high, open_high) = (value, true),
            Op::Eq => (low, high) = (low.max(value), high.min(value)),
            Op::Gte | Op::Gt | Op::Lte | Op::Lt | Op::Neq => {}
        }
    }
    let (mut first, mut last) = (low, high);
    if !kind.numeric() {
        first = if open_low && low.fract() == 0.0 { low + 1.0 } else { low.ceil() };
        last = if open_high && high.fract() == 0.0 { high - 1.0 } else { high.floor() };
        (open_low, open_high) = (false, false);
    }
    if first > last || (first == last && (open_low || open_high)) {
        return Some("this condition can never hold".to_owned());
    }
    let always = (first, last) == (least, most)
        && !kind.numeric()
        && bounds.iter().all(|bound| bound.op != Op::Neq || bound.value < least || bound.value.fract() != 0.0);
    always.then(|| "this condition holds for every event".to_owned())
}

/// An expression over names of rules: `not`, then `and`, then `or`.
pub(super) fn expression(text: &str, line: u64) -> Result<Names, Fault> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().take(TOKENS_MAX + 1).collect();
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0, line };
    if tokens.len() > TOKENS_MAX {
        return Err(parser.fault(format!("the condition has more than {TOKENS_MAX} words")));
    }
    let read = parser.any()?;
    match parser.next() {
        None => Ok(read),
        Some(")") => Err(parser.fault("a `)` has no `(`")),
        Some(word) => Err(parser.fault(format!("`{word}` is not expected here: `and`, `or` or the end is"))),
    }
}

struct Parser<'t> {
    tokens: &'t [&'t str],
    at: usize,
    depth: usize,
    line: u64,
}

impl<'t> Parser<'t> {
    fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(self.line, message).at("correlation.condition")
    }

    fn next(&mut self) -> Option<&'t str> {
        let token = self.tokens.get(self.at).copied();
        self.at += 1;
        token
    }

    fn accepts(&mut self, word: &str) -> bool {
        let found = self.tokens.get(self.at).is_some_and(|token| token.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    fn any(&mut self) -> Result<Names, Fault> {
        let mut parts = vec![self.all()?];
        while self.accepts("or") {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Names::Any(parts) })
    }

    fn all(&mut self) -> Result<Names, Fault> {
        let mut parts = vec![self.not()?];
        while self.accepts("and") {
            parts.push(self.not()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Names::All(parts) })
    }

    fn not(&mut self) -> Result<Names, Fault> {
        let mut negated = false;
        while self.accepts("not") {
            negated = !negated;
        }
        let one = self.one()?;
        Ok(if negated { Names::Not(Box::new(one)) } else { one })
    }

    fn one(&mut self) -> Result<Names, Fault> {
        match self.next() {
            None => Err(self.fault("the condition ends where the name of a rule is expected")),
            Some("(") => {
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err(self.fault(format!("the condition is nested deeper than {DEPTH_MAX}")));
                }
                let inner = self.any()?;
                self.depth -= 1;
                match self.next() {
                    Some(")") => Ok(inner),
                    _ => Err(self.fault("a `(` is not closed")),
                }
            }
            Some(word) if [")", "and", "or"].iter().any(|other| word.eq_ignore_ascii_case(other)) => {
                Err(self.fault(format!("`{word}` stands where the name of a rule is expected")))
            }
            Some(name) => Ok(Names::Name(name.to_owned())),
        }
    }
}

/// The words of a mapping or text, for the kind of a node.
pub(super) fn is_expression(node: &Node) -> Option<&str> {
    match &node.value {
        NodeValue::Text(text) => Some(text),
        NodeValue::Null | NodeValue::List(_) | NodeValue::Map(_) => None,
    }
}
