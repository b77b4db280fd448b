//! Names for object identifiers: a few that every device uses, and the operator's own file.

use model::Severity;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Bounds of a file of names.
const FILE_BYTES_MAX: u64 = 16 << 20;
const NAME_MAX: usize = 128;

/// A file of names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    #[error("cannot read the OID names in {}", file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is larger than {} MiB; keep the names that your devices use", file.display(), FILE_BYTES_MAX >> 20)]
    TooLarge { file: PathBuf },
    #[error("{} line {line}: {what}; expected `OID NAME` or `OID NAME SEVERITY`", file.display())]
    Line { file: PathBuf, line: usize, what: &'static str },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: Box<str>,
    severity: Option<Severity>,
}

/// Names by dotted object identifier, without a leading dot.
#[derive(Debug, Clone)]
pub(super) struct Names(HashMap<Box<str>, Entry>);

/// SNMPv2-MIB (RFC 3418) and IF-MIB (RFC 2863).
const STANDARD: &[(&str, &str, Option<Severity>)] = &[
    ("1.3.6.1.6.3.1.1.5.1", "coldStart", Some(Severity::Warning)),
    ("1.3.6.1.6.3.1.1.5.2", "warmStart", Some(Severity::Warning)),
    ("1.3.6.1.6.3.1.1.5.3", "linkDown", Some(Severity::Error)),
    ("1.3.6.1.6.3.1.1.5.4", "linkUp", Some(Severity::Notice)),
    ("1.3.6.1.6.3.1.1.5.5", "authenticationFailure", Some(Severity::Warning)),
    ("1.3.6.1.6.3.1.1.5.6", "egpNeighborLoss", Some(Severity::Warning)),
    ("1.3.6.1.6.3.1.1.4.3", "snmpTrapEnterprise", None),
    ("1.3.6.1.6.3.18.1.3", "snmpTrapAddress", None),
    ("1.3.6.1.2.1.1.1", "sysDescr", None),
    ("1.3.6.1.2.1.1.2", "sysObjectID", None),
    ("1.3.6.1.2.1.1.3", "sysUpTime", None),
    ("1.3.6.1.2.1.1.4", "sysContact", None),
    ("1.3.6.1.2.1.1.5", "sysName", None),
    ("1.3.6.1.2.1.1.6", "sysLocation", None),
    ("1.3.6.1.2.1.2.2.1.1", "ifIndex", None),
    ("1.3.6.1.2.1.2.2.1.2", "ifDescr", None),
    ("1.3.6.1.2.1.2.2.1.3", "ifType", None),
    ("1.3.6.1.2.1.2.2.1.4", "ifMtu", None),
    ("1.3.6.1.2.1.2.2.1.5", "ifSpeed", None),
    ("1.3.6.1.2.1.2.2.1.6", "ifPhysAddress", None),
    (IF_ADMIN_STATUS, "ifAdminStatus", None),
    (IF_OPER_STATUS, "ifOperStatus", None),
    ("1.3.6.1.2.1.2.2.1.9", "ifLastChange", None),
    ("1.3.6.1.2.1.31.1.1.1.1", "ifName", None),
    ("1.3.6.1.2.1.31.1.1.1.15", "ifHighSpeed", None),
    ("1.3.6.1.2.1.31.1.1.1.18", "ifAlias", None),
];

const IF_ADMIN_STATUS: &str = "1.3.6.1.2.1.2.2.1.7";
const IF_OPER_STATUS: &str = "1.3.6.1.2.1.2.2.1.8";
/// Variables that carry a syslog severity, and what to take from their number.
const SEVERITIES: [(&str, i64); 2] = [
    ("1.3.6.1.4.1.9.9.41.1.2.3.1.3", 1), // clogHistSeverity (CISCO-SYSLOG-MIB): emergency(1) to debug(8)
    ("1.3.6.1.2.1.192.1.2.1.3", 0),      // syslogMsgSeverity (RFC 5676)
];

impl Default for Names {
    fn default() -> Self {
        let entry = |(oid, name, severity): &(&str, &str, Option<Severity>)| {
            (Box::from(*oid), Entry { name: Box::from(*name), severity: *severity })
        };
        Self(STANDARD.iter().map(entry).collect())
    }
}

impl Names {
    /// The standard names and those of a file, whose lines are `OID NAME [SEVERITY]`; `#` begins a
    /// comment. A line of the file goes before a standard name.
    pub(super) fn with_file(file: &Path) -> Result<Self, NamesError> {
        let read = |source| NamesError::Read { file: file.to_owned(), source };
        if std::fs::metadata(file).map_err(read)?.len() > FILE_BYTES_MAX {
            return Err(NamesError::TooLarge { file: file.to_owned() });
        }
        let text = std::fs::read_to_string(file).map_err(read)?;
        let mut names = Self::default();
        for (i, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            names.add(line).map_err(|what| NamesError::Line { file: file.to_owned(), line: i + 1, what })?;
        }
        Ok(names)
    }

