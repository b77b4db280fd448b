//! Starting the roles that work behind the doors.

use super::Parts;
use crate::config::{Config, Role};
use crate::maintenance::Chores;
use crate::retention::Retention;
use pipeline::accept::Acceptor;
use pipeline::deliver::Deliverer;
use pipeline::detect::Detector;
use pipeline::notify::Keeper;
use pipeline::remediate::Remediator;
use pipeline::schedule::Scheduler;
use runtime::backoff::Backoff;
use runtime::{Stop, Supervisor};
use std::sync::Arc;

pub async fn start_alerter(workers: &mut Supervisor, config: &Config, parts: &Parts, stop: &Stop) {
    // Before detection starts: what a crash kept between catalog and queue.
    if let Err(error) = parts.outbox.catch_up().await {
        tracing::error!(%error, "the outbox could not be published; it will be tried again");
    }
    for number in 0..config.alerter_workers {
        let detector = Detector {
            queues: parts.queues.clone(),
            catalog: Arc::clone(&parts.catalog),
            events: Arc::clone(&parts.events),
            coordination: Arc::clone(&parts.coordination),
            rulebook: parts.rulebook.clone(),
            detections: parts.detections.clone(),
            planner: parts.planner.clone(),
            outbox: parts.outbox.clone(),
            live: parts.live.clone(),
            clock: Arc::clone(&parts.clock),
            metrics: Arc::clone(&parts.metrics),
            health: parts.health.clone(),
            batch_max: config.batch_max,
            retries_max: config.event_retries_max,
        };
        if number == 0 {
            let (scheduler, scheduler_stop) = (Scheduler::new(detector.clone()), stop.clone());
            workers.spawn("schedules", async move {
                scheduler.run(scheduler_stop).await;
                Ok(())
            });
            let (beside, stop) = (detector.clone(), stop.clone());
            workers.spawn("correlations", async move {
                beside.correlate(stop).await;
                Ok(())
            });
        }
        let stop = stop.clone();
        workers.spawn("alerter", async move {
            detector.run(stop).await;
            Ok(())
        });
    }
    let keeper = Keeper {
        planner: parts.planner.clone(),
        catalog: Arc::clone(&parts.catalog),
        outbox: parts.outbox.clone(),
        clock: Arc::clone(&parts.clock),
        metrics: Arc::clone(&parts.metrics),
    };
    let keeper_stop = stop.clone();
    workers.spawn("incidents", async move {
        keeper.run(keeper_stop).await;
        Ok(())
    });
    let (rulebook, rules_stop) = (parts.rulebook.clone(), stop.clone());
    workers.spawn("rules", async move {
        rulebook.run(rules_stop).await;
        Ok(())
    });
    let (detections, catalog) = (parts.detections.clone(), Arc::clone(&parts.catalog));
    let detections_stop = stop.clone();
    workers.spawn("detection rules", async move {
        detections.run(catalog, detections_stop).await;
        Ok(())
    });
    let (outbox, outbox_stop) = (parts.outbox.clone(), stop.clone());
    workers.spawn("outbox", async move {
        outbox.run(outbox_stop).await;
        Ok(())
    });
}

pub fn start_forwarder(workers: &mut Supervisor, config: &Config, parts: &Parts, stop: &Stop) {
    let deliverer = Deliverer {
        queues: parts.queues.clone(),
        catalog: Arc::clone(&parts.catalog),
        coordination: Arc::clone(&parts.coordination),
        channels: parts.channels.clone(),
        router: Arc::clone(&config.router),
        live: parts.live.clone(),
        clock: Arc::clone(&parts.clock),
        metrics: Arc::clone(&parts.metrics),
        health: parts.health.clone(),
        concurrency: config.delivery_concurrency,
        retries_max: config.delivery_retries_max,
        backoff: Backoff::new(config.retry_base, config.retry_max),
    };
    let stop = stop.clone();
    workers.spawn("forwarder", async move {
        deliverer.run(stop).await;
        Ok(())
    });
}

pub fn start_remediation(workers: &mut Supervisor, config: &Config, parts: &Parts, stop: &Stop) {
    let remediator = Remediator {
        queues: parts.queues.clone(),
        catalog: Arc::clone(&parts.catalog),
        coordination: Arc::clone(&parts.coordination),
        channels: parts.channels.clone(),
        live: parts.live.clone(),
        clock: Arc::clone(&parts.clock),
        metrics: Arc::clone(&parts.metrics),
        health: parts.health.clone(),
        probe: config.remediation_probe,
    };
    let stop = stop.clone();
    workers.spawn("remediation", async move {
        remediator.run(stop).await;
        Ok(())
    });
}

/// Figures, live settings, health and retention: in every process, whatever its roles.
pub fn start_chores(workers: &mut Supervisor, config: &Config, parts: &Parts, acceptor: &Arc<Acceptor>, stop: &Stop) {
    let chores = Chores {
        queues: parts.queues.clone(),
        catalog: Arc::clone(&parts.catalog),
        coordination: Arc::clone(&parts.coordination),
        acceptor: Arc::clone(acceptor),
        live: parts.live.clone(),
        metrics: Arc::clone(&parts.metrics),
        health: parts.health.clone(),
    };
    // Once is enough: the alerter's process is where events are kept.
    if config.has(Role::Alerter) {
        let retention = Retention {
            catalog: Arc::clone(&parts.catalog),
            events: Arc::clone(&parts.events),
            coordination: Arc::clone(&parts.coordination),
            live: parts.live.clone(),
            metrics: Arc::clone(&parts.metrics),
            clock: Arc::clone(&parts.clock),
        };
        let (first_after, stop) = (config.retention_first_after, stop.clone());
        workers.spawn("retention", async move {
            retention.run(first_after, stop).await;
            Ok(())
        });
    }
    let stop = stop.clone();
    workers.spawn("watch", async move {
        chores.watch(stop).await;
        Ok(())
    });
}
