//! Secrets of the environment and of files.

use super::{NAMES, SecretSet};
use crate::Secret;
use crate::config::Problem;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The longest file that is taken for a secret.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Where a value of the configuration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// It is there itself.
    Text(Secret),
    /// It is the content of this file, without the white space around it. Replace the file by
    /// renaming, as Kubernetes and `systemd-creds` do, so that nobody reads half of it.
    File(PathBuf),
}

impl Local {
    /// `file:/path` names a file; everything else is the value.
    pub fn parse(text: &str) -> Self {
        match text.trim().strip_prefix("file:") {
            Some(path) => Self::File(PathBuf::from(path)),
            None => Self::Text(Secret::new(text.trim())),
        }
    }
}

/// The secrets of [`NAMES`] that an environment gives. For each name the first of these counts: the
/// variable; the file that `<NAME>_FILE` names; the file of that name, or of its lower case, in
/// systemd's `$CREDENTIALS_DIRECTORY`. Empty variables count as absent.
pub fn from_environment(environment: &BTreeMap<String, String>) -> BTreeMap<String, Local> {
    let variable = |name: &str| environment.get(name).filter(|text| !text.trim().is_empty());
    let credentials = variable("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let find = |name: &str| {
        if let Some(text) = variable(name) {
            return Some(Local::parse(text));
        }
        if let Some(path) = variable(&format!("{name}_FILE")) {
            return Some(Local::File(PathBuf::from(path.trim())));
        }
        let dir = credentials.as_ref()?;
        [name.to_owned(), name.to_lowercase()].iter().map(|n| dir.join(n)).find(|p| p.is_file()).map(Local::File)
    };
    NAMES.iter().filter_map(|name| Some(((*name).to_owned(), find(name)?))).collect()
}

/// The files of `given` that hold no secret now, by the variable that names them. A `NEXT` that is
/// empty or not there is no mistake: nothing is being rotated.
pub fn unusable(given: &BTreeMap<String, Local>, environment: &BTreeMap<String, String>) -> Vec<Problem> {
    let names = |variable: &str| environment.get(variable).is_some_and(|text| !text.trim().is_empty());
    let problem = |(name, local): (&String, &Local)| {
        let message = match read_file(local.file()?) {
            Ok(_) => return None,
            Err(unread) if is_next(name) && unread.is_absent() => return None,
            Err(unread) => unread.into_reason(),
        };
        let file = format!("{name}_FILE");
        let variable = if !names(name) && names(&file) { file } else { name.clone() };
        Some(Problem { path: variable, message })
    };
    given.iter().filter_map(problem).collect()
}

/// Whether a name is of a secret that counts only as long as it is given.
fn is_next(name: &str) -> bool {
    name.ends_with("_NEXT")
}

/// The values of now; a file that cannot be read keeps the value it had, unless it is a `NEXT` that
/// was taken away.
#[derive(Debug)]
pub(super) struct LocalValues {
    places: BTreeMap<String, Local>,
    read: BTreeMap<PathBuf, Secret>,
    /// What could not be read last time, by path.
    troubles: BTreeMap<PathBuf, String>,
}

impl LocalValues {
    pub fn new(places: BTreeMap<String, Local>) -> Self {
        Self { places, read: BTreeMap::new(), troubles: BTreeMap::new() }
    }

    pub fn has_files(&self) -> bool {
        self.places.values().any(|place| matches!(place, Local::File(_)))
    }

    /// Reads every file again.
    pub async fn poll(&mut self) {
        let files: Vec<(bool, PathBuf)> =
            self.places.iter().filter_map(|(name, place)| Some((is_next(name), place.file()?.clone()))).collect();
        for (next, path) in files {
            match read_in_background(&path).await {
                Ok(secret) => {
                    if self.troubles.remove(&path).is_some() {
                        tracing::info!("the secret file `{}` can be read again", path.display());
                    }
                    self.read.insert(path, secret);
                }
                // The end of a rotation, or a revocation.
                Err(unread) if next && unread.is_absent() => {
                    self.troubles.remove(&path);
                    self.read.remove(&path);
                }
                Err(unread) => {
                    let reason = unread.into_reason();
                    if self.troubles.insert(path.clone(), reason.clone()).is_none() && self.read.contains_key(&path) {
                        let shown = path.display();
                        tracing::warn!(reason, "the secret file `{shown}` cannot be read; its last value stays");
                    }
                }
            }
        }
    }

