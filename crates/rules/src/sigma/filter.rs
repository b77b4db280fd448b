//! Filters of Sigma (Sigma specification 2.1, "Filters"): a condition that is added to rules which
//! somebody else wrote. A rule that a filter names matches where both hold.

use super::header::Entries;
use super::{Fault, Header, LogSource, Placeholders, SigmaRule, detection};
use crate::Predicate;

/// A filter document.
#[derive(Debug, Clone)]
pub struct Filter {
    pub header: Header,
    /// Rules of another log source are left alone.
    pub source: LogSource,
    /// Ids or names of the rules it is laid over; empty = any rule of its log source.
    pub rules: Vec<String>,
    /// Must hold too.
    pub predicate: Predicate,
}

impl Filter {
    pub(crate) fn read(
        header: Header,
        entries: &Entries<'_>,
        placeholders: &Placeholders,
        warnings: &mut Vec<Fault>,
    ) -> Result<Self, Fault> {
        let source = LogSource::read(entries)?;
        let node = entries.get("filter").ok_or_else(|| Fault::new(entries.line, "a filter is required"))?;
        let part = Entries::of(node)?;
        let mut rules = part.texts("rules").map_err(|fault| Fault { field: Some("filter.rules".into()), ..fault })?;
        if rules.is_empty() {
            return Err(Fault::new(node.line, "the rules it is laid over are required")
                .at("filter.rules")
                .suggest("write `any` for all rules of its log source"));
        }
        if rules.iter().any(|rule| rule.eq_ignore_ascii_case("any")) {
            rules.clear();
        }
        let predicate = detection::predicate(node, "filter", &["rules"], placeholders, warnings)?;
        Ok(Self { header, source, rules, predicate })
    }

    /// Whether it is laid over the rule.
    pub fn covers(&self, rule: &SigmaRule) -> bool {
        let named = |name: &String| rule.header.id.as_ref() == Some(name) || rule.header.name.as_ref() == Some(name);
        self.source.covers(&rule.source) && (self.rules.is_empty() || self.rules.iter().any(named))
    }

    /// Lays it over the rule.
    pub fn lay_over(&self, rule: &mut SigmaRule) {
        let before = std::mem::replace(&mut rule.predicate, Predicate::All(Vec::new()));
        rule.predicate = Predicate::All(vec![before, self.predicate.clone()]);
    }
}
