//! The workers' doors while the process waits for secrets and stores: `/health` is 503 and names what is
//! waited for, `/metrics` answers. So whoever watches sees a process that waits, not one that is gone.

use crate::config::Config;
use crate::worker_http::RoleHealth;
use anyhow::{Context, Result};
use pipeline::metrics::Metrics;
use runtime::http::HttpLimits;
use runtime::{Health, Stopper};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// How long an answer that is under way may take once the doors are handed over.
const DRAIN: Duration = Duration::from_secs(1);

/// Listeners by their setting, answered for the time being. Dropped, they are closed.
pub struct EarlyDoors {
    listeners: BTreeMap<&'static str, TcpListener>,
    stopper: Stopper,
    serving: JoinSet<bool>,
}

impl EarlyDoors {
    /// Binds the doors of the worker roles that are configured, and answers.
    pub fn open(config: &Config, health: &Health, metrics: &Arc<Metrics>) -> Result<Self> {
        let (stopper, stop) = Stopper::new();
        let mut doors = Self { listeners: BTreeMap::new(), stopper, serving: JoinSet::new() };
        for worker in super::workers_of(config) {
            let role = RoleHealth {
                service: worker.service,
                needs: worker.needs,
                pod: config.log.pod_name.clone(),
                health: health.clone(),
                metrics: Arc::clone(metrics),
                version_prefix: config.version_prefix,
            };
            for listen in worker.pair.metrics.iter().chain(&worker.pair.health) {
                let fails = || format!("failed to listen on {} (setting {})", listen.address, listen.setting);
                let listener = runtime::http::bind(listen.address).with_context(fails)?;
                let kept = runtime::http::share(&listener).with_context(fails)?;
                doors.listeners.insert(listen.setting, kept);
                let limits = HttpLimits { drain: DRAIN, ..HttpLimits::default() };
                doors.serving.spawn(runtime::http::serve(listener, None, role.clone().router(), limits, stop.clone()));
            }
        }
        Ok(doors)
    }

    /// Stops answering; the listeners stay bound, so that who comes meanwhile waits and is not refused.
    pub async fn hand_over(mut self) -> BTreeMap<&'static str, TcpListener> {
        self.stopper.stop();
        while self.serving.join_next().await.is_some() {}
        self.listeners
    }
}
