//! Two scales: what a device says (syslog, RFC 5424 §6.2.1) and what an alert channel shows.

/// Syslog severity; the number is the one on the wire, smaller is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Severity {
    Emergency = 0,
    Alert = 1,
    Critical = 2,
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
    Debug = 7,
}

impl Severity {
    pub const ALL: [Self; 8] = [
        Self::Emergency,
        Self::Alert,
        Self::Critical,
        Self::Error,
        Self::Warning,
        Self::Notice,
        Self::Info,
        Self::Debug,
    ];

    pub const fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: i64) -> Option<Self> {
        usize::try_from(code).ok().and_then(|i| Self::ALL.get(i).copied())
    }

    /// Reads a number (`3`, also as text) or a syslog word in the spellings that rsyslog, devices
    /// and people use (`err`, `error`, `crit`, `warn`, `informational`, …), any case.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(code) = text.parse::<i64>() {
            return Self::from_code(code);
        }
        let mut lower = [0u8; 16];
        let lower = lower.get_mut(..text.len())?;
        lower.copy_from_slice(text.as_bytes());
        lower.make_ascii_lowercase();
        match &*lower {
            b"emerg" | b"emergency" | b"panic" => Some(Self::Emergency),
            b"alert" => Some(Self::Alert),
            b"crit" | b"critical" | b"fatal" => Some(Self::Critical),
            b"err" | b"error" => Some(Self::Error),
            b"warn" | b"warning" => Some(Self::Warning),
            b"notice" => Some(Self::Notice),
            b"info" | b"informational" | b"information" => Some(Self::Info),
            b"debug" => Some(Self::Debug),
            _ => None,
        }
    }

    /// rsyslog's `syslogseverity-text` spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Emergency => "emerg",
            Self::Alert => "alert",
            Self::Critical => "crit",
            Self::Error => "err",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// Severity of an alert on Moogsoft's scale (contract mutt §4); larger is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum AlertSeverity {
    Clear = 0,
    Info = 1,
    Minor = 2,
    Warning = 3,
    Major = 4,
    Critical = 5,
}

impl AlertSeverity {
    /// The alert severity of an event. Without one: `Warning`, the original's constant.
    pub const fn from_event(severity: Option<Severity>) -> Self {
        match severity {
            Some(Severity::Emergency | Severity::Alert | Severity::Critical) => Self::Critical,
            Some(Severity::Error) => Self::Major,
            Some(Severity::Warning) | None => Self::Warning,
            Some(Severity::Notice) => Self::Minor,
            Some(Severity::Info | Severity::Debug) => Self::Info,
        }
    }

    pub const fn code(self) -> u8 {
        self as u8
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clear => "Clear",
            Self::Info => "Info",
            Self::Minor => "Minor",
            Self::Warning => "Warning",
            Self::Major => "Major",
            Self::Critical => "Critical",
        }
    }

    /// Reads the words of the queue payload, any case. Unknown words are `None` (the original
    /// treats them as `Warning`).
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Clear, Self::Info, Self::Minor, Self::Warning, Self::Major, Self::Critical]
            .into_iter()
            .find(|s| s.as_str().eq_ignore_ascii_case(text.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severity_words_and_numbers_mean_the_same() {
        for severity in Severity::ALL {
            assert_eq!(Severity::parse(severity.as_str()), Some(severity));
            assert_eq!(Severity::parse(&severity.code().to_string()), Some(severity));
            assert_eq!(Severity::parse(&severity.as_str().to_uppercase()), Some(severity));
        }
        for (word, code) in [("error", 3), ("Informational", 6), ("WARN", 4), ("panic", 0), (" 5 ", 5)] {
            assert_eq!(Severity::parse(word).map(Severity::code), Some(code), "{word}");
        }
        for bad in ["8", "-1", "", "severe", "a very long word that is no severity"] {
            assert_eq!(Severity::parse(bad), None, "{bad}");
        }
    }
}
