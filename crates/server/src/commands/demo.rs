//! `muttd demo`: the whole product with sample events and a built-in receiver; what `make run` shows.

use super::{Global, block_on, print_failure, print_problems};
use crate::app::{App, Parts};
use crate::config::{self, Config, Listen, Overrides};
use crate::demo::{self, Feeder, Figures, Receiver, Story, Style};
use anyhow::{Context, Result};
use clap::Args;
use model::{InputKind, OrgId, Outcome, RejectReason};
use pipeline::metrics::{Metrics, labels};
use runtime::{Clock, Stop, Stopper, SystemClock};
use std::io::{IsTerminal, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use storage::catalog::Actor;

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Events sent per second
    #[arg(long, default_value_t = Feeder::RATE_PER_SECOND)]
    pub rate: u32,
    /// End after the summary instead of staying up
    #[arg(long)]
    pub exit: bool,
}

const DATA_DIR: &str = ".data/demo";

pub fn run(global: &Global, args: DemoArgs) -> ExitCode {
    match block_on(demo(global, args)) {
        Ok(Ok(Ok(()))) => ExitCode::SUCCESS,
        Ok(Ok(Err(problems))) => print_problems(&problems),
        Ok(Err(error)) => print_failure(&error),
        Err(error) => print_failure(&error.into()),
    }
}

type Configured = std::result::Result<(), Vec<runtime::config::Problem>>;

async fn demo(global: &Global, args: DemoArgs) -> Result<Configured> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (receiver, listening, arrivals) = Receiver::bind(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::clone(&clock))
        .context("failed to start the receiver")?;
    let dir = global.data_dir.clone().map_or_else(|| PathBuf::from(DATA_DIR), PathBuf::from);
    fresh(&dir)?;
    let mut environment = runtime::config::environment();
    environment.insert("MOOG_WEBHOOK_URL".into(), receiver.events_url());
    environment.entry("LOG_LEVEL".into()).or_insert_with(|| "error".into());
    let columns = environment.get("COLUMNS").and_then(|c| c.parse().ok());
    let overrides = Overrides { data_dir: Some(dir.display().to_string()), roles: None };
    let mut config = match config::load(global.config.as_deref(), &environment, &overrides) {
        Ok(loaded) => loaded.config,
        Err(problems) => return Ok(Err(problems)),
    };
    use_free_ports(&mut config);
    config.syslog.timezone = "UTC".into();
    runtime::logging::init(&config.log, Arc::clone(&clock)).map_err(|e| anyhow::anyhow!(e))?;
    let rules = dir.join("demo-rules.yml");
    std::fs::write(&rules, demo::RULES).with_context(|| format!("failed to write `{}`", rules.display()))?;
    config.rule_paths = vec![rules];

    let (stopper, stop) = Stopper::new();
    let app = App::build(config, Arc::clone(&clock), &stop).await?;
    let parts = app.parts().clone();
    prepare(&parts).await?;
    let addresses = app.addresses().clone();
    let (Some(ingest), Some(tcp), Some(udp)) = (addresses.ingest, addresses.syslog_tcp, addresses.syslog_udp) else {
        anyhow::bail!("the demo needs HTTP ingest and syslog by UDP and TCP switched on");
    };
    let feeder = Feeder {
        ingest_url: format!("http://{ingest}/api/v2/ingest"),
        api_key: app.ingest_key.preferred(),
        syslog_tcp: tcp,
        syslog_udp: udp,
        rate_per_second: args.rate.max(1),
        clock: Arc::clone(&clock),
    };
    let guide = guide(&app, &dir, &receiver.stats_url());
    let server = tokio::spawn(app.run(stop.clone()));
    let receiving = tokio::spawn(listening.run(stop.clone()));
    let interrupted = tokio::spawn(interrupt(stopper.clone(), stop.clone()));
    let style = Style::new(std::io::stdout().is_terminal(), columns);
    let metrics = Arc::clone(&parts.metrics);
    let mut out = std::io::stdout();
    let (_, arrivals) = demo::story(Story {
        feeder,
        receiver,
        arrivals,
        figures: move || figures(&metrics),
        out: &mut out,
        style,
        stop: stop.clone(),
    })
    .await?;
    if !args.exit && !stop.is_requested() {
        out.write_all(guide.as_bytes())?;
        out.flush()?;
        demo::watch(arrivals, &mut out, style, stop.clone()).await?;
    }
    stopper.stop();
    let clean = server.await.context("the server failed")?;
    receiving.await.context("the receiver failed")?;
    interrupted.abort();
    if !clean {
        anyhow::bail!("the server did not stop clean");
    }
    Ok(Ok(()))
}

/// The demonstration always tells the same story: it starts from nothing.
fn fresh(dir: &Path) -> Result<()> {
    let ours = dir.join("demo-rules.yml");
    if dir.exists() && !ours.exists() && std::fs::read_dir(dir)?.next().is_some() {
        anyhow::bail!(
            "`{}` holds something else than an earlier demo; name another folder with --data-dir",
            dir.display()
        );
    }
    match std::fs::remove_dir_all(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("failed to empty `{}`", dir.display())),
    }
    crate::keys::private_dir(dir)?;
    Ok(())
}

