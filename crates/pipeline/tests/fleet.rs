//! The fleet over a real catalog.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

use async_trait::async_trait;
use connectors::inputs::grpc::{Desk, Refusal};
use connectors::inputs::{Accepted, NewEvent, Refused, Reject, Sink};
use model::{Durability, EventId, InputKind, OrgId, Timestamp};
use pipeline::fleet::{DEMO_TOKEN, Fleet, FleetConfig, Issued, Issuer};
use pipeline::metrics::Metrics;
use runtime::{Clock, ManualClock, Stopper};
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::catalog::fleet::{AgentFilter, AgentState, FleetStore, NewToken};
use storage::catalog::{Actor, Catalog, CatalogConfig, PageRequest};
use wire::{AuthRequest, EnrollRequest, Hello};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4_000);
const ALL: PageRequest = PageRequest { page: 1, limit: 100 };

/// Takes everything.
#[derive(Default)]
struct Told(Mutex<Vec<serde_json::Value>>);

#[async_trait]
impl Sink for Told {
    async fn admit(&self, _: u32, _: u32) -> Result<(), Refused> {
        Ok(())
    }
    fn room(&self) -> Result<(), Refused> {
        Ok(())
    }
    async fn accept(&self, batch: Vec<NewEvent>, _: Durability) -> Result<Accepted, Refused> {
        let events = batch.iter().map(|event| serde_json::from_slice(&event.object).unwrap());
        self.0.lock().unwrap().extend(events);
        Ok(Accepted { ids: vec![EventId::from_u128(0); batch.len()], queue_depth: 0 })
    }
    fn reject(&self, _: Reject<'_>) {}
    fn lost(&self, _: InputKind, _: u64) {}
}

impl Told {
    fn kinds(&self) -> Vec<String> {
        let kind = |event: &serde_json::Value| event["labels"]["event_type"].as_str().unwrap().to_owned();
        self.0.lock().unwrap().iter().map(kind).collect()
    }
}

/// A request is its key, a certificate its agent and key, in text.
struct Paper;

impl Issuer for Paper {
    fn life(&self) -> Duration {
        Duration::from_secs(1_000)
    }
    fn key_of(&self, request: &[u8]) -> Option<[u8; 32]> {
        (request != b"forged").then(|| Sha256::digest(request).into())
    }
    fn certify(&self, request: &[u8], org: &OrgId, agent: &str) -> Option<Issued> {
        let text = format!("{org} {agent} {}", String::from_utf8_lossy(request));
        let (ends_at, renew_at) = (NOW.plus(self.life()), NOW.plus(self.life() / 2));
        Some(Issued { chain_der: vec![text.into_bytes()], bundle_der: Vec::new(), ends_at, renew_at })
    }
    fn agent_of(&self, certificate: &[u8]) -> Option<(OrgId, String, [u8; 32])> {
        let text = std::str::from_utf8(certificate).ok()?;
        let mut parts = text.splitn(3, ' ');
        let (org, agent, key) = (parts.next()?, parts.next()?, parts.next()?);
        Some((org.parse().ok()?, agent.to_owned(), Sha256::digest(key.as_bytes()).into()))
    }
}

struct Site {
    fleet: Fleet,
    store: Arc<dyn FleetStore>,
    told: Arc<Told>,
    clock: Arc<ManualClock>,
    _dir: tempfile::TempDir,
}

async fn site(config: FleetConfig) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let catalog: Arc<dyn Catalog> =
        storage::catalog::open(CatalogConfig::Sqlite { file: dir.path().join("catalog.db") }).await.unwrap();
    let (told, clock) = (Arc::new(Told::default()), Arc::new(ManualClock::new(NOW)));
    let sink = Arc::clone(&told) as Arc<dyn Sink>;
    let fleet = Fleet::new(config, Arc::new(Paper), sink, Metrics::new(), Arc::clone(&clock) as Arc<dyn Clock>);
    fleet.use_store(catalog.clone());
    Site { fleet, store: catalog, told, clock, _dir: dir }
}

fn by() -> Actor {
    Actor { name: "test".into(), reason: None, correlation_id: String::new(), at: NOW }
}

impl Site {
    async fn token(&self, token: &str, change: impl FnOnce(&mut NewToken)) -> i64 {
        let mut new = NewToken {
            fingerprint: Sha256::digest(token.as_bytes()).into(),
            label: String::new(),
            host: None,
            legacy: false,
            expires_at: NOW.plus(Duration::from_secs(1_000_000)),
            uses_max: None,
        };
        change(&mut new);
        self.store.add_token(&OrgId::default(), new, &by()).await.unwrap()
    }

    async fn enrol(&self, token: &str, key: &str, host: &str) -> Result<(String, Vec<u8>), Refusal> {
        let request = EnrollRequest {
            token: token.into(),
            csr_der: key.as_bytes().to_vec(),
            hostname: host.into(),
            ..EnrollRequest::default()
        };
        let answer = self.fleet.enrol(request, PEER).await?;
        Ok((answer.agent_id, answer.certificate_chain_der[0].clone()))
    }

