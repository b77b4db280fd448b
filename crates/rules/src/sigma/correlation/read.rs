//! The part `correlation` of a document, up to what the document itself can answer.

use super::condition::{self, Names};
use super::{Bound, INPUTS_MAX, Kind, TEMPORAL_INPUTS_MAX, Timespan};
use crate::sigma::header::Entries;
use crate::sigma::{Fault, Header};
use crate::suggest;
use crate::yaml::NodeValue;

const KEYS: [&str; 7] = ["type", "rules", "group-by", "timespan", "condition", "aliases", "generate"];
/// Most fields of `group-by`.
const GROUP_FIELDS_MAX: usize = 16;
/// Most aliases.
const ALIASES_MAX: usize = 64;

/// A correlation whose references nobody has looked up yet.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub header: Header,
    pub kind: Kind,
    pub rules: Vec<Reference>,
    pub group_by: Vec<String>,
    pub value_fields: Vec<String>,
    pub percentile: u8,
    pub timespan: Timespan,
    pub(super) condition: DraftCondition,
    pub aliases: Vec<Alias>,
    pub generate: bool,
    /// Where the condition, or else the correlation, begins.
    pub(super) condition_line: u64,
}

/// A rule by name, id or title.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    pub name: String,
    pub line: u64,
}

/// A name for fields that differ between inputs.
#[derive(Debug, Clone)]
pub(crate) struct Alias {
    pub name: String,
    pub line: u64,
    /// Reference and field.
    pub fields: Vec<(Reference, String)>,
}

#[derive(Debug, Clone)]
pub(super) enum DraftCondition {
    Compare(Vec<Bound>),
    /// No condition: all inputs.
    All,
    Rules(Names),
}

impl Draft {
    pub(crate) fn read(header: Header, document: &Entries<'_>, warnings: &mut Vec<Fault>) -> Result<Self, Fault> {
        let node = document.get("correlation").ok_or_else(|| Fault::new(document.line, "a correlation is required"))?;
        let part = Entries::of(node).map_err(|_| {
            Fault::new(node.line, format!("a mapping is expected, this is {}", node.value.kind())).at("correlation")
        })?;
        keys(&part, warnings)?;
        let missing = |key: &str, what: &str| {
            Fault::new(node.line, format!("{what} is required")).at(format!("correlation.{key}"))
        };
        let kind = kind(&part)?.ok_or_else(|| {
            let kinds = Kind::ALL.map(Kind::as_str).join(", ");
            missing("type", "a type").suggest(format!("say one of {kinds}"))
        })?;
        let mut rules = references(&part)?;
        let condition = part.get("condition").filter(|node| !matches!(node.value, NodeValue::Null));
        let condition_line = condition.map_or(node.line, |node| node.line);
        let (mut value_fields, mut percentile) = (Vec::new(), 50);
        let condition = match condition {
            None if kind.temporal() => DraftCondition::All,
            None => {
                return Err(missing("condition", "a condition").suggest("say `condition: {gte: …}`"));
            }
            Some(node) => match condition::is_expression(node) {
                Some(text) if kind.temporal() => DraftCondition::Rules(condition::expression(text, node.line)?),
                Some(_) => {
                    let message = format!("`{kind}` compares a number; only the temporal types combine rules by name");
                    return Err(Fault::new(node.line, message)
                        .at("correlation.condition")
                        .suggest("say `condition: {gte: …}`, or make its type `temporal`"));
                }
                None => {
                    let NodeValue::Map(_) = node.value else {
                        let message = format!("a mapping or a text is expected, this is {}", node.value.kind());
                        return Err(Fault::new(node.line, message).at("correlation.condition"));
                    };
                    let map = condition::map(node, kind, warnings)?;
                    value_fields = map.fields;
                    percentile = map.percentile.unwrap_or(percentile);
                    DraftCondition::Compare(map.bounds)
                }
            },
        };
        if rules.is_empty() {
            let DraftCondition::Rules(names) = &condition else {
                return Err(missing("rules", "a rule to correlate").suggest("list the rules by `name` or `id`"));
            };
            let named = names.all().into_iter();
            rules = named.map(|name| Reference { name: name.to_owned(), line: condition_line }).collect();
        }
        let most = if kind.temporal() { TEMPORAL_INPUTS_MAX } else { INPUTS_MAX };
        if rules.len() > most {
            let message = format!("`{kind}` correlates at most {most} rules, these are {}", rules.len());
            return Err(Fault::new(node.line, message).at("correlation.rules"));
        }
        if let DraftCondition::Compare(bounds) = &condition
            && let Some(oddity) = condition::oddity(kind, bounds, rules.len())
        {
            warnings.push(Fault::new(condition_line, oddity).at("correlation.condition"));
        }
        let group_by = group_by(&part, warnings)?;
        let aliases = aliases(&part)?;
        for alias in &aliases {
            if !group_by.contains(&alias.name) && !value_fields.contains(&alias.name) {
                let warning = Fault::new(alias.line, "nothing uses this alias");
                let wanted: Vec<&str> = group_by.iter().map(String::as_str).collect();
                warnings.push(hint(warning.at(format!("correlation.aliases.{}", alias.name)), &alias.name, &wanted));
            }
        }
        Ok(Self {
            timespan: timespan(&part)?
                .ok_or_else(|| missing("timespan", "a timespan").suggest("say how long a window is: `timespan: 5m`"))?,
            generate: generate(document, "")? || generate(&part, "correlation.")?,
            header,
            kind,
            rules,
            group_by,
            value_fields,
            percentile,
            condition,
            aliases,
            condition_line,
        })
    }
}

