//! Files of `NAME=value` lines, read as systemd reads an `EnvironmentFile`: what a service gets is what
//! a command on the same host gets. No shell: nothing in a value is run or looked up.

use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    BeforeName,
    Name,
    BeforeValue,
    Value,
    ValueEscape,
    Single,
    Double,
    DoubleEscape,
    Comment,
}

/// The variables of such a file; of several with one name the last. Lines that set nothing are passed over, as
/// systemd does.
pub fn parse(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let (mut name, mut value) = (String::new(), String::new());
    // Length of the value without the blanks after it, which count only between quotes.
    let mut kept = 0;
    let mut state = State::BeforeName;
    for c in text.chars().filter(|c| *c != '\r').chain(['\n']) {
        let end_of_line = c == '\n';
        state = match state {
            State::BeforeName if matches!(c, '#' | ';') => State::Comment,
            State::BeforeName if c.is_ascii_whitespace() => State::BeforeName,
            State::BeforeName => {
                (name, value, kept) = (c.to_string(), String::new(), 0);
                State::Name
            }
            State::Name if end_of_line => State::BeforeName,
            State::Name if c == '=' => State::BeforeValue,
            State::Name => {
                name.push(c);
                State::Name
            }
            State::BeforeValue | State::Value if end_of_line => {
                value.truncate(kept);
                set(&mut found, &name, std::mem::take(&mut value));
                State::BeforeName
            }
            State::BeforeValue if c == '\'' => State::Single,
            State::BeforeValue if c == '"' => State::Double,
            State::BeforeValue if c.is_ascii_whitespace() => State::BeforeValue,
            State::BeforeValue | State::Value if c == '\\' => State::ValueEscape,
            State::BeforeValue | State::Value => {
                value.push(c);
                if !c.is_ascii_whitespace() {
                    kept = value.len();
                }
                State::Value
            }
            // A line that ends so goes on in the next.
            State::ValueEscape => {
                if !end_of_line {
                    value.push(c);
                    kept = value.len();
                }
                State::Value
            }
            State::Single if c == '\'' => State::BeforeValue,
            State::Double if c == '"' => State::BeforeValue,
            State::Double if c == '\\' => State::DoubleEscape,
            State::Single | State::Double => {
                value.push(c);
                kept = value.len();
                state
            }
            State::DoubleEscape => {
                if !end_of_line {
                    if !matches!(c, '"' | '\\' | '`' | '$') {
                        value.push('\\');
                    }
                    value.push(c);
                    kept = value.len();
                }
                State::Double
            }
            State::Comment if end_of_line => State::BeforeName,
            State::Comment => State::Comment,
        };
    }
    found
}

fn set(found: &mut BTreeMap<String, String>, name: &str, value: String) {
    let name = name.trim_end();
    let valid = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if valid && !name.starts_with(|c: char| c.is_ascii_digit()) {
        found.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let expected = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(parse(text), expected, "{text}");
    }

    #[test]
    fn values_are_what_systemd_makes_of_them() {
        check("A=1\n\n# B=2\n; C=3\nD = 4 \n", &[("A", "1"), ("D", "4")]);
        check("A=two words  \nB=\nA=again", &[("A", "again"), ("B", "")]);
        check(
            "A=\"a b \" \nB='c\\d$E'\nC=\"q\\\"\\$\\x\\\\\"\n",
            &[("A", "a b "), ("B", "c\\d$E"), ("C", "q\"$\\x\\")],
        );
        check(
            "A=back\\slash\nB=on\\\ne\nC=\"a\"'b'c\nD=a\"b\"\n",
            &[("A", "backslash"), ("B", "one"), ("C", "abc"), ("D", "a\"b\"")],
        );
        check(
            "A=$(touch x) `y` $HOME;z&\r\nB=\"two\nlines\"",
            &[("A", "$(touch x) `y` $HOME;z&"), ("B", "two\nlines")],
        );
        check("export A=1\nno sign\n1A=2\nB=#3\nC=p#q", &[("B", "#3"), ("C", "p#q")]);
    }
}
