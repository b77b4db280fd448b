//! The detection rules of this server: those that ship, and those of files.

use crate::config::DetectionSettings;
use crate::sigma_files;
use pipeline::detections::{DetectionSet, Detections, Mode};
use rules::sigma::{Collection, Gravity, Header, Options, Reader};

/// Reads the rules that the settings ask for. What cannot be used is among the problems.
pub fn read(settings: &DetectionSettings) -> Collection {
    let options = Options { placeholders: settings.placeholders.clone() };
    let mut reader = Reader::new(options.clone());
    if settings.shipped {
        for (name, text) in SHIPPED {
            reader.text(name, text);
        }
    }
    reader.append(sigma_files::reader(&settings.rule_paths, &options));
    reader.finish()
}

/// Whether a rule is in force where nobody says otherwise: not if its author calls it unfinished or
/// given up.
fn on_by_default(header: &Header) -> bool {
    !matches!(&*header.status, "experimental" | "deprecated" | "unsupported")
}

/// Puts the rules that the settings ask for in force; what is wrong is logged and left out.
pub async fn load(detections: &Detections, settings: &DetectionSettings) {
    let of_files = settings.clone();
    let compiled = tokio::task::spawn_blocking(move || {
        let collection = read(&of_files);
        let mode = if of_files.dry_run { Mode::DryRun } else { Mode::Alert };
        let set = DetectionSet::compile(&collection, |header| on_by_default(header).then_some(mode));
        (collection, set)
    });
    let Ok((collection, set)) = compiled.await else { return };
    for problem in &collection.problems {
        match problem.gravity {
            Gravity::Refused => tracing::error!(%problem, "a detection rule was left out"),
            Gravity::Warning => tracing::warn!(%problem, "a detection rule is odd"),
        }
    }
    tracing::info!(
        rules = collection.rules.len(),
        correlations = collection.correlations.len(),
        in_force = set.rules().len() + set.correlations().count(),
        "detection rules read"
    );
    detections.replace(set);
}

macro_rules! shipped {
    ($($name:literal)*) => {
        [$((concat!("rules/security/", $name), include_str!(concat!("../../../rules/security/", $name)))),*]
    };
}

/// The rules that ship: name of the file, text.
const SHIPPED: [(&str, &str); 12] = shipped! {
    "accounts.yml"
    "authentication.yml"
    "containers.yml"
    "credentials.yml"
    "execution.yml"
    "host.yml"
    "impact.yml"
    "network.yml"
    "persistence.yml"
    "privilege-escalation.yml"
    "tampering.yml"
    "web.yml"
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_file_that_ships_is_here_and_all_of_it_can_be_used() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../rules/security");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<String> = files.filter(|name| name.ends_with(".yml")).collect();
        files.sort();
        let here: Vec<&str> = SHIPPED.iter().map(|(name, _)| name.trim_start_matches("rules/security/")).collect();
        assert_eq!(here, files);
        let collection = read(&DetectionSettings { shipped: true, ..DetectionSettings::default() });
        assert!(collection.problems.is_empty(), "{:?}", collection.problems);
        let on = collection.rules.iter().filter(|rule| on_by_default(&rule.header)).count();
        assert!(on > 30 && on < collection.rules.len(), "{on} of {}", collection.rules.len());
    }
}
