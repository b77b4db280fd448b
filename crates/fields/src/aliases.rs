//! Names of other people for fields, as data: what the mapping files of an installation say.

use model::{EventSource, Fields};
use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

/// Values of a field that a condition looks at.
const VALUES_ASKED_MAX: usize = 64;
/// Values that are added to one event, and bytes that are copied for it; beyond, the rest is left out.
const ADDED_MAX: usize = 1_000;
const COPIED_MAX: usize = 1 << 20;

/// For some events: what they are, and the taxonomy's names with those that the events have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping {
    /// Fields with texts of which each has to have one, in any case; `*` is any value. Such events are of
    /// `source`. Where this is empty, the mapping is for events that are known to be of it.
    pub when: Vec<(String, Vec<String>)>,
    pub source: SourceFilter,
    /// A field that is missing gets the values of the first of its other names that is there.
    pub fields: Vec<(String, Vec<String>)>,
}

/// A log source in Sigma's words; what is `None` is any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceFilter {
    pub product: Option<String>,
    pub category: Option<String>,
    pub service: Option<String>,
}

/// Mappings, ready to be applied. Time is linear in the event, and in the mappings.
#[derive(Debug, Clone, Default)]
pub struct Aliases {
    /// Every name that a mapping has, by number.
    names: HashMap<String, usize>,
    mappings: Vec<Compiled>,
}

#[derive(Debug, Clone)]
struct Compiled {
    when: Vec<(usize, Vec<String>)>,
    source: SourceFilter,
    fields: Vec<Field>,
}

#[derive(Debug, Clone)]
struct Field {
    name: String,
    ours: usize,
    theirs: Vec<usize>,
}

impl SourceFilter {
    /// Whether the source is known to be this one. Unlike a rule, which is also asked for events of
    /// unknown source, a name is given only where the source is certain.
    fn covers(&self, source: &EventSource<'_>) -> bool {
        let one = |wanted: &Option<String>, known: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| known.is_some_and(|known| known.eq_ignore_ascii_case(wanted)))
        };
        let any = |wanted: &Option<String>, known: Option<&[Cow<'_, str>]>| {
            wanted.as_deref().is_none_or(|wanted| {
                known.is_some_and(|known| known.iter().any(|word| word.eq_ignore_ascii_case(wanted)))
            })
        };
        one(&self.product, source.product.as_deref())
            && any(&self.category, source.categories.as_deref())
            && any(&self.service, source.services.as_deref())
    }

    /// Says what is not known yet.
    fn say<'a>(&'a self, source: &mut EventSource<'a>) {
        if let (Some(product), None) = (&self.product, &source.product) {
            source.product = Some(Cow::Borrowed(product));
        }
        if let (Some(category), None) = (&self.category, &source.categories) {
            source.categories = Some(vec![Cow::Borrowed(category)]);
        }
        if let (Some(service), None) = (&self.service, &source.services) {
            source.services = Some(vec![Cow::Borrowed(service)]);
        }
    }
}

impl Aliases {
    pub fn new(mappings: Vec<Mapping>) -> Self {
        let mut names = HashMap::new();
        let mut number = |name: String| {
            let next = names.len();
            *names.entry(name).or_insert(next)
        };
        let compiled = mappings.into_iter().map(|mapping| Compiled {
            when: mapping.when.into_iter().map(|(name, texts)| (number(name), texts)).collect(),
            source: mapping.source,
            fields: mapping
                .fields
                .into_iter()
                .map(|(name, theirs)| Field {
                    ours: number(name.clone()),
                    name,
                    theirs: theirs.into_iter().map(&mut number).collect(),
                })
                .collect(),
        });
        let mappings = compiled.collect();
        Self { names, mappings }
    }

    pub fn is_empty(&self) -> bool {
        self.mappings.is_empty()
    }

    /// How many mappings there are.
    pub fn len(&self) -> usize {
        self.mappings.len()
    }

    /// Gives an event what is missing. A mapping may name a field that an earlier one added. Of
    /// `SourceIp`, which actions go by, only addresses are taken.
    pub fn apply<'a>(&'a self, out: &mut Fields<'a>) {
        if self.is_empty() {
            return;
        }
        // Where the values of each name lie.
        let mut places: Vec<Vec<usize>> = vec![Vec::new(); self.names.len()];
        for (at, leaf) in out.leaves().iter().enumerate() {
            if let Some(name) = self.names.get(&*leaf.name) {
                places[*name].push(at);
            }
        }
        let (mut added, mut copied) = (0, 0);
        for mapping in &self.mappings {
            if !mapping.is_for(&places, out) {
                continue;
            }
            if !mapping.when.is_empty() {
                mapping.source.say(&mut out.source);
            }
            for Field { name, ours, theirs } in &mapping.fields {
                if !places[*ours].is_empty() {
                    continue;
                }
                let Some(theirs) = theirs.iter().find(|name| !places[**name].is_empty()) else { continue };
                let from = std::mem::take(&mut places[*theirs]);
                for at in &from {
                    let value = out.leaves()[*at].value.clone();
                    if name == "SourceIp" && value.as_deref().is_none_or(|text| text.parse::<IpAddr>().is_err()) {
                        continue;
                    }
                    added += 1;
                    copied += match &value {
                        Some(Cow::Owned(text)) => text.len(),
                        Some(Cow::Borrowed(_)) | None => 0,
                    };
                    if added > ADDED_MAX || copied > COPIED_MAX {
                        return out.push("fields_cut", "true");
                    }
                    places[*ours].push(out.leaves().len());
                    match value {
                        Some(value) => out.push(&**name, value),
                        None => out.push_null(&**name),
                    }
                }
                places[*theirs] = from;
            }
        }
    }
}

