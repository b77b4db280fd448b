//! The door for agents: gateway, fleet, authority and downloads, put together.

use crate::agent_downloads::{self, Downloads};
use crate::app::{Parts, patiently};
use crate::authority::Authority;
use crate::config::AgentSettings;
use anyhow::{Context, Result};
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use connectors::inputs::Sink;
use connectors::inputs::grpc::{
    self, Desk, Gateway, GatewayConfig, GatewayObserver, PageBody, Pages, TlsSource, TurnedAway,
};
use http::{Request, Response, request};
use http_body_util::BodyExt;
use pipeline::fleet::{Fleet, FleetConfig, Issuer};
use pipeline::metrics::{Metrics, labels};
use runtime::{Clock, Stop, Supervisor};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

const RETRY: Duration = Duration::from_secs(2);

/// The door, bound and not answering yet.
pub struct AgentDoor {
    gateway: Gateway,
    pub fleet: Fleet,
    pub authority: Arc<Authority>,
    downloads: Router,
}

impl AgentDoor {
    /// Opens the authority, which is made at the first start, and binds. Nobody is known until
    /// [`Fleet::use_store`].
    pub fn open(
        settings: &AgentSettings,
        sink: Arc<dyn Sink>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let authority = Authority::open(settings.authority.clone(), Arc::clone(&clock))
            .context("failed to open the authority for agents (setting ingest.agents.ca_dir)")?;
        let authority = Arc::new(authority);
        let config = FleetConfig { demo: settings.demo, ..FleetConfig::default() };
        let fleet = Fleet::new(config, Arc::clone(&authority) as Arc<dyn Issuer>, sink, metrics, clock);
        let addresses = std::iter::once(&settings.listen).chain(&settings.also_listen).map(|l| l.address).collect();
        let gateway = grpc::bind(GatewayConfig {
            addresses,
            plaintext: settings.plaintext,
            connections_max: settings.connections_max,
            connections_per_ip_max: settings.connections_per_address_max,
            durability: settings.durability,
            ..GatewayConfig::default()
        })
        .context("failed to open the gateway for agents (setting ingest.agents.listen)")?;
        let executable = std::env::current_exe().ok();
        let signer = Arc::clone(&authority) as Arc<dyn agent_downloads::Authority>;
        let downloads = Downloads::new(settings.downloads.clone(), executable.as_deref(), signer).router();
        Ok(Self { gateway, fleet, authority, downloads })
    }

    /// The first address.
    pub fn address(&self) -> Option<SocketAddr> {
        self.gateway.addresses().first().copied()
    }

    /// What a host fetches to install its agent.
    pub fn downloads(&self) -> Router {
        self.downloads.clone()
    }

    /// Answers until the input's stop; the fleet and the authority work until the workers'.
    pub async fn start(
        self,
        (inputs, input_stop): (&mut Supervisor, Stop),
        (workers, worker_stop): (&mut Supervisor, Stop),
        sink: Arc<dyn Sink>,
        parts: &Parts,
    ) {
        // Where the catalog is here, nobody has to come again because the process has just begun.
        if parts.shared_catalog.is_none() && self.fleet.set_demo(&*parts.catalog).await.is_ok() {
            self.fleet.use_store(parts.catalog.clone());
        } else {
            let (fleet, parts_of, stop) = (self.fleet.clone(), parts.clone(), worker_stop.clone());
            workers.spawn("fleet catalog", async move {
                find_store(&fleet, &parts_of, &stop).await;
                // A part that ends by itself stops the process.
                stop.requested().await;
                Ok(())
            });
        }
        let (metrics, clock) = (Arc::clone(&parts.metrics), Arc::clone(&parts.clock));
        let (fleet, stop) = (self.fleet.clone(), worker_stop.clone());
        workers.spawn("fleet", async move {
            fleet.watch(stop).await;
            Ok(())
        });
        let authority = Arc::clone(&self.authority);
        workers.spawn("authority", async move {
            authority.watch(worker_stop).await;
            Ok(())
        });
        let desk: Arc<dyn Desk> = Arc::new(self.fleet);
        let tls = self.authority as Arc<dyn TlsSource>;
        let pages: Arc<dyn Pages> = Arc::new(DownloadPages(self.downloads));
        let gateway = self.gateway;
        inputs.spawn("agents", async move {
            gateway.run(sink, desk, Some(tls), Some(pages), Arc::new(Counting(metrics)), clock, input_stop).await;
            Ok(())
        });
    }
}

/// Tells the fleet where it is kept: in this process's catalog, or, where that is of this process alone, in the one of
/// the installation as soon as it is there.
async fn find_store(fleet: &Fleet, parts: &Parts, stop: &Stop) {
    let catalog = match &parts.shared_catalog {
        None => Arc::clone(&parts.catalog),
        Some(shared) => {
            let opened = patiently("fleet", &parts.health, stop, || storage::catalog::open(shared.clone())).await;
            match opened {
                Ok(catalog) => catalog,
                Err(error) => {
                    let causes = format!("{error:#}");
                    return tracing::error!(causes, "agents cannot be let in: their catalog cannot be opened");
                }
            }
        }
    };
    while let Err(error) = fleet.set_demo(&*catalog).await {
        tracing::warn!(%error, "the catalog of agents does not answer yet");
        if !stop.sleep(RETRY).await {
            return;
        }
    }
    fleet.use_store(catalog);
}

struct DownloadPages(Router);

#[async_trait]
impl Pages for DownloadPages {
    async fn get(&self, head: request::Parts, _peer: SocketAddr) -> Response<PageBody> {
        let answer = self.0.clone().oneshot(Request::from_parts(head, Body::empty())).await;
        let answer = answer.unwrap_or_else(|never| match never {});
        answer.map(|body| body.map_err(|error| error.into()).boxed_unsync())
    }
}

struct Counting(Arc<Metrics>);

impl GatewayObserver for Counting {
    fn connections(&self, change: i64) {
        self.0.agents_connections.inc_by(change);
    }

    fn sessions(&self, change: i64) {
        self.0.agents_sessions.inc_by(change);
    }

    fn turned_away(&self, why: TurnedAway) {
        self.0.agents_turned_away.get_or_create(&labels([("why", why.as_str())])).inc();
    }

    fn login(&self, accepted: bool) {
        let result = if accepted { "accepted" } else { "refused" };
        self.0.agents_logins.get_or_create(&labels([("result", result)])).inc();
    }

    fn batch(&self, records: u64, bytes: u64, repeated: bool) {
        let came = if repeated { "repeated" } else { "first" };
        self.0.agents_batches.get_or_create(&labels([("came", came)])).inc();
        if !repeated {
            self.0.agents_records.inc_by(records);
            self.0.agents_bytes.inc_by(bytes);
        }
    }
}
