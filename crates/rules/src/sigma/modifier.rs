//! Modifiers: `field|contains|all: [a, b]` → predicates about one field.
//!
//! Modifiers are worked from left to right on each value, as the specification says; `all`, `neq`
//! and `exists` speak about the item as a whole.

use super::{Fault, Placeholders};
use crate::ir::Relation;
use crate::operators::clock::TimePart;
use crate::operators::compare::Order;
use crate::operators::pattern::Flags;
use crate::operators::text::{self, Part};
use crate::operators::{Operator, cidr, clock, compare, pattern};
use crate::yaml::{Node, NodeValue};
use crate::{Field, Predicate, suggest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::number_text;

/// Every modifier there is, for suggestions.
const NAMES: [&str; 35] = [
    "all",
    "neq",
    "base64",
    "base64offset",
    "cased",
    "cidr",
    "contains",
    "day",
    "dotall",
    "endswith",
    "exists",
    "expand",
    "fieldref",
    "gt",
    "gte",
    "hour",
    "i",
    "ignorecase",
    "lt",
    "lte",
    "m",
    "minute",
    "month",
    "multiline",
    "re",
    "s",
    "startswith",
    "utf16",
    "utf16be",
    "utf16le",
    "week",
    "wide",
    "windash",
    "year",
    "eq",
];
/// Most values that one value may become by `windash` and `expand`.
const VALUES_MAX: usize = 4_096;
/// The characters that Windows programs take for the dash of an option.
const DASHES: [char; 5] = ['-', '/', '\u{2013}', '\u{2014}', '\u{2015}'];

/// What a detection item is about.
pub(crate) struct Item<'a> {
    /// Absent: keywords.
    pub field: Option<&'a str>,
    pub modifiers: Vec<&'a str>,
    pub line: u64,
}

/// A value on its way through the modifiers.
#[derive(Clone)]
enum Value {
    /// Text with wildcards.
    Parts(Vec<Part>),
    /// Text in another encoding, on its way to Base64.
    Bytes(Vec<u8>),
}

impl Value {
    /// Text as the rest of the chain compares it; bytes that are no UTF-8 cannot be part of one.
    fn into_parts(self) -> Vec<Part> {
        match self {
            Self::Parts(parts) => parts,
            Self::Bytes(bytes) => vec![Part::Literal(String::from_utf8_lossy(&bytes).into_owned())],
        }
    }

    /// The bytes that are encoded; a wildcard cannot be.
    fn into_bytes(self, modifier: &str) -> Result<Vec<u8>, String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Parts(parts) => match &parts[..] {
                [] => Ok(Vec::new()),
                [Part::Literal(text)] => Ok(text.clone().into_bytes()),
                _ => {
                    Err(format!("`{modifier}` encodes a text; it cannot hold wildcards (write `\\*` for an asterisk)"))
                }
            },
        }
    }
}

/// What the chain ends in.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Pattern(Flags),
    Cidr,
    Compare(Order),
    Clock(TimePart, Order),
    Reference,
}

impl<'a> Item<'a> {
    /// Reads `field|modifier|…`.
    pub fn read(key: &'a str, line: u64) -> Self {
        let mut parts = key.split('|').map(str::trim);
        let field = parts.next().filter(|field| !field.is_empty());
        Self { field, modifiers: parts.collect(), line }
    }

    /// The item's predicate, and what its author should know.
    pub fn predicate(
        &self,
        values: &[Node],
        placeholders: &Placeholders,
        warnings: &mut Vec<Fault>,
    ) -> Result<Predicate, Fault> {
        for name in &self.modifiers {
            if !NAMES.contains(name) {
                let fault = Fault::new(self.line, format!("there is no modifier `{name}`"));
                return Err(match suggest::closest(name, &NAMES) {
                    Some(closest) => fault.suggest(format!("did you mean `{closest}`?")),
                    None => fault.suggest("the modifiers are those of the Sigma specification 2.1"),
                });
            }
        }
        if self.has("exists") {
            return self.exists(values);
        }
        let mut predicates = Vec::new();
        for node in values {
            let fault = |fault: Fault| Fault { line: node.line, ..fault };
            predicates.push(self.value(node, placeholders, warnings).map_err(fault)?);
        }
        let joined = match (predicates.len(), self.has("all")) {
            (0, _) => {
                return Err(Fault::new(self.line, "there are no values to compare with")
                    .suggest("write `null` to ask for a field without a value"));
            }
            (1, true) => {
                warnings.push(Fault::new(self.line, "`all` has a single value, and does nothing"));
                predicates.remove(0)
            }
            (1, false) => predicates.remove(0),
            (_, true) => Predicate::All(predicates),
            (_, false) => Predicate::Any(predicates),
        };
        Ok(if self.has("neq") { Predicate::Not(Box::new(joined)) } else { joined })
    }