    fn add(&mut self, line: &str) -> Result<(), &'static str> {
        let mut words = line.split_whitespace();
        let Some(oid) = words.next() else { return Ok(()) };
        let oid = oid.trim_start_matches('.');
        if oid.is_empty() || oid.split('.').any(|arc| arc.parse::<u32>().is_err() || arc.starts_with('+')) {
            return Err("the first word is no dotted OID");
        }
        let name = words.next().ok_or("there is no name")?;
        if name.len() > NAME_MAX || name.chars().any(char::is_control) {
            return Err("the name is too long or has control characters");
        }
        let severity = match words.next() {
            None => None,
            Some(word) => Some(Severity::parse(word).ok_or("the third word is no syslog severity")?),
        };
        if words.next().is_some() {
            return Err("there are more than three words");
        }
        self.0.insert(oid.into(), Entry { name: name.into(), severity });
        Ok(())
    }

    /// The name of this very object identifier.
    pub(super) fn exact(&self, oid: &str) -> Option<&str> {
        self.0.get(oid).map(|entry| &*entry.name)
    }

    /// `ifIndex.3`: the name of the longest known beginning, and the rest as it is.
    pub(super) fn of(&self, oid: &str) -> Option<String> {
        let mut end = oid.len();
        loop {
            if let Some(name) = self.exact(&oid[..end]) {
                return Some(format!("{name}{}", &oid[end..]));
            }
            end = oid[..end].rfind('.')?;
        }
    }

    /// The severity that the trap's name implies.
    pub(super) fn severity(&self, trap_oid: &str) -> Option<Severity> {
        self.0.get(trap_oid).and_then(|entry| entry.severity)
    }
}

/// The word for a number of the two variables whose numbers nobody remembers (RFC 2863).
pub(super) fn label(oid: &str, value: i64) -> Option<&'static str> {
    const WORDS: [&str; 7] = ["up", "down", "testing", "unknown", "dormant", "notPresent", "lowerLayerDown"];
    let last = if is_instance(oid, IF_ADMIN_STATUS) {
        3
    } else if is_instance(oid, IF_OPER_STATUS) {
        WORDS.len()
    } else {
        return None;
    };
    let index = usize::try_from(value).ok()?.checked_sub(1)?;
    WORDS[..last].get(index).copied()
}

/// The severity that a variable carries.
pub(super) fn carried_severity(oid: &str, value: i64) -> Option<Severity> {
    let (_, first) = SEVERITIES.iter().find(|(column, _)| is_instance(oid, column))?;
    Severity::from_code(value.checked_sub(*first)?)
}

fn is_instance(oid: &str, of: &str) -> bool {
    oid.strip_prefix(of).is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_known_beginning_gives_the_name() {
        let mut names = Names::default();
        names.add(".1.3.6.1.4.1.9 cisco").unwrap();
        names.add("1.3.6.1.4.1.9.9.41.2.0.1 clogMessageGenerated error").unwrap();
        for (oid, expected) in [
            ("1.3.6.1.2.1.2.2.1.1.3", Some("ifIndex.3")),
            ("1.3.6.1.2.1.2.2.1.10.3", None),
            ("1.3.6.1.4.1.9.1", Some("cisco.1")),
            ("1.3.6.1.4.1.99", None),
            ("1.3.6.1.4.1.9.9.41.2.0.1", Some("clogMessageGenerated")),
        ] {
            assert_eq!(names.of(oid).as_deref(), expected, "{oid}");
        }
        assert_eq!(names.severity("1.3.6.1.4.1.9.9.41.2.0.1"), Some(Severity::Error));
        assert_eq!(names.severity("1.3.6.1.4.1.9"), None);
    }

    #[test]
    fn a_bad_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("names");
        for (text, line) in
            [("\n# c\n1.3.x name", 3), ("1.3.6", 1), ("1.3 a b", 1), ("1.3 a error c", 1), ("1..3 a", 1)]
        {
            std::fs::write(&file, text).unwrap();
            let error = Names::with_file(&file).unwrap_err().to_string();
            assert!(error.contains(&format!("line {line}:")), "{error}");
        }
        std::fs::write(&file, "# mine\n.1.3.6.1.6.3.1.1.5.3 LINK-DOWN crit # over the standard's\n").unwrap();
        let names = Names::with_file(&file).unwrap();
        assert_eq!(names.exact("1.3.6.1.6.3.1.1.5.3"), Some("LINK-DOWN"));
        assert_eq!(names.severity("1.3.6.1.6.3.1.1.5.3"), Some(Severity::Critical));
        assert!(Names::with_file(&dir.path().join("none")).is_err());
    }

    #[test]
    fn numbers_of_states_and_severities_get_their_words() {
        assert_eq!(label("1.3.6.1.2.1.2.2.1.8.2", 2), Some("down"));
        assert_eq!(label("1.3.6.1.2.1.2.2.1.8.2", 7), Some("lowerLayerDown"));
        assert_eq!(label("1.3.6.1.2.1.2.2.1.7.2", 7), None);
        assert_eq!(label("1.3.6.1.2.1.2.2.1.8.2", i64::MIN), None);
        assert_eq!(carried_severity("1.3.6.1.4.1.9.9.41.1.2.3.1.3.17", 4), Some(Severity::Error));
        assert_eq!(carried_severity("1.3.6.1.2.1.192.1.2.1.3.1", 0), Some(Severity::Emergency));
        assert_eq!(carried_severity("1.3.6.1.4.1.9.9.41.1.2.3.1.3.17", 9), None);
    }
}
