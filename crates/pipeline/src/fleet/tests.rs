//! What the registry decides; the fleet over a real catalog is tested in `tests/fleet.rs`.

use super::registry::{Registry, Standing};
use connectors::inputs::grpc::Identity;
use model::Timestamp;
use std::time::Duration;
use storage::catalog::fleet::HostFacts;
use wire::{Hello, MitigateRequest};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn who() -> Identity {
    Identity { org: "acme".parse().unwrap(), agent: "agt_1".into(), host: "web-1".into(), alias: None, any_host: false }
}

fn hello(boot_id: &str, spool_epoch: u64) -> Hello {
    Hello { boot_id: boot_id.to_owned(), spool_epoch, ..Hello::default() }
}

fn open(registry: &mut Registry, boot_id: &str, epoch: u64) -> (u64, Standing) {
    let opened = registry.open(&who(), &hello(boot_id, epoch), HostFacts::default(), NOW);
    (opened.number, opened.spool)
}

#[test]
fn a_spool_is_told_how_far_it_came_whatever_became_of_its_sessions() {
    let mut registry = Registry::default();
    let (first, acked) = open(&mut registry, "boot-1", 7);
    assert_eq!(acked, Standing::Acked(None));
    registry.acked(&who(), 7, 41);
    registry.acked(&who(), 7, 40);
    registry.close(&who(), first);
    assert_eq!(open(&mut registry, "boot-1", 7).1, Standing::Acked(Some(41)), "an older word takes nothing back");
    assert_eq!(open(&mut registry, "boot-1", 8).1, Standing::Acked(None), "another spool begins anew");
}

#[test]
fn what_the_catalog_remembers_counts_until_something_is_heard() {
    let mut registry = Registry::default();
    registry.know(&who(), None, None);
    registry.remember_spool(&who(), 7, 41);
    assert_eq!(open(&mut registry, "boot-1", 7).1, Standing::Acked(Some(41)));
    registry.acked(&who(), 7, 50);
    registry.remember_spool(&who(), 7, 41);
    assert_eq!(open(&mut registry, "boot-1", 7).1, Standing::Acked(Some(50)));
}

#[test]
fn a_host_that_is_started_again_and_again_is_no_copy() {
    let mut registry = Registry::default();
    for n in 0..20 {
        let boot_id = format!("boot-{n}");
        assert_eq!(open(&mut registry, &boot_id, 7).1, Standing::Acked(None));
        assert_eq!(open(&mut registry, &boot_id, 7).1, Standing::Acked(None), "it connects twice");
    }
    assert_eq!(registry.sessions(), 40);
}

#[test]
fn of_two_hosts_with_one_certificate_and_one_spool_one_takes_another_name() {
    let mut registry = Registry::default();
    open(&mut registry, "boot-1", 7);
    assert_eq!(open(&mut registry, "boot-2", 7).1, Standing::Acked(None), "it may be the same host");
    assert_eq!(open(&mut registry, "boot-1", 7).1, Standing::Copied { is_news: true }, "no boot comes back");
    assert_eq!(open(&mut registry, "boot-1", 7).1, Standing::Copied { is_news: false });
    for (boot_id, epoch) in [("boot-1", 99), ("boot-2", 7), ("boot-1", 99), ("boot-2", 7)] {
        assert_eq!(open(&mut registry, boot_id, epoch).1, Standing::Acked(None), "two names, no quarrel");
    }
}

#[test]
fn a_session_is_closed_once() {
    let mut registry = Registry::default();
    let (first, _) = open(&mut registry, "boot-1", 7);
    open(&mut registry, "boot-1", 7);
    registry.close(&who(), first);
    registry.close(&who(), first);
    assert_eq!(registry.sessions(), 1);
}

#[test]
fn changes_are_told_once_and_come_back_when_they_could_not_be_written() {
    let mut registry = Registry::default();
    let (number, _) = open(&mut registry, "boot-1", 7);
    registry.acked(&who(), 7, 5);
    registry.status(&who(), "{}".to_owned());
    let changes = registry.changes();
    assert_eq!((changes.len(), changes[0].connected, changes[0].acked_seq), (1, true, 5));
    assert_eq!(changes[0].status.as_deref(), Some("{}"));
    assert!(registry.changes().is_empty());
    registry.put_back(changes.clone());
    assert_eq!(registry.changes(), changes);
    registry.close(&who(), number);
    assert_eq!(registry.changes().first().map(|change| change.connected), Some(false));
    registry.forget(NOW.plus(Duration::from_secs(1)));
    assert!(registry.get(&who().org, "agt_1").is_none());
}

#[test]
fn a_command_waits_for_its_host_but_not_for_ever_and_not_without_bound() {
    let mut registry = Registry::default();
    let command = |n: usize| MitigateRequest { request_id: n.to_string(), ..MitigateRequest::default() };
    assert!(registry.command(&who(), command(1), NOW));
    let later = NOW.plus(Duration::from_secs(601));
    assert!(registry.command(&who(), command(2), later));
    let mut commands = registry.take_commands(&who(), later);
    assert_eq!(commands.try_recv().unwrap().request_id, "2", "the first is too old");
    assert!(registry.command(&who(), command(3), later));
    assert_eq!(commands.try_recv().unwrap().request_id, "3");
    drop(commands);
    assert!((0..100).all(|n| registry.command(&who(), command(n), later)));
    assert!(!registry.command(&who(), command(100), later));
    assert_eq!(registry.take_commands(&who(), later).len(), 100);
}