    fn has(&self, name: &str) -> bool {
        self.modifiers.contains(&name)
    }

    fn exists(&self, values: &[Node]) -> Result<Predicate, Fault> {
        let field =
            self.field.ok_or_else(|| Fault::new(self.line, "`exists` asks about a field; keywords have none"))?;
        if self.modifiers.iter().any(|name| !matches!(*name, "exists" | "all" | "neq")) {
            return Err(Fault::new(self.line, "`exists` goes with no other modifier"));
        }
        let wanted = match values {
            [Node { value: NodeValue::Text(text), .. }] if text.eq_ignore_ascii_case("true") || text == "yes" => true,
            [Node { value: NodeValue::Text(text), .. }] if text.eq_ignore_ascii_case("false") || text == "no" => false,
            _ => return Err(Fault::new(self.line, "`exists` takes one value, `true` or `false`")),
        };
        let exists = Predicate::Exists(field.into());
        Ok(if wanted != self.has("neq") { exists } else { Predicate::Not(Box::new(exists)) })
    }

    /// One value of the item.
    fn value(&self, node: &Node, placeholders: &Placeholders, warnings: &mut Vec<Fault>) -> Result<Predicate, Fault> {
        let bad = |message: String| Fault::new(node.line, message);
        let written = match &node.value {
            NodeValue::Null => None,
            NodeValue::Text(text) => Some(text.as_str()),
            other @ (NodeValue::List(_) | NodeValue::Map(_)) => {
                return Err(bad(format!("a value is expected, this is {}", other.kind())));
            }
        };
        let kind = self.kind()?;
        let Some(written) = written else { return self.null(kind) };
        if let Kind::Pattern(_) | Kind::Cidr | Kind::Compare(_) | Kind::Clock(..) = kind
            && !self.has("expand")
        {
            return self.operator(kind, written, node.line);
        }
        let start = match kind {
            Kind::Text => text::parse(written),
            Kind::Pattern(_) | Kind::Cidr | Kind::Compare(_) | Kind::Clock(..) | Kind::Reference => {
                vec![Part::Literal(written.to_owned())]
            }
        };
        let values = self.modified(Value::Parts(start), placeholders, warnings, node.line)?;
        let mut any = Vec::new();
        for value in values {
            let parts = value.into_parts();
            any.push(match kind {
                Kind::Text => self.text(parts),
                Kind::Reference => self.reference(&plain(&parts), node.line)?,
                Kind::Pattern(_) | Kind::Cidr | Kind::Compare(_) | Kind::Clock(..) => {
                    self.operator(kind, &plain(&parts), node.line)?
                }
            });
        }
        // A number stands for every way of writing it.
        if kind == Kind::Text
            && let [Predicate::Test(field, _)] = &any[..]
            && self.modifiers.iter().all(|name| matches!(*name, "all" | "neq" | "cased"))
        {
            let canonical = number_text(written);
            if canonical != written && compare::number(written).is_some() {
                let op = text::compile([Part::Literal(canonical.into_owned())], self.has("cased"));
                any.push(Predicate::Test(field.clone(), Operator::Text(op)));
            }
        }
        Ok(match any.len() {
            1 => any.remove(0),
            _ => Predicate::Any(any),
        })
    }

