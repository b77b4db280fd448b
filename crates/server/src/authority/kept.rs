//! The authority's file: PEM sections, the key first, then the root; after a change of the root, the new root as the
//! old one signed it, and the old one.

use super::certificates;
use anyhow::{Context, Result, bail};
use model::Timestamp;
use rcgen::{Issuer, KeyPair, SigningKey};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::SectionKind;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The root before.
#[derive(Clone)]
pub(super) struct Previous {
    /// The root in force, signed by the one before.
    pub cross: CertificateDer<'static>,
    pub root: CertificateDer<'static>,
}

/// What the file holds.
pub(super) struct Kept {
    key_pem: String,
    pub root: CertificateDer<'static>,
    pub previous: Option<Previous>,
}

pub(super) fn file_in(dir: &Path) -> PathBuf {
    dir.join("authority.pem")
}

/// One section of PEM.
pub(super) fn pem(kind: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = format!("-----BEGIN {kind}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(std::str::from_utf8(line).unwrap_or_default());
        out.push('\n');
    }
    out.push_str(&format!("-----END {kind}-----\n"));
    out
}

impl Kept {
    /// Several processes may begin at the same time: the first makes it, the others read that.
    pub fn open_or_make(dir: &Path, now: Timestamp) -> Result<Self> {
        crate::keys::private_dir(dir)?;
        let file = file_in(dir);
        if !file.exists() {
            let (key, root) = certificates::make_root(now)?;
            let made = Self { key_pem: key.serialize_pem(), root, previous: None };
            let temporary = made.write_beside(dir)?;
            let linked = std::fs::hard_link(&temporary, &file);
            let _ = std::fs::remove_file(&temporary);
            match linked {
                Ok(()) => sync(dir)?,
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("failed to write `{}`", file.display())),
            }
        }
        Self::read(dir)
    }

    pub fn read(dir: &Path) -> Result<Self> {
        let file = file_in(dir);
        let shown = file.display();
        let text = std::fs::read(&file).with_context(|| format!("failed to read `{shown}`"))?;
        let mut key_pem = None;
        let mut certificates = Vec::new();
        let mut rest: &[u8] = &text;
        while let Some((kind, der)) = next_section(&mut rest).with_context(|| format!("`{shown}` is no PEM file"))? {
            match kind {
                SectionKind::PrivateKey => key_pem = Some(pem("PRIVATE KEY", &der)),
                SectionKind::Certificate => certificates.push(CertificateDer::from(der)),
                _ => {}
            }
        }
        let Some(key_pem) = key_pem else { bail!("`{shown}` holds no key") };
        let mut certificates = certificates.into_iter();
        let Some(root) = certificates.next() else { bail!("`{shown}` holds no certificate") };
        let previous = match (certificates.next(), certificates.next()) {
            (None, _) => None,
            (Some(cross), Some(root)) => Some(Previous { cross, root }),
            (Some(_), None) => bail!("`{shown}` holds two certificates: one or three belong there"),
        };
        let kept = Self { key_pem, root, previous };
        kept.issuer().with_context(|| format!("key and certificate in `{shown}` cannot be used"))?;
        Ok(kept)
    }

    pub fn issuer(&self) -> Result<Issuer<'static, KeyPair>> {
        Ok(Issuer::from_ca_cert_der(&self.root, KeyPair::from_pem(&self.key_pem)?)?)
    }

    /// By the root's key.
    pub fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        Ok(KeyPair::from_pem(&self.key_pem)?.sign(bytes)?)
    }

    /// With a new root; of the two before, only the last is kept.
    pub fn rotated(&self, now: Timestamp) -> Result<Self> {
        let (key, root) = certificates::make_root(now)?;
        let cross = certificates::cross_sign(&root, &key, &self.issuer()?, now)?;
        let previous = Some(Previous { cross, root: self.root.clone() });
        Ok(Self { key_pem: key.serialize_pem(), root, previous })
    }

    /// Without the root before.
    pub fn alone(&self) -> Result<Self> {
        Ok(Self { key_pem: self.key_pem.clone(), root: self.root.clone(), previous: None })
    }

    /// All roots that are believed, the one in force first.
    pub fn roots(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        std::iter::once(&self.root).chain(self.previous.as_ref().map(|previous| &previous.root))
    }

    /// Puts it into the place of what is there.
    pub fn replace(&self, dir: &Path) -> Result<()> {
        let temporary = self.write_beside(dir)?;
        let file = file_in(dir);
        std::fs::rename(&temporary, &file).with_context(|| format!("failed to write `{}`", file.display()))?;
        sync(dir)
    }

    fn write_beside(&self, dir: &Path) -> Result<PathBuf> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).context("failed to get a random number")?;
        let path = dir.join(format!(".authority.{:016x}.new", u64::from_le_bytes(name)));
        let mut text = self.key_pem.clone();
        text.push_str(&pem("CERTIFICATE", &self.root));
        if let Some(previous) = &self.previous {
            text.push_str(&pem("CERTIFICATE", &previous.cross));
            text.push_str(&pem("CERTIFICATE", &previous.root));
        }
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
        written.with_context(|| format!("failed to write `{}`", path.display()))?;
        Ok(path)
    }
}

fn sync(dir: &Path) -> Result<()> {
    let synced = std::fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.with_context(|| format!("failed to sync `{}`", dir.display()))
}

fn next_section(rest: &mut &[u8]) -> Result<Option<(SectionKind, Vec<u8>)>> {
    Ok(rustls_pki_types::pem::from_buf(rest)?)
}
