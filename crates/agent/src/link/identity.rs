//! The agent's key and certificate on disk. The key is made once and never replaced or removed by the agent; the
//! certificate is replaced as a whole.

use agent_core::Certificate;
use prost::Message;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use wire::EnrollResponse;

/// Why there is no identity to use.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot use `{path}`")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the key or the request for a certificate cannot be made")]
    Key(#[from] rcgen::Error),
    #[error("`{path}` holds no key")]
    Pem {
        path: PathBuf,
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    #[error("the server's answer holds no certificate of this key")]
    Answer,
}

/// The folder with both.
#[derive(Debug, Clone)]
pub struct Identity {
    dir: PathBuf,
}

impl Identity {
    /// Makes the folder, for its owner only.
    pub fn open(data_dir: &Path) -> Result<Self, IdentityError> {
        let dir = data_dir.join("identity");
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(|source| IdentityError::File { path: dir.clone(), source })?;
        Ok(Self { dir })
    }

    /// Looks without making anything.
    pub fn of(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("identity") }
    }

    fn error(&self, name: &str) -> impl Fn(io::Error) -> IdentityError {
        let path = self.dir.join(name);
        move |source| IdentityError::File { path: path.clone(), source }
    }

    /// Writes beside, syncs, renames.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), IdentityError> {
        let error = self.error(name);
        let new = self.dir.join(format!("{name}.new"));
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(&error)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(&error)?;
        fs::rename(&new, self.dir.join(name)).map_err(&error)?;
        fs::File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(&error)
    }

    /// The key, made at the first call.
    fn key_pem(&self) -> Result<String, IdentityError> {
        match fs::read_to_string(self.dir.join("key.pem")) {
            Ok(pem) => Ok(pem),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pem = KeyPair::generate()?.serialize_pem();
                self.write("key.pem", pem.as_bytes())?;
                Ok(pem)
            }
            Err(source) => Err(self.error("key.pem")(source)),
        }
    }

    /// A request for a certificate of the key. What is in it is a wish: the server decides whom it certifies.
    pub fn request(&self, host: &str) -> Result<Vec<u8>, IdentityError> {
        let key = KeyPair::from_pem(&self.key_pem()?)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, host);
        Ok(params.serialize_request(&key)?.der().to_vec())
    }

    /// Keeps an answer, if it can be used.
    pub fn certified(&self, answer: &EnrollResponse) -> Result<Certificate, IdentityError> {
        let is_sound = answer.not_after_unix_s > 0
            && answer.certificate_chain_der.first().is_some_and(|der| !der.is_empty())
            && self.signs_for(answer)
            && are_certificates(&answer.ca_bundle_der);
        if !is_sound {
            return Err(IdentityError::Answer);
        }
        let mut answer = answer.clone();
        if answer.ca_bundle_der.is_empty() {
            // It says nothing new about whom to believe.
            answer.ca_bundle_der = self.current().map(|before| before.ca_bundle_der).unwrap_or_default();
        }
        self.write("certificate.pb", &answer.encode_to_vec())?;
        Ok(times(&answer))
    }

    /// Whether the first certificate is of our key.
    fn signs_for(&self, answer: &EnrollResponse) -> bool {
        let chain = chain(answer);
        let Ok(key) = self.key() else { return false };
        let Ok(key) = runtime::tls::provider().key_provider.load_private_key(key) else { return false };
        rustls::sign::CertifiedKey::new(chain, key).keys_match().is_ok()
    }

    /// What was kept. One that cannot be read is none: another is asked for with the same key.
    pub fn current(&self) -> Option<EnrollResponse> {
        let bytes = fs::read(self.dir.join("certificate.pb")).ok()?;
        wire::decode::<EnrollResponse>(&bytes).ok().filter(|answer| self.signs_for(answer))
    }

    pub fn key(&self) -> Result<PrivateKeyDer<'static>, IdentityError> {
        let path = self.dir.join("key.pem");
        PrivateKeyDer::from_pem_slice(self.key_pem()?.as_bytes()).map_err(|source| IdentityError::Pem { path, source })
    }
}

/// Whether these could be believed. None at all can.
fn are_certificates(bundle: &[Vec<u8>]) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    bundle.iter().all(|der| roots.add(CertificateDer::from(der.as_slice())).is_ok())
}

/// The certificate first.
pub fn chain(answer: &EnrollResponse) -> Vec<CertificateDer<'static>> {
    answer.certificate_chain_der.iter().map(|der| CertificateDer::from(der.clone())).collect()
}

/// When it ends, and when to ask for the next: by the server's word, or after two thirds of what is left.
pub fn times(answer: &EnrollResponse) -> Certificate {
    let not_after_unix_s = answer.not_after_unix_s;
    let renew_after_unix_s =
        if answer.renew_after_unix_s > 0 { answer.renew_after_unix_s } else { not_after_unix_s.saturating_sub(86_400) };
    Certificate { not_after_unix_s, renew_after_unix_s }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_key_is_made_once_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(dir.path()).unwrap();
        let request = identity.request("web-1").unwrap();
        assert!(!request.is_empty());
        let path = dir.path().join("identity/key.pem");
        let key = fs::read(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(dir.path().join("identity")).unwrap().permissions().mode() & 0o777, 0o700);
        Identity::open(dir.path()).unwrap().request("web-1").unwrap();
        assert_eq!(fs::read(&path).unwrap(), key);
    }

    #[test]
    fn an_answer_of_another_key_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(dir.path()).unwrap();
        identity.request("web-1").unwrap();
        let certificate = |key: &KeyPair| {
            let der = CertificateParams::default().self_signed(key).unwrap().der().to_vec();
            EnrollResponse { certificate_chain_der: vec![der], not_after_unix_s: 9, ..EnrollResponse::default() }
        };
        let stranger = certificate(&KeyPair::generate().unwrap());
        assert!(matches!(identity.certified(&stranger), Err(IdentityError::Answer)));
        assert!(matches!(identity.certified(&EnrollResponse::default()), Err(IdentityError::Answer)));
        let own = certificate(&KeyPair::from_pem(&identity.key_pem().unwrap()).unwrap());
        assert_eq!(identity.certified(&own).unwrap().not_after_unix_s, 9);
        assert_eq!(identity.current(), Some(own.clone()));
        let odd = EnrollResponse { ca_bundle_der: vec![b"no certificate".to_vec()], ..own.clone() };
        assert!(matches!(identity.certified(&odd), Err(IdentityError::Answer)));
        let bundle = vec![own.certificate_chain_der[0].clone()];
        identity.certified(&EnrollResponse { ca_bundle_der: bundle.clone(), ..own.clone() }).unwrap();
        identity.certified(&own).unwrap();
        assert_eq!(identity.current().unwrap().ca_bundle_der, bundle, "no word about it changes nothing");
    }
}
