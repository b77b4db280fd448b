//! What can be wrong with a rule, and with one of its fields.

/// Why a rule, or an argument of an operator, cannot be compiled. The text is a sentence for the
/// rule's author.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// Neither criterion is present.
    #[error("either match_string or trap_oid is required")]
    NoCriteria,
    /// Contains or regex, and only an OID to compare.
    #[error(
        "`{match_type}` compares match_string, which is absent: with only a trap_oid this rule could never match; set match_type to `oid_prefix`"
    )]
    OidNeedsPrefix { match_type: &'static str },
    /// OID prefix without an OID.
    #[error(
        "`oid_prefix` compares trap_oid, which is absent: this rule could never match; set trap_oid, or match_type to `contains` or `regex`"
    )]
    PrefixNeedsOid,
    /// The text to look for is empty.
    #[error("the text to look for must not be empty")]
    EmptyNeedle,
    /// The pattern cannot be read.
    #[error("not a valid regular expression: {problem} (character {at}){hint}")]
    RegexSyntax { at: usize, problem: String, hint: &'static str, source: Box<regex_syntax::Error> },
    /// The engine refused it for another reason.
    #[error("not a usable regular expression")]
    Regex { source: Box<regex::Error> },
    /// `(?=`, `(?!`, `(?<=`, `(?<!`.
    #[error("look-around (character {at}) is not supported, because matching time must be linear")]
    LookAround { at: usize },
    /// `\1`, `(?P=name)`.
    #[error("backreferences (character {at}) are not supported, because matching time must be linear")]
    Backreference { at: usize },
    /// Too large when compiled.
    #[error("the regular expression is too large: more than {limit} bytes when compiled; lower its repetition counts")]
    RegexTooBig { limit: usize },
    /// Too deep.
    #[error("the regular expression nests groups more than {limit} deep")]
    RegexTooDeep { limit: u32 },
    /// Not an OID.
    #[error("`{oid}` is not an OID such as 1.3.6.1.4.1.9: {problem}")]
    Oid { oid: String, problem: &'static str },
    /// Outside 0–7.
    #[error("{value} is not a syslog severity; it goes from 0 (emergency) to 7 (debug)")]
    Severity { value: u8 },
    /// Not a network.
    #[error("`{written}` is not a network such as 10.0.0.0/8: {problem}")]
    Network { written: String, problem: &'static str },
    /// Not a number.
    #[error("`{written}` is not a number")]
    Number { written: String },
}

impl RuleError {
    /// The column of a rule row (contract mutt §7) that has to change.
    pub fn field(&self) -> &'static str {
        match self {
            Self::NoCriteria
            | Self::EmptyNeedle
            | Self::RegexSyntax { .. }
            | Self::Regex { .. }
            | Self::LookAround { .. }
            | Self::Backreference { .. }
            | Self::RegexTooBig { .. }
            | Self::RegexTooDeep { .. } => "match_string",
            Self::OidNeedsPrefix { .. } | Self::PrefixNeedsOid => "match_type",
            Self::Oid { .. } => "trap_oid",
            Self::Severity { .. } => "syslog_severity",
            // Of detection rules, which have no columns.
            Self::Network { .. } | Self::Number { .. } => "detection",
        }
    }
}

/// One field of a rule that cannot stay as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FieldProblem {
    /// The column's name.
    pub field: &'static str,
    /// A sentence for the rule's author.
    pub message: String,
}

/// A rule that a [`RuleSet`](crate::RuleSet) left out.
#[derive(Debug, thiserror::Error)]
#[error("rule {id} is not used: {field}: {error}")]
pub struct RuleProblem {
    /// The rule's primary key.
    pub id: model::RuleId,
    /// The column's name.
    pub field: &'static str,
    /// The sentence, and what it was made from.
    #[source]
    pub error: RuleError,
}
