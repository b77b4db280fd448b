//! Keys of a first start: generated, kept readable by their owner only, never a default.

use anyhow::{Context, Result};
use runtime::{KeyRing, Secret};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A key and where it came from.
#[derive(Debug)]
pub struct Key {
    pub ring: KeyRing,
    /// The file that holds it, when it was not given by the configuration.
    pub file: Option<PathBuf>,
    /// It was made just now.
    pub generated: bool,
}

impl Key {
    /// The preferred key, for clients of our own.
    pub fn preferred(&self) -> Secret {
        self.ring.keys().into_iter().next().unwrap_or_else(|| Secret::new(""))
    }
}

/// Makes the data directory, readable by its owner only.
pub fn private_dir(dir: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("failed to create the directory `{}`", dir.display()))?;
    Ok(())
}

/// The key kept in `<data_dir>/keys/<name>`, if there is one, and its file.
pub fn kept(data_dir: &Path, name: &str) -> Result<Option<(Secret, PathBuf)>> {
    let file = data_dir.join("keys").join(name);
    match std::fs::read_to_string(&file) {
        Ok(text) if !text.trim().is_empty() => Ok(Some((Secret::new(text.trim()), file))),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("failed to read the key `{}`", file.display())),
    }
}

/// The keys that configuration or Vault give, which may change while we run; else the one kept in
/// `<data_dir>/keys/<name>`; else a new one, kept there (0600).
pub fn obtain(data_dir: &Path, name: &str, given: KeyRing, prefix: &str) -> Result<Key> {
    if !given.keys().is_empty() {
        return Ok(Key { ring: given, file: None, generated: false });
    }
    if let Some((secret, file)) = kept(data_dir, name)? {
        return Ok(Key { ring: KeyRing::fixed(secret), file: Some(file), generated: false });
    }
    let dir = data_dir.join("keys");
    private_dir(&dir)?;
    let file = dir.join(name);
    let secret = Secret::generate(prefix).context("failed to generate a key")?;
    let temporary = dir.join(format!(".{name}.new"));
    let _ = std::fs::remove_file(&temporary);
    let mut out = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .with_context(|| format!("failed to write the key `{}`", file.display()))?;
    writeln!(out, "{}", secret.expose())?;
    out.sync_all()?;
    std::fs::rename(&temporary, &file).with_context(|| format!("failed to write the key `{}`", file.display()))?;
    Ok(Key { ring: KeyRing::fixed(secret), file: Some(file), generated: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn none() -> KeyRing {
        KeyRing::fixed(Secret::new(""))
    }

    #[test]
    fn a_key_is_made_once_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = obtain(dir.path(), "ingest", none(), "mk_").unwrap();
        assert!(first.generated);
        let mode = std::fs::metadata(first.file.as_ref().unwrap()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = obtain(dir.path(), "ingest", none(), "mk_").unwrap();
        assert!(!again.generated && again.ring.keys() == first.ring.keys());
        let given = obtain(dir.path(), "ingest", KeyRing::fixed(Secret::new("mine")), "mk_").unwrap();
        assert!(given.file.is_none() && given.ring.matches(b"mine"));
    }
}
