//! `muttd rules lint`: mistakes in rule files of both kinds, and what is probably not meant.

use super::super::out;
use crate::{rule_files, sigma_files};
use model::Rule;
use rules::file::FileRule;
use rules::sigma::{Gravity, Options, Problem};
use serde_json::json;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Something that a rule's author should know.
#[derive(Default)]
pub(super) struct Finding {
    error: bool,
    file: String,
    line: Option<u64>,
    rule: Option<String>,
    field: Option<String>,
    message: String,
    suggestion: Option<String>,
}

/// Exit code 1 where a rule cannot be used.
pub fn run(paths: &[PathBuf], json: bool) -> ExitCode {
    let files = rule_files::read(paths);
    let sigma = sigma_files::read_texts(&files.sigma, &Options::default());
    let mut findings = mistakes(&files);
    warnings(&files, &mut findings);
    findings.extend(sigma.problems.iter().map(of_sigma));
    findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    let errors = findings.iter().filter(|finding| finding.error).count();
    let mut text = String::new();
    for finding in &findings {
        let shown = if json { finding.as_json() } else { finding.as_text() };
        let _ = writeln!(text, "{shown}");
    }
    if !json {
        let _ = writeln!(
            text,
            "{} rule(s) in {} file(s): {errors} error(s), {} warning(s)",
            files.rules.len() + sigma.rules.len() + sigma.correlations.len() + sigma.filters.len(),
            files.files,
            findings.len() - errors
        );
    }
    out(&text);
    if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Rows that cannot be used, and files that cannot be read.
pub(super) fn mistakes(files: &rule_files::RuleFiles) -> Vec<Finding> {
    let unreadable = files.unreadable.iter();
    let mut findings: Vec<Finding> =
        unreadable.map(|message| Finding { error: true, message: message.clone(), ..Finding::default() }).collect();
    for problem in &files.problems {
        findings.push(Finding {
            error: true,
            file: problem.file.clone(),
            line: problem.line,
            rule: problem.rule.clone(),
            field: problem.field.clone(),
            message: problem.message.clone(),
            suggestion: None,
        });
    }
    findings
}

/// Rows that are allowed and probably not meant.
fn warnings(files: &rule_files::RuleFiles, findings: &mut Vec<Finding>) {
    let about = |rule: &FileRule| Finding {
        file: rule.file.clone(),
        line: Some(rule.line),
        rule: Some(rule.name.clone()),
        ..Finding::default()
    };
    for rule in &files.rules {
        for warning in rules::lint(&rule.draft) {
            let field = Some(warning.field.to_owned());
            findings.push(Finding { field, message: warning.message, ..about(rule) });
        }
    }
    let numbered: Vec<Rule> =
        files.rules.iter().zip(1..).map(|(rule, id)| Rule { id, draft: rule.draft.clone() }).collect();
    let numbered_as = |id: i64| usize::try_from(id - 1).ok().and_then(|index| files.rules.get(index));
    for warning in rules::lint_set(&numbered) {
        let by = numbered_as(warning.by).map_or_else(String::new, super::place);
        let found = numbered_as(warning.rule).map(about).unwrap_or_default();
        findings.push(Finding { message: format!("{} ({by})", warning.message), ..found });
    }
}

pub(super) fn of_sigma(problem: &Problem) -> Finding {
    Finding {
        error: problem.gravity == Gravity::Refused,
        file: problem.place.file.to_string(),
        line: Some(problem.place.line),
        rule: problem.title.clone().or_else(|| problem.rule.clone()),
        field: problem.field.clone(),
        message: problem.message.clone(),
        suggestion: problem.suggestion.clone(),
    }
}

impl Finding {
    fn level(&self) -> &'static str {
        if self.error { "error" } else { "warning" }
    }

    pub(super) fn as_json(&self) -> String {
        let place = self.line.map_or_else(|| self.file.clone(), |line| format!("{}:{line}", self.file));
        json!({
            "level": self.level(),
            "file": self.file,
            "line": self.line,
            "place": place,
            "rule": self.rule,
            "field": self.field,
            "message": self.message,
            "suggestion": self.suggestion,
        })
        .to_string()
    }

    pub(super) fn as_text(&self) -> String {
        let mut text = format!("{}: ", self.level());
        if !self.file.is_empty() {
            let _ = match self.line {
                Some(line) => write!(text, "{}:{line}: ", self.file),
                None => write!(text, "{}: ", self.file),
            };
        }
        if let Some(rule) = &self.rule {
            let _ = write!(text, "{rule:?}: ");
        }
        if let Some(field) = &self.field {
            let _ = write!(text, "{field}: ");
        }
        text.push_str(&self.message);
        if let Some(suggestion) = &self.suggestion {
            let _ = write!(text, "; {suggestion}");
        }
        text
    }
}
