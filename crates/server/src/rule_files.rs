//! Rule files of the configuration: read, checked, given ids that stay the same.

use model::{Rule, RuleId};
use rules::file::{FileProblem, FileRule};
use std::path::{Path, PathBuf};

/// What the files hold.
#[derive(Debug, Default)]
pub struct RuleFiles {
    pub rules: Vec<FileRule>,
    /// Texts that hold rules of Sigma, with the names of their files.
    pub sigma: Vec<(String, String)>,
    pub problems: Vec<FileProblem>,
    /// Files that could not be read, with why.
    pub unreadable: Vec<String>,
    pub files: usize,
}

/// Reads files, and `*.yml`/`*.yaml` below folders in the order of their names.
pub fn read(paths: &[PathBuf]) -> RuleFiles {
    let mut found = RuleFiles::default();
    let (files, unreadable) = yaml_files(paths);
    found.unreadable.extend(unreadable.into_iter().map(|(path, why)| format!("{path}: {why}")));
    for path in files {
        let name = path.display().to_string();
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                found.files += 1;
                if !rules::file::is_one(&text) {
                    found.sigma.push((name, text));
                    continue;
                }
                let (mut rules, mut problems) = rules::file::parse(&name, &text);
                found.rules.append(&mut rules);
                found.problems.append(&mut problems);
            }
            Err(error) => found.unreadable.push(format!("{name}: {error}")),
        }
    }
    found
}

/// The paths that are no folders, whatever they are called, and `*.yml`/`*.yaml` below those that are,
/// in the order of their names; and folders that cannot be read, with why.
pub fn yaml_files(paths: &[PathBuf]) -> (Vec<PathBuf>, Vec<(String, String)>) {
    let (mut files, mut unreadable) = (Vec::new(), Vec::new());
    for path in paths {
        walk(path, true, &mut files, &mut unreadable);
    }
    (files, unreadable)
}

fn walk(path: &Path, named: bool, files: &mut Vec<PathBuf>, unreadable: &mut Vec<(String, String)>) {
    if path.is_dir() {
        match std::fs::read_dir(path) {
            Ok(entries) => {
                let mut below: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
                below.sort();
                below.iter().for_each(|path| walk(path, false, files, unreadable));
            }
            Err(error) => unreadable.push((path.display().to_string(), error.to_string())),
        }
    } else if named || path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml") {
        files.push(path.to_owned());
    }
}

/// As rules for detection, with negative ids made from their names, so that a rule keeps its id when
/// others come and go.
pub fn as_rules(files: &[FileRule]) -> Vec<Rule> {
    files.iter().map(|file| Rule { id: id(&file.name), draft: file.draft.clone() }).collect()
}

fn id(name: &str) -> RuleId {
    -1 - i64::try_from(rules::template::fingerprint(name) >> 12).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_rules_have_negative_ids_that_stay() {
        assert_eq!(id("link down"), id("link down"));
        assert_ne!(id("link down"), id("link up"));
        assert!(id("link down") < 0);
    }
}
