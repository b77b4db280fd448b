//! Agents: how they come in, are seen, fall silent and are thrown out.

use super::fleet::token;
use super::settings::changes;
use super::{Store, admin, at, home, kind, org, page};
use crate::catalog::ConfigChangeFilter;
use crate::catalog::fleet::{
    Agent, AgentFilter, AgentState, Enrolled, Enrolment, HostFacts, NewToken, Sighting, TokenId,
};
use model::{ErrorKind, OrgId};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::task::JoinSet;

const ALL: &AgentFilter = &AgentFilter { host: None, state: None };

fn facts(host: &str) -> HostFacts {
    HostFacts {
        hostname: host.into(),
        machine_id: "m-1".into(),
        boot_id: format!("boot of {host}"),
        version: "2.0.0".into(),
        os_type: "linux".into(),
        os_version: "Debian 12".into(),
        ip_address: "2001:db8::7".into(),
        capabilities: vec!["files".into(), "journal".into()],
    }
}

fn id(number: u64) -> String {
    format!("agt_{number:026}")
}

fn key(number: u64) -> [u8; 32] {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key
}

/// Agent number `number`, which has key number `number`, at second `number`.
fn enrolment(token: TokenId, number: u64, host: &str) -> Enrolment {
    Enrolment {
        org: home(),
        token,
        id: id(number),
        key: Some(key(number)),
        facts: facts(host),
        certificate_ends_at: Some(at(10_000)),
        at: at(number),
    }
}

fn sighting(number: u64, seen: u64) -> Sighting {
    Sighting {
        org: home(),
        id: id(number),
        at: at(seen),
        connected: true,
        epoch: 1,
        acked_seq: seen,
        facts: None,
        status: None,
    }
}

fn new(enrolled: Enrolled) -> Agent {
    match enrolled {
        Enrolled::New { agent, .. } => agent,
        other @ (Enrolled::Again(_) | Enrolled::BadToken | Enrolled::Revoked | Enrolled::TooMany) => {
            panic!("{other:?}")
        }
    }
}

async fn any_token(catalog: &Store) -> TokenId {
    let token = NewToken { legacy: true, expires_at: at(1_000_000), ..token(1) };
    catalog.add_token(&home(), token, &admin(0)).await.unwrap()
}

async fn enrolled(catalog: &Store, token: TokenId, number: u64, host: &str) -> Agent {
    new(catalog.enrol(enrolment(token, number, host)).await.unwrap())
}

