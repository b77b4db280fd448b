//! Documents in files, folders and archives of this machine.

use super::name::{is_dotted, is_rule_file, normal_name};
use super::{ARCHIVE_BYTES_MAX, Found, unpack};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use storage::catalog::detection_rules::DOCUMENT_BYTES_MAX;

/// Deepest folder.
const DEPTH_MAX: usize = 32;

/// What was found, and where.
#[derive(Debug, Default)]
pub struct Gathered {
    pub found: Found,
    /// By name: the path, for people.
    places: BTreeMap<String, String>,
}

impl Gathered {
    /// Where the document of this name was found.
    pub fn place(&self, name: &str) -> String {
        self.places.get(name).cloned().unwrap_or_else(|| name.to_owned())
    }

    fn add(&mut self, name: &str, place: String, bytes: Vec<u8>) -> Result<(), String> {
        self.places.entry(normal_name(name).unwrap_or_else(|_| name.to_owned())).or_insert(place);
        self.found.add(name, bytes)
    }
}

/// What these paths hold: files by their own name, what is below a folder by its path from there, and
/// archives unpacked. Links below a folder are not followed.
pub fn gather(paths: &[PathBuf]) -> Result<Gathered, String> {
    let mut all = Gathered::default();
    for path in paths {
        let shown = path.display();
        if path.is_dir() {
            walk(path, "", 0, &mut all)?;
        } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip")) {
            let bytes = read(path, ARCHIVE_BYTES_MAX)?;
            let archive = unpack(&bytes).map_err(|why| format!("{shown}: {why}"))?;
            for (name, text) in archive.documents {
                all.add(&name, format!("{shown}:{name}"), text.into_bytes())?;
            }
            all.found.skipped.extend(archive.skipped);
            all.found.refused.extend(archive.refused);
        } else {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            all.add(&name, shown.to_string(), read(path, DOCUMENT_BYTES_MAX)?)?;
        }
    }
    Ok(all)
}

fn walk(folder: &Path, below: &str, depth: usize, all: &mut Gathered) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", folder.display());
    if depth > DEPTH_MAX {
        return Err(format!("{}: folders within each other more than {DEPTH_MAX} deep", folder.display()));
    }
    let mut entries =
        std::fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>).map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let own = entry.file_name().to_string_lossy().into_owned();
        let name = if below.is_empty() { own } else { format!("{below}/{own}") };
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() && !is_dotted(&name) {
            walk(&entry.path(), &name, depth + 1, all)?;
        } else if kind.is_file() && is_rule_file(&name) && !is_dotted(&name) {
            all.add(&name, entry.path().display().to_string(), read(&entry.path(), DOCUMENT_BYTES_MAX)?)?;
        } else if kind.is_symlink() {
            all.found.skip(&name, "it is a symbolic link");
        }
    }
    Ok(())
}

/// The bytes of a file, and one more than the bound of one that has too many.
fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(bytes_max as u64 + 1).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule_documents::pack;

    #[test]
    fn folders_files_and_archives_are_taken_together() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("rules/linux")).expect("folders");
        std::fs::create_dir_all(at("rules/.git")).expect("folders");
        for (name, text) in [
            ("rules/a.yml", "a"),
            ("rules/linux/b.yaml", "b"),
            ("rules/.git/c.yml", "c"),
            ("rules/d.md", "d"),
            ("e.yml", "e"),
        ] {
            std::fs::write(at(name), text).expect(name);
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink("/etc/passwd", at("rules/z.yml")).expect("a link");
        std::fs::write(at("f.zip"), pack([("x/f.yml", "f")]).expect("an archive")).expect("a file");
        let found = gather(&[at("rules"), at("e.yml"), at("f.zip")]).expect("documents");
        assert_eq!(found.place("linux/b.yaml"), at("rules/linux/b.yaml").display().to_string());
        let found = found.found;
        let names: Vec<&str> = found.documents.keys().map(String::as_str).collect();
        assert_eq!(names, ["a.yml", "e.yml", "linux/b.yaml", "x/f.yml"]);
        assert_eq!(found.skipped.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["z.yml"]);
        assert!(gather(&[at("nothing")]).is_err());
    }
}
