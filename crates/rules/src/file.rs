//! Rule files: rules in YAML (or JSON), each with events that it must and must not match.
//!
//! ```yaml
//! rules:
//!   - name: link down                    # optional
//!     match_string: LINK-DOWN            # or trap_oid, or both
//!     match_type: contains               # contains (default), regex, oid_prefix
//!     syslog_severity: err               # optional: 0-7 or a word
//!     priority: 5                        # default 100, lower wins
//!     prod_handling: Page_and_ticket
//!     dev_handling: Ticket_only
//!     team_assignment: NetOps
//!     is_active: true                    # default
//!     tests:
//!       match:
//!         - {message: "%LINK-DOWN: ge-0/0/1", severity: err}
//!       no_match:
//!         - link up                      # a bare text is a message
//! ```
//!
//! A rule that cannot be used is reported with file, line, rule and field, and never stops the
//! others.

use crate::yaml::{self, Node, NodeValue};
use crate::{Explanation, RuleSet, Subject, suggest, validate};
use model::{Handling, MatchType, Rule, RuleDraft, RuleId, Severity};
use std::fmt;

/// A rule of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRule {
    /// As given, else `rule N` by position.
    pub name: String,
    /// The row.
    pub draft: RuleDraft,
    /// Its evidence.
    pub tests: RuleTests,
    /// The file, as the caller names it.
    pub file: String,
    /// Where it starts.
    pub line: u64,
}

/// Events that a rule must match, and events that it must not match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleTests {
    /// These must match.
    pub matching: Vec<TestEvent>,
    /// These must not match.
    pub no_match: Vec<TestEvent>,
}

/// An event of a rule's tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestEvent {
    /// The message.
    pub message: String,
    /// The severity.
    pub severity: Option<Severity>,
    /// The trap OID.
    pub trap_oid: Option<String>,
    /// Where it is written.
    pub line: u64,
}

/// Something in a file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// The file, as the caller names it.
    pub file: String,
    /// The line, where one is to blame.
    pub line: Option<u64>,
    /// The rule's name, where it is about one.
    pub rule: Option<String>,
    /// The field, where it is about one.
    pub field: Option<String>,
    /// A sentence for the rule's author.
    pub message: String,
}

/// What came of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestResult {
    /// The file, as the caller names it.
    pub file: String,
    /// The rule's name.
    pub rule: String,
    /// The event's message, or its OID.
    pub event: String,
    /// Where the test event is written.
    pub line: u64,
    /// Whether the rule had to match.
    pub must_match: bool,
    /// Whether it did as it had to.
    pub passed: bool,
    /// What the rule asked and what it found.
    pub explanation: Explanation,
    /// Another active rule of the same files that takes the event first. No failure: a rule is
    /// tested alone.
    pub taken_by: Option<String>,
}

const RULE_KEYS: [&str; 11] = [
    "name",
    "match_string",
    "trap_oid",
    "syslog_severity",
    "match_type",
    "priority",
    "prod_handling",
    "dev_handling",
    "team_assignment",
    "is_active",
    "tests",
];
const EVENT_KEYS: [&str; 3] = ["message", "severity", "trap_oid"];

/// Whether a text is a file of these rules, rather than of Sigma's: it has a list `rules` at its top.
pub fn is_one(text: &str) -> bool {
    let json = text.trim_start().starts_with(['{', '[']);
    json || text.lines().any(|line| line.strip_prefix("rules").is_some_and(|rest| rest.trim_start().starts_with(':')))
}

/// Reads a file's text. `label` is its name in the problems.
pub fn parse(label: &str, text: &str) -> (Vec<FileRule>, Vec<FileProblem>) {
    let mut reader = Reader { file: label, problems: Vec::new(), rule: None };
    let mut rules = Vec::new();
    match yaml::read(text) {
        Err(error) => reader.problem(error.line(), None, error.to_string()),
        Ok(root) => {
            for (index, node) in reader.rule_list(root).into_iter().enumerate() {
                rules.extend(reader.rule(index, node));
            }
        }
    }
    (rules, reader.problems)
}

/// Runs the tests of all rules, each rule alone.
pub fn run_tests(rules: &[FileRule]) -> Vec<TestResult> {
    let row = |(index, rule): (usize, &FileRule)| Rule { id: index as RuleId, draft: rule.draft.clone() };
    let (all, _) = RuleSet::compile(rules.iter().enumerate().map(row).collect());
    let mut results = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let mut alone = row((index, rule));
        alone.draft.is_active = true;
        let (alone, _) = RuleSet::compile(vec![alone]);
        let expectations = [(true, &rule.tests.matching), (false, &rule.tests.no_match)];
        for (must_match, event) in expectations.into_iter().flat_map(|(must, list)| list.iter().map(move |e| (must, e)))
        {
            let subject = event.subject();
            let winner = all.first_match(&subject).map(|winner| winner.id).filter(|id| *id != index as RuleId);
            results.push(TestResult {
                file: rule.file.clone(),
                event: if event.message.is_empty() {
                    event.trap_oid.clone().unwrap_or_default()
                } else {
                    event.message.clone()
                },
                rule: rule.name.clone(),
                line: event.line,
                must_match,
                passed: alone.first_match(&subject).is_some() == must_match,
                explanation: alone.explain(&subject),
                taken_by: winner.and_then(|id| rules.get(usize::try_from(id).ok()?)).map(|rule| rule.name.clone()),
            });
        }
    }
    results
}