impl Compiled {
    fn is_for(&self, places: &[Vec<usize>], event: &Fields<'_>) -> bool {
        if self.when.is_empty() {
            return self.source.covers(&event.source);
        }
        self.when.iter().all(|(name, texts)| {
            let values =
                || places[*name].iter().take(VALUES_ASKED_MAX).filter_map(|at| event.leaves()[*at].value.as_deref());
            texts.iter().any(|text| values().any(|value| text == "*" || value.eq_ignore_ascii_case(text)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().copied().map(str::to_owned).collect()
    }

    fn mapping(when: &[(&str, &str)], source: SourceFilter, fields: &[(&str, &[&str])]) -> Mapping {
        Mapping {
            when: when.iter().map(|(name, text)| ((*name).to_owned(), names(&[text]))).collect(),
            source,
            fields: fields.iter().map(|(ours, theirs)| ((*ours).to_owned(), names(theirs))).collect(),
        }
    }

    fn event<'a>(leaves: &[(&'a str, &'a str)]) -> Fields<'a> {
        let mut fields = Fields::default();
        leaves.iter().for_each(|(name, value)| fields.push(*name, *value));
        fields
    }

    fn app() -> SourceFilter {
        SourceFilter { product: Some("linux".to_owned()), service: Some("app".to_owned()), category: None }
    }

    #[test]
    fn a_missing_field_gets_all_values_of_its_first_other_name() {
        let fields: &[(&str, &[&str])] = &[("Image", &["proc", "exe"]), ("User", &["user"]), ("Account", &["Image"])];
        let aliases = Aliases::new(vec![mapping(&[], SourceFilter::default(), fields)]);
        let mut fields = event(&[("exe", "/bin/a"), ("exe", "/bin/b"), ("user", "x"), ("User", "y")]);
        fields.push_null("exe");
        aliases.apply(&mut fields);
        assert_eq!(fields.values("Image").collect::<Vec<_>>(), ["/bin/a", "/bin/b"]);
        assert_eq!(fields.values("Account").collect::<Vec<_>>(), ["/bin/a", "/bin/b"], "of what was given before");
        assert_eq!(fields.values("User").collect::<Vec<_>>(), ["y"]);
        assert_eq!(fields.leaves().iter().filter(|leaf| leaf.name == "Image" && leaf.value.is_none()).count(), 1);
    }

    #[test]
    fn names_for_a_source_are_given_only_where_it_is_certain() {
        let aliases = Aliases::new(vec![mapping(&[], app(), &[("User", &["who"])])]);
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

    #[test]
    fn events_that_a_condition_names_are_of_the_source_unless_they_know_better() {
        let when = [("app", "Billing"), ("login", "*")];
        let aliases = Aliases::new(vec![mapping(&when, app(), &[("User", &["login"])])]);
        for (leaves, given) in [
            (&[("app", "billing"), ("login", "bob")][..], true),
            (&[("app", "other"), ("app", "BILLING"), ("login", "bob")], true),
            (&[("app", "billing2"), ("login", "bob")], false),
            (&[("app", "billing")], false),
            (&[("login", "bob")], false),
        ] {
            let mut fields = event(leaves);
            aliases.apply(&mut fields);
            assert_eq!((fields.exists("User"), fields.source.product.is_some()), (given, given), "{leaves:?}");
        }
        let mut windows = event(&[("app", "billing"), ("login", "bob")]);
        windows.source.product = Some("windows".into());
        aliases.apply(&mut windows);
        assert_eq!((windows.source.product.as_deref(), windows.first("User")), (Some("windows"), Some("bob")));
        assert_eq!(windows.source.services, Some(vec![Cow::Borrowed("app")]));
    }

    #[test]
    fn the_address_that_actions_go_by_is_one() {
        let fields: &[(&str, &[&str])] = &[("SourceIp", &["peer"]), ("src_ip", &["peer"])];
        let aliases = Aliases::new(vec![mapping(&[], SourceFilter::default(), fields)]);
        let mut fields = event(&[("peer", "localhost"), ("peer", "192.0.2.7"), ("peer", "2001:db8::1")]);
        aliases.apply(&mut fields);
        assert_eq!(fields.values("SourceIp").collect::<Vec<_>>(), ["192.0.2.7", "2001:db8::1"]);
        assert_eq!(fields.values("src_ip").count(), 3);
    }

    #[test]
    fn an_event_cannot_be_made_to_grow_without_end() {
        let many: Vec<(String, Vec<String>)> = (0..100).map(|n| (format!("n{n}"), names(&["x"]))).collect();
        let aliases = Aliases::new(vec![Mapping { fields: many, ..Mapping::default() }]);
        let mut fields = Fields::default();
        (0..5_000).for_each(|n| fields.push("x", n.to_string()));
        aliases.apply(&mut fields);
        assert_eq!((fields.leaves().len(), fields.first("fields_cut")), (5_000 + ADDED_MAX + 1, Some("true")));
        let mut large = Fields::default();
        large.push("x", "y".repeat(COPIED_MAX / 2));
        aliases.apply(&mut large);
        assert_eq!((large.leaves().len(), large.first("fields_cut")), (4, Some("true")));
    }
}