    fn null(&self, kind: Kind) -> Result<Predicate, Fault> {
        let field = self.field.ok_or_else(|| Fault::new(self.line, "a keyword cannot be null"))?;
        if kind != Kind::Text || self.modifiers.iter().any(|name| !matches!(*name, "all" | "neq" | "cased")) {
            return Err(Fault::new(self.line, "null goes with no modifier but `all` and `neq`"));
        }
        Ok(Predicate::Null(field.into()))
    }

    /// What the values of this item are compared as.
    fn kind(&self) -> Result<Kind, Fault> {
        let mut kind = Kind::Text;
        let conflict = |name: &str| Fault::new(self.line, format!("`{name}` does not go with the modifiers before it"));
        for name in &self.modifiers {
            let order = match *name {
                "lt" => Some(Order::Less),
                "lte" => Some(Order::LessOrEqual),
                "gt" => Some(Order::Greater),
                "gte" => Some(Order::GreaterOrEqual),
                "eq" => Some(Order::Equal),
                _ => None,
            };
            let part = match *name {
                "minute" => Some(TimePart::Minute),
                "hour" => Some(TimePart::Hour),
                "day" => Some(TimePart::Day),
                "week" => Some(TimePart::Week),
                "month" => Some(TimePart::Month),
                "year" => Some(TimePart::Year),
                _ => None,
            };
            kind = match (*name, kind) {
                (_, Kind::Text) if order.is_some() => order.map_or(kind, Kind::Compare),
                (_, Kind::Clock(part, Order::Equal)) if order.is_some() => order.map_or(kind, |o| Kind::Clock(part, o)),
                (_, Kind::Text) if part.is_some() => part.map_or(kind, |part| Kind::Clock(part, Order::Equal)),
                ("re", Kind::Text) => Kind::Pattern(Flags::default()),
                ("i" | "ignorecase", Kind::Pattern(flags)) => Kind::Pattern(Flags { ignore_case: true, ..flags }),
                ("m" | "multiline", Kind::Pattern(flags)) => Kind::Pattern(Flags { multi_line: true, ..flags }),
                ("s" | "dotall", Kind::Pattern(flags)) => Kind::Pattern(Flags { dot_all: true, ..flags }),
                ("i" | "ignorecase" | "m" | "multiline" | "s" | "dotall", _) => {
                    return Err(Fault::new(
                        self.line,
                        format!("`{name}` is a flag of `re`, which has to stand before it"),
                    ));
                }
                ("cidr", Kind::Text) => Kind::Cidr,
                ("fieldref", Kind::Text) => Kind::Reference,
                ("all" | "neq" | "expand", kind) => kind,
                ("cased", Kind::Text | Kind::Reference) => kind,
                ("startswith" | "endswith" | "contains", Kind::Text | Kind::Reference) => kind,
                ("windash" | "base64" | "base64offset" | "wide" | "utf16" | "utf16le" | "utf16be", Kind::Text) => kind,
                (name, _) => return Err(conflict(name)),
            };
        }
        if self.field.is_none() && matches!(kind, Kind::Reference) {
            return Err(Fault::new(self.line, "`fieldref` compares two fields; keywords have none"));
        }
        Ok(kind)
    }