    async fn states(&self) -> Vec<(String, AgentState)> {
        let page = self.store.agents(&OrgId::default(), &AgentFilter::default(), ALL).await.unwrap();
        page.rows.iter().map(|agent| (agent.host.clone(), agent.state())).collect()
    }

    /// Lets the fleet do what it does without being asked, until it is so.
    async fn until(&self, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
        let (stopper, stop) = Stopper::new();
        let watching = tokio::spawn(self.fleet.clone().watch(stop));
        for _ in 0..3_000 {
            if is_so().await {
                stopper.stop();
                watching.await.unwrap();
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("30 seconds went by without {what}");
    }
}

const BAD: Refusal = Refusal::Credentials("Invalid org_id or token");

#[tokio::test]
async fn a_token_becomes_a_certificate_and_that_an_identity() {
    let site = site(FleetConfig::default()).await;
    site.token("t", |_| {}).await;
    let (id, certificate) = site.enrol("t", "key-1", "web-1").await.unwrap();
    let who = site.fleet.identify(&certificate).await.unwrap();
    assert_eq!((&*who.agent, &*who.host, who.any_host), (id.as_str(), "web-1", false));
    assert_eq!(site.enrol("t", "key-1", "web-1").await.unwrap().0, id, "the same key is the same agent");
    assert_eq!(site.told.kinds(), ["agent_enrolled"]);
    assert!(site.enrol("t", "forged", "web-2").await.is_err());
    for wrong in ["", "T", "sm_default_1_x", &"t".repeat(1_000)] {
        assert_eq!(site.enrol(wrong, "key-2", "web-2").await, Err(BAD), "{wrong:?}");
    }
    for forged in ["acme agt_1 key-1".to_owned(), format!("default {id} key-2"), format!("acme {id} key-1")] {
        assert!(site.fleet.identify(forged.as_bytes()).await.is_err(), "{forged}");
    }
    let renewed = site.fleet.renew(&who, b"key-1").await.unwrap();
    assert_eq!(renewed.agent_id, id);
    assert!(site.fleet.renew(&who, b"key-2").await.is_err(), "another key is another agent");
}

#[tokio::test]
async fn a_token_counts_for_its_uses_its_time_and_until_it_is_revoked() {
    let site = site(FleetConfig::default()).await;
    site.token("once", |token| token.uses_max = Some(1)).await;
    site.enrol("once", "key-1", "web-1").await.unwrap();
    assert_eq!(site.enrol("once", "key-2", "web-2").await, Err(BAD));
    let revoked = site.token("revoked", |_| {}).await;
    site.store.revoke_token(&OrgId::default(), revoked, &by()).await.unwrap();
    assert_eq!(site.enrol("revoked", "key-3", "web-3").await, Err(BAD));
    site.token("short", |token| token.expires_at = NOW.plus(Duration::from_secs(10))).await;
    site.clock.advance(Duration::from_secs(10));
    assert_eq!(site.enrol("short", "key-4", "web-4").await, Err(BAD));
}

#[tokio::test]
async fn old_agents_log_in_with_their_tokens_and_are_held_to_their_host() {
    let site = site(FleetConfig::default()).await;
    let token = "sm_default_1_tail";
    site.token(token, |token| (token.legacy, token.host) = (true, Some("old-1".into()))).await;
    site.token("enrolment", |_| {}).await;
    let login = |org: &str, token: &str, hostname: &str| AuthRequest {
        org_id: org.into(),
        token: token.into(),
        hostname: hostname.into(),
        ip_address: if hostname.is_empty() { String::new() } else { "10.0.0.9".into() },
        ..AuthRequest::default()
    };
    let good = site.fleet.authenticate(login("default", token, "old-1"), PEER).await.unwrap();
    assert!(good.registered);
    let who = good.identity;
    assert_eq!((who.host_of("old-1"), who.host_of("tail"), who.host_of("other")), (Some("old-1"), Some("old-1"), None));
    let quiet = site.fleet.authenticate(login("", token, ""), PEER).await.unwrap();
    assert_eq!((&*quiet.identity.host, quiet.identity.any_host, quiet.registered), ("old-1", false, false));
    assert_eq!(site.fleet.authenticate(login("acme", token, ""), PEER).await.unwrap_err(), BAD);
    assert_eq!(site.fleet.authenticate(login("default", DEMO_TOKEN, ""), PEER).await.unwrap_err(), BAD);
    let refused = site.fleet.authenticate(login("default", "enrolment", ""), PEER).await.unwrap_err();
    assert!(refused.to_string().contains("for enrolment"), "{refused}");
    site.until("it being listed", async || site.states().await == [("old-1".to_owned(), AgentState::Online)]).await;
}

#[tokio::test]
async fn the_published_token_comes_and_goes_with_the_demonstration() {
    let demo = FleetConfig { demo: true, ..FleetConfig::default() };
    let site = site(demo).await;
    let login = || AuthRequest { org_id: "demo".into(), token: DEMO_TOKEN.into(), ..AuthRequest::default() };
    assert_eq!(site.fleet.authenticate(login(), PEER).await.unwrap_err(), BAD);
    for _ in 0..2 {
        site.fleet.set_demo(&*site.store).await.unwrap();
    }
    let who = site.fleet.authenticate(login(), PEER).await.unwrap().identity;
    assert_eq!((who.org.as_str(), who.host_of("any")), ("demo", Some("any")));
    let without = Fleet::new(
        FleetConfig::default(),
        Arc::new(Paper),
        Arc::new(Told::default()),
        Metrics::new(),
        Arc::new(ManualClock::new(NOW)),
    );
    without.set_demo(&*site.store).await.unwrap();
    assert_eq!(site.fleet.authenticate(login(), PEER).await.unwrap_err(), BAD);
    site.until("the open connection being barred", async || site.fleet.check(&who).is_err()).await;
}

#[tokio::test]
async fn who_is_revoked_is_refused_on_open_connections_too() {
    let site = site(FleetConfig::default()).await;
    site.token("t", |_| {}).await;
    let (id, certificate) = site.enrol("t", "key-1", "web-1").await.unwrap();
    let who = site.fleet.identify(&certificate).await.unwrap();
    let mut session = site.fleet.open(&who, &Hello { spool_epoch: 7, ..Hello::default() }, PEER);
    assert!(session.heard().is_ok());
    site.store.revoke_agent(&OrgId::default(), &id, "lost", &by()).await.unwrap();
    site.until("the refusal", async || session.heard().is_err()).await;
    assert!(site.fleet.check(&who).is_err() && site.fleet.identify(&certificate).await.is_err());
    assert!(site.enrol("t", "key-1", "web-1").await.is_err(), "not with a token either, with this key");
}

#[tokio::test]
async fn silence_and_return_are_told_once_each() {
    let site = site(FleetConfig::default()).await;
    site.token("t", |_| {}).await;
    let (_, certificate) = site.enrol("t", "key-1", "web-1").await.unwrap();
    let who = site.fleet.identify(&certificate).await.unwrap();
    let session = site.fleet.open(&who, &Hello { spool_epoch: 7, ..Hello::default() }, PEER);
    site.until("it being online", async || site.states().await == [("web-1".to_owned(), AgentState::Online)]).await;
    drop(session);
    let (stopper, stop) = Stopper::new();
    let watching = tokio::spawn(site.fleet.clone().watch(stop));
    tokio::time::sleep(Duration::from_secs(1)).await;
    site.clock.advance(Duration::from_secs(80));
    let mut told = Vec::new();
    for _ in 0..1_500 {
        told = site.told.kinds();
        if told.len() > 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(told, ["agent_enrolled", "agent_silent"]);
    assert_eq!(site.states().await, [("web-1".to_owned(), AgentState::Offline)]);
    let _session = site.fleet.open(&who, &Hello { spool_epoch: 7, ..Hello::default() }, PEER);
    for _ in 0..1_500 {
        told = site.told.kinds();
        if told.len() > 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(told, ["agent_enrolled", "agent_silent", "agent_back"]);
    stopper.stop();
    watching.await.unwrap();
}

#[tokio::test]
async fn a_copied_host_is_told_of_and_gets_another_name_for_its_spool() {
    let site = site(FleetConfig::default()).await;
    site.token("t", |_| {}).await;
    let (_, certificate) = site.enrol("t", "key-1", "web-1").await.unwrap();
    let who = site.fleet.identify(&certificate).await.unwrap();
    let hello = |boot: &str| Hello { boot_id: boot.into(), spool_epoch: 7, ..Hello::default() };
    let open = |boot: &str| site.fleet.open(&who, &hello(boot), PEER);
    let (_one, _two) = (open("boot-1"), open("boot-2"));
    let mut again = open("boot-1");
    assert_eq!(again.welcome().acked.map(|acked| acked.through_seq), Some(u64::MAX));
    assert!(again.heard().is_err(), "nothing of it is taken under the old name");
    for _ in 0..500 {
        if site.told.kinds().len() > 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(site.told.kinds(), ["agent_enrolled", "agent_copied"]);
}

#[tokio::test]
async fn before_the_catalog_is_there_nobody_is_known_and_nobody_is_wrong() {
    let fleet = Fleet::new(
        FleetConfig::default(),
        Arc::new(Paper),
        Arc::new(Told::default()),
        Metrics::new(),
        Arc::new(ManualClock::new(NOW)),
    );
    let request = EnrollRequest { token: "t".into(), csr_der: b"k".to_vec(), ..EnrollRequest::default() };
    assert!(matches!(fleet.enrol(request, PEER).await, Err(Refusal::Later { .. })));
    assert!(matches!(fleet.identify(b"default agt_1 k").await, Err(Refusal::Later { .. })));
}