/// "Did you mean …?"
pub(super) fn hint(fault: Fault, word: &str, candidates: &[&str]) -> Fault {
    match suggest::closest(word, candidates) {
        Some(closest) => fault.suggest(format!("did you mean `{closest}`?")),
        None => fault,
    }
}

/// Refuses slips of keys that are missing, as their loss would change the meaning; other unknown keys
/// are ignored.
fn keys(part: &Entries<'_>, warnings: &mut Vec<Fault>) -> Result<(), Fault> {
    for (key, value) in part.all {
        if KEYS.contains(&&**key) {
            continue;
        }
        let meant = match (&**key, suggest::closest(key, &KEYS)) {
            ("timeframe" | "window", _) => Some("timespan"),
            ("groupby" | "group_by", _) => Some("group-by"),
            (_, closest) => closest,
        };
        let fault = Fault::new(value.line, "a correlation has no such key").at(format!("correlation.{key}"));
        match meant {
            Some(meant) if part.get(meant).is_none() => {
                return Err(fault.suggest(format!("did you mean `{meant}`?")));
            }
            Some(_) | None => {
                let fault = Fault { message: "this key is unknown and ignored".to_owned(), ..fault };
                warnings.push(match &**key {
                    "field" | "percentile" => fault.suggest(format!("write `{key}` inside `condition`")),
                    "schedule" => fault.suggest("write `schedule` beside `correlation`, not in it"),
                    _ => fault,
                });
            }
        }
    }
    Ok(())
}

fn within<T>(read: Result<T, Fault>, key: &str) -> Result<T, Fault> {
    read.map_err(|fault| Fault { field: Some(format!("correlation.{key}")), ..fault })
}

fn line(part: &Entries<'_>, key: &str) -> u64 {
    part.get(key).map_or(part.line, |node| node.line)
}

fn kind(part: &Entries<'_>) -> Result<Option<Kind>, Fault> {
    let Some(text) = within(part.text("type"), "type")?.map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(text)) {
        return Ok(Some(kind));
    }
    let fault = Fault::new(line(part, "type"), format!("`{text}` is no type of correlation")).at("correlation.type");
    let kinds = Kind::ALL.map(Kind::as_str);
    Err(match text.to_ascii_lowercase().as_str() {
        "temporal_extended" => fault.suggest("write `temporal` with a condition over the names of rules"),
        "temporal_ordered_extended" => {
            fault.suggest("write `temporal_ordered` with a condition over the names of rules")
        }
        _ => match suggest::closest(text, &kinds) {
            Some(closest) => fault.suggest(format!("did you mean `{closest}`?")),
            None => fault.suggest(format!("say one of {}", kinds.join(", "))),
        },
    })
}

/// The items of a list of texts with their lines; nothing may be empty in it.
fn listed(part: &Entries<'_>, key: &str, what: &str) -> Result<Vec<Reference>, Fault> {
    let texts = within(part.texts(key), key)?;
    let lines = match part.get(key).map(|node| (&node.value, node.line)) {
        Some((NodeValue::List(items), _)) => items.iter().map(|item| item.line).collect(),
        Some((_, line)) => vec![line],
        None => Vec::new(),
    };
    let mut read = Vec::with_capacity(texts.len());
    for (text, line) in texts.into_iter().zip(lines) {
        let name = text.trim().to_owned();
        if name.is_empty() {
            return Err(Fault::new(line, format!("{what} is expected, this is empty")).at(format!("correlation.{key}")));
        }
        read.push(Reference { name, line });
    }
    Ok(read)
}

fn references(part: &Entries<'_>) -> Result<Vec<Reference>, Fault> {
    listed(part, "rules", "the name or id of a rule")
}

fn group_by(part: &Entries<'_>, warnings: &mut Vec<Fault>) -> Result<Vec<String>, Fault> {
    let mut fields = Vec::new();
    for field in listed(part, "group-by", "the name of a field")? {
        if fields.contains(&field.name) {
            let warning = format!("`{}` is listed twice", field.name);
            warnings.push(Fault::new(field.line, warning).at("correlation.group-by"));
        } else {
            fields.push(field.name);
        }
    }
    if fields.len() > GROUP_FIELDS_MAX {
        let message = format!("at most {GROUP_FIELDS_MAX} fields make a group, these are {}", fields.len());
        return Err(Fault::new(line(part, "group-by"), message).at("correlation.group-by"));
    }
    Ok(fields)
}

