//! A certificate authority of the test's own.

use std::path::{Path, PathBuf};

/// A CA and a server certificate for `localhost` and 127.0.0.1, as PEM files.
#[derive(Debug, Clone)]
pub struct TestCerts {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl TestCerts {
    /// Writes `ca.crt`, `server.crt` and `server.key` into `dir`.
    pub fn write(dir: &Path) -> Self {
        Self::write_for(dir, &["localhost", "127.0.0.1"])
    }

    /// As [`Self::write`], for other names: a server that is not whom the client wants.
    pub fn write_for(dir: &Path, names: &[&str]) -> Self {
        let ca_key = rcgen::KeyPair::generate().expect("a key");
        let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "testkit CA");
        let ca_cert = ca.self_signed(&ca_key).expect("a CA certificate");
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).expect("parameters");
        params.distinguished_name.push(rcgen::DnType::CommonName, "testkit server");
        let cert = params.signed_by(&key, &issuer).expect("a certificate");
        let made = Self { ca: dir.join("ca.crt"), cert: dir.join("server.crt"), key: dir.join("server.key") };
        for (path, text) in [(&made.ca, ca_cert.pem()), (&made.cert, cert.pem()), (&made.key, key.serialize_pem())] {
            std::fs::write(path, text).expect("a file in a temporary folder");
        }
        made
    }
}
