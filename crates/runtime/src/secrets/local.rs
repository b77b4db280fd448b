//! Secrets of the environment and of files.

use super::{NAMES, SecretSet};
use crate::Secret;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;

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

/// The values of now; a file that cannot be read keeps the value it had.
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
        let files: Vec<PathBuf> = self.places.values().filter_map(Local::file).cloned().collect();
        for path in files {
            match read_secret(&path).await {
                Ok(secret) => {
                    if self.troubles.remove(&path).is_some() {
                        tracing::info!("the secret file `{}` can be read again", path.display());
                    }
                    self.read.insert(path, secret);
                }
                Err(reason) => {
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

/// The content of a small regular file without the white space around it. The error names the path.
pub(super) async fn read_secret(path: &Path) -> Result<Secret, String> {
    let shown = path.display();
    let failed = |e: std::io::Error| format!("the file `{shown}` cannot be read: {e}");
    // Opening a pipe would wait for its writer.
    if !tokio::fs::metadata(path).await.map_err(failed)?.is_file() {
        return Err(format!("`{shown}` is not a file"));
    }
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).await.map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("the file `{shown}` is longer than {FILE_BYTES_MAX} bytes: that is no secret"));
    }
    // The error of `from_utf8` would hold the bytes.
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("the file `{shown}` is not UTF-8"))?;
    match text.trim() {
        "" => Err(format!("the file `{shown}` is empty")),
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
}
