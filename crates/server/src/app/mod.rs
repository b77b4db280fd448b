//! The whole server: build (open stores, bind sockets, run nothing) → run → drain.

mod api;
mod early;
mod parts;
mod workers;

pub use api::offline_api;
pub use parts::Parts;
pub(crate) use parts::patiently;

use crate::agents::AgentDoor;
use crate::authority::Authority;
use crate::config::{Config, Listen, PairListen, Role, TlsSettings};
use crate::detection_rules;
use crate::field_maps;
use crate::ingest_http::IngestSite;
use crate::keys::{self, Key};
use crate::site::Site;
use crate::worker_http::RoleHealth;
use anyhow::{Context, Result};
use connectors::inputs::http::{HttpIngest, HttpIngestConfig, IngestKey};
use connectors::inputs::snmp::{self, Snmp};
use connectors::inputs::syslog::{self, Syslog, SyslogConfig, TlsListen};
use early::EarlyDoors;
use model::OrgId;
use pipeline::accept::{Acceptor, QUEUE_WRITES};
use pipeline::deliver::CATALOG_WRITES;
use pipeline::metrics::Metrics;
use runtime::http::HttpLimits;
use runtime::secrets::{Refresher, Secrets, SecretsConfig};
use runtime::tls::TlsFiles;
use runtime::{Clock, Health, ServiceManager, Stop, Stopper, Supervisor};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use storage::queue::{QueueConfig, QueueName};
use tokio::net::TcpListener;

/// Where the parts answer; port 0 in the configuration is the real port here.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// The gateway for agents.
    pub agents: Option<SocketAddr>,
    pub ingest: Option<SocketAddr>,
    pub syslog_udp: Option<SocketAddr>,
    pub syslog_tcp: Option<SocketAddr>,
    pub syslog_tls: Option<SocketAddr>,
    pub snmp: Option<SocketAddr>,
    pub webui: Option<SocketAddr>,
    /// `/health` and `/metrics` of workers: (role, address).
    pub workers: Vec<(&'static str, SocketAddr)>,
}

/// A role with `/health` and `/metrics` on ports of its own.
struct Worker<'a> {
    role: Role,
    pair: &'a PairListen,
    /// The contract's name.
    service: &'static str,
    /// Parts that must work for it to be healthy.
    needs: &'static [&'static str],
}

/// Those of the configured roles.
fn workers_of(config: &Config) -> impl Iterator<Item = Worker<'_>> {
    let all = [
        Worker {
            role: Role::Alerter,
            pair: &config.alerter_listen,
            service: "mutt-alerter",
            needs: &["queue", "catalog", "events", "coordination"],
        },
        Worker {
            role: Role::Forwarder,
            pair: &config.forwarder_listen,
            service: "mutt-moog-forwarder",
            needs: &["queue", "catalog", "coordination", CATALOG_WRITES, "channel"],
        },
        Worker {
            role: Role::Remediation,
            pair: &config.remediation_listen,
            service: "mutt-remediation",
            needs: &["queue", QUEUE_WRITES, "catalog"],
        },
    ];
    all.into_iter().filter(|worker| config.has(worker.role))
}

/// A server that is built and not running yet.
pub struct App {
    config: Config,
    parts: Parts,
    acceptor: Arc<Acceptor>,
    http: Vec<(TcpListener, Option<Arc<TlsFiles>>, Site, HttpLimits)>,
    agents: Option<AgentDoor>,
    syslog: Option<Syslog>,
    snmp: Option<Snmp>,
    addresses: Addresses,
    refresher: Refresher,
    pub ingest_key: Key,
    pub webui_key: Key,
}