    pub fn set(&self) -> SecretSet {
        SecretSet::new(self.places.iter().filter_map(|(name, place)| {
            let value = match place {
                Local::Text(secret) => secret.clone(),
                Local::File(path) => self.read.get(path)?.clone(),
            };
            Some((name.clone(), value))
        }))
    }

    /// What keeps files from being read, in sentences.
    pub fn troubles(&self) -> Vec<String> {
        self.troubles.values().cloned().collect()
    }
}

impl Local {
    fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::File(path) => Some(path),
            Self::Text(_) => None,
        }
    }
}

/// Why a file gave no secret, in words that name its path.
enum Unread {
    /// It is not there, or there is nothing in it.
    Absent(String),
    Broken(String),
}

impl Unread {
    fn is_absent(&self) -> bool {
        matches!(self, Self::Absent(_))
    }

    fn into_reason(self) -> String {
        match self {
            Self::Absent(reason) | Self::Broken(reason) => reason,
        }
    }
}

/// The content of a small regular file without the white space around it, and without the byte
/// order mark that some editors put before it. The error names the path.
pub fn read_secret(path: &Path) -> Result<Secret, String> {
    read_file(path).map_err(Unread::into_reason)
}

/// [`read_secret`] where nobody may be kept waiting.
pub(super) async fn read_secret_in_background(path: &Path) -> Result<Secret, String> {
    read_in_background(path).await.map_err(Unread::into_reason)
}

async fn read_in_background(path: &Path) -> Result<Secret, Unread> {
    let owned = path.to_owned();
    tokio::task::spawn_blocking(move || read_file(&owned))
        .await
        .unwrap_or_else(|e| Err(Unread::Broken(format!("the file `{}` cannot be read: {e}", path.display()))))
}

