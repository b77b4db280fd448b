//! Whom the agent believes: TLS 1.3 only, the authority that was named or that it was given at enrolment, its own
//! certificate where it has one.

use super::identity::{Identity, chain};
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

/// A connector. With `identity`, the connection shows its certificate.
pub fn connector(ca_file: Option<&Path>, identity: &Identity, shows_itself: bool) -> Result<TlsConnector, TlsError> {
    let current = identity.current();
    let given: Vec<CertificateDer<'static>> =
        current.iter().flat_map(|c| &c.ca_bundle_der).map(|der| CertificateDer::from(der.clone())).collect();
    let mut roots = rustls::RootCertStore::empty();
    if let Some(path) = ca_file {
        let shown = path.display().to_string();
        let named = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let named = named.map_err(|error| TlsError::Ca(shown.clone(), error))?;
        if roots.add_parsable_certificates(named).0 == 0 {
            return Err(TlsError::NoCa(shown));
        }
    }
    roots.add_parsable_certificates(given);
    let builder = rustls::ClientConfig::builder_with_provider(runtime::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = if roots.is_empty() {
        let system = runtime::tls::system_roots().map_err(TlsError::NoRoots)?;
        builder.with_root_certificates(system)
    } else {
        builder.with_root_certificates(roots)
    };
    let mut config = match current.filter(|_| shows_itself) {
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
