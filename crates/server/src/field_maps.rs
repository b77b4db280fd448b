//! Mapping files of the configuration: what this site's events call the fields of the taxonomy.

use crate::rule_files::yaml_files;
use fields::{Aliases, Mapping, SourceFilter};
use pipeline::detections::Detections;
use rules::field_map::{self, FieldMap};
use rules::sigma::{Gravity, Problem};
use std::io::Write as _;
use std::path::PathBuf;

/// Reads files, and `*.yml`/`*.yaml` below folders in the order of their names. What cannot be used is
/// among the problems.
pub fn read(paths: &[PathBuf]) -> (Aliases, Vec<Problem>) {
    let (files, unreadable) = yaml_files(paths);
    let mut problems: Vec<Problem> =
        unreadable.into_iter().map(|(path, why)| field_map::unreadable(&path, &why)).collect();
    let mut mappings = Vec::new();
    for file in files {
        let name = file.display().to_string();
        match std::fs::read_to_string(&file) {
            Ok(text) => {
                let (maps, mut found) = field_map::read(&name, &text);
                mappings.extend(maps.into_iter().map(mapping));
                problems.append(&mut found);
            }
            Err(error) => problems.push(field_map::unreadable(&name, &error.to_string())),
        }
    }
    (Aliases::new(mappings), problems)
}

fn mapping(map: FieldMap) -> Mapping {
    let source = map.source;
    Mapping {
        when: map.when,
        source: SourceFilter { product: source.product, category: source.category, service: source.service },
        fields: map.fields,
    }
}

/// Puts the mappings of these files in force; what is wrong is logged and left out.
pub async fn load(detections: &Detections, paths: &[PathBuf]) {
    let paths = paths.to_vec();
    let Ok((aliases, problems)) = tokio::task::spawn_blocking(move || read(&paths)).await else { return };
    for problem in &problems {
        match problem.gravity {
            Gravity::Refused => tracing::error!(%problem, "a mapping of fields was left out"),
            Gravity::Warning => tracing::warn!(%problem, "a mapping of fields is odd"),
        }
    }
    if !aliases.is_empty() {
        tracing::info!(mappings = aliases.len(), "mappings of fields read");
    }
    detections.replace_fields(aliases);
}

/// For commands: what is wrong is told on standard error.
pub fn read_and_tell(paths: &[PathBuf]) -> Aliases {
    let (aliases, problems) = read(paths);
    for problem in problems {
        let _ = writeln!(std::io::stderr(), "fields: {problem}");
    }
    aliases
}
