//! `kill -9` of agents and control plane at any moment: each line of each host is one event, in order.
//!
//! `AGENT_CHAOS_ROUNDS` sets the rounds (default 25, what CI runs).

use crate::hosts::{Host, Writer, check, configure_gateway, token};
use crate::process::start;
use std::net::TcpListener;
use std::time::Duration;

const HOSTS: usize = 2;

fn rounds() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "a knob of the test, not of the product")]
    let text = std::env::var("AGENT_CHAOS_ROUNDS");
    text.ok().and_then(|t| t.parse().ok()).unwrap_or(25)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_of_an_agent_is_lost_doubled_or_out_of_order_by_kill_9_of_both_ends() {
    let dir = tempfile::tempdir().unwrap();
    let agents = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    configure_gateway(dir.path(), agents);
    let mut server = start(dir.path(), "http://127.0.0.1:9/").await;
    let token = token(&server).await;

    let mut hosts: Vec<Host> = (0..HOSTS).map(|n| Host::new(dir.path(), n)).collect();
    hosts.iter_mut().for_each(|host| host.start(agents, &token));
    hosts.iter().for_each(Host::until_following);
    let writers: Vec<Writer> = hosts.iter().enumerate().map(|(n, host)| Writer::start(host, n as u64)).collect();
    // The first lines say which file is followed, whatever becomes of it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut random = fastrand::Rng::with_seed(0x6167_7473);
    for _ in 0..rounds() {
        tokio::time::sleep(Duration::from_millis(random.u64(20..700))).await;
        let (ends_server, ends_agents) = [(true, false), (false, true), (true, true)][random.usize(0..3)];
        if ends_agents {
            hosts.iter_mut().for_each(Host::kill);
        }
        if ends_server {
            server.kill();
            tokio::time::sleep(Duration::from_millis(random.u64(0..300))).await;
            server = start(dir.path(), "http://127.0.0.1:9/").await;
        }
        if ends_agents {
            hosts.iter_mut().for_each(|host| host.start(agents, &token));
        }
    }
    let totals: Vec<usize> = writers.into_iter().map(Writer::end).collect();
    check(&server, &hosts, &totals).await;
    println!("agents: {} rounds, {totals:?} lines", rounds());
}