impl App {
    /// Waits for secrets and stores, opens them, binds every socket, makes missing keys. Fails before
    /// anything runs; `stop` ends the waiting.
    pub async fn build(config: Config, clock: Arc<dyn Clock>, stop: &Stop) -> Result<Self> {
        keys::private_dir(&config.data_dir)?;
        let health = Health::default();
        let metrics = Metrics::of(&parts::owners(&config.roles));
        let doors = EarlyDoors::open(&config, &health, &metrics)?;
        let (secrets, refresher) = start_secrets(&config, &health, stop).await?;
        let ingest_key =
            keys::obtain(&config.data_dir, "ingest_api_key", secrets.watch("INGEST_API_KEY").into(), "mik_")?;
        let webui_key = keys::obtain(&config.data_dir, "webui_api_key", secrets.watch("WEBUI_API_KEY").into(), "mwk_")?;
        let parts = Parts::open(&config, &secrets, health, metrics, &clock, stop).await?;
        let refresher = telling_metrics(refresher, &config, &parts);
        let run = random_run()?;
        let acceptor = Arc::new(Acceptor::new(
            &parts.queues,
            Arc::clone(&parts.coordination),
            parts.live.clone(),
            run,
            Arc::clone(&clock),
            Arc::clone(&parts.metrics),
            Arc::clone(&parts.rejects),
            parts.health.clone(),
        ));
        acceptor.refresh_depth().await;
        let mut app = Self {
            config,
            parts,
            acceptor,
            http: Vec::new(),
            agents: None,
            syslog: None,
            snmp: None,
            addresses: Addresses::default(),
            refresher,
            ingest_key,
            webui_key,
        };
        app.bind(doors.hand_over().await)?;
        app.announce()?;
        Ok(app)
    }

    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// `doors` are bound already, by their settings.
    fn bind(&mut self, mut doors: BTreeMap<&'static str, TcpListener>) -> Result<()> {
        let config = self.config.clone();
        if config.has(Role::Ingestor) {
            self.bind_ingest(&config)?;
        }
        for worker in workers_of(&config) {
            let health = self.role_health(worker.service, worker.needs);
            for listen in worker.pair.metrics.iter().chain(&worker.pair.health) {
                let listener = doors.remove(listen.setting).context("every worker's door was opened early")?;
                self.addresses.workers.push((worker.role.as_str(), listener.local_addr()?));
                self.http.push((listener, None, health.clone().router().into(), HttpLimits::default()));
            }
        }
        if let Some(listen) = config.webui_listen.as_ref().filter(|_| config.has(Role::Webui)) {
            let mut state = api::state(&self.parts, &config, self.webui_key.ring.clone())?;
            if let Some(address) = self.addresses.agents {
                state.agent_gate.port = address.port();
            }
            let mut router = crate::api::router(state);
            if let Some(door) = &self.agents {
                // Where people look first; on the gateway's port they can be had, too.
                router = router.merge(door.downloads());
            }
            let tls = tls(config.webui_tls.as_ref(), "webui.tls_cert")?;
            self.addresses.webui = Some(self.listen(listen, tls, router.into(), HttpLimits::default())?);
        }
        Ok(())
    }

    fn bind_ingest(&mut self, config: &Config) -> Result<()> {
        if let Some(http) = &config.http {
            let metrics = Arc::clone(&self.parts.metrics);
            let ingest = HttpIngest::new(
                HttpIngestConfig {
                    keys: vec![IngestKey { keys: self.ingest_key.ring.clone(), org: OrgId::default() }],
                    rules: http.rules.clone(),
                    body_bytes_max: http.body_bytes_max,
                    body_timeout: http.body_timeout,
                    durability: http.durability,
                    // The contract's word, where it is true.
                    store: if matches!(config.stores.queue, QueueConfig::Redis(_)) { "Redis" } else { "storage" },
                },
                Arc::clone(&self.acceptor) as Arc<dyn connectors::inputs::Sink>,
                Arc::new(move |reason, took| {
                    metrics.count_ingest(reason);
                    metrics.ingest_latency.observe(took.as_secs_f64());
                }),
            );
            let site = IngestSite::new(
                ingest,
                self.role_health("mutt-ingestor", &["queue", QUEUE_WRITES]),
                Arc::clone(&self.parts.coordination),
                shown(config),
            );
            let limits = HttpLimits { connections_max: http.connections_max, ..HttpLimits::default() };
            let tls = tls(http.tls.as_ref(), "ingest.http.tls_cert")?;
            self.addresses.ingest = Some(self.listen(&http.listen, tls, Site::Ingest(site), limits)?);
        }
        if let Some(settings) = &config.agents {
            let sink = Arc::clone(&self.acceptor) as Arc<dyn connectors::inputs::Sink>;
            let door = AgentDoor::open(settings, sink, Arc::clone(&self.parts.metrics), Arc::clone(&self.parts.clock))?;
            self.addresses.agents = door.address();
            self.agents = Some(door);
        }
        if let Some((listen, snmp)) = &config.snmp {
            let bound = snmp::bind(snmp.clone())
                .with_context(|| format!("failed to open the SNMP listener (setting {})", listen.setting))?;
            self.addresses.snmp = Some(bound.address());
            self.snmp = Some(bound);
        }
        let settings = &config.syslog;
        if settings.udp.is_none() && settings.tcp.is_none() && settings.tls.is_none() {
            return Ok(());
        }
        let syslog = syslog::bind(SyslogConfig {
            udp: settings.udp.as_ref().map(|l| l.address),
            tcp: settings.tcp.as_ref().map(|l| l.address),
            tls: settings.tls.as_ref().map(|(listen, cert, key, minimum)| TlsListen {
                address: listen.address,
                cert: cert.clone(),
                key: key.clone(),
                minimum: *minimum,
            }),
            max_message_bytes: settings.message_bytes_max,
            max_connections: settings.connections_max,
            idle_timeout: settings.idle_timeout,
            receive_buffer_bytes: settings.receive_buffer_bytes,
            timezone: settings.timezone.clone(),
            durability: settings.durability,
            org: OrgId::default(),
        })
        .context("failed to open the syslog listeners (settings ingest.syslog.*)")?;
        let bound = syslog.addresses();
        self.addresses.syslog_udp = bound.udp;
        self.addresses.syslog_tcp = bound.tcp;
        self.addresses.syslog_tls = bound.tls;
        self.syslog = Some(syslog);
        Ok(())
    }

