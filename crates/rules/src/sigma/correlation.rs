//! Correlations of Sigma (Sigma specification 2.1, "Correlation rules"): read here, worked by
//! `correlate`.

use super::header::Entries;
use super::{Fault, Header};

/// A correlation document.
#[derive(Debug, Clone)]
pub struct Correlation {
    pub header: Header,
    /// Names, ids or titles of the rules it correlates, as written.
    pub rules: Vec<String>,
    /// Whether the rules it correlates also alert by themselves (`generate`).
    pub generate: bool,
}

impl Correlation {
    pub(crate) fn read(header: Header, entries: &Entries<'_>, _warnings: &mut Vec<Fault>) -> Result<Self, Fault> {
        let node = entries.get("correlation").ok_or_else(|| Fault::new(entries.line, "a correlation is required"))?;
        let part = Entries::of(node)?;
        Ok(Self { header, rules: part.texts("rules")?, generate: part.text("generate")? == Some("true") })
    }
}
