//! A listener that stops while rsyslogd sends to it.

mod syslog_support;

use connectors::inputs::contract::RecordingSink;
use connectors::inputs::syslog::{SyslogConfig, TlsListen};
use runtime::Stopper;
use runtime::tls::MinimumTls;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use syslog_support::run;
use testkit::servers::{Rsyslog, TestCerts};

const SENT: usize = 60_000;
const RESTARTS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_restart_loses_nothing_of_what_rsyslog_sends_by_tls() {
    let dir = tempfile::tempdir().unwrap();
    let certs = TestCerts::write(dir.path());
    let address = SocketAddr::from(([127, 0, 0, 1], testkit::free_port()));
    let listen =
        TlsListen { address, cert: certs.cert.clone(), key: certs.key.clone(), minimum: MinimumTls::default() };
    let config = || SyslogConfig { tls: Some(listen.clone()), ..SyslogConfig::default() };
    let sink = RecordingSink::new();
    let (mut stopper, stop) = Stopper::new();
    let (_, mut task) = run(config(), sink.clone(), stop);
    let rsyslog = Rsyslog::start(
        &format!(
            "template(name=\"t\" type=\"string\" string=\"<%PRI%>1 - %HOSTNAME% %APP-NAME% - - - %msg%\")\n\
             action(type=\"omfwd\" protocol=\"tcp\" target=\"127.0.0.1\" port=\"{}\" TCP_Framing=\"octet-counted\" \
             template=\"t\" streamDriver=\"ossl\" streamDriverMode=\"1\" streamDriverAuthMode=\"x509/name\" \
             streamDriverPermittedPeers=\"localhost\" streamDriver.CAFile=\"{}\" action.resumeRetryCount=\"-1\" \
             action.resumeInterval=\"1\" queue.type=\"LinkedList\" queue.size=\"100000\")\n",
            address.port(),
            certs.ca.display(),
        ),
        &[],
    );
    let texts: Vec<String> = (0..SENT).map(|i| format!("<11>1 - host1 app - - - number {i:05}")).collect();
    rsyslog.send(&texts);
    for n in 1..=RESTARTS {
        // In the middle of it, whatever the speed.
        sink.wait_for_events(n * SENT / (RESTARTS + 2)).await;
        stopper.stop();
        task.await.unwrap();
        let (next, stop) = Stopper::new();
        stopper = next;
        (_, task) = run(config(), sink.clone(), stop);
    }
    sink.wait_until("all have come", |r| r.events.len() >= SENT && r.messages().collect::<BTreeSet<_>>().len() == SENT)
        .await;
    stopper.stop();
    task.await.unwrap();
}
