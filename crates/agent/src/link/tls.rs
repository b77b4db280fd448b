//! Encrypted connections: TLS 1.3 only, with the agent's certificate where it has one.

use super::identity::{Identity, chain};
use crate::settings::Settings;
use runtime::trust::Judge;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// Why there can be no encrypted connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read the authority's certificates in `{0}`")]
    Ca(String, #[source] rustls_pki_types::pem::Error),
    #[error("`{0}` holds no certificate of an authority")]
    NoCa(String),
    #[error("`{0}` is no name of a server")]
    Name(String),
    #[error("certificate and key cannot be used")]
    Rustls(#[from] rustls::Error),
    #[error(transparent)]
    Identity(#[from] super::identity::IdentityError),
    #[error("this system has no certificates of authorities: name one with -ca")]
    NoRoots(#[source] runtime::tls::TlsError),
}

/// Whom to believe. `enrols`: there is no certificate to show, or no good one, so the token is asked.
pub fn judge(settings: &Settings, identity: &Identity, enrols: bool) -> Result<Judge, TlsError> {
    let mut enrolment = rustls::RootCertStore::empty();
    let given = identity.current().into_iter().flat_map(|current| current.ca_bundle_der);
    enrolment.add_parsable_certificates(given.map(CertificateDer::from));
    // The newest word of the authority itself counts: a fingerprint from before it changed does not outlive it.
    let fingerprint = settings.fingerprint.filter(|_| enrols || enrolment.is_empty());
    let named = match &settings.ca_file {
        Some(path) => file(path)?,
        None if settings.fingerprint.is_some() => rustls::RootCertStore::empty(),
        None => match runtime::tls::system_roots() {
            Ok(roots) => roots,
            Err(_) if !enrolment.is_empty() => rustls::RootCertStore::empty(),
            Err(error) => return Err(TlsError::NoRoots(error)),
        },
    };
    Ok(Judge { fingerprint, enrolment, named, provider: runtime::tls::provider() })
}

fn file(path: &Path) -> Result<rustls::RootCertStore, TlsError> {
    let shown = path.display().to_string();
    let named = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let named = named.map_err(|error| TlsError::Ca(shown.clone(), error))?;
    let mut roots = rustls::RootCertStore::empty();
    if roots.add_parsable_certificates(named).0 == 0 {
        return Err(TlsError::NoCa(shown));
    }
    Ok(roots)
}

/// A connector. Where `shows_itself`, the connection shows the certificate there is.
pub fn connector(
    verifier: Arc<dyn ServerCertVerifier>,
    identity: &Identity,
    shows_itself: bool,
) -> Result<TlsConnector, TlsError> {
    let builder = rustls::ClientConfig::builder_with_provider(runtime::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity.current().filter(|_| shows_itself) {
        Some(current) => builder.with_client_auth_cert(chain(&current), identity.key()?)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The server's name, without the port.
pub fn server_name(ingest: &str) -> Result<ServerName<'static>, TlsError> {
    let host = ingest.rsplit_once(':').map_or(ingest, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(ingest.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_no_part_of_the_servers_name() {
        for (ingest, name) in [("a.example:9002", "a.example"), ("10.0.0.1:443", "10.0.0.1"), ("[::1]:9002", "::1")] {
            assert_eq!(server_name(ingest).unwrap().to_str(), name);
        }
        assert!(server_name(":9002").is_err());
    }
}
