//! Detections: search identifiers, and conditions over them → one predicate.

use super::modifier::Item;
use super::{Fault, Placeholders, condition};
use crate::Predicate;
use crate::yaml::{Node, NodeValue};

/// What else a detection may hold beside search identifiers.
const CONDITION: &str = "condition";
const TIMEFRAME: &str = "timeframe";

/// Reads `detection`, or the detection part of a filter. `keys_besides` are the keys of the mapping
/// that are no search identifiers.
pub(crate) fn predicate(
    node: &Node,
    at: &str,
    keys_besides: &[&str],
    placeholders: &Placeholders,
    warnings: &mut Vec<Fault>,
) -> Result<Predicate, Fault> {
    let NodeValue::Map(entries) = &node.value else {
        return Err(Fault::new(node.line, format!("a mapping is expected, this is {}", node.value.kind())).at(at));
    };
    let mut searches = Vec::new();
    let mut conditions = None;
    for (name, value) in entries {
        if name == CONDITION {
            conditions = Some(value);
        } else if name == TIMEFRAME {
            return Err(Fault::new(value.line, "`timeframe` belonged to the aggregations of Sigma 1")
                .at(format!("{at}.{TIMEFRAME}"))
                .suggest("write a correlation rule with `timespan`"));
        } else if !keys_besides.contains(&&**name) {
            let path = format!("{at}.{name}");
            let before = warnings.len();
            let search = search(value, placeholders, warnings, &path)?;
            warnings[before..].iter_mut().for_each(|warning| *warning = warning.clone().at(&*path));
            searches.push((name.clone(), search));
        }
    }
    let Some(conditions) = conditions else {
        return Err(Fault::new(node.line, "a condition is required").at(format!("{at}.{CONDITION}")));
    };
    let texts: Vec<(&str, u64)> = match &conditions.value {
        NodeValue::Text(text) => vec![(text, conditions.line)],
        NodeValue::List(items) if !items.is_empty() => {
            let text = |item: &'_ Node| match &item.value {
                NodeValue::Text(text) => Some((text.clone(), item.line)),
                NodeValue::Null | NodeValue::List(_) | NodeValue::Map(_) => None,
            };
            if items.iter().any(|item| text(item).is_none()) {
                return Err(Fault::new(conditions.line, "a condition is a text").at(format!("{at}.{CONDITION}")));
            }
            let texts = items.iter().filter_map(|item| match &item.value {
                NodeValue::Text(text) => Some((text.as_str(), item.line)),
                NodeValue::Null | NodeValue::List(_) | NodeValue::Map(_) => None,
            });
            texts.collect()
        }
        other => {
            let message = format!("a condition is a text or a list of texts, this is {}", other.kind());
            return Err(Fault::new(conditions.line, message).at(format!("{at}.{CONDITION}")));
        }
    };
    for (name, _) in &searches {
        if !texts.iter().any(|(text, _)| condition::mentions(text, name)) {
            let warning = format!("no condition speaks of the search identifier `{name}`");
            warnings.push(Fault::new(conditions.line, warning).at(format!("{at}.{CONDITION}")));
        }
    }
    let mut any = Vec::with_capacity(texts.len());
    for (text, line) in texts {
        any.push(condition::parse(text, &searches, line).map_err(|fault| fault.at(format!("{at}.{CONDITION}")))?);
    }
    Ok(if any.len() == 1 { any.remove(0) } else { Predicate::Any(any) })
}

/// One search identifier: a mapping (all of it), a list (any of it), or a keyword.
fn search(node: &Node, placeholders: &Placeholders, warnings: &mut Vec<Fault>, path: &str) -> Result<Predicate, Fault> {
    match &node.value {
        NodeValue::Map(entries) => {
            if entries.is_empty() {
                return Err(Fault::new(node.line, "the mapping is empty").at(path));
            }
            let mut all = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                let fault = |fault: Fault| fault.at(format!("{path}.{key}"));
                let item = Item::read(key, value.line);
                let values = match &value.value {
                    NodeValue::List(items) => &items[..],
                    NodeValue::Null | NodeValue::Text(_) | NodeValue::Map(_) => std::slice::from_ref(value),
                };
                all.push(item.predicate(values, placeholders, warnings).map_err(fault)?);
            }
            Ok(if all.len() == 1 { all.remove(0) } else { Predicate::All(all) })
        }
        NodeValue::List(items) => {
            if items.is_empty() {
                return Err(Fault::new(node.line, "the list is empty").at(path));
            }
            let mut any = Vec::with_capacity(items.len());
            for item in items {
                any.push(search(item, placeholders, warnings, path)?);
            }
            Ok(if any.len() == 1 { any.remove(0) } else { Predicate::Any(any) })
        }
        NodeValue::Text(_) => Item::read("", node.line)
            .predicate(std::slice::from_ref(node), placeholders, warnings)
            .map_err(|fault| fault.at(path)),
        NodeValue::Null => Err(Fault::new(node.line, "nothing is looked for").at(path)),
    }
}