    fn listen(
        &mut self,
        listen: &Listen,
        tls: Option<Arc<TlsFiles>>,
        site: Site,
        limits: HttpLimits,
    ) -> Result<SocketAddr> {
        let listener = runtime::http::bind(listen.address)
            .with_context(|| format!("failed to listen on {} (setting {})", listen.address, listen.setting))?;
        let address = listener.local_addr()?;
        self.http.push((listener, tls, site, limits));
        Ok(address)
    }

    fn role_health(&self, service: &'static str, needs: &'static [&'static str]) -> RoleHealth {
        RoleHealth {
            service,
            needs,
            pod: self.config.log.pod_name.clone(),
            health: self.parts.health.clone(),
            metrics: Arc::clone(&self.parts.metrics),
            version_prefix: self.config.version_prefix,
        }
    }

    /// Roles and doors in one line.
    fn working(&self) -> String {
        let roles: Vec<&str> = self.config.roles.iter().map(|role| role.as_str()).collect();
        let mut line = format!("roles {}", roles.join(", "));
        for (what, address) in [
            ("ingest", self.addresses.ingest),
            ("agents", self.addresses.agents),
            ("syslog", self.addresses.syslog_udp),
            ("web", self.addresses.webui),
        ] {
            if let Some(address) = address {
                line.push_str(&format!("; {what} {address}"));
            }
        }
        line
    }

    /// Writes where this process answers, for the command line on the same machine.
    fn announce(&self) -> Result<()> {
        let text = |address: Option<SocketAddr>| address.map(|a| a.to_string());
        let running = serde_json::json!({
            "pid": std::process::id(),
            "ingest": text(self.addresses.ingest),
            "agents": text(self.addresses.agents),
            "webui": text(self.addresses.webui),
            "webui_cert": self.config.webui_tls.as_ref().and_then(|tls| std::path::absolute(&tls.cert).ok()),
            "syslog_udp": text(self.addresses.syslog_udp),
            "syslog_tcp": text(self.addresses.syslog_tcp),
            "syslog_tls": text(self.addresses.syslog_tls),
            "snmp": text(self.addresses.snmp),
        });
        let file = running_file(&self.config);
        std::fs::write(&file, format!("{running}\n"))
            .with_context(|| format!("failed to write `{}`", file.display()))?;
        Ok(())
    }

    /// A handle that can change a running server.
    pub fn handle(&self) -> AppHandle {
        let tls = self.http.iter().filter_map(|(_, tls, _, _)| tls.clone()).collect();
        let authority = self.agents.as_ref().map(|door| Arc::clone(&door.authority));
        AppHandle { parts: self.parts.clone(), authority, tls }
    }

    /// Runs until `stop`; then drains within the grace period. `true` = everything ended clean.
    pub async fn run(self, stop: Stop) -> bool {
        self.run_under(stop, &ServiceManager::default()).await
    }

    /// As [`Self::run`], and tells the service manager: ready, alive, what is wrong, stopping.
    pub async fn run_under(self, stop: Stop, manager: &ServiceManager) -> bool {
        let working = self.working();
        let (input_stopper, input_stop) = Stopper::new();
        let (worker_stopper, worker_stop) = Stopper::new();
        let mut inputs = Supervisor::new(input_stopper.clone());
        let mut workers = Supervisor::new(worker_stopper.clone());
        let parts = self.parts.clone();
        let grace = self.config.grace;
        let file = running_file(&self.config);
        if self.config.has(Role::Alerter) {
            workers::start_alerter(&mut workers, &self.config, &parts, &worker_stop).await;
        }
        if self.config.has(Role::Forwarder) && !self.config.only_records_alerts() {
            workers::start_forwarder(&mut workers, &self.config, &parts, &worker_stop);
        }
        if self.config.has(Role::Remediation) {
            workers::start_remediation(&mut workers, &self.config, &parts, &worker_stop);
        }
        let (refresher, refresher_stop) = (self.refresher, worker_stop.clone());
        workers.spawn("secrets", async move {
            refresher.run(refresher_stop).await;
            Ok(())
        });
        workers::start_chores(&mut workers, &self.config, &parts, &self.acceptor, &worker_stop);
        for (listener, tls, site, mut limits) in self.http {
            limits.drain = grace / 2;
            if let Some(files) = tls.clone() {
                let stop = worker_stop.clone();
                workers.spawn("certificates", async move {
                    files.watch(stop).await;
                    Ok(())
                });
            }
            let stop = input_stop.clone();
            inputs.spawn("http", async move {
                if !site.serve(listener, tls, limits, stop).await {
                    tracing::warn!("some HTTP requests did not end in time and were cut off");
                }
                Ok(())
            });
        }
        if let Some(syslog) = self.syslog {
            let sink = Arc::clone(&self.acceptor) as Arc<dyn connectors::inputs::Sink>;
            let (clock, stop) = (Arc::clone(&parts.clock), input_stop.clone());
            inputs.spawn("syslog", async move {
                syslog.run(sink, clock, stop).await;
                Ok(())
            });
        }
        if let Some(door) = self.agents {
            let sink = Arc::clone(&self.acceptor) as Arc<dyn connectors::inputs::Sink>;
            door.start((&mut inputs, input_stop.clone()), (&mut workers, worker_stop.clone()), sink, &parts).await;
        }
        if let Some(snmp) = self.snmp {
            let sink = Arc::clone(&self.acceptor) as Arc<dyn connectors::inputs::Sink>;
            let (clock, stop) = (Arc::clone(&parts.clock), input_stop.clone());
            inputs.spawn("snmp", async move {
                snmp.run(sink, clock, stop).await;
                Ok(())
            });
        }
        drop(self.acceptor);
        manager.ready(&working);
        let mut said = working.clone();
        let mut alive = tokio::time::interval(manager.watchdog_every().unwrap_or(SIGN_OF_LIFE).min(SIGN_OF_LIFE));
        // Whoever ends first decides: a stop from outside, or a part that died. The sign of life is
        // given from here, so that it says: the parts are watched.
        let failed = loop {
            tokio::select! {
                () = stop.requested() => {
                    tracing::info!("stopping: no new events; finishing what is under way");
                    break false;
                }
                _ = inputs.watch() => break true,
                _ = workers.watch() => break true,
                _ = alive.tick() => {
                    manager.alive();
                    let state = state(&parts.health, &working);
                    if state != said {
                        manager.status(&state);
                        said = state;
                    }
                }
            }
        };
        manager.stopping(grace + STOP_SLACK);
        let drained = tokio::time::timeout(grace, async {
            input_stopper.stop();
            let mut failures = inputs.join().await;
            worker_stopper.stop();
            failures.extend(workers.join().await);
            for name in QueueName::ALL {
                if let Err(error) = parts.queues.get(name).flush().await {
                    tracing::warn!(%error, queue = name.as_str(), "the queue could not be synced");
                }
            }
            failures.is_empty() && !failed
        })
        .await;
        let _ = std::fs::remove_file(file);
        match drained {
            Ok(true) => {
                tracing::info!("stopped clean: everything under way is settled or safe in the queue");
                true
            }
            Ok(false) => {
                tracing::error!("stopped after a failure; events not worked are safe in the queue");
                false
            }
            Err(_) => {
                tracing::warn!(
                    grace_ms = grace.as_millis() as u64,
                    "stopped at the end of the grace period; what was not finished is safe in the queue"
                );
                false
            }
        }
    }
}

/// Longest time between two signs of life to a service manager.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// What ending takes beside the grace period.
const STOP_SLACK: Duration = Duration::from_secs(10);

/// One line for `systemctl status`: what works, or which parts do not.
fn state(health: &Health, working: &str) -> String {
    let broken: Vec<&str> = health.all().into_iter().filter_map(|(part, state)| state.err().map(|_| part)).collect();
    if broken.is_empty() { working.to_owned() } else { format!("not working: {}; {working}", broken.join(", ")) }
}

/// Name of the file below the data directory that says where the running process answers.
pub const RUNNING_FILE: &str = "running.json";

/// Several processes may share a data directory where the queue is elsewhere: commands want the one
/// with the Web API.
fn running_file(config: &Config) -> std::path::PathBuf {
    let name = match config.roles.first() {
        Some(role) if config.stores.shares_queue() && !config.has(Role::Webui) => {
            format!("running-{}.json", role.as_str())
        }
        _ => RUNNING_FILE.to_owned(),
    };
    config.data_dir.join(name)
}

/// Changes a running server.
#[derive(Clone)]
pub struct AppHandle {
    parts: Parts,
    authority: Option<Arc<Authority>>,
    tls: Vec<Arc<TlsFiles>>,
}

impl AppHandle {
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The authority for agents, where this process has their gateway.
    pub fn agent_authority(&self) -> Option<&Authority> {
        self.authority.as_deref()
    }

