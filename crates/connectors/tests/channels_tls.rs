//! Channels over TLS: a receiver is believed when, and only when, the configured CA vouches for it.

use connectors::channels::{Channel, ChannelConfig, DeliveryError, HttpTarget, open};
use model::ErrorKind;
use runtime::{KeyRing, Secret, tls};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use testkit::Receiver;
use testkit::builders::{EPOCH, alert};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A receiver behind TLS with a certificate for `localhost` from a CA of its own.
struct Behind {
    receiver: Receiver,
    port: u16,
    ca_file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Behind {
    async fn start(minimum: tls::MinimumTls) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let ca_key = rcgen::KeyPair::generate().expect("a key");
        let mut ca_params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        ca_params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = ca_params.self_signed(&ca_key).expect("a CA");
        let issuer = rcgen::Issuer::new(ca_params, ca_key);
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        std::fs::write(path("ca.pem"), ca.pem()).expect("written");
        std::fs::write(path("cert.pem"), certificate.pem()).expect("written");
        std::fs::write(path("key.pem"), key.serialize_pem()).expect("written");

        let config = tls::server_config(&path("cert.pem"), &path("key.pem"), minimum).expect("a TLS configuration");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let receiver = Receiver::start().await;
        tokio::spawn(terminate(listener, TlsAcceptor::from(config), receiver.addr()));
        Self { receiver, port, ca_file: path("ca.pem"), _folder: folder }
    }

    fn channel(&self, host: &str, ca_file: Option<PathBuf>) -> Result<Arc<dyn Channel>, DeliveryError> {
        let target = HttpTarget {
            name: "tls".into(),
            url: format!("https://{host}:{}/events", self.port),
            timeout: Duration::from_secs(5),
            ca_file,
        };
        open(ChannelConfig::Moogsoft { target, api_keys: KeyRing::fixed(Secret::new("k3y")) })
    }

    async fn refusal(&self, host: &str, ca_file: PathBuf) -> DeliveryError {
        let channel = self.channel(host, Some(ca_file)).expect("it opens");
        channel.deliver(&alert().build(), EPOCH).await.expect_err("it must not be believed")
    }
}

/// Ends with the runtime of its test.
async fn terminate(listener: TcpListener, acceptor: TlsAcceptor, to: SocketAddr) {
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let mut outer = acceptor.accept(stream).await?;
            let mut inner = TcpStream::connect(to).await?;
            tokio::io::copy_bidirectional(&mut outer, &mut inner).await
        });
    }
}

#[tokio::test]
async fn a_receiver_of_the_configured_ca_gets_alerts_over_one_connection() {
    for minimum in [tls::MinimumTls::Tls13, tls::MinimumTls::Tls12] {
        let behind = Behind::start(minimum).await;
        let channel = behind.channel("localhost", Some(behind.ca_file.clone())).unwrap();
        channel.probe().await.unwrap();
        for n in 0..5 {
            channel.deliver(&alert().number(n).build(), EPOCH).await.unwrap();
        }
        assert_eq!((behind.receiver.distinct_ids().len(), behind.receiver.connections()), (5, 1));
    }
}

#[tokio::test]
async fn a_receiver_that_nobody_vouches_for_gets_nothing() {
    let (behind, other) = (Behind::start(Default::default()).await, Behind::start(Default::default()).await);
    let other_ca = behind.refusal("localhost", other.ca_file.clone()).await;
    let other_name = behind.refusal("127.0.0.1", behind.ca_file.clone()).await;
    for error in [other_ca, other_name] {
        assert!(error.kind == ErrorKind::Unavailable && error.receiver_at_fault, "{error:?}");
        assert!(error.reason.contains("certificate") && !error.reason.contains("k3y"), "{error}");
    }
    assert_eq!(behind.receiver.requests().len(), 0);
}

#[tokio::test]
async fn the_systems_roots_do_not_vouch_for_a_private_ca() {
    let behind = Behind::start(Default::default()).await;
    match behind.channel("localhost", None) {
        Ok(channel) => {
            let error = channel.deliver(&alert().build(), EPOCH).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
        }
        Err(error) => assert!(error.reason.contains("no root certificates"), "{error}"),
    }
    assert_eq!(behind.receiver.requests().len(), 0);
}
