//! Log lines as events, from files.
//!
//! * Benign: `TIME<tab>HOST<tab>EVENT`, one stream per file.
//! * Attacks: `RULE,RULE<tab>TIME<tab>HOST<tab>EVENT`, `-` for a line that no rule is to see; a line
//!   that begins with `#` names an episode, which begins anew.
//!
//! An EVENT is `program[pid]: message` as syslog brings it, or a JSON object as it is posted.

use crate::rulebook::folder;
use rules::sigma::examples::Sample;

/// A series of lines, each with the rules that are to see it.
pub struct Episode {
    pub entries: Vec<Sample>,
    pub labels: Vec<Vec<String>>,
}

/// Every file of attacks.
pub fn attacks() -> Vec<Episode> {
    let mut episodes: Vec<Episode> = Vec::new();
    for (_, text) in texts("attacks-") {
        for line in text.lines().filter(|line| !line.is_empty()) {
            if line.starts_with('#') {
                episodes.push(Episode { entries: Vec::new(), labels: Vec::new() });
                continue;
            }
            let (labels, line) = line.split_once('\t').unwrap();
            let labels = labels.split(',').filter(|label| *label != "-").map(str::to_owned).collect();
            let episode = episodes.last_mut().expect("a file of attacks begins with the name of an episode");
            episode.labels.push(labels);
            episode.entries.push(entry(line));
        }
    }
    episodes
}

/// Every file of ordinary lines, with its name.
pub fn benign() -> Vec<(String, Vec<Sample>)> {
    texts("benign-").into_iter().map(|(name, text)| (name, text.lines().map(entry).collect())).collect()
}

fn texts(prefix: &str) -> Vec<(String, String)> {
    let mut texts: Vec<(String, String)> = std::fs::read_dir(folder().join("corpora"))
        .unwrap()
        .map(|file| file.unwrap())
        .filter_map(|file| {
            let name = file.file_name().into_string().unwrap();
            name.starts_with(prefix).then(|| (name, std::fs::read_to_string(file.path()).unwrap()))
        })
        .collect();
    texts.sort();
    texts
}

fn entry(line: &str) -> Sample {
    let mut parts = line.splitn(3, '\t');
    let (time, host, event) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let time = model::Timestamp::parse(time).unwrap_or_else(|| panic!("{time:?} is no time"));
    Sample::new(time.micros(), host, event).unwrap()
}