impl TestEvent {
    /// As the matcher takes it.
    pub fn subject(&self) -> Subject<'_> {
        Subject { message: &self.message, severity: self.severity, trap_oid: self.trap_oid.as_deref() }
    }
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(rule) = &self.rule {
            write!(f, ": {rule:?}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ": {field}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl fmt::Display for TestResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = if self.must_match { "match" } else { "not match" };
        let verdict = if self.passed { "ok" } else { "FAILED" };
        write!(f, "{verdict} {}:{}: {:?} must {wanted}: {:?}", self.file, self.line, self.rule, self.event)?;
        if !self.passed {
            for step in &self.explanation.steps {
                write!(f, "\n    {step}")?;
            }
        }
        Ok(())
    }
}

struct Reader<'a> {
    file: &'a str,
    problems: Vec<FileProblem>,
    /// The rule that is being read.
    rule: Option<String>,
}

impl Reader<'_> {
    fn problem(&mut self, line: Option<u64>, field: Option<&str>, message: String) {
        self.problems.push(FileProblem {
            file: self.file.to_owned(),
            line,
            rule: self.rule.clone(),
            field: field.map(str::to_owned),
            message,
        });
    }

    fn rule_list(&mut self, root: Node) -> Vec<Node> {
        let entries = match root.value {
            NodeValue::Map(entries) => entries,
            other => {
                let message = format!("expected a mapping with the key `rules`, found {}", other.kind());
                self.problem(Some(root.line), None, message);
                return Vec::new();
            }
        };
        let mut list = None;
        for (key, node) in entries {
            if key == "rules" {
                list = Some(node);
            } else {
                self.unknown_key(node.line, &key, &["rules"]);
            }
        }
        match list {
            None => self.problem(Some(root.line), Some("rules"), "it is missing".to_owned()),
            Some(Node { value: NodeValue::List(items), .. }) => return items,
            Some(Node { value: NodeValue::Null, .. }) => {}
            Some(node) => {
                let message = format!("expected a list of rules, found {}", node.value.kind());
                self.problem(Some(node.line), Some("rules"), message);
            }
        }
        Vec::new()
    }

    fn unknown_key(&mut self, line: u64, key: &str, known: &[&str]) {
        let message = match suggest::closest(key, known) {
            Some(meant) => format!("unknown field; did you mean `{meant}`?"),
            None => format!("unknown field; known are {}", known.join(", ")),
        };
        self.problem(Some(line), Some(key), message);
    }

    fn rule(&mut self, index: usize, node: Node) -> Option<FileRule> {
        let line = node.line;
        self.rule = Some(format!("rule {}", index + 1));
        let rule = self.rule_fields(node, line);
        self.rule = None;
        rule
    }

    fn rule_fields(&mut self, node: Node, line: u64) -> Option<FileRule> {
        let before = self.problems.len();
        let entries = match node.value {
            NodeValue::Map(entries) => entries,
            other => {
                self.problem(Some(line), None, format!("expected a rule (a mapping), found {}", other.kind()));
                return None;
            }
        };
        if let Some((_, Node { value: NodeValue::Text(name), .. })) = entries.iter().find(|(key, _)| key == "name") {
            self.rule = Some(name.clone());
        }
        let name = self.rule.clone().unwrap_or_default();
        let line_of = |field: &str| entries.iter().find(|(key, _)| key == field).map_or(line, |(_, node)| node.line);
        let lines = RULE_KEYS.map(|key| (key, line_of(key)));

        let mut draft = RuleDraft {
            match_string: None,
            trap_oid: None,
            syslog_severity: None,
            match_type: MatchType::Contains,
            priority: RuleDraft::DEFAULT_PRIORITY,
            prod_handling: Handling::new(""),
            dev_handling: Handling::new(""),
            team_assignment: String::new(),
            is_active: true,
        };
        let mut tests = RuleTests::default();
        for (key, node) in entries {
            if key == "tests" {
                tests = self.tests(node);
            } else if RULE_KEYS.contains(&&*key) {
                let at = node.line;
                let result = text(node).and_then(|text| match text {
                    Some(text) => set(&mut draft, &key, text),
                    None => Ok(()),
                });
                if let Err(message) = result {
                    self.problem(Some(at), Some(&key), message);
                }
            } else {
                self.unknown_key(node.line, &key, &RULE_KEYS);
            }
        }
        if let Err(problems) = validate(&draft) {
            for problem in problems {
                let reported = self.problems[before..].iter().any(|p| p.field.as_deref() == Some(problem.field));
                if !reported {
                    let at = lines.iter().find(|(key, _)| *key == problem.field).map_or(line, |(_, line)| *line);
                    self.problem(Some(at), Some(problem.field), problem.message);
                }
            }
        }
        (self.problems.len() == before).then_some(FileRule { name, draft, tests, file: self.file.to_owned(), line })
    }

    fn tests(&mut self, node: Node) -> RuleTests {
        let mut tests = RuleTests::default();
        let entries = match node.value {
            NodeValue::Map(entries) => entries,
            NodeValue::Null => return tests,
            other => {
                let message = format!("expected a mapping with `match` and `no_match`, found {}", other.kind());
                self.problem(Some(node.line), Some("tests"), message);
                return tests;
            }
        };
        for (key, node) in entries {
            let (field, list) = match &*key {
                "match" => ("tests.match", &mut tests.matching),
                "no_match" => ("tests.no_match", &mut tests.no_match),
                _ => {
                    self.unknown_key(node.line, &key, &["match", "no_match"]);
                    continue;
                }
            };
            match node.value {
                NodeValue::Null => {}
                NodeValue::List(items) => {
                    for item in items {
                        let line = item.line;
                        match self.event(item) {
                            Ok(event) => list.push(event),
                            Err(message) => self.problem(Some(line), Some(field), message),
                        }
                    }
                }
                other => {
                    let message = format!("expected a list of events, found {}", other.kind());
                    self.problem(Some(node.line), Some(field), message);
                }
            }
        }
        tests
    }

    fn event(&mut self, node: Node) -> Result<TestEvent, String> {
        let mut event = TestEvent { line: node.line, ..TestEvent::default() };
        match node.value {
            NodeValue::Text(message) => event.message = message,
            NodeValue::Map(entries) => {
                for (key, node) in entries {
                    let at = node.line;
                    if !EVENT_KEYS.contains(&&*key) {
                        self.unknown_key(at, &key, &EVENT_KEYS);
                        continue;
                    }
                    let Some(text) = text(node)? else { continue };
                    match &*key {
                        "message" => event.message = text,
                        "trap_oid" => event.trap_oid = Some(text),
                        _ => event.severity = Some(severity(&text)?),
                    }
                }
            }
            other => {
                return Err(format!(
                    "expected a message or a mapping with message, severity, trap_oid; found {}",
                    other.kind()
                ));
            }
        }
        Ok(event)
    }
}