pub async fn agents_come_in_and_come_back(open: &impl AsyncFn(&'static str) -> Store) {
    let catalog = open("agents").await;
    let token = any_token(&catalog).await;
    let hostile = HostFacts {
        hostname: "web\u{0}-\u{1b}[1m1".into(),
        capabilities: (0..1_000).map(|n| format!("{n}\n{}", "x".repeat(100))).collect(),
        os_version: "ö".repeat(5_000),
        ..facts("web-1")
    };
    let enrolment_of_one = Enrolment { facts: hostile.clone(), ..enrolment(token, 1, "web-1") };
    let agent = new(catalog.enrol(enrolment_of_one).await.unwrap());
    assert_eq!((agent.id.as_str(), agent.host.as_str(), &agent.org), (&*id(1), "web-[1m1", &home()));
    assert_eq!((agent.key, agent.token, agent.enrolled_at), (Some(key(1)), Some(token), at(1)));
    assert_eq!((agent.certificate_ends_at, agent.last_seen_at), (Some(at(10_000)), None));
    assert_eq!((agent.connected, agent.silent, agent.revoked_at, &agent.status), (false, false, None, &None));
    assert_eq!(agent.facts, hostile.bounded());
    assert_eq!((agent.facts.capabilities.len(), agent.facts.os_version.chars().count()), (128, 255));
    assert_eq!(agent.state(), AgentState::Pending);

    let renamed = Enrolment {
        id: id(99),
        facts: facts("other-name"),
        certificate_ends_at: Some(at(20_000)),
        ..enrolment(token, 1, "")
    };
    let Enrolled::Again(again) = catalog.enrol(renamed).await.unwrap() else { panic!("the same key") };
    assert_eq!((&again.id, &again.host, again.certificate_ends_at), (&id(1), &agent.host, Some(at(20_000))));
    assert_eq!(again.facts, facts("other-name"));
    for bad in ["", "agt_", "agt_UPPER0000000000000000000", "web-1"] {
        let refused = catalog.enrol(Enrolment { id: bad.into(), ..enrolment(token, 2, "x") }).await;
        assert_eq!(kind(refused), ErrorKind::Invalid, "{bad}");
    }
    assert_eq!(kind(catalog.enrol(enrolment(token, 2, "")).await), ErrorKind::Invalid, "it must be called something");
    let taken = catalog.enrol(Enrolment { id: id(1), ..enrolment(token, 2, "web-2") }).await;
    assert_eq!(kind(taken), ErrorKind::Conflict, "an id is one agent's");
    drop(catalog);

    let catalog = open("agents").await;
    assert_eq!(catalog.agent(&home(), &id(1)).await.unwrap(), again);
    assert_eq!(catalog.agents(&home(), ALL, page(1, 10)).await.unwrap().rows, [again]);
    let uses = catalog.tokens(&home()).await.unwrap()[0].uses;
    assert_eq!(uses, 1, "none for the same key, none for what was refused");
}

pub async fn a_token_gives_as_many_certificates_as_it_may(catalog: &Store) {
    let token = catalog.add_token(&home(), NewToken { uses_max: Some(5), ..token(1) }, &admin(0)).await.unwrap();
    let mut asking = JoinSet::new();
    for number in 0..40 {
        let (catalog, enrolment) = (Arc::clone(catalog), enrolment(token, number, &format!("host-{number}")));
        asking.spawn(async move { catalog.enrol(enrolment).await.unwrap() });
    }
    let (mut given, mut refused) = (Vec::new(), 0);
    while let Some(answer) = asking.join_next().await {
        match answer.unwrap() {
            Enrolled::New { agent, instead_of: None } => given.push(agent),
            Enrolled::BadToken => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((given.len(), refused), (5, 35));
    assert_eq!(catalog.tokens(&home()).await.unwrap()[0].uses, 5);
    assert_eq!(catalog.agents(&home(), ALL, page(1, 100)).await.unwrap().total, 5);
    // The answer may have been lost on its way.
    let mut lost = enrolment(token, 0, &given[0].host);
    lost.key = given[0].key;
    assert!(matches!(catalog.enrol(lost).await.unwrap(), Enrolled::Again(agent) if agent.id == given[0].id));
}

pub async fn bad_tokens_give_nothing(catalog: &Store) {
    catalog.create_org(&org("acme"), "", None, &admin(0)).await.unwrap();
    let good = catalog.add_token(&home(), token(1), &admin(0)).await.unwrap();
    let revoked = catalog.add_token(&home(), token(2), &admin(0)).await.unwrap();
    catalog.revoke_token(&home(), revoked, &admin(0)).await.unwrap();
    let over = catalog.add_token(&home(), NewToken { expires_at: at(1), ..token(3) }, &admin(0)).await.unwrap();
    let theirs = catalog.add_token(&org("acme"), token(4), &admin(0)).await.unwrap();
    let bad = async |enrolment| assert_eq!(catalog.enrol(enrolment).await.unwrap(), Enrolled::BadToken);
    for token in [revoked, over, theirs, theirs + 99] {
        bad(enrolment(token, 1, "web-1")).await;
    }
    bad(Enrolment { org: org("acme"), ..enrolment(good, 1, "web-1") }).await;
    bad(Enrolment { org: org("none"), ..enrolment(good, 1, "web-1") }).await;
    bad(Enrolment { key: None, ..enrolment(good, 1, "web-1") }).await;
    catalog.change_org(&org("acme"), "", None, true, &admin(0)).await.unwrap();
    bad(Enrolment { org: org("acme"), ..enrolment(theirs, 1, "web-1") }).await;
    enrolled(catalog, good, 1, "web-1").await;
}

pub async fn names_are_taken_by_rule(catalog: &Store) {
    let token = any_token(catalog).await;
    let bound = NewToken { host: Some("db-1".into()), ..super::fleet::token(2) };
    let bound = catalog.add_token(&home(), bound, &admin(0)).await.unwrap();
    assert_eq!(enrolled(catalog, bound, 1, "what-it-says").await.host, "db-1", "the token's name counts");

    // Seen once and not connected: the host was set up anew.
    catalog.sighted(vec![Sighting { connected: false, ..sighting(1, 10) }]).await.unwrap();
    let before = catalog.fleet_revision().await.unwrap();
    let Enrolled::New { agent, instead_of } = catalog.enrol(enrolment(token, 20, "db-1")).await.unwrap() else {
        panic!()
    };
    assert_eq!((agent.host.as_str(), instead_of), ("db-1", Some(id(1))));
    assert!(catalog.fleet_revision().await.unwrap() > before, "somebody was revoked");
    let old = catalog.agent(&home(), &id(1)).await.unwrap();
    assert_eq!((old.state(), old.revoked_at), (AgentState::Revoked, Some(at(20))));
    assert_eq!(old.revoked_why, Some(format!("replaced by {}", id(20))));
    assert_eq!(catalog.enrol(enrolment(token, 1, "db-1")).await.unwrap(), Enrolled::Revoked);

    // Connected: a copy.
    catalog.sighted(vec![sighting(20, 25)]).await.unwrap();
    let Enrolled::New { agent, instead_of } = catalog.enrol(enrolment(token, 30, "db-1")).await.unwrap() else {
        panic!()
    };
    assert_eq!((agent.host.as_str(), instead_of), ("db-1-000030", None));
    let twin = Enrolment { id: format!("agt_1{}", &id(30)[5..]), ..enrolment(token, 31, "db-1") };
    let twin = new(catalog.enrol(twin).await.unwrap());
    assert_eq!(twin.host, format!("db-1-{}", twin.id), "even the end of its id is in use");

    // Copies that start at once; the same boot is the same host.
    assert_eq!(enrolled(catalog, token, 40, "copy").await.host, "copy");
    let other_boot =
        Enrolment { facts: HostFacts { boot_id: "other".into(), ..facts("copy") }, ..enrolment(token, 41, "copy") };
    assert_eq!(new(catalog.enrol(other_boot).await.unwrap()).host, "copy-000041");
    let Enrolled::New { agent, instead_of } = catalog.enrol(enrolment(token, 42, "copy")).await.unwrap() else {
        panic!()
    };
    assert_eq!((agent.host.as_str(), instead_of), ("copy", Some(id(40))));
    let late =
        Enrolment { facts: HostFacts { boot_id: "late".into(), ..facts("copy") }, ..enrolment(token, 103, "copy") };
    let Enrolled::New { instead_of, .. } = catalog.enrol(late).await.unwrap() else { panic!() };
    assert_eq!(instead_of, Some(id(42)), "it was never seen in its first minute");

    let long = "x".repeat(255);
    assert_eq!(enrolled(catalog, token, 200, &long).await.host, long);
    catalog.sighted(vec![sighting(200, 201)]).await.unwrap();
    let cut = enrolled(catalog, token, 202, &long).await.host;
    assert!(cut.chars().count() == 255 && cut.ends_with("x-000202"), "{cut}");
}

pub async fn of_copies_that_enrol_at_once_each_has_its_own_name(catalog: &Store) {
    let token = any_token(catalog).await;
    let mut asking = JoinSet::new();
    for number in 0..20 {
        let boot_id = format!("boot {number}");
        let copy =
            Enrolment { facts: HostFacts { boot_id, ..facts("copy") }, at: at(5), ..enrolment(token, number, "") };
        let catalog = Arc::clone(catalog);
        asking.spawn(async move { new(catalog.enrol(copy).await.unwrap()).host });
    }
    let hosts: BTreeSet<String> = asking.join_all().await.into_iter().collect();
    assert_eq!(hosts.len(), 20);
    assert!(hosts.contains("copy"));
    let counts = catalog.agent_counts(&home()).await.unwrap();
    assert!(counts.contains(&(AgentState::Pending, 20)) && counts.contains(&(AgentState::Revoked, 0)), "{counts:?}");
}

pub async fn old_agents_register_by_their_logins(catalog: &Store) {
    let token = any_token(catalog).await;
    let old = |number, host: &str| Enrolment { key: None, certificate_ends_at: None, ..enrolment(token, number, host) };
    let first = new(catalog.enrol(old(1, "web-1")).await.unwrap());
    assert_eq!((first.host.as_str(), first.key, first.certificate_ends_at), ("web-1", None, None));
    assert!(matches!(catalog.enrol(old(2, "web-1")).await.unwrap(), Enrolled::Again(agent) if agent.id == id(1)));
    assert_eq!(catalog.tokens(&home()).await.unwrap()[0].uses, 0, "logins are not counted");

    // The host gets our agent: it takes the name, connected or not, and the old one is another from then on.
    catalog.sighted(vec![sighting(1, 5)]).await.unwrap();
    let Enrolled::New { agent, instead_of } = catalog.enrol(enrolment(token, 10, "web-1")).await.unwrap() else {
        panic!()
    };
    assert_eq!((agent.host.as_str(), instead_of), ("web-1", Some(id(1))));
    let other = new(catalog.enrol(old(11, "web-1")).await.unwrap());
    assert_eq!(other.host, "web-1-000011", "an old agent takes no name, of one that is not connected either");
    let again = catalog.enrol(old(12, "web-1")).await.unwrap();
    assert!(matches!(&again, Enrolled::Again(agent) if agent.id == id(11)), "{again:?}");

    catalog.revoke_agent(&home(), &id(11), "unwanted", &admin(20)).await.unwrap();
    assert_eq!(catalog.enrol(old(21, "web-1")).await.unwrap(), Enrolled::Revoked);
    assert!(catalog.barred_agents(at(1_000)).await.unwrap().contains(&(home(), id(11))));
    catalog.remove_agent(&home(), &id(11), &admin(22)).await.unwrap();
    assert_eq!(new(catalog.enrol(old(23, "web-1")).await.unwrap()).host, "web-1-000023");
}

pub async fn an_organisation_has_as_many_agents_as_it_may(catalog: &Store) {
    let token = any_token(catalog).await;
    catalog.change_org(&home(), "", Some(2), false, &admin(0)).await.unwrap();
    enrolled(catalog, token, 1, "one").await;
    enrolled(catalog, token, 2, "two").await;
    assert_eq!(catalog.enrol(enrolment(token, 3, "three")).await.unwrap(), Enrolled::TooMany);
    assert_eq!(catalog.tokens(&home()).await.unwrap()[0].uses, 2, "which costs no use");
    assert!(matches!(catalog.enrol(enrolment(token, 1, "one")).await.unwrap(), Enrolled::Again(_)));
    let Enrolled::New { instead_of, .. } = catalog.enrol(enrolment(token, 70, "one")).await.unwrap() else { panic!() };
    assert_eq!(instead_of, Some(id(1)), "one for one");
    catalog.revoke_agent(&home(), &id(2), "", &admin(4)).await.unwrap();
    enrolled(catalog, token, 73, "three").await;
    assert_eq!(catalog.enrol(enrolment(token, 74, "four")).await.unwrap(), Enrolled::TooMany);
    catalog.remove_agent(&home(), &id(2), &admin(5)).await.unwrap();
    assert_eq!(
        catalog.enrol(enrolment(token, 75, "four")).await.unwrap(),
        Enrolled::TooMany,
        "it did not count any more"
    );
    catalog.remove_agent(&home(), &id(73), &admin(5)).await.unwrap();
    enrolled(catalog, token, 76, "four").await;
}

pub async fn agents_are_seen(catalog: &Store) {
    let token = any_token(catalog).await;
    for number in 1..=3 {
        enrolled(catalog, token, number, &format!("host-{number}")).await;
    }
    let status = r#"{"spool_records":7,"lag_ms":1200}"#.to_owned();
    let full = Sighting {
        epoch: u64::MAX,
        acked_seq: u64::MAX - 1,
        facts: Some(HostFacts { version: "2.1.0".into(), ..facts("host-1") }),
        status: Some(status.clone()),
        ..sighting(1, 100)
    };
    let unknown = [sighting(77, 100), Sighting { org: org("acme"), ..sighting(2, 100) }];
    let back = catalog.sighted([&[full.clone()][..], &unknown].concat()).await.unwrap();
    assert!(back.is_empty(), "nobody was silent");
    let one = catalog.agent(&home(), &id(1)).await.unwrap();
    assert_eq!((one.last_seen_at, one.connected, one.state()), (Some(at(100)), true, AgentState::Online));
    assert_eq!((one.epoch, one.acked_seq, one.status.as_deref()), (u64::MAX, u64::MAX - 1, Some(&*status)));
    assert_eq!(one.facts.version, "2.1.0");
    assert_eq!(catalog.agent(&home(), &id(2)).await.unwrap().last_seen_at, None, "another organisation's word");

    let late = Sighting { connected: false, acked_seq: u64::MAX, ..full.clone() };
    catalog.sighted(vec![Sighting { at: at(99), ..late.clone() }]).await.unwrap();
    assert_eq!(catalog.agent(&home(), &id(1)).await.unwrap(), one, "times only move forward");
    // Several of one agent at once; what is no status stays out.
    let batch = vec![
        Sighting { epoch: 5, acked_seq: 9, facts: None, status: Some("{\"a\":1}".into()), ..sighting(1, 110) },
        Sighting { epoch: 5, acked_seq: 3, status: Some("x".repeat(17 << 10)), ..sighting(1, 120) },
        Sighting { epoch: 5, acked_seq: 20, status: Some("{\"cut".into()), ..sighting(1, 90) },
    ];
    catalog.sighted(batch).await.unwrap();
    let now = catalog.agent(&home(), &id(1)).await.unwrap();
    assert_eq!((now.last_seen_at, now.epoch, now.acked_seq), (Some(at(120)), 5, 20));
    assert_eq!((now.status.as_deref(), now.facts.version.as_str()), (Some("{\"a\":1}"), "2.1.0"));
    catalog.sighted(vec![Sighting { epoch: 5, acked_seq: 4, connected: false, ..sighting(1, 130) }]).await.unwrap();
    let now = catalog.agent(&home(), &id(1)).await.unwrap();
    assert_eq!(
        (now.acked_seq, now.connected, now.last_seen_at),
        (20, false, Some(at(130))),
        "of one spool the furthest"
    );
    catalog.sighted(vec![Sighting { epoch: 6, acked_seq: 1, ..sighting(1, 140) }]).await.unwrap();
    assert_eq!(catalog.agent(&home(), &id(1)).await.unwrap().acked_seq, 1, "another spool counts anew");

    catalog.revoke_agent(&home(), &id(3), "", &admin(1)).await.unwrap();
    let before = catalog.fleet_revision().await.unwrap();
    catalog.sighted(vec![sighting(3, 150), sighting(2, 150)]).await.unwrap();
    assert_eq!(catalog.agent(&home(), &id(3)).await.unwrap().last_seen_at, None, "revoked");
    enrolled(catalog, token, 4, "host-4").await;
    catalog.renewed(&home(), &id(2), at(30_000)).await.unwrap();
    catalog.renewed(&home(), &id(2), at(20_000)).await.unwrap();
    assert_eq!(catalog.agent(&home(), &id(2)).await.unwrap().certificate_ends_at, Some(at(30_000)));
    assert_eq!(catalog.fleet_revision().await.unwrap(), before, "nothing that people decide has changed");
    assert_eq!(kind(catalog.renewed(&home(), &id(3), at(30_000)).await), ErrorKind::Denied);
    assert_eq!(kind(catalog.renewed(&home(), &id(77), at(30_000)).await), ErrorKind::NotFound);
}

pub async fn a_thousand_agents_are_seen_at_once(catalog: &Store) {
    let token = any_token(catalog).await;
    for number in 0..1_000 {
        enrolled(catalog, token, number, &format!("host-{number}")).await;
    }
    let seen = |at| (0..1_000).rev().map(|number| sighting(number, at)).collect::<Vec<_>>();
    assert!(catalog.sighted(seen(10_000)).await.unwrap().is_empty());
    let silent = catalog.fell_silent(at(10_001), 5_000).await.unwrap();
    assert_eq!(silent.len(), 1_000);
    // Two gateways say the same in opposite orders; each agent is back once.
    let (mut one, two) = (seen(20_000), seen(20_001));
    one.reverse();
    let (one, two) = tokio::join!(catalog.sighted(one), catalog.sighted(two));
    assert_eq!(one.unwrap().len() + two.unwrap().len(), 1_000);
    let counts = catalog.agent_counts(&home()).await.unwrap();
    assert_eq!(counts[0], (AgentState::Online, 1_000), "{counts:?}");
}

pub async fn agents_fall_silent_once_whoever_asks(catalog: &Store) {
    let token = any_token(catalog).await;
    for number in 0..=100 {
        enrolled(catalog, token, number, &format!("host-{number:03}")).await;
    }
    enrolled(catalog, token, 500, "never-seen").await;
    catalog.sighted((0..=100).map(|number| sighting(number, 1_000 + number)).collect()).await.unwrap();
    let first = catalog.fell_silent(at(1_050), 10).await.unwrap();
    let hosts: Vec<&str> = first.iter().map(|agent| agent.host.as_str()).collect();
    assert_eq!((hosts.len(), hosts[0], hosts[9]), (10, "host-000", "host-009"), "the longest silent first");
    assert!(first.iter().all(|agent| agent.silent && !agent.connected && agent.state() == AgentState::Offline));
    assert_eq!(catalog.agent(&home(), &id(0)).await.unwrap(), first[0]);

    let (one, two) = tokio::join!(catalog.fell_silent(at(1_100), 500), catalog.fell_silent(at(1_100), 500));
    let told: Vec<String> = one.unwrap().into_iter().chain(two.unwrap()).map(|agent| agent.id).collect();
    assert_eq!(told.len(), 90, "each once");
    assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), 90);
    assert!(catalog.fell_silent(at(1_100), 500).await.unwrap().is_empty());

    // A word from before it was told is no return.
    let back = catalog.sighted(vec![sighting(5, 1_005), sighting(6, 2_000)]).await.unwrap();
    assert_eq!(back.iter().map(|agent| agent.id.as_str()).collect::<Vec<_>>(), [id(6)]);
    assert!(!back[0].silent && back[0].connected);
    assert!(catalog.agent(&home(), &id(5)).await.unwrap().silent);
    catalog.revoke_agent(&home(), &id(6), "", &admin(1)).await.unwrap();
    let last = catalog.fell_silent(at(5_000), 500).await.unwrap();
    assert_eq!(
        last.iter().map(|agent| agent.id.as_str()).collect::<Vec<_>>(),
        [id(100)],
        "no revoked one, none unseen"
    );
    let counts: Vec<u64> = catalog.agent_counts(&home()).await.unwrap().into_iter().map(|(_, n)| n).collect();
    assert_eq!(counts, [0, 100, 1, 1]);
}

pub async fn agents_are_filtered_and_paged(catalog: &Store) {
    let token = any_token(catalog).await;
    for (number, host) in [(1, "Web-b"), (2, "db_1"), (3, "web-a"), (4, "dbx1"), (5, "gone")] {
        enrolled(catalog, token, number, host).await;
    }
    catalog.sighted(vec![sighting(1, 10), sighting(2, 20), sighting(5, 5)]).await.unwrap();
    catalog.fell_silent(at(15), 9).await.unwrap();
    catalog.revoke_agent(&home(), &id(5), "", &admin(1)).await.unwrap();
    let hosts = async |host: Option<&str>, state, number, limit| {
        let filter = AgentFilter { host: host.map(str::to_owned), state };
        let page = catalog.agents(&home(), &filter, page(number, limit)).await.unwrap();
        (page.total, page.rows.into_iter().map(|agent| agent.host).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(hosts(None, None, 1, 50).await, (5, "Web-b db_1 dbx1 gone web-a".into()));
    assert_eq!(hosts(None, None, 2, 2).await, (5, "dbx1 gone".into()));
    assert_eq!(hosts(None, None, u64::MAX, u64::MAX).await.1, "");
    assert_eq!(hosts(Some("WEB"), None, 1, 50).await, (2, "Web-b web-a".into()));
    assert_eq!(hosts(Some("b_"), None, 1, 50).await, (1, "db_1".into()), "a wildcard means itself");
    assert_eq!(hosts(Some("a\0"), None, 1, 50).await.0, 0);
    for (state, expected) in AgentState::ALL.into_iter().zip(["db_1", "Web-b", "dbx1 web-a", "gone"]) {
        assert_eq!(hosts(None, Some(state), 1, 50).await.1, expected, "{state:?}");
    }
    assert_eq!(hosts(Some("web"), Some(AgentState::Pending), 1, 50).await, (1, "web-a".into()));
}

pub async fn agents_are_revoked_and_removed(catalog: &Store) {
    let token = any_token(catalog).await;
    for number in 1..=5 {
        enrolled(catalog, token, number, &format!("host-{number}")).await;
    }
    catalog.sighted(vec![sighting(1, 10), sighting(2, 10)]).await.unwrap();
    let barred = async |now| -> Vec<String> {
        catalog
            .barred_agents(at(now))
            .await
            .unwrap()
            .into_iter()
            .map(|(org, id)| format!("{org} {}", &id[29..]))
            .collect()
    };
    assert!(barred(0).await.is_empty());
    let mut before = catalog.fleet_revision().await.unwrap();
    let mut moved = async || {
        let now = catalog.fleet_revision().await.unwrap();
        std::mem::replace(&mut before, now) < now
    };
    catalog.revoke_agent(&home(), &id(1), &format!("stolen\u{0}\n{}", "x".repeat(500)), &admin(20)).await.unwrap();
    assert!(moved().await);
    catalog.revoke_agent(&home(), &id(1), "again", &admin(21)).await.unwrap();
    let agent = catalog.agent(&home(), &id(1)).await.unwrap();
    assert_eq!((agent.revoked_at, agent.connected, agent.state()), (Some(at(20)), false, AgentState::Revoked));
    assert!(agent.revoked_why.is_some_and(|why| why.starts_with("stolenxxx") && why.len() == 200));
    assert_eq!(catalog.enrol(enrolment(token, 1, "host-1")).await.unwrap(), Enrolled::Revoked);
    assert_eq!(barred(100).await, ["default 1"]);

    assert_eq!(kind(catalog.remove_agent(&home(), &id(2), &admin(22)).await), ErrorKind::Conflict, "it is online");
    catalog.remove_agent(&home(), &id(1), &admin(23)).await.unwrap();
    assert!(moved().await);
    catalog.fell_silent(at(11), 9).await.unwrap();
    catalog.remove_agent(&home(), &id(2), &admin(24)).await.unwrap();
    catalog.remove_agent(&home(), &id(3), &admin(25)).await.unwrap();
    assert_eq!(kind(catalog.agent(&home(), &id(1)).await), ErrorKind::NotFound);
    assert_eq!(kind(catalog.remove_agent(&home(), &id(1), &admin(26)).await), ErrorKind::NotFound);
    assert_eq!(barred(100).await, ["default 1", "default 2", "default 3"], "as long as their certificates last");
    assert!(barred(10_000).await.is_empty());
    assert_eq!(enrolled(catalog, token, 101, "host-1").await.host, "host-1", "forgotten");

    catalog.create_org(&org("acme"), "", None, &admin(0)).await.unwrap();
    let theirs = catalog.add_token(&org("acme"), super::fleet::token(4), &admin(0)).await.unwrap();
    new(catalog.enrol(Enrolment { org: org("acme"), ..enrolment(theirs, 6, "host-1") }).await.unwrap());
    catalog.change_org(&org("acme"), "", None, true, &admin(0)).await.unwrap();
    assert_eq!(barred(10_000).await, ["acme 6"]);

    let filter = ConfigChangeFilter { table_name: Some("agents".into()), ..Default::default() };
    let mut rows = changes(catalog, &home(), filter).await;
    rows.reverse();
    let seen: Vec<_> = rows.iter().map(|row| (row.operation.as_str(), row.changed_at)).collect();
    assert_eq!(seen, [("UPDATE", at(20)), ("DELETE", at(23)), ("DELETE", at(24)), ("DELETE", at(25))]);
    let json = |text: &Option<String>| -> serde_json::Value { serde_json::from_str(text.as_deref().unwrap()).unwrap() };
    let old = serde_json::json!({"id": id(2), "host": "host-2", "revoked": false, "why": null});
    assert_eq!(json(&rows[2].old_values), old);
}

pub async fn agents_of_organisations_are_apart(catalog: &Store) {
    let (ours, theirs) = (org("acme"), org("globex"));
    let mut hosts = Vec::new();
    for (byte, org) in [(1, &ours), (2, &theirs)] {
        catalog.create_org(org, "", None, &admin(0)).await.unwrap();
        let token = catalog.add_token(org, token(byte), &admin(0)).await.unwrap();
        // The same key and host: still two.
        let enrolment =
            Enrolment { org: OrgId::clone(org), key: Some(key(1)), ..enrolment(token, u64::from(byte), "web-1") };
        hosts.push(new(catalog.enrol(enrolment).await.unwrap()).host);
    }
    assert_eq!(hosts, ["web-1", "web-1"]);
    assert_eq!(kind(catalog.agent(&theirs, &id(1)).await), ErrorKind::NotFound);
    assert_eq!(kind(catalog.revoke_agent(&theirs, &id(1), "", &admin(1)).await), ErrorKind::NotFound);
    assert_eq!(kind(catalog.revoke_agent(&org("none"), &id(1), "", &admin(1)).await), ErrorKind::NotFound);
    assert_eq!(kind(catalog.remove_agent(&theirs, &id(1), &admin(1)).await), ErrorKind::NotFound);
    assert_eq!(kind(catalog.renewed(&theirs, &id(1), at(1)).await), ErrorKind::NotFound);
    assert_eq!(kind(catalog.agent(&ours, "agt_\0").await), ErrorKind::NotFound);
    assert_eq!(catalog.agents(&theirs, ALL, page(1, 9)).await.unwrap().total, 1);
    assert_eq!(catalog.agents(&home(), ALL, page(1, 9)).await.unwrap().total, 0);
    assert_eq!(catalog.agent_counts(&home()).await.unwrap().iter().map(|(_, n)| n).sum::<u64>(), 0);
    assert_eq!(catalog.agent(&ours, &id(1)).await.unwrap().revoked_at, None);
}
