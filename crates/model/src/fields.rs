//! The fields of an event as detection rules see them: a flat list of names and texts, and what is
//! known about the kind of log it came from.
//!
//! One meaning for every evaluator (stream, SQLite, ClickHouse):
//! * Every value is text. A number is its shortest decimal form ([`number_text`]), a truth value
//!   `true` or `false`, a string itself.
//! * An array gives its elements as several values of one name; nested objects give dotted names
//!   (`userIdentity.type`), through arrays too.
//! * `null`, an empty array and an empty object make the field *exist* without a value.

use std::borrow::Cow;

/// One value of one field. Several leaves of one name are several values of that field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf<'a> {
    pub name: Cow<'a, str>,
    /// `None`: the field exists and has no value (JSON `null`).
    pub value: Option<Cow<'a, str>>,
}

/// What is known about the log source of an event, in the words of Sigma's `logsource`.
///
/// Each part is unknown (`None`), or known; what is known decides whether a rule for another source
/// is skipped. An event can belong to several categories at once (`registry_set` is a
/// `registry_event` too), or knowingly to none (an empty list).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventSource<'a> {
    pub product: Option<Cow<'a, str>>,
    pub categories: Option<Vec<Cow<'a, str>>>,
    pub services: Option<Vec<Cow<'a, str>>>,
}

/// An event, flattened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    pub source: EventSource<'a>,
    leaves: Vec<Leaf<'a>>,
}

impl<'a> Fields<'a> {
    pub fn new(source: EventSource<'a>) -> Self {
        Self { source, leaves: Vec::new() }
    }

    /// Adds a value.
    pub fn push(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) {
        self.leaves.push(Leaf { name: name.into(), value: Some(value.into()) });
    }

    /// Makes the field exist without giving it a value.
    pub fn push_null(&mut self, name: impl Into<Cow<'a, str>>) {
        self.leaves.push(Leaf { name: name.into(), value: None });
    }

    /// Adds a value, or a field without one.
    #[inline]
    pub fn push_leaf(&mut self, leaf: Leaf<'a>) {
        self.leaves.push(leaf);
    }

    /// Makes room for so many leaves more.
    pub fn reserve(&mut self, leaves: usize) {
        self.leaves.reserve(leaves);
    }

    /// All leaves, in the order they were added.
    pub fn leaves(&self) -> &[Leaf<'a>] {
        &self.leaves
    }

    /// Whether the field exists, with or without a value.
    pub fn exists(&self, name: &str) -> bool {
        self.leaves.iter().any(|leaf| leaf.name == name)
    }

    /// The values of a field, in order.
    pub fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        self.leaves.iter().filter(move |leaf| leaf.name == name).filter_map(|leaf| leaf.value.as_deref())
    }

    /// The first value of a field.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.leaves.iter().find(|leaf| leaf.name == name && leaf.value.is_some()).and_then(|leaf| leaf.value.as_deref())
    }

    /// Forgets everything, keeps the room.
    pub fn clear(&mut self) {
        self.source = EventSource::default();
        self.leaves.clear();
    }

    /// The same, owning its texts.
    pub fn into_owned(self) -> Fields<'static> {
        let own = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        let all = |texts: Vec<Cow<'a, str>>| texts.into_iter().map(own).collect();
        Fields {
            source: EventSource {
                product: self.source.product.map(own),
                categories: self.source.categories.map(all),
                services: self.source.services.map(all),
            },
            leaves: self.leaves.into_iter().map(|l| Leaf { name: own(l.name), value: l.value.map(own) }).collect(),
        }
    }
}

/// The text of a JSON number: integers as written, others in the shortest decimal form, whole ones
/// without a fraction (`4688.0` is `4688`, `1e3` is `1000`), so that equal numbers are equal texts.
/// What is no number, or too large to be told exactly, is returned as written.
pub fn number_text(written: &str) -> Cow<'_, str> {
    if written.bytes().all(|b| b.is_ascii_digit() || b == b'-') && written != "-0" {
        return Cow::Borrowed(written);
    }
    match written.parse::<f64>() {
        Ok(number) if number.is_finite() && number.abs() < 9_007_199_254_740_992.0 => {
            // Adding zero makes `-0` plain zero.
            Cow::Owned((number + 0.0).to_string())
        }
        Ok(_) | Err(_) => Cow::Borrowed(written),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_are_equal_texts() {
        for (written, text) in [
            ("4688", "4688"),
            ("4688.0", "4688"),
            ("1e3", "1000"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("0.10", "0.1"),
            ("18446744073709551616", "18446744073709551616"),
            ("1e400", "1e400"),
            ("-12", "-12"),
            ("1.5E-2", "0.015"),
        ] {
            assert_eq!(number_text(written), text, "{written}");
        }
    }
}