    /// Takes over what can change while running: live settings, rule files, and what the files of the
    /// HTTP listeners' certificates hold now.
    pub async fn apply(&self, config: &Config) {
        for files in &self.tls {
            // What is wrong with them is logged; the old ones stay.
            let _ = files.reload();
        }
        self.parts.live.replace_base(config.live.clone());
        parts::load_rule_files(&self.parts.rulebook, &config.rule_paths).await;
        if config.has(Role::Alerter) || config.has(Role::Webui) {
            field_maps::load(&self.parts.detections, &config.detection.field_paths).await;
            detection_rules::load(&self.parts.detections, &config.detection).await;
        }
        if config.has(Role::Alerter)
            && let Err(error) = self.parts.detections.reload(&*self.parts.catalog).await
        {
            tracing::error!(%error, "detection rules could not be reloaded yet; the old ones stay so long");
        }
        match self.parts.rulebook.reload().await {
            Ok(problems) => tracing::info!(left_out = problems.len(), "configuration and rules reloaded"),
            Err(error) => tracing::error!(%error, "rules could not be reloaded; the old ones stay"),
        }
    }
}

fn telling_metrics(refresher: Refresher, config: &Config, parts: &Parts) -> Refresher {
    let (metrics, clock) = (Arc::clone(&parts.metrics), Arc::clone(&parts.clock));
    let tell = move |good: bool| {
        if good {
            metrics.secrets_last_refresh.set(clock.now().micros() / 1_000_000);
        } else {
            metrics.secrets_refresh_failures.inc();
        }
    };
    if config.stores.vault.is_some() {
        // Vault has answered, or there would be no refresher.
        tell(true);
    }
    refresher.telling(tell)
}

fn random_run() -> Result<u32> {
    let mut bytes = [0u8; 4];
    getrandom::fill(&mut bytes).context("failed to get a random number")?;
    Ok(u32::from_le_bytes(bytes))
}

fn shown(config: &Config) -> BTreeMap<&'static str, String> {
    let mut shown = BTreeMap::new();
    if let Some(http) = &config.http {
        shown.insert("REQUIRED_FIELDS", http.rules.required.join(","));
        shown.insert("SERVER_PORT_INGESTOR", http.listen.address.port().to_string());
    }
    shown.insert("MAX_INGEST_QUEUE_SIZE", config.live.ingest_records_max.to_string());
    shown.insert("RATE_LIMIT_ENABLED", config.ingest_limit.is_some().to_string());
    if let Some(limit) = config.ingest_limit {
        shown.insert("INGEST_MAX_RATE", limit.max.to_string());
        shown.insert("INGEST_RATE_WINDOW", Duration::as_secs(&limit.window).to_string());
    }
    shown
}

