//! Names of other people for fields, as data: what a mapping file of an installation says.

use model::{EventSource, Fields};

/// Field names, each with the names under which others know it, for all events or for those of one
/// log source. Applied to an event, a field that is missing gets the values of the first of its
/// other names that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aliases {
    entries: Vec<Entry>,
}

/// The log source that names are for, in Sigma's words; what is `None` is any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceFilter {
    pub product: Option<String>,
    pub category: Option<String>,
    pub service: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    filter: SourceFilter,
    ours: String,
    theirs: Vec<String>,
}

impl SourceFilter {
    /// Whether the source is known to be this one. Unlike a rule, which is also asked for events of
    /// unknown source, a name is given only where the source is certain.
    fn covers(&self, source: &EventSource<'_>) -> bool {
        let one = |wanted: &Option<String>, known: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| known.is_some_and(|known| known.eq_ignore_ascii_case(wanted)))
        };
        let any = |wanted: &Option<String>, known: Option<&[std::borrow::Cow<'_, str>]>| {
            wanted.as_deref().is_none_or(|wanted| {
                known.is_some_and(|known| known.iter().any(|word| word.eq_ignore_ascii_case(wanted)))
            })
        };
        one(&self.product, source.product.as_deref())
            && any(&self.category, source.categories.as_deref())
            && any(&self.service, source.services.as_deref())
    }
}

impl Aliases {
    /// Adds a field and its other names, best first.
    pub fn add(&mut self, filter: SourceFilter, ours: impl Into<String>, theirs: Vec<String>) {
        self.entries.push(Entry { filter, ours: ours.into(), theirs });
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Gives an event what is missing. One alias may name a field that an earlier one added.
    pub fn apply(&self, out: &mut Fields<'_>) {
        for Entry { filter, ours, theirs } in &self.entries {
            if out.exists(ours) || !filter.covers(&out.source) {
                continue;
            }
            let Some(theirs) = theirs.iter().find(|name| out.exists(name)) else { continue };
            for at in 0..out.leaves().len() {
                let leaf = &out.leaves()[at];
                if leaf.name != *theirs {
                    continue;
                }
                match leaf.value.clone() {
                    Some(value) => out.push(ours.clone(), value),
                    None => out.push_null(ours.clone()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().copied().map(str::to_owned).collect()
    }

    #[test]
    fn a_missing_field_gets_all_values_of_its_first_other_name() {
        let mut aliases = Aliases::default();
        aliases.add(SourceFilter::default(), "Image", names(&["proc", "exe"]));
        aliases.add(SourceFilter::default(), "User", names(&["user"]));
        let mut fields = Fields::default();
        fields.push("exe", "/bin/a");
        fields.push("exe", "/bin/b");
        fields.push("user", "x");
        fields.push("User", "y");
        aliases.apply(&mut fields);
        assert_eq!(fields.values("Image").collect::<Vec<_>>(), ["/bin/a", "/bin/b"]);
        assert_eq!(fields.values("User").collect::<Vec<_>>(), ["y"]);
    }

    #[test]
    fn names_for_a_source_are_given_only_where_it_is_certain() {
        let filter =
            SourceFilter { product: Some("linux".to_owned()), service: Some("app".to_owned()), category: None };
        let mut aliases = Aliases::default();
        aliases.add(filter, "User", names(&["who"]));
        for (product, services, given) in [
            (Some("linux"), Some(vec!["syslog", "app"]), true),
            (Some("linux"), Some(vec!["syslog"]), false),
            (Some("linux"), None, false),
            (None, Some(vec!["app"]), false),
            (Some("windows"), Some(vec!["app"]), false),
        ] {
            let services = services.map(|words| words.into_iter().map(Cow::Borrowed).collect());
            let mut fields =
                Fields::new(EventSource { product: product.map(Cow::Borrowed), categories: None, services });
            fields.push("who", "x");
            aliases.apply(&mut fields);
            assert_eq!(fields.exists("User"), given, "{:?}", fields.source);
        }
    }
}
