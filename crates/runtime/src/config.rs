//! Configuration from layers: a documented default, a file, the environment.
//!
//! The default TOML names every setting there is, so it is also the schema: a key that it does not
//! know is a mistake of the user, reported with its path and the nearest known key. Every problem
//! of every layer is collected before anything is refused.

use std::collections::BTreeMap;
use toml::{Table, Value};

/// One mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path of the setting, or the variable's name.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// An environment variable that sets a setting. Of several for one path, the first present wins, but
/// for units that say otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    pub variable: &'static str,
    pub path: &'static str,
    pub unit: Unit,
}

/// How a variable's text becomes the setting's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// As the default's type says.
    Plain,
    /// Seconds (fractions allowed) into milliseconds.
    SecondsToMillis,
    /// `a,b,c` into a list of texts.
    List,
    /// A bare port into the port part of an address setting.
    Port,
    /// A whole number; of several variables the largest counts.
    Largest,
    /// True or false; of several variables a false one counts.
    EveryTrue,
}

impl Unit {
    /// What an earlier and a later variable for one path say together; `None` = the earlier.
    fn together(self, earlier: &Value, later: &Value) -> Option<Value> {
        match (self, earlier, later) {
            (Self::Largest, Value::Integer(a), Value::Integer(b)) => Some(Value::Integer(*a.max(b))),
            (Self::EveryTrue, Value::Boolean(a), Value::Boolean(b)) => Some(Value::Boolean(*a && *b)),
            _ => None,
        }
    }
}

/// The process's environment as a map: the only place that reads it.
#[expect(clippy::disallowed_methods, reason = "this is where the environment is read, for everybody")]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// Layers being put together.
#[derive(Debug)]
pub struct Layers {
    defaults: Table,
    /// Paths whose content is free (lists of tables, maps named by the user): the default says
    /// nothing about their keys, a typed reader does.
    free: &'static [&'static str],
    merged: Table,
    problems: Vec<Problem>,
}

impl Layers {
    /// `defaults` is compiled in: a mistake there is a defect of the build.
    pub fn new(defaults: &str, free: &'static [&'static str]) -> Self {
        let defaults: Table = defaults.parse().expect("the compiled-in defaults are valid TOML (tested)");
        Self { merged: defaults.clone(), defaults, free, problems: Vec::new() }
    }

    /// Lays a TOML text over what is there. `label` names it in problems.
    pub fn file(mut self, label: &str, text: &str) -> Self {
        match text.parse::<Table>() {
            Ok(table) => {
                let mut problems = Vec::new();
                overlay(&mut self.merged, &self.defaults, table, "", self.free, &mut problems);
                self.problems.extend(
                    problems.into_iter().map(|p| Problem { path: p.path, message: format!("{} ({label})", p.message) }),
                );
            }
            Err(error) => {
                self.problems.push(Problem { path: label.to_owned(), message: error.to_string().trim().to_owned() })
            }
        }
        self
    }

    /// Lays the bound variables over what is there. Empty variables count as absent.
    pub fn environment(mut self, variables: &BTreeMap<String, String>, bindings: &[Binding]) -> Self {
        let mut done: Vec<&str> = Vec::new();
        for binding in bindings {
            let Some(text) = variables.get(binding.variable).filter(|t| !t.is_empty()) else { continue };
            let again = done.contains(&binding.path);
            if again && !matches!(binding.unit, Unit::Largest | Unit::EveryTrue) {
                continue;
            }
            done.push(binding.path);
            let Some(default) = lookup(&self.merged, binding.path) else {
                self.problems.push(Problem {
                    path: binding.variable.to_owned(),
                    message: format!("is bound to the unknown setting {}", binding.path),
                });
                continue;
            };
            match convert(text, default, binding.unit) {
                Ok(value) => {
                    let both = again.then(|| binding.unit.together(default, &value)).flatten();
                    store(&mut self.merged, binding.path, both.unwrap_or(value));
                }
                Err(message) => self.problems.push(Problem {
                    path: binding.variable.to_owned(),
                    message: format!("{message}, for the setting {}", binding.path),
                }),
            }
        }
        self
    }

    /// The merged settings and every problem met.
    pub fn finish(self) -> (Table, Vec<Problem>) {
        (self.merged, self.problems)
    }
}