/// The text of a scalar; `None` for null, which means absent.
fn text(node: Node) -> Result<Option<String>, String> {
    match node.value {
        NodeValue::Null => Ok(None),
        NodeValue::Text(text) => Ok(Some(text)),
        other => Err(format!("expected a single value, found {}", other.kind())),
    }
}

fn severity(text: &str) -> Result<Severity, String> {
    Severity::parse(text).ok_or_else(|| {
        let words = Severity::ALL.map(Severity::as_str);
        match suggest::closest(text, &words) {
            Some(word) => format!("`{text}` is not a syslog severity; did you mean `{word}`?"),
            None => format!("`{text}` is not a syslog severity (0 to 7, or {})", words.join(", ")),
        }
    })
}

fn set(draft: &mut RuleDraft, key: &str, text: String) -> Result<(), String> {
    match key {
        "match_string" => draft.match_string = Some(text),
        "trap_oid" => draft.trap_oid = Some(text),
        "syslog_severity" => draft.syslog_severity = Some(severity(&text)?.code()),
        "match_type" => draft.match_type = MatchType::parse(&text).ok_or_else(|| match_type_problem(&text))?,
        "priority" => {
            draft.priority = text.parse().map_err(|_| format!("`{text}` is not a whole number"))?;
        }
        "prod_handling" => draft.prod_handling = Handling::new(text),
        "dev_handling" => draft.dev_handling = Handling::new(text),
        "team_assignment" => draft.team_assignment = text,
        "is_active" => {
            draft.is_active =
                text.to_ascii_lowercase().parse().map_err(|_| format!("`{text}` is neither `true` nor `false`"))?;
        }
        _ => {}
    }
    Ok(())
}

fn match_type_problem(text: &str) -> String {
    let known = MatchType::ALL.map(MatchType::as_str);
    match suggest::closest(text, &known) {
        Some(meant) => format!("`{text}` is not a match type; did you mean `{meant}`?"),
        None => format!("`{text}` is not a match type; known are {}", known.join(", ")),
    }
}