/// Units as the specification and its reference implementation have them; a month and a year are a
/// twelfth and the whole of 365.2425 days.
const UNITS: [(char, i64); 7] =
    [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400), ('w', 604_800), ('M', 2_629_746), ('y', 31_556_952)];
/// Longest timespan, in seconds: ten years.
const TIMESPAN_SECONDS_MAX: i64 = 315_569_520;

fn timespan(part: &Entries<'_>) -> Result<Option<Timespan>, Fault> {
    let Some(text) = within(part.text("timespan"), "timespan")?.map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let fault = |message: String| Fault::new(line(part, "timespan"), message).at("correlation.timespan");
    match seconds(text).map_err(|wrong| wrong.at(fault))? {
        0 => Err(fault("a timespan is longer than nothing".to_owned())),
        seconds => Ok(Some(Timespan { text: text.to_owned(), micros: seconds * 1_000_000 })),
    }
}

/// What is wrong with a length of time.
pub(crate) struct NoSpan {
    pub message: String,
    /// Empty where there is none.
    pub suggestion: String,
}

impl NoSpan {
    /// As a fault, with what it suggests.
    pub(crate) fn at(self, fault: impl Fn(String) -> Fault) -> Fault {
        let fault = fault(self.message);
        if self.suggestion.is_empty() { fault } else { fault.suggest(self.suggestion) }
    }
}

/// How a length of time is written.
pub(crate) const SPAN_EXAMPLE: &str = "write a number and one of s, m, h, d, w, M (month), y: `90m`";

/// The seconds of a length of time, at most ten years.
pub(crate) fn seconds(text: &str) -> Result<i64, NoSpan> {
    let no = |message: String, suggestion: &str| NoSpan { message, suggestion: suggestion.to_owned() };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    if count.is_empty() {
        return Err(no(format!("`{text}` is no timespan"), SPAN_EXAMPLE));
    }
    let Some((_, seconds)) = UNITS.iter().find(|(letter, _)| unit.strip_prefix(*letter) == Some("")) else {
        let what = if unit.is_empty() { "missing" } else { "unknown" };
        let meant = UNITS.iter().find(|(letter, _)| unit.trim_start().to_ascii_lowercase().starts_with(*letter));
        let suggestion = match meant {
            Some((letter, _)) => format!("did you mean `{count}{letter}`?"),
            None => SPAN_EXAMPLE.to_owned(),
        };
        return Err(no(format!("`{text}` is no timespan: its unit is {what}"), &suggestion));
    };
    match count.parse::<i64>().ok().and_then(|count| count.checked_mul(*seconds)) {
        Some(seconds) if seconds <= TIMESPAN_SECONDS_MAX => Ok(seconds),
        Some(_) | None => Err(no(format!("`{text}` is longer than ten years"), "")),
    }
}

fn aliases(part: &Entries<'_>) -> Result<Vec<Alias>, Fault> {
    let Some(node) = part.get("aliases").filter(|node| !matches!(node.value, NodeValue::Null)) else {
        return Ok(Vec::new());
    };
    let mapping = |node: &crate::yaml::Node, at: &str, of: &str| {
        let message = format!("a mapping of {of} is expected, this is {}", node.value.kind());
        Fault::new(node.line, message).at(at.to_owned())
    };
    let NodeValue::Map(entries) = &node.value else {
        return Err(mapping(node, "correlation.aliases", "aliases"));
    };
    if entries.len() > ALIASES_MAX {
        let message = format!("at most {ALIASES_MAX} aliases are read, these are {}", entries.len());
        return Err(Fault::new(node.line, message).at("correlation.aliases"));
    }
    let mut aliases = Vec::with_capacity(entries.len());
    for (name, node) in entries {
        let at = format!("correlation.aliases.{name}");
        let NodeValue::Map(rules) = &node.value else {
            return Err(mapping(node, &at, "rules to fields"));
        };
        let part = Entries { line: node.line, all: rules };
        let mut fields = Vec::with_capacity(rules.len());
        for (rule, node) in rules {
            let at = format!("{at}.{rule}");
            let field = part.text(rule).map_err(|fault| Fault { field: Some(at.clone()), ..fault })?;
            let Some(field) = field.map(str::trim).filter(|field| !field.is_empty()) else {
                return Err(Fault::new(node.line, "the name of a field is expected").at(at));
            };
            fields.push((Reference { name: rule.clone(), line: node.line }, field.to_owned()));
        }
        aliases.push(Alias { name: name.clone(), line: node.line, fields });
    }
    Ok(aliases)
}

/// The specification has it beside `correlation`, its reference implementation in it.
fn generate(part: &Entries<'_>, at: &str) -> Result<bool, Fault> {
    let at = format!("{at}generate");
    match part.text("generate").map_err(|fault| Fault { field: Some(at.clone()), ..fault })?.map(str::trim) {
        None | Some("false" | "False" | "FALSE") => Ok(false),
        Some("true" | "True" | "TRUE") => Ok(true),
        Some(other) => {
            Err(Fault::new(line(part, "generate"), format!("`{other}` is neither `true` nor `false`")).at(at))
        }
    }
}