/// How long a command waits for stores and secrets.
const OFFLINE_PATIENCE: Duration = Duration::from_secs(5);

/// A command does not wait for ever.
fn command_stop() -> Stop {
    let (stopper, stop) = Stopper::new();
    tokio::spawn(async move {
        tokio::time::sleep(OFFLINE_PATIENCE).await;
        stopper.stop();
    });
    stop
}

/// The secrets of a configuration, for a command: as they are now.
pub async fn secrets_for_command(config: &Config) -> Result<Secrets> {
    Ok(start_secrets(config, &Health::default(), &command_stop()).await?.0)
}

async fn start_secrets(config: &Config, health: &Health, stop: &Stop) -> Result<(Secrets, Refresher)> {
    let sources = SecretsConfig {
        vault: config.stores.vault.clone(),
        local: config.stores.given.clone(),
        ..SecretsConfig::default()
    };
    Secrets::start(sources, &config.required_secrets(), health.clone(), stop).await.context("no secrets")
}

fn tls(settings: Option<&TlsSettings>, setting: &str) -> Result<Option<Arc<TlsFiles>>> {
    let Some(settings) = settings else { return Ok(None) };
    let files = TlsFiles::open(&settings.cert, &settings.key, settings.minimum)
        .with_context(|| format!("failed to read certificate and key (setting {setting})"))?;
    Ok(Some(files))
}