/// The value at a dotted path.
pub fn lookup<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(a, b)| (a, Some(b)));
    let value = table.get(first)?;
    match rest {
        None => Some(value),
        Some(rest) => lookup(value.as_table()?, rest),
    }
}

fn store(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(first) {
                store(inner, rest, value);
            }
        }
    }
}

fn overlay(into: &mut Table, schema: &Table, from: Table, prefix: &str, free: &[&str], problems: &mut Vec<Problem>) {
    for (key, value) in from {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let Some(known) = schema.get(&key) else {
            let hint = nearest(&key, schema.keys().map(String::as_str))
                .map_or_else(String::new, |k| format!("; did you mean `{k}`?"));
            problems.push(Problem { path, message: format!("unknown setting{hint}") });
            continue;
        };
        if free.contains(&path.as_str()) {
            into.insert(key, value);
            continue;
        }
        match (known, value) {
            (Value::Table(schema), Value::Table(value)) => {
                if let Some(Value::Table(inner)) = into.get_mut(&key) {
                    overlay(inner, schema, value, &path, free, problems);
                }
            }
            (Value::Float(_), Value::Integer(number)) => {
                into.insert(key, Value::Float(number as f64));
            }
            (known, value) if known.same_type(&value) => {
                into.insert(key, value);
            }
            (known, value) => {
                problems.push(Problem { path, message: format!("is {}, expected {}", kind(&value), kind(known)) })
            }
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

fn convert(text: &str, default: &Value, unit: Unit) -> Result<Value, String> {
    let text = text.trim();
    match unit {
        Unit::SecondsToMillis => {
            let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
            if !(0.0..=1e9).contains(&seconds) {
                return Err(format!("`{text}` seconds is out of range"));
            }
            Ok(Value::Integer((seconds * 1_000.0).round() as i64))
        }
        Unit::List => {
            let items = text.split(',').map(str::trim).filter(|i| !i.is_empty());
            Ok(Value::Array(items.map(|i| Value::String(i.to_owned())).collect()))
        }
        Unit::Port => {
            let port: u16 = text.parse().map_err(|_| format!("`{text}` is not a port (1 to 65535)"))?;
            if port == 0 {
                return Err("0 is not a port (1 to 65535)".to_owned());
            }
            let address = default.as_str().unwrap_or_default();
            let host = address.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host);
            Ok(Value::String(format!("{host}:{port}")))
        }
        Unit::Plain | Unit::Largest | Unit::EveryTrue => match default {
            Value::Integer(_) => {
                text.parse().map(Value::Integer).map_err(|_| format!("`{text}` is not a whole number"))
            }
            Value::Float(_) => text.parse().map(Value::Float).map_err(|_| format!("`{text}` is not a number")),
            Value::Boolean(_) => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Ok(Value::Boolean(true)),
                "false" | "0" | "no" | "off" => Ok(Value::Boolean(false)),
                _ => Err(format!("`{text}` is not true or false")),
            },
            Value::String(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
                Ok(Value::String(text.to_owned()))
            }
        },
    }
}

/// The known word most like `word`, if one is close.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known.map(|k| (distance(word, k), k)).filter(|(d, k)| *d <= 2.max(k.len() / 4)).min().map(|(_, k)| k)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(64).enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let changed = corner + usize::from(ca != *cb);
            corner = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: &str = "
        name = \"x\"
        list = [\"a\"]
        [http]
        listen = \"127.0.0.1:8080\"
        timeout_ms = 1000
        rate = 0.5
        on = true
        [[extra]]
        anything = 1
    ";
    const BINDINGS: [Binding; 5] = [
        Binding { variable: "PORT", path: "http.listen", unit: Unit::Port },
        Binding { variable: "OLD_PORT", path: "http.listen", unit: Unit::Port },
        Binding { variable: "TIMEOUT", path: "http.timeout_ms", unit: Unit::SecondsToMillis },
        Binding { variable: "ON", path: "http.on", unit: Unit::Plain },
        Binding { variable: "LIST", path: "list", unit: Unit::List },
    ];

    fn vars(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn later_layers_win_and_the_first_bound_variable_wins() {
        let (table, problems) = Layers::new(DEFAULTS, &["extra"])
            .file("a.toml", "name = \"y\"\n[http]\nrate = 2\nlisten = \"0.0.0.0:1\"\n[[extra]]\nfoo = 2")
            .environment(
                &vars(&[("PORT", "81"), ("OLD_PORT", "82"), ("TIMEOUT", "2.5"), ("ON", "no"), ("LIST", "b, c")]),
                &BINDINGS,
            )
            .finish();
        assert_eq!(problems, []);
        let text = |path| lookup(&table, path).map(ToString::to_string);
        assert_eq!(text("name").as_deref(), Some("\"y\""));
        assert_eq!(text("http.listen").as_deref(), Some("\"0.0.0.0:81\""));
        assert_eq!(text("http.timeout_ms").as_deref(), Some("2500"));
        assert_eq!(text("http.rate").as_deref(), Some("2.0"));
        assert_eq!(text("http.on").as_deref(), Some("false"));
        assert_eq!(text("list").as_deref(), Some("[\"b\", \"c\"]"));
    }

    #[test]
    fn the_largest_or_a_false_variable_counts_where_the_unit_says_so() {
        let longest = |variable| Binding { variable, path: "http.timeout_ms", unit: Unit::Largest };
        let all = |variable| Binding { variable, path: "http.on", unit: Unit::EveryTrue };
        let bindings = [longest("A"), longest("B"), all("ON"), all("ALSO_ON")];
        let load = |pairs: &[(&str, &str)]| {
            let (table, problems) = Layers::new(DEFAULTS, &["extra"]).environment(&vars(pairs), &bindings).finish();
            let text = |path| lookup(&table, path).map(ToString::to_string).unwrap();
            (text("http.timeout_ms"), text("http.on"), problems.len())
        };
        let expect = |ms: &str, on: &str, problems| (ms.to_owned(), on.to_owned(), problems);
        assert_eq!(load(&[("A", "5"), ("B", "7"), ("ON", "true"), ("ALSO_ON", "false")]), expect("7", "false", 0));
        assert_eq!(load(&[("A", "7"), ("B", "5"), ("ON", "no"), ("ALSO_ON", "yes")]), expect("7", "false", 0));
        assert_eq!(load(&[("B", "5"), ("ALSO_ON", "true")]), expect("5", "true", 0), "the default is no variable");
        assert_eq!(load(&[("A", "5"), ("B", "long")]).2, 1, "none is passed over");
    }

    #[test]
    fn every_mistake_is_reported_at_once_with_its_path() {
        let (_, problems) = Layers::new(DEFAULTS, &["extra"])
            .file("a.toml", "nam = \"y\"\n[http]\ntimeout = 3\non = \"yes\"\n[htpp]\nx = 1")
            .environment(&vars(&[("PORT", "0"), ("TIMEOUT", "soon"), ("ON", "maybe")]), &BINDINGS)
            .finish();
        let mut paths: Vec<&str> = problems.iter().map(|p| p.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["ON", "PORT", "TIMEOUT", "htpp", "http.on", "http.timeout", "nam"]);
        let all: String = problems.iter().map(|p| format!("{p}\n")).collect();
        assert!(all.contains("nam: unknown setting; did you mean `name`? (a.toml)"), "{all}");
    }

    #[test]
    fn a_file_that_is_not_toml_says_where() {
        let (_, problems) = Layers::new(DEFAULTS, &[]).file("bad.toml", "name = ").finish();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].message.contains("line 1"), "{}", problems[0]);
    }
}
