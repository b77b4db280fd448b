//! Names of documents.

use storage::catalog::detection_rules::DOCUMENT_NAME_MAX;

/// The name in its one form: parts joined by `/`, none of them `.` or empty. `Err` says why it cannot be
/// one.
pub fn normal_name(written: &str) -> Result<String, &'static str> {
    if written.chars().any(is_hidden) {
        return Err("its name has characters that one cannot see");
    }
    let written = written.replace('\\', "/");
    if written.starts_with('/') || written.as_bytes().get(1) == Some(&b':') {
        return Err("its name is an absolute path");
    }
    let parts: Vec<&str> = written.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err("its name leads out of the folder (`..`)");
    }
    let name = parts.join("/");
    if !is_rule_file(&name) {
        return Err("its name does not end in .yml or .yaml");
    }
    if name.chars().count() > DOCUMENT_NAME_MAX {
        return Err("its name is longer than 255 characters");
    }
    Ok(name)
}

/// Whether a file of this name holds rules.
pub fn is_rule_file(name: &str) -> bool {
    let file = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let stem = |end| file.len().checked_sub(end).and_then(|at| file.split_at_checked(at));
    let ends =
        |end: &str| stem(end.len()).is_some_and(|(stem, last)| !stem.is_empty() && last.eq_ignore_ascii_case(end));
    ends(".yml") || ends(".yaml")
}

/// Whether a part of the name begins with a dot: `.github/workflows/ci.yml`.
pub fn is_dotted(name: &str) -> bool {
    name.split(['/', '\\']).any(|part| part.starts_with('.') && part != "." && part != "..")
}

/// Control characters, and those that change how others are shown.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_form() {
        for (written, name) in [
            ("a.yml", "a.yml"),
            ("./linux//auditd/./x.YAML", "linux/auditd/x.YAML"),
            ("windows\\x.yml", "windows/x.yml"),
            ("ü ä/ö.yml", "ü ä/ö.yml"),
            ("a..b/c.yml", "a..b/c.yml"),
        ] {
            assert_eq!(normal_name(written), Ok(name.to_owned()), "{written}");
            assert_eq!(normal_name(name), Ok(name.to_owned()), "{name}");
        }
    }

    #[test]
    fn what_leads_elsewhere_or_cannot_be_read_is_no_name() {
        for written in [
            "/etc/x.yml",
            "\\\\host\\x.yml",
            "C:\\x.yml",
            "c:x.yml",
            "../x.yml",
            "a/../../x.yml",
            "a\\..\\x.yml",
            "a\n.yml",
            "a\0.yml",
            "a\u{202e}lmy.yml",
            "",
            ".",
            "a.txt",
            ".yml",
            "a/",
            &format!("{}.yml", "é".repeat(252)),
        ] {
            assert!(normal_name(written).is_err(), "{written:?}");
        }
        assert!(normal_name(&format!("{}.yml", "é".repeat(251))).is_ok());
    }
}
