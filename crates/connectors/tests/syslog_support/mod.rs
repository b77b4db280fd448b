//! Starting syslog listeners and speaking to them.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test helper")]

use connectors::inputs::Sink;
use connectors::inputs::syslog::{Addresses, SyslogConfig, TlsListen, bind};
use runtime::tls::MinimumTls;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

pub fn localhost() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Binds and runs.
pub fn run(config: SyslogConfig, sink: Arc<dyn Sink>, stop: runtime::Stop) -> (Addresses, JoinHandle<()>) {
    let syslog = bind(config).unwrap();
    let addresses = syslog.addresses();
    (addresses, tokio::spawn(syslog.run(sink, Arc::new(runtime::SystemClock), stop)))
}

/// A self-signed certificate in files.
pub struct Certificate {
    folder: tempfile::TempDir,
    der: CertificateDer<'static>,
}

impl Certificate {
    pub fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        Self { folder, der: made.cert.der().clone() }
    }

    pub fn listen(&self) -> TlsListen {
        TlsListen {
            address: localhost(),
            cert: self.folder.path().join("cert.pem"),
            key: self.folder.path().join("key.pem"),
            minimum: MinimumTls::default(),
        }
    }

    /// A client that speaks one version of TLS only.
    pub async fn connect(
        &self,
        to: SocketAddr,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(runtime::tls::provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect(to).await?;
        connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
    }
}
