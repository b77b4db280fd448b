//! The detection rules that all organisations of this server have: those that ship, and those of files.

use crate::config::DetectionSettings;
use crate::sigma_files;
use fields::Aliases;
use model::Fields;
use pipeline::detections::{Detections, Library, SharedText};
use rules::sigma::examples::Sample;
use rules::sigma::{Collection, Gravity, Options, Reader};
use rules::trial::{Extract, Trial};
use std::sync::Arc;

/// Reads the rules that the settings ask for. What cannot be used is among the problems.
pub fn read(settings: &DetectionSettings) -> Library {
    let options = Options { placeholders: settings.placeholders.clone() };
    let mut reader = Reader::new(options.clone());
    let mut texts = Vec::new();
    if settings.shipped {
        for (name, text) in SHIPPED {
            reader.text(name, text);
            texts.push(SharedText { name: name.to_owned(), text: text.to_owned(), ships: true });
        }
    }
    let (of_files, texts_of_files) = sigma_files::reader(&settings.rule_paths, &options);
    reader.append(of_files);
    texts.extend(texts_of_files.into_iter().map(|(name, text)| SharedText { name, text, ships: false }));
    Library::new(reader, texts, options, settings.dry_run)
}

/// Gives `detections` the shared rules that the settings ask for; what is wrong is logged and left out.
/// They are in force after its next reload.
pub async fn load(detections: &Detections, settings: &DetectionSettings) {
    let of_files = settings.clone();
    let Ok(library) = tokio::task::spawn_blocking(move || read(&of_files)).await else { return };
    let shared = library.shared();
    for problem in &shared.problems {
        match problem.gravity {
            Gravity::Refused => tracing::error!(%problem, "a detection rule was left out"),
            Gravity::Warning => tracing::warn!(%problem, "a detection rule is odd"),
        }
    }
    tracing::info!(rules = shared.rules.len(), correlations = shared.correlations.len(), "detection rules read");
    detections.set_library(library);
}

/// Rules to be tried on events, which take the way of every event; `aliases` says what they call the
/// fields of the taxonomy.
pub fn trial(rules: Collection, aliases: Arc<Aliases>) -> Trial {
    Trial::new(rules, Accepted(aliases))
}

/// Reads events as the pipeline does.
struct Accepted(Arc<Aliases>);

impl Extract for Accepted {
    fn fields<'a>(&'a self, object: &'a str, out: &mut Fields<'a>) {
        // What is no object has no fields, and matches nothing.
        let _ = fields::from_event(object, out);
        self.0.apply(out);
    }
}

/// An event to try rules on, at its own time: a JSON object, or a line that begins with its program.
pub fn sample(host: &str, written: &str) -> Result<Sample, String> {
    let mut sample = Sample::new(0, host, written)?;
    let mut fields = Fields::default();
    let _ = fields::from_event(&sample.object, &mut fields);
    sample.at_micros = fields::event_time(&fields).unwrap_or_default().micros();
    Ok(sample)
}

/// The rules that ship: name of the file, text.
pub fn shipped() -> &'static [(&'static str, &'static str)] {
    &SHIPPED
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
    use pipeline::detections::on_by_default;

    #[test]
    fn every_rule_file_that_ships_is_here_and_all_of_it_can_be_used() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../rules/security");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<String> = files.filter(|name| name.ends_with(".yml")).collect();
        files.sort();
        let here: Vec<&str> = SHIPPED.iter().map(|(name, _)| name.trim_start_matches("rules/security/")).collect();
        assert_eq!(here, files);
        let library = read(&DetectionSettings { shipped: true, ..DetectionSettings::default() });
        let collection = library.shared();
        assert!(collection.problems.is_empty(), "{:?}", collection.problems);
        let on = collection.rules.iter().filter(|rule| on_by_default(&rule.header)).count();
        assert!(on > 30 && on < collection.rules.len(), "{on} of {}", collection.rules.len());
    }
}