/// A port that somebody else has becomes any free one: the demo must not fail for that.
fn use_free_ports(config: &mut Config) {
    let fix = |listen: Option<&mut Listen>| {
        if let Some(listen) = listen {
            let udp_too = UdpSocket::bind(listen.address).is_ok();
            if TcpListener::bind(listen.address).is_err() || !udp_too {
                listen.address.set_port(0);
            }
        }
    };
    fix(config.http.as_mut().map(|h| &mut h.listen));
    fix(config.agents.as_mut().map(|agents| &mut agents.listen));
    fix(config.syslog.udp.as_mut());
    fix(config.syslog.tcp.as_mut());
    fix(config.webui_listen.as_mut());
    for pair in [&mut config.alerter_listen, &mut config.forwarder_listen, &mut config.remediation_listen] {
        fix(pair.metrics.as_mut());
        fix(pair.health.as_mut());
    }
}

async fn prepare(parts: &Parts) -> Result<()> {
    let org = OrgId::default();
    let by = Actor {
        name: "demo".into(),
        reason: Some("sample data".into()),
        correlation_id: uuid::Uuid::new_v4().to_string(),
        at: parts.clock.now(),
    };
    for host in demo::DEV_HOSTS {
        parts.catalog.add_dev_host(&org, host, &by).await?;
    }
    for (host, team) in demo::DEVICE_TEAMS {
        parts.catalog.add_team(&org, host, team, &by).await?;
    }
    parts.rulebook.reload().await?;
    Ok(())
}

fn figures(metrics: &Metrics) -> Figures {
    let accepted = InputKind::ALL
        .iter()
        .map(|input| metrics.events_accepted.get_or_create(&labels([("input", input.as_str())])).get())
        .sum();
    let rejected = RejectReason::ALL
        .iter()
        .map(|reason| {
            let count: u64 = InputKind::ALL
                .iter()
                .map(|input| labels([("input", input.as_str()), ("reason", reason.as_str())]))
                .filter_map(|series| metrics.events_rejected.get(&series).map(|counter| counter.get()))
                .sum();
            (reason.as_str().to_owned(), count)
        })
        .filter(|(_, count)| *count > 0)
        .collect();
    Figures {
        accepted,
        rejected,
        lost_in_kernel: metrics
            .events_lost_in_kernel
            .get_or_create(&labels([("input", InputKind::SyslogUdp.as_str())]))
            .get(),
        matched: metrics.settled(Outcome::Handled),
        unhandled: metrics.settled(Outcome::Unhandled),
        duplicates: metrics.settled(Outcome::Duplicate),
        dead_lettered: metrics.settled(Outcome::DeadLettered),
        alerts: metrics.alerter_alerts_forwarded.get(),
        meta_alerts: metrics.alerter_unhandled_meta_alerts.get(),
        delivered: metrics.moog_alerts_processed.get_or_create(&labels([("status", "success")])).get(),
    }
}

fn guide(app: &App, dir: &Path, stats: &str) -> String {
    let addresses = app.addresses();
    let show = |address: Option<SocketAddr>| address.map_or_else(|| "off".to_owned(), |a| a.to_string());
    let key_file =
        |key: &crate::keys::Key| key.file.as_ref().map_or_else(|| "(given)".to_owned(), |f| f.display().to_string());
    let (ingest, web) = (show(addresses.ingest), show(addresses.webui));
    let (ingest_key, web_key) = (key_file(&app.ingest_key), key_file(&app.webui_key));
    format!(
        "
It stays up; Ctrl-C stops it. Try, in another terminal:

  an event of your own (the rule CRITICAL pages NETO, and the alert appears above):
    curl -s http://{ingest}/api/v2/ingest -H \"X-API-KEY: $(cat {ingest_key})\" \\
      -H 'Content-Type: application/json' \\
      -d '{{\"hostname\":\"my-host\",\"message\":\"CRITICAL: it burns\",\"timestamp\":\"2026-01-01T00:00:00Z\"}}'
  the same by syslog:
    logger --server 127.0.0.1 --port {udp} --udp 'CRITICAL: it burns by syslog'
  what happened to an event (the id is in curl's answer):
    target/release/muttd trace evt_... --data-dir {dir}
  rules, alerts, events, dead letters:
    curl -s http://{web}/api/v2/rules  -H \"X-API-KEY: $(cat {web_key})\"
    curl -s http://{web}/api/v2/alerts -H \"X-API-KEY: $(cat {web_key})\"
    curl -s http://{web}/api/v2/events -H \"X-API-KEY: $(cat {web_key})\"
    target/release/muttd queue ls --data-dir {dir}
  an agent, here or on any host that reaches this one (`make agents` builds it):
    SM_TOKEN=$(target/release/muttd admin token create --data-dir {dir}) \\
      target/agents/sm-agent-linux-* -ingest {agents} -data-dir ./sm-agent-data
    target/release/muttd agents list --data-dir {dir}
  what the built-in receiver got:
    curl -s {stats}
  figures:  curl -s http://{ingest}/metrics      health: curl -s http://{ingest}/health

  syslog: UDP {udp_all}, TCP {tcp}     data and keys: {dir}

",
        udp = addresses.syslog_udp.map_or(0, |a| a.port()),
        agents = show(addresses.agents),
        udp_all = show(addresses.syslog_udp),
        tcp = show(addresses.syslog_tcp),
        dir = dir.display(),
    )
}

async fn interrupt(stopper: Stopper, stop: Stop) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        () = stop.requested() => {}
    }
    stopper.stop();
}
