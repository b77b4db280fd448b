//! What agents cost, and what their gateway holds.

use super::{cell, shown, table};
use crate::agents::{CORES, CROWDS, RATES};
use crate::record::Record;

pub fn agents(record: &Record) -> String {
    let mut rows = Vec::new();
    for crowd in CROWDS {
        let name = |what: &str| format!("agents/{crowd}/{what}");
        rows.push(vec![
            crowd.to_string(),
            cell(record, &name("session_kb")),
            cell(record, &name("sessions_per_gb")),
            cell(record, &name("enrolments_rate")),
            cell(record, &name("connect_rate")),
            cell(record, &name("records_rate")),
            cell(record, &name("storm_seconds")),
            cell(record, &name("storm_missing")),
        ]);
    }
    let note = "Simulated agents on the same two cores as the server: TLS 1.3 with client certificates, HTTP/2, one \
                session each, 64 at one time on their way. Enrolments and connections include the clients' half of the \
                cryptography. Records come from 200 of the agents in batches of 100 of 200 bytes, each batch durable \
                before the next is sent. The storm: the server is killed and started on its data, and all agents come \
                back at once.";
    let header = [
        "agents",
        "KB a session",
        "sessions a GB",
        "enrolments/s",
        "connections/s",
        "records/s",
        "storm, s",
        "did not come back",
    ];
    let mut text = table("Gateway for agents", note, &header, &rows);
    text.push('\n');
    let mut rows = Vec::new();
    let large = [(format!("100, and sees {CORES} cores"), format!("agent/100@{CORES}"))];
    for (shown_rate, name) in RATES.map(|rate| (rate.to_string(), format!("agent/{rate}"))).into_iter().chain(large) {
        let name = |what: &str| format!("{name}/{what}");
        rows.push(vec![
            shown_rate,
            cell(record, &name("cpu_percent")),
            cell(record, &name("rss_mb")),
            cell(record, &name("rsyslog_cpu_percent")),
            shown(record.ratio(&name("cpu_percent"), &name("rsyslog_cpu_percent"))),
            cell(record, &name("rsyslog_rss_mb")),
        ]);
    }
    let note = "`sm-agent` with every collector that can run, following one file; CPU in percent of one core, highest \
                memory. The peer is rsyslog with imfile and omfwd over plain TCP: no encryption, no identity, and nothing \
                kept once it is sent.";
    let header = ["lines/s", "CPU %", "peak MB", "rsyslog CPU %", "÷ rsyslog", "rsyslog peak MB"];
    text.push_str(&table("Agent on its host", note, &header, &rows));
    text
}
