//! MUTT rules as rows (contract mutt §3.3): what to look for, and what to do about it.

/// Primary key of a rule in the catalog; also the tie-break between equal priorities.
pub type RuleId = i64;

/// How `match_string` or `trap_oid` is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatchType {
    /// Case-insensitive substring of the message.
    Contains,
    /// Case-insensitive regular expression, linear time, bounded size.
    Regex,
    /// The trap's OID equals the rule's or lies below it, by whole components.
    OidPrefix,
}

impl MatchType {
    pub const ALL: [Self; 3] = [Self::Contains, Self::Regex, Self::OidPrefix];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Contains => "contains",
            Self::Regex => "regex",
            Self::OidPrefix => "oid_prefix",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.as_str() == text)
    }
}

/// What the team wants done with a match: free text, of which three values forward an alert.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Handling(String);

impl Handling {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// The text as the team wrote it; the audit log keeps it so.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// `Page_and_ticket`, `Page_only` and `Ticket_only` (any case) forward; everything else is
    /// audited only.
    pub fn forwards(&self) -> bool {
        self.pages() || self.tickets()
    }
    pub fn pages(&self) -> bool {
        self.is("page_and_ticket") || self.is("page_only")
    }
    pub fn tickets(&self) -> bool {
        self.is("page_and_ticket") || self.is("ticket_only")
    }
    fn is(&self, value: &str) -> bool {
        self.0.trim().eq_ignore_ascii_case(value)
    }
}

/// Whether a host is production or development; decides which handling applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Environment {
    Production,
    Development,
}

/// A rule without its id: what a client sends, or a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleDraft {
    pub match_string: Option<String>,
    pub trap_oid: Option<String>,
    /// 0–7; `None` = any. Ignored when the rule matches by OID.
    pub syslog_severity: Option<u8>,
    pub match_type: MatchType,
    /// Lower wins; equal priorities go by id.
    pub priority: i32,
    pub prod_handling: Handling,
    pub dev_handling: Handling,
    pub team_assignment: String,
    pub is_active: bool,
}

impl RuleDraft {
    pub const DEFAULT_PRIORITY: i32 = 100;

    pub fn handling(&self, environment: Environment) -> &Handling {
        match environment {
            Environment::Production => &self.prod_handling,
            Environment::Development => &self.dev_handling,
        }
    }
}

/// A rule of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub id: RuleId,
    pub draft: RuleDraft,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_three_documented_handlings_forward() {
        for (text, forwards, pages) in [
            ("Page_and_ticket", true, true),
            ("PAGE_ONLY", true, true),
            (" ticket_only ", true, false),
            ("Ignore", false, false),
            ("suppress", false, false),
            ("", false, false),
        ] {
            let handling = Handling::new(text);
            assert_eq!((handling.forwards(), handling.pages()), (forwards, pages), "{text}");
        }
    }
}