    /// The value, or the values it becomes, after all modifiers that change values.
    fn modified(
        &self,
        value: Value,
        placeholders: &Placeholders,
        warnings: &mut Vec<Fault>,
        line: u64,
    ) -> Result<Vec<Value>, Fault> {
        let mut values = vec![value];
        for name in &self.modifiers {
            let mut next = Vec::new();
            let fault = |message: String| Fault::new(line, message);
            for value in values {
                match *name {
                    "windash" => next.extend(windash(&value.into_parts()).into_iter().map(Value::Parts)),
                    "expand" => {
                        let expanded = expand(&value.into_parts(), placeholders, self.line, warnings);
                        next.extend(expanded.into_iter().map(Value::Parts));
                    }
                    "wide" | "utf16le" | "utf16" | "utf16be" => {
                        let text = String::from_utf8_lossy(&value.into_bytes(name).map_err(fault)?).into_owned();
                        next.push(Value::Bytes(utf16(&text, name)));
                    }
                    "base64" => {
                        let encoded = STANDARD.encode(value.into_bytes(name).map_err(fault)?);
                        next.push(Value::Parts(vec![Part::Literal(encoded)]));
                    }
                    "base64offset" => {
                        let bytes = value.into_bytes(name).map_err(fault)?;
                        let offsets = base64_offsets(&bytes).into_iter().filter(|text| !text.is_empty());
                        next.extend(offsets.map(|text| Value::Parts(vec![Part::Literal(text)])));
                    }
                    "startswith" if !self.has("fieldref") => {
                        next.push(Value::Parts(with(value.into_parts(), false, true)))
                    }
                    "endswith" if !self.has("fieldref") => {
                        next.push(Value::Parts(with(value.into_parts(), true, false)))
                    }
                    "contains" if !self.has("fieldref") => {
                        next.push(Value::Parts(with(value.into_parts(), true, true)))
                    }
                    _ => next.push(value),
                }
                if next.len() > VALUES_MAX {
                    return Err(Fault::new(line, format!("this value stands for more than {VALUES_MAX} values")));
                }
            }
            values = next;
        }
        Ok(values)
    }

    fn text(&self, parts: Vec<Part>) -> Predicate {
        // A keyword is looked for anywhere in a value.
        let parts = if self.field.is_none() { with(parts, true, true) } else { parts };
        self.test(Operator::Text(text::compile(parts, self.has("cased"))))
    }

    fn test(&self, operator: Operator) -> Predicate {
        match self.field {
            Some(field) => Predicate::Test(Field::Named(field.into()), operator),
            None => Predicate::AnyField(operator),
        }
    }

    fn operator(&self, kind: Kind, written: &str, line: u64) -> Result<Predicate, Fault> {
        let compiled = match kind {
            Kind::Pattern(flags) => pattern::compile(written, flags).map(Operator::Pattern),
            Kind::Cidr => cidr::compile(written).map(Operator::Cidr),
            Kind::Compare(order) => compare::compile(order, written).map(Operator::Compare),
            Kind::Clock(part, order) => clock::compile(part, order, written).map(Operator::Clock),
            Kind::Text | Kind::Reference => return Ok(self.text(text::parse(written))),
        };
        compiled.map(|operator| self.test(operator)).map_err(|error| Fault::new(line, error.to_string()))
    }

    fn reference(&self, other: &str, line: u64) -> Result<Predicate, Fault> {
        let Some(field) = self.field else {
            return Err(Fault::new(line, "`fieldref` compares two fields; keywords have none"));
        };
        if other.is_empty() {
            return Err(Fault::new(line, "`fieldref` takes the name of a field"));
        }
        let relation = match () {
            () if self.has("startswith") => Relation::StartsWith,
            () if self.has("endswith") => Relation::EndsWith,
            () if self.has("contains") => Relation::Contains,
            () => Relation::Equals,
        };
        Ok(Predicate::Related { field: field.into(), relation, other: other.into(), cased: self.has("cased") })
    }
}

fn with(mut parts: Vec<Part>, before: bool, behind: bool) -> Vec<Part> {
    if before {
        parts.insert(0, Part::Many);
    }
    if behind {
        parts.push(Part::Many);
    }
    parts
}

/// The value with each dash that may begin an option in all forms of [`DASHES`], as pySigma reads
/// the specification: a dash or slash behind a word boundary that is not inside a word.
fn windash(parts: &[Part]) -> Vec<Vec<Part>> {
    let mut ways = vec![Vec::new()];
    let mut before: Option<char> = None;
    for part in parts {
        let Part::Literal(text) = part else {
            ways.iter_mut().for_each(|way| way.push(part.clone()));
            before = None;
            continue;
        };
        let mut pieces: Vec<Vec<String>> = vec![vec![String::new()]];
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            if matches!(c, '-' | '/') && !word(before) && word(chars.peek().copied()) {
                pieces.push(DASHES.iter().map(char::to_string).collect());
                pieces.push(vec![String::new()]);
            } else if let Some(last) = pieces.last_mut() {
                last.iter_mut().for_each(|piece| piece.push(c));
            }
            before = Some(c);
        }
        for piece in pieces {
            if ways.len().saturating_mul(piece.len()) > VALUES_MAX {
                // The caller refuses so many.
                return vec![Vec::new(); VALUES_MAX + 1];
            }
            ways = ways
                .iter()
                .flat_map(|way| {
                    piece.iter().map(move |text| {
                        let mut way = way.clone();
                        way.push(Part::Literal(text.clone()));
                        way
                    })
                })
                .collect();
        }
    }
    ways
}

