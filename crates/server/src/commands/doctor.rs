//! `muttd doctor`: what stands between this installation and its work.

use super::client::{http_client, own_https_client, running_near};
use super::{Global, out, print_problems};
use crate::config::{Config, Role};
use clap::Args;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;
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
    let loaded = match global.load_installed() {
        Ok(loaded) => loaded,
        Err(problems) => return print_problems(&problems),
    };
    let mut findings = vec![Finding::Good("the configuration is valid".into())];
    findings.extend(loaded.notes.iter().cloned().map(Finding::Note));
    let config = loaded.config;
    data_dir(&config, &mut findings);
    if let Some(server) = running_near(&config.data_dir) {
        let text = format!("a server runs on `{}` (process {})", server.data_dir.display(), server.pid);
        findings.push(Finding::Good(text));
    }
    ports(&config, &mut findings);
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

/// Each port is free, or a service of ours answers there.
fn ports(config: &Config, findings: &mut Vec<Finding>) {
    let mut taken = Vec::new();
    for listen in config.listens() {
        if let Err(error) = TcpListener::bind(listen.address) {
            taken.push((listen, "", error));
        }
    }
    for listen in config.listens_udp() {
        if let Err(error) = std::net::UdpSocket::bind(listen.address) {
            taken.push((listen, "/udp", error));
        }
    }
    if taken.is_empty() {
        findings.push(Finding::Good("every port is free".into()));
        return;
    }
    let ingest = config.http.as_ref().map(|http| http.listen.address);
    let asked = super::block_on(async {
        let mut findings = Vec::new();
        let ingestor = match ingest {
            Some(address) => service_at(config, address).await,
            None => None,
        };
        for (listen, udp, error) in taken {
            // Syslog, SNMP and the gateway for agents do not say whose they are: an ingestor of ours has them all.
            let service = if listen.setting.starts_with("ingest.") {
                ingestor.clone()
            } else {
                service_at(config, listen.address).await
            };
            findings.push(match service {
                Some(service) => {
                    Finding::Good(format!("{service} runs on {}{udp} ({})", listen.address, listen.setting))
                }
                None => Finding::Bad(format!("cannot listen on {}{udp} ({}): {error}", listen.address, listen.setting)),
            });
        }
        findings
    });
    findings.extend(asked.unwrap_or_default());
}

/// The service of ours that answers at this address of this host.
async fn service_at(config: &Config, mut address: SocketAddr) -> Option<String> {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    let patience = Duration::from_secs(5);
    let mut clients: Vec<_> = http_client(patience).ok().map(|http| (http, "http")).into_iter().collect();
    for tls in config.webui_tls.iter().chain(config.http.as_ref().and_then(|http| http.tls.as_ref())) {
        clients.extend(own_https_client(&tls.cert, patience).ok().map(|https| (https, "https")));
    }
    for (client, scheme) in clients {
        let Ok(answer) = client.get(format!("{scheme}://{address}/health")).send().await else { continue };
        let Ok(text) = answer.text().await else { continue };
        let body: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        if let Some(service) =
            body.get("service").and_then(serde_json::Value::as_str).filter(|s| s.starts_with("mutt-"))
        {
            return Some(service.to_owned());
        }
    }
    None
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
        findings.extend(
            config
                .channels_note()
                .map(|note| if config.only_records_alerts() { Finding::Note(note) } else { Finding::Bad(note) }),
        );
        return;
    }
    let probed = super::block_on(async {
        let mut findings = Vec::new();
        for channel in &config.channels {
            let name = channel.0.name();
            if let Some(secret) = config.awaits_vault(channel) {
                findings
                    .push(Finding::Note(format!("the channel `{name}` needs {secret} of Vault, so it is not asked")));
                continue;
            }
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
