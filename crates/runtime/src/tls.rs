//! TLS by rustls with the `ring` provider: 1.3 only unless a legacy peer is configured.

use crate::Stop;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

/// Certificate or key files that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read `{path}`")]
    Pem {
        path: PathBuf,
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    #[error("`{path}` holds no certificate")]
    Empty { path: PathBuf },
    #[error("certificate and key cannot be used")]
    Rustls(#[from] rustls::Error),
    #[error("`{path}` holds a certificate that cannot be a root")]
    Root {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("this system has no root certificates: install `ca-certificates` or configure a CA file")]
    NoSystemRoots,
}

/// Lowest protocol version a listener accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MinimumTls {
    #[default]
    Tls13,
    /// For peers that cannot do better; configured explicitly.
    Tls12,
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = |source| TlsError::Pem { path: path.to_owned(), source };
    let all = CertificateDer::pem_file_iter(path).map_err(pem)?.collect::<Result<Vec<_>, _>>().map_err(pem)?;
    if all.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned() });
    }
    Ok(all)
}

/// Server side: certificate chain and key from PEM files, no client certificates.
pub fn server_config(cert: &Path, key: &Path, minimum: MinimumTls) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let chain = certificates(cert)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Pem { path: key.to_owned(), source })?;
    let versions: &[&rustls::SupportedProtocolVersion] = match minimum {
        MinimumTls::Tls13 => &[&rustls::version::TLS13],
        MinimumTls::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
    };
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}

/// Client side, verifying the server: against the certificates of `ca_file` alone where one is
/// given, else against the system's roots. No client certificate.
pub fn client_config(ca_file: Option<&Path>) -> Result<rustls::ClientConfig, TlsError> {
    let roots = client_roots(ca_file)?;
    Ok(rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// The certificates of `ca_file`, else the system's.
pub fn client_roots(ca_file: Option<&Path>) -> Result<rustls::RootCertStore, TlsError> {
    let Some(path) = ca_file else { return system_roots() };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|source| TlsError::Root { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

/// The authorities that this system believes.
pub fn system_roots() -> Result<rustls::RootCertStore, TlsError> {
    let mut roots = rustls::RootCertStore::empty();
    // Systems carry certificates that rustls cannot read; the others are still good.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoSystemRoots) } else { Ok(roots) }
}

/// How often it is looked whether the files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Certificate and key of an HTTP listener. They are read again when the files change or somebody
/// says so; files that cannot be used leave the old ones in force. Connections that are open stay.
#[derive(Debug)]
pub struct TlsFiles {
    cert: PathBuf,
    key: PathBuf,
    minimum: MinimumTls,
    current: RwLock<Arc<rustls::ServerConfig>>,
    /// What the files looked like when they were read last, well or not.
    seen: Mutex<[Stamp; 2]>,
}

/// What tells one version of a file from another.
type Stamp = Option<(SystemTime, u64, u64)>;

impl TlsFiles {
    /// Reads both files; fails where they cannot be used.
    pub fn open(cert: &Path, key: &Path, minimum: MinimumTls) -> Result<Arc<Self>, TlsError> {
        let seen = Mutex::new([stamp(cert), stamp(key)]);
        let current = RwLock::new(http_config(cert, key, minimum)?);
        Ok(Arc::new(Self { cert: cert.to_owned(), key: key.to_owned(), minimum, current, seen }))
    }

    /// What the next handshake uses.
    pub fn current(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again now; after an error the old ones stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = [stamp(&self.cert), stamp(&self.key)];
        let read = http_config(&self.cert, &self.key, self.minimum);
        match read {
            Ok(config) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
                tracing::info!(file = %self.cert.display(), "the certificate was read again");
                Ok(())
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::error!(
                    %error,
                    cause,
                    file = %self.cert.display(),
                    "the new certificate or key cannot be used; the old ones stay in force"
                );
                Err(error)
            }
        }
    }

    /// Reads the files again whenever they have changed. They are small, and looked at seldom.
    pub async fn watch(self: Arc<Self>, stop: Stop) {
        while stop.sleep(LOOK_EVERY).await {
            let now = [stamp(&self.cert), stamp(&self.key)];
            if *self.seen.lock().unwrap_or_else(PoisonError::into_inner) != now {
                // It has logged what is wrong; a file that is half written is read again when it is whole.
                let _ = self.reload();
            }
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

fn http_config(cert: &Path, key: &Path, minimum: MinimumTls) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let mut config = rustls::ServerConfig::clone(&*server_config(cert, key, minimum)?);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Client side, for a server of this machine whose certificate file we can read: believes exactly that
/// certificate, whatever name it has, and no other.
pub fn client_of_own_server(cert: &Path) -> Result<rustls::ClientConfig, TlsError> {
    let own = certificates(cert)?.swap_remove(0);
    let verifier = Arc::new(OwnCertificate { own, provider: provider() });
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(config)
}

#[derive(Debug)]
struct OwnCertificate {
    own: CertificateDer<'static>,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl ServerCertVerifier for OwnCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.own {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What TLS says in an error, bare or wrapped as one of reading and writing (which hides it from `source()`).
pub fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()).or(error.downcast_ref())
}

/// The crypto provider that every TLS use of ours names explicitly.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