/// The value with `%name%` replaced by each of the placeholder's values. One without values makes
/// the item match nothing, which is said.
fn expand(parts: &[Part], placeholders: &Placeholders, line: u64, warnings: &mut Vec<Fault>) -> Vec<Vec<Part>> {
    let mut ways: Vec<Vec<Part>> = vec![Vec::new()];
    for part in parts {
        let Part::Literal(text) = part else {
            ways.iter_mut().for_each(|way| way.push(part.clone()));
            continue;
        };
        let mut rest = text.as_str();
        while let Some((before, name, behind)) = placeholder(rest) {
            let known =
                placeholders.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, values)| values);
            if known.is_none_or(|values| values.is_empty()) {
                warnings.push(
                    Fault::new(line, format!("the placeholder %{name}% has no values: this value matches nothing"))
                        .suggest(format!("give it values in the configuration, under detection.placeholders.{name}")),
                );
            }
            ways.iter_mut().for_each(|way| way.push(Part::Literal(before.to_owned())));
            let values: Vec<Vec<Part>> = known.into_iter().flatten().map(|value| text::parse(value)).collect();
            ways = ways
                .iter()
                .flat_map(|way| values.iter().map(move |value| way.iter().chain(value).cloned().collect()))
                .take(VALUES_MAX + 1)
                .collect();
            rest = behind;
        }
        ways.iter_mut().for_each(|way| way.push(Part::Literal(rest.to_owned())));
    }
    ways
}

/// Splits at the first `%name%`.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (before, from) = text.split_once('%')?;
    let (name, behind) = from.split_once('%')?;
    let usual = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
    (!name.is_empty() && name.chars().all(usual)).then_some((before, name, behind))
}

/// The text of a value in which wildcards mean nothing.
fn plain(parts: &[Part]) -> String {
    let text = |part: &Part| match part {
        Part::Literal(text) => text.clone(),
        Part::One => "?".to_owned(),
        Part::Many => "*".to_owned(),
    };
    parts.iter().map(text).collect()
}

/// A text in UTF-16: little-endian, with a byte order mark for `utf16`.
fn utf16(text: &str, name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() * 2 + 2);
    if name == "utf16" {
        bytes.extend([0xff, 0xfe]);
    }
    for unit in text.encode_utf16() {
        bytes.extend(if name == "utf16be" { unit.to_be_bytes() } else { unit.to_le_bytes() });
    }
    bytes
}

/// The text's Base64 at each of the three offsets it can have in a longer one, without the
/// characters that depend on its neighbours.
fn base64_offsets(bytes: &[u8]) -> [String; 3] {
    const START: [usize; 3] = [0, 2, 3];
    const CUT: [usize; 3] = [0, 3, 2];
    [0, 1, 2].map(|offset| {
        let mut shifted = vec![b' '; offset];
        shifted.extend_from_slice(bytes);
        let encoded = STANDARD.encode(&shifted);
        let end = encoded.len() - CUT[shifted.len() % 3];
        encoded.get(START[offset]..end).unwrap_or_default().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_base64_are_those_of_the_specification() {
        assert_eq!(base64_offsets(b"/bin/bash"), ["L2Jpbi9iYXNo", "9iaW4vYmFza", "vYmluL2Jhc2"]);
        assert_eq!(base64_offsets(b"foobar")[0], "Zm9vYmFy");
    }

    #[test]
    fn a_dash_of_an_option_has_five_forms_and_one_in_a_word_has_one() {
        let parts = text::parse("/s -x a-b");
        assert_eq!(windash(&parts).len(), 25);
        assert_eq!(windash(&text::parse("a-b")).len(), 1);
    }
}
