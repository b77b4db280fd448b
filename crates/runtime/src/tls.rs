//! TLS by rustls with the `ring` provider: 1.3 only unless a legacy peer is configured.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    let mut roots = rustls::RootCertStore::empty();
    match ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|source| TlsError::Root { path: path.to_owned(), source })?;
            }
        }
        None => {
            // Systems carry certificates that rustls cannot read; the others are still good.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError::NoSystemRoots);
            }
        }
    }
    Ok(rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// The crypto provider that every TLS use of ours names explicitly.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
