//! `muttd doctor`: what stands between this installation and its work.

use super::client::running;
use super::{Global, out, print_problems};
use crate::config::{Config, Role};
use clap::Args;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::process::ExitCode;
use storage::StorageResult;
use storage::catalog::CatalogConfig;

#[derive(Debug, Args)]
pub struct DoctorArgs {}

enum Finding {
    Good(String),
    Note(String),
    Bad(String),
}

pub fn run(global: &Global, _: &DoctorArgs) -> ExitCode {
    let loaded = match global.load(None) {
        Ok(loaded) => loaded,
        Err(problems) => return print_problems(&problems),
    };
    let mut findings = vec![Finding::Good("the configuration is valid".into())];
    findings.extend(loaded.notes.iter().cloned().map(Finding::Note));
    let config = loaded.config;
    data_dir(&config, &mut findings);
    match running(&config) {
        Some((pid, _)) => findings.push(Finding::Good(format!("the server runs (process {pid})"))),
        None => ports(&config, &mut findings),
    }
    stores(&config, &mut findings);
    rules(&config, &mut findings);
    channels(&config, &mut findings);
    kernel(&config, &mut findings);
    let mut text = String::new();
    let mut bad = 0;
    for finding in findings {
        let (mark, sentence) = match finding {
            Finding::Good(s) => ("ok  ", s),
            Finding::Note(s) => ("note", s),
            Finding::Bad(s) => {
                bad += 1;
                ("BAD ", s)
            }
        };
        let _ = writeln!(text, "{mark}  {sentence}");
    }
    out(&text);
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn data_dir(config: &Config, findings: &mut Vec<Finding>) {
    let dir = &config.data_dir;
    if !dir.exists() {
        findings.push(Finding::Note(format!(
            "the data directory `{}` does not exist yet; the first start makes it",
            dir.display()
        )));
        return;
    }
    let probe = dir.join(".doctor");
    match std::fs::write(&probe, b"x").and_then(|()| std::fs::File::open(&probe)).and_then(|f| f.sync_all()) {
        Ok(()) => findings.push(Finding::Good(format!("the data directory `{}` can be written", dir.display()))),
        Err(error) => {
            findings.push(Finding::Bad(format!("the data directory `{}` cannot be written: {error}", dir.display())))
        }
    }
    let _ = std::fs::remove_file(&probe);
    if let Ok(stat) = rustix::fs::statvfs(dir) {
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let gib = free / (1 << 30);
        if free < 2 << 30 {
            findings.push(Finding::Bad(format!("only {} MiB are free for the data directory", free >> 20)));
        } else {
            findings.push(Finding::Good(format!("{gib} GiB are free for the data directory")));
        }
    }
}

fn ports(config: &Config, findings: &mut Vec<Finding>) {
    let mut taken = Vec::new();
    for listen in config.listens() {
        if let Err(error) = TcpListener::bind(listen.address) {
            taken.push(format!("{} ({}): {error}", listen.address, listen.setting));
        }
    }
    if let Some(udp) = config.syslog.udp.as_ref().filter(|_| config.has(Role::Ingestor))
        && let Err(error) = std::net::UdpSocket::bind(udp.address)
    {
        taken.push(format!("{}/udp ({}): {error}", udp.address, udp.setting));
    }
    if taken.is_empty() {
        findings.push(Finding::Good("every port is free".into()));
    }
    findings.extend(taken.into_iter().map(|t| Finding::Bad(format!("cannot listen on {t}"))));
}

/// Redis, PostgreSQL and Vault, where they are used.
fn stores(config: &Config, findings: &mut Vec<Finding>) {
    let uses_postgres = matches!(config.stores.catalog, CatalogConfig::Postgres(_));
    if config.stores.redis().is_none() && config.stores.vault.is_none() && !uses_postgres {
        return;
    }
    let asked = super::block_on(async {
        let secrets = match crate::app::secrets_for_command(config).await {
            Ok(secrets) => secrets,
            Err(error) => return vec![Finding::Bad(format!("the secrets are not there: {error:#}"))],
        };
        let mut findings = Vec::new();
        if config.stores.vault.is_some() {
            findings.push(Finding::Good("Vault gives every secret that is needed".into()));
        }
        let stores = config.stores.with_logins(&secrets.redis_credentials(), |user| secrets.database_credentials(user));
        if let Some(redis) = stores.redis() {
            let good = format!("Redis at {} answers and keeps what it takes", redis.place);
            findings.extend(judged("Redis", good, storage::redis_advice(redis).await));
        }
        if let CatalogConfig::Postgres(postgres) = &stores.catalog {
            let good = format!("PostgreSQL at {}:{} answers, with our schema", postgres.host, postgres.port);
            findings.extend(judged("PostgreSQL", good, storage::catalog::postgres_advice(postgres).await));
        }
        findings
    });
    findings.extend(asked.unwrap_or_default());
}

fn judged(store: &str, good: String, advice: StorageResult<Vec<String>>) -> Vec<Finding> {
    match advice {
        Ok(advice) if advice.is_empty() => vec![Finding::Good(good)],
        Ok(advice) => advice.into_iter().map(|text| Finding::Note(format!("{store}: {text}"))).collect(),
        Err(error) => vec![Finding::Bad(format!("{store} cannot be used: {error}"))],
    }
}

/// Active rules of the catalog that cannot be used: what they were to page about pages nobody.
fn rules(config: &Config, findings: &mut Vec<Finding>) {
    let asked = super::block_on(async {
        let secrets = crate::app::secrets_for_command(config).await?;
        let stores = config.stores.with_logins(&secrets.redis_credentials(), |user| secrets.database_credentials(user));
        // A catalog that is to be made, or adopted, is none that can be read yet.
        if !storage::catalog::pending_steps(&stores.catalog).await?.is_empty() {
            return Ok(Vec::new());
        }
        let rules = storage::catalog::open_as_it_is(stores.catalog).await?.all_rules().await?;
        let (set, problems) = ::rules::RuleSet::compile(rules.into_iter().map(|(_, rule)| rule).collect());
        Ok::<_, anyhow::Error>(match problems.len() {
            0 => vec![Finding::Good(format!("all {} active rules of the catalog can be used", set.len()))],
            _ => problems.iter().map(|problem| Finding::Bad(problem.to_string())).collect(),
        })
    });
    // Why a store cannot be asked is said above.
    if let Ok(Ok(asked)) = asked {
        findings.extend(asked);
    }
}

fn channels(config: &Config, findings: &mut Vec<Finding>) {
    if config.channels.is_empty() {
        findings.push(Finding::Note("no alert channel is configured: alerts are kept in the catalog only".into()));
        return;
    }
    let probed = super::block_on(async {
        let mut findings = Vec::new();
        for channel in &config.channels {
            let name = channel.0.name();
            let answer = match connectors::channels::open(channel.0.clone()) {
                Ok(channel) => channel.probe().await,
                Err(error) => Err(error),
            };
            findings.push(match answer {
                Ok(()) => Finding::Good(format!("the channel `{name}` answers")),
                Err(error) => Finding::Bad(format!("the channel `{name}` does not answer: {error}")),
            });
        }
        findings
    });
    if let Ok(probed) = probed {
        findings.extend(probed);
    }
}

fn kernel(config: &Config, findings: &mut Vec<Finding>) {
    if config.syslog.udp.is_none() || !config.has(Role::Ingestor) {
        return;
    }
    let max = std::fs::read_to_string("/proc/sys/net/core/rmem_max").ok().and_then(|t| t.trim().parse::<usize>().ok());
    if let Some(max) = max.filter(|max| *max < config.syslog.receive_buffer_bytes) {
        findings.push(Finding::Note(format!(
            "net.core.rmem_max is {max}, below ingest.syslog.receive_buffer_bytes {}: bursts of UDP may be lost (sysctl -w net.core.rmem_max={})",
            config.syslog.receive_buffer_bytes, config.syslog.receive_buffer_bytes
        )));
    }
}