fn read_file(path: &Path) -> Result<Secret, Unread> {
    let shown = path.display();
    let failed = |e: std::io::Error| {
        let reason = format!("the file `{shown}` cannot be read: {e}");
        if e.kind() == std::io::ErrorKind::NotFound { Unread::Absent(reason) } else { Unread::Broken(reason) }
    };
    let broken = |reason: String| Err(Unread::Broken(reason));
    // Opening a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return broken(format!("`{shown}` is not a file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return broken(format!("the file `{shown}` is longer than {FILE_BYTES_MAX} bytes: that is no secret"));
    }
    // The error of `from_utf8` would hold the bytes.
    let Ok(text) = std::str::from_utf8(&bytes) else { return broken(format!("the file `{shown}` is not UTF-8")) };
    match text.trim_start_matches('\u{feff}').trim() {
        "" => Err(Unread::Absent(format!("the file `{shown}` is empty"))),
        text => Ok(Secret::new(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_comes_first_then_its_file_then_the_credentials_directory() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["REDIS_PASS", "db_pass", "MOOG_API_KEY"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let pairs = [
            ("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap()),
            ("MOOG_API_KEY", "plain"),
            ("WEBUI_API_KEY", "file:/run/webui"),
            ("INGEST_API_KEY_FILE", "/run/ingest"),
            ("DB_USER", " "),
            ("PATH", "/bin"),
        ];
        let environment = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let file = |path: &str| Local::File(PathBuf::from(path));
        let expected = [
            ("DB_PASS", Local::File(dir.path().join("db_pass"))),
            ("INGEST_API_KEY", file("/run/ingest")),
            ("MOOG_API_KEY", Local::Text(Secret::new("plain"))),
            ("REDIS_PASS", Local::File(dir.path().join("REDIS_PASS"))),
            ("WEBUI_API_KEY", file("/run/webui")),
        ];
        let expected: BTreeMap<String, Local> = expected.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        assert_eq!(from_environment(&environment), expected);
    }

    #[tokio::test]
    async fn a_file_follows_its_content_and_keeps_its_value_when_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pass");
        let places = BTreeMap::from([("DB_PASS".to_owned(), Local::File(path.clone()))]);
        let mut values = LocalValues::new(places);
        values.poll().await;
        assert!(values.set().get("DB_PASS").is_none());
        assert!(values.troubles()[0].contains("pass` cannot be read: No such file"), "{:?}", values.troubles());
        for content in ["one\n", "two"] {
            std::fs::write(&path, content).unwrap();
            values.poll().await;
            assert_eq!(values.set().get("DB_PASS").unwrap().expose(), content.trim());
            assert!(values.troubles().is_empty());
        }
        for spoil in [&b" \n"[..], &[0xff, 0xfe], &vec![b'x'; FILE_BYTES_MAX as usize + 1]] {
            std::fs::write(&path, spoil).unwrap();
            values.poll().await;
            assert_eq!(values.set().get("DB_PASS").unwrap().expose(), "two");
            assert_eq!(values.troubles().len(), 1);
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        values.poll().await;
        assert!(values.troubles()[0].ends_with("is not a file"), "{:?}", values.troubles());
        assert_eq!(values.set().get("DB_PASS").unwrap().expose(), "two");
    }

    #[tokio::test]
    async fn a_next_value_ends_with_its_file_and_a_current_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (current, next) = (dir.path().join("a"), dir.path().join("b"));
        let places = [("INGEST_API_KEY", &current), ("INGEST_API_KEY_NEXT", &next)];
        let places = places.map(|(name, path)| (name.to_owned(), Local::File(path.clone())));
        let mut values = LocalValues::new(places.into());
        std::fs::write(&current, "one").unwrap();
        let accepted = |values: &LocalValues| {
            values.set().accepted("INGEST_API_KEY").iter().map(|key| key.expose().to_owned()).collect::<Vec<_>>()
        };
        for (content, expected) in [
            (Some("two"), &["one", "two"][..]),
            (Some(" \n"), &["one"]),
            (Some("three"), &["one", "three"]),
            (None, &["one"]),
            (Some("four"), &["one", "four"]),
        ] {
            match content {
                Some(content) => std::fs::write(&next, content).unwrap(),
                None => std::fs::remove_file(&next).unwrap(),
            }
            values.poll().await;
            assert_eq!(accepted(&values), expected, "{content:?}");
            assert!(values.troubles().is_empty(), "{:?}", values.troubles());
        }
        std::fs::write(&next, [0xff]).unwrap();
        std::fs::write(&current, "").unwrap();
        values.poll().await;
        assert_eq!(accepted(&values), ["one", "four"], "what is broken says nothing, and CURRENT stays");
    }

    #[test]
    fn files_without_a_secret_are_named_by_their_variable_and_a_next_may_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(file("empty"), "\u{feff} \n").unwrap();
        std::fs::write(file("good"), "\u{feff}k\n").unwrap();
        std::fs::write(file("binary"), [0xff]).unwrap();
        let environment: BTreeMap<String, String> = [
            ("INGEST_API_KEY_FILE", "/nosuch".to_owned()),
            ("INGEST_API_KEY_NEXT", "file:/nosuch".to_owned()),
            ("WEBUI_API_KEY", format!("file:{}", file("empty"))),
            ("WEBUI_API_KEY_NEXT_FILE", file("empty")),
            ("MOOG_API_KEY_FILE", file("good")),
            ("MOOG_API_KEY_NEXT_FILE", file("binary")),
            ("DB_PASS", "plain".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let problems = unusable(&from_environment(&environment), &environment);
        let paths: Vec<&str> = problems.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(paths, ["INGEST_API_KEY_FILE", "MOOG_API_KEY_NEXT_FILE", "WEBUI_API_KEY"]);
        assert!(problems[0].message.contains("`/nosuch` cannot be read: No such file"), "{problems:?}");
        assert!(problems[2].message.contains("is empty"), "{problems:?}");
        assert_eq!(read_secret(Path::new(&file("good"))).unwrap().expose(), "k");
    }
}
