//! What the agent decides, case by case.

use agent_core::{Certificate, Config, Core, Cut, Failure, Input, Line, Now, Output, Restored, Sent, Trust};
use wire::{BatchAck, Policy, Welcome};

fn at(ms: u64) -> Now {
    Now { mono_ms: ms, unix_ms: 1_000_000_000 + ms as i64 }
}

fn restored(sent: Vec<Sent>) -> Restored {
    Restored { epoch: 7, first_unacked: 0, sent }
}

fn core(trust: Trust) -> Core {
    Core::new(Config::default(), trust, restored(Vec::new()))
}

fn welcome(seconds: i64) -> Input {
    let server_time_unix_ms = 1_000_000_000 + 5_000;
    Input::Welcome(Welcome { server_time_unix_ms, heartbeat_interval_seconds: seconds, acked: None, policy: None })
}

fn online(core: &mut Core, now: u64, seconds: i64) {
    core.step(at(now), Input::Start);
    core.step(at(now), Input::Connected);
    core.step(at(now), welcome(seconds));
    assert!(core.is_online());
}

/// How long the agent stays away after this failure.
fn retry(core: &mut Core, now: u64, failure: Failure) -> u64 {
    let out = core.step(at(now), Input::Disconnected(failure));
    let wait = out.iter().find_map(|o| match o {
        Output::Log(Line::Offline { retry_ms, .. } | Line::NotCertified { retry_ms, .. }) => Some(*retry_ms),
        _ => None,
    });
    wait.unwrap_or_else(|| panic!("{out:?}"))
}

/// Lets time pass by the agent's own timer; the times of its heartbeats.
fn heartbeats(core: &mut Core, from: u64, to: u64) -> Vec<u64> {
    let mut beats = Vec::new();
    for now in (from..to).step_by(100) {
        let out = core.step(at(now), Input::Timer);
        beats.extend(out.iter().filter(|o| **o == Output::Heartbeat).map(|_| now));
    }
    beats
}

#[test]
fn the_first_heartbeat_is_at_once_and_then_as_the_server_says_with_or_without_it() {
    let mut agent = core(Trust::Token);
    let out = agent.step(at(0), Input::Start);
    assert!(out.contains(&Output::Heartbeat) && out.contains(&Output::Connect));
    assert_eq!(heartbeats(&mut agent, 100, 65_000), [30_000, 60_000], "nobody has answered yet");
    let mut agent = core(Trust::Token);
    online(&mut agent, 0, 10);
    assert_eq!(heartbeats(&mut agent, 100, 35_000), [10_000, 20_000, 30_000]);
    agent.step(at(35_000), Input::Disconnected(Failure::Unreachable));
    assert_eq!(heartbeats(&mut agent, 35_100, 55_000), [40_000, 50_000]);
    assert_eq!(heartbeats(&mut agent, 500_000, 511_000), [500_000, 510_000], "no burst after a sleep");
}

#[test]
fn a_lost_connection_is_tried_again_soon_and_a_refusal_later() {
    let mut agent = core(Trust::Token);
    online(&mut agent, 0, 30);
    assert!(retry(&mut agent, 60_000, Failure::Unreachable) <= 500);
    for failure in [Failure::Unauthenticated, Failure::Untrusted, Failure::Unsupported] {
        let mut agent = core(Trust::Token);
        agent.step(at(0), Input::Start);
        let wait = retry(&mut agent, 10, failure);
        assert!((7_500..=15_000).contains(&wait), "{failure:?}: {wait}");
        let out = agent.step(at(10 + wait), Input::Timer);
        assert!(out.contains(&Output::Connect), "it asks again with what it has: {out:?}");
    }
}

#[test]
fn a_server_that_greets_and_drops_is_not_hammered() {
    let mut agent = core(Trust::Token);
    let (mut now, mut waits) = (0, Vec::new());
    agent.step(at(0), Input::Start);
    for _ in 0..8 {
        agent.step(at(now), Input::Connected);
        agent.step(at(now), welcome(30));
        waits.push(retry(&mut agent, now, Failure::Unreachable));
        now += waits.last().copied().unwrap_or(0);
        agent.step(at(now), Input::Timer);
    }
    assert!(waits.last() > Some(&10_000), "{waits:?}");
}

#[test]
fn a_server_that_asks_for_time_gets_it_but_not_for_ever() {
    let mut agent = core(Trust::Token);
    online(&mut agent, 0, 30);
    let out = agent.step(at(10), Input::RetryLater { after_ms: 20_000 });
    assert_eq!(out.first(), Some(&Output::Disconnect));
    let away = |out: &[Output]| {
        out.iter().find_map(|o| match o {
            Output::Log(Line::Offline { retry_ms, .. }) => Some(*retry_ms),
            _ => None,
        })
    };
    assert!(away(&out).is_some_and(|ms| (20_000..=40_000).contains(&ms)), "{out:?}");
    let mut agent = core(Trust::Token);
    online(&mut agent, 0, 30);
    let out = agent.step(at(10), Input::RetryLater { after_ms: u64::MAX });
    assert!(away(&out).is_some_and(|ms| ms <= 7_200_000), "{out:?}");
}

#[test]
fn a_batch_is_marked_with_the_servers_time_before_it_is_sent_and_keeps_it() {
    let mut agent = core(Trust::Token);
    online(&mut agent, 0, 30);
    let out = agent.step(at(100), Input::Spooled { records: 2, bytes: 20 });
    let sent_unix_ms = 1_000_000_000 + 5_100;
    let asked = Output::Cut { from_seq: 0, records_max: 1_000, bytes_max: 512 * 1024, sent_unix_ms };
    assert!(out.contains(&asked), "{out:?}");
    let cut = Cut { first_seq: 0, through_seq: 1, records: 2, bytes: 20 };
    let out = agent.step(at(112), Input::Cut(Some(cut)));
    let sent = Sent { first_seq: 0, through_seq: 1, sent_unix_ms };
    assert_eq!(out.first(), Some(&Output::Send(sent)));
    // The process dies; its successor has the mark, and another clock.
    let mut agent = Core::new(Config::default(), Trust::Token, restored(vec![sent]));
    agent.step(at(9_000), Input::Start);
    let out = agent.step(at(9_001), Input::Connected);
    assert!(out.contains(&Output::Hello { first_unacked: 0 }));
    let out = agent.step(at(9_002), welcome(30));
    assert!(out.contains(&Output::Send(sent)), "{out:?}");
    let out = agent.step(at(9_003), Input::Ack(BatchAck { epoch: 8, through_seq: 1 }));
    assert!(!out.contains(&Output::Forget { through_seq: 1 }), "of another spool");
    let out = agent.step(at(9_003), Input::Ack(BatchAck { epoch: 7, through_seq: 1 }));
    assert!(out.contains(&Output::Forget { through_seq: 1 }));
}

#[test]
fn a_server_that_acknowledges_what_it_never_got_is_not_believed() {
    let mut agent = core(Trust::Token);
    online(&mut agent, 0, 30);
    let out = agent.step(at(5), Input::Ack(BatchAck { epoch: 7, through_seq: 99 }));
    assert_eq!(out.get(..2), Some(&[Output::Log(Line::ImpossibleAck { through_seq: 99 }), Output::Disconnect][..]));
    assert!(!agent.is_online());
}

#[test]
fn an_old_copy_of_a_spool_takes_another_name() {
    let mut agent = core(Trust::Token);
    agent.step(at(0), Input::Start);
    agent.step(at(1), Input::Connected);
    let acked = Some(BatchAck { epoch: 7, through_seq: 500 });
    let out = agent.step(at(2), Input::Welcome(Welcome { acked, ..Welcome::default() }));
    assert!(out.contains(&Output::Disconnect) && out.contains(&Output::NewEpoch), "{out:?}");
    agent.step(at(3), Input::Renamed(Restored { epoch: 9, first_unacked: 20, sent: Vec::new() }));
    agent.step(at(3), Input::Spooled { records: 1, bytes: 1 });
    agent.step(at(600), Input::Timer);
    let out = agent.step(at(601), Input::Connected);
    assert!(out.contains(&Output::Hello { first_unacked: 20 }), "{out:?}");
    agent.step(at(602), Input::Welcome(Welcome { acked, ..Welcome::default() }));
    assert!(agent.is_online(), "what is known of the old one says nothing about the new");
}

#[test]
fn without_an_acknowledgement_the_connection_is_not_believed_for_ever() {
    let mut agent = core(Trust::Token);
    online(&mut agent, 0, 3_600);
    agent.step(at(100), Input::Spooled { records: 1, bytes: 1 });
    agent.step(at(110), Input::Timer);
    agent.step(at(110), Input::Cut(Some(Cut { first_seq: 0, through_seq: 0, records: 1, bytes: 1 })));
    assert!(!agent.step(at(120_000), Input::Timer).contains(&Output::Disconnect));
    let out = agent.step(at(120_110), Input::Timer);
    assert!(out.contains(&Output::Log(Line::Silent)) && out.contains(&Output::Disconnect));
    // Nor one that never greets.
    let mut agent = core(Trust::Token);
    agent.step(at(0), Input::Start);
    agent.step(at(5), Input::Connected);
    assert!(agent.step(at(20_000), Input::Timer).contains(&Output::Disconnect));
}

#[test]
fn a_policy_can_ask_for_less_and_not_for_more() {
    let mut agent = core(Trust::Token);
    online(&mut agent, 0, 30);
    let policy = Policy { batch_records_max: 10, batch_bytes_max: u32::MAX, ..Policy::default() };
    agent.step(at(1), Input::Policy(policy));
    let out = agent.step(at(2), Input::Spooled { records: 10, bytes: 1 });
    let is_less = |o: &Output| matches!(o, Output::Cut { records_max: 10, bytes_max: 524_288, .. });
    assert!(out.iter().any(is_less), "{out:?}");
}

#[test]
fn a_token_is_changed_once_and_the_certificate_renewed_before_it_ends() {
    let mut agent = core(Trust::Certificate { current: None, has_token: true });
    let out = agent.step(at(0), Input::Start);
    assert!(out.contains(&Output::Enrol) && !out.contains(&Output::Connect) && out.contains(&Output::Heartbeat));
    let certificate = Certificate { not_after_unix_s: 1_000_000 + 100, renew_after_unix_s: 1_000_000 + 60 };
    let out = agent.step(at(10), Input::Certified(Ok(certificate)));
    assert!(out.contains(&Output::Connect), "{out:?}");
    agent.step(at(11), Input::Connected);
    let out = agent.step(at(12), welcome(3_600));
    assert!(!out.contains(&Output::Renew));
    let mut out = agent.step(at(59_999), Input::Timer);
    assert!(!out.contains(&Output::Renew));
    out = agent.step(at(60_100), Input::Timer);
    assert!(out.contains(&Output::Renew), "{out:?}");
    out = agent.step(at(60_200), Input::Timer);
    assert!(!out.contains(&Output::Renew), "one at a time");
    // With nothing under way, the next connection shows the next certificate.
    let next = Certificate { not_after_unix_s: 1_000_000 + 300, renew_after_unix_s: 1_000_000 + 260 };
    let out = agent.step(at(60_300), Input::Certified(Ok(next)));
    assert!(out.contains(&Output::Connect) && !out.contains(&Output::Disconnect), "{out:?}");
    agent.step(at(60_400), Input::Connected);
    let server_time_unix_ms = 1_000_000_000 + 60_500 + 5_000;
    let heartbeat_interval_seconds = 3_600;
    agent.step(
        at(60_500),
        Input::Welcome(Welcome { server_time_unix_ms, heartbeat_interval_seconds, ..Welcome::default() }),
    );
    assert!(agent.is_online());
    assert!(!agent.step(at(250_000), Input::Timer).contains(&Output::Renew));
    assert!(agent.step(at(255_000), Input::Timer).contains(&Output::Renew), "by the clock of the server");
}

#[test]
fn with_another_certificate_it_moves_when_nothing_is_under_way() {
    let current = Some(Certificate { not_after_unix_s: 1_000_000 + 9_000, renew_after_unix_s: 1_000_000 });
    let mut agent = core(Trust::Certificate { current, has_token: false });
    agent.step(at(0), Input::Start);
    agent.step(at(1), Input::Connected);
    assert!(agent.step(at(2), welcome(30)).contains(&Output::Renew));
    agent.step(at(3), Input::Spooled { records: 1, bytes: 1 });
    agent.step(at(8), Input::Timer);
    agent.step(at(9), Input::Cut(Some(Cut { first_seq: 0, through_seq: 0, records: 1, bytes: 1 })));
    let next = Certificate { not_after_unix_s: 1_000_000 + 18_000, renew_after_unix_s: 1_000_000 + 12_000 };
    let out = agent.step(at(10), Input::Certified(Ok(next)));
    assert!(!out.contains(&Output::Connect), "a batch is under way: {out:?}");
    agent.step(at(11), Input::Spooled { records: 5_000, bytes: 1 });
    let out = agent.step(at(500), Input::Timer);
    assert!(!out.iter().any(|o| matches!(o, Output::Cut { .. })), "and no other is begun: {out:?}");
    let out = agent.step(at(501), Input::Ack(BatchAck { epoch: 7, through_seq: 0 }));
    assert_eq!(out.get(..2), Some(&[Output::Forget { through_seq: 0 }, Output::Connect][..]));
    agent.step(at(502), Input::Connected);
    let out = agent.step(at(503), welcome(30));
    assert!(out.iter().any(|o| matches!(o, Output::Cut { from_seq: 1, .. })), "it goes on: {out:?}");
    // What is never acknowledged does not hold it for ever.
    agent.step(at(504), Input::Cut(Some(Cut { first_seq: 1, through_seq: 9, records: 9, bytes: 1 })));
    agent.step(at(505), Input::Certified(Ok(next)));
    let out = agent.step(at(120_504), Input::Timer);
    assert!(out.contains(&Output::Log(Line::Silent)), "{out:?}");
    agent.step(at(125_000), Input::Timer);
    agent.step(at(125_001), Input::Connected);
    let out = agent.step(at(125_002), welcome(30));
    assert!(out.iter().any(|o| matches!(o, Output::Send(_))) && agent.is_online(), "{out:?}");
}

#[test]
fn a_certificate_that_is_over_when_it_is_given_is_tried_and_not_asked_for_without_pause() {
    let mut agent = core(Trust::Certificate { current: None, has_token: true });
    agent.step(at(0), Input::Start);
    let over = Certificate { not_after_unix_s: 10, renew_after_unix_s: 5 };
    let (mut now, mut waits) = (10, Vec::new());
    for _ in 0..4 {
        let out = agent.step(at(now), Input::Certified(Ok(over)));
        assert!(out.contains(&Output::Connect), "{out:?}");
        waits.push(retry(&mut agent, now + 1, Failure::Unauthenticated));
        now += 1 + waits.last().copied().unwrap_or(0);
        assert!(agent.step(at(now), Input::Timer).contains(&Output::Enrol));
    }
    assert!(waits.first() >= Some(&7_500) && waits.last() > Some(&45_000), "{waits:?}");
}

#[test]
fn a_server_without_certificates_gets_the_token() {
    let mut agent = core(Trust::Certificate { current: None, has_token: true });
    agent.step(at(0), Input::Start);
    let out = agent.step(at(1), Input::Certified(Err(Failure::Unsupported)));
    assert!(out.contains(&Output::Connect), "{out:?}");
}

#[test]
fn a_renewal_that_fails_is_tried_again_and_stops_nothing() {
    let current = Some(Certificate { not_after_unix_s: 1_000_000 + 9_000, renew_after_unix_s: 1_000_000 });
    let mut agent = core(Trust::Certificate { current, has_token: false });
    agent.step(at(0), Input::Start);
    agent.step(at(1), Input::Connected);
    assert!(agent.step(at(2), welcome(30)).contains(&Output::Renew));
    agent.step(at(3), Input::Certified(Err(Failure::Unauthenticated)));
    assert!(agent.is_online());
    assert!(!agent.step(at(60_000), Input::Timer).contains(&Output::Renew));
    assert!(agent.step(at(310_000), Input::Timer).contains(&Output::Renew));
}

#[test]
fn without_trust_the_agent_goes_on_observing() {
    let mut agent = core(Trust::Certificate { current: None, has_token: false });
    let out = agent.step(at(0), Input::Start);
    assert!(out.contains(&Output::Log(Line::NothingToShow)) && out.contains(&Output::Heartbeat));
    assert_eq!(heartbeats(&mut agent, 100, 61_000), [30_000, 60_000]);
    let ended = Some(Certificate { not_after_unix_s: 10, renew_after_unix_s: 5 });
    let mut agent = core(Trust::Certificate { current: ended, has_token: true });
    agent.step(at(0), Input::Start);
    let out = agent.step(at(1), Input::Certified(Err(Failure::Unauthenticated)));
    assert!(out.iter().any(|o| matches!(o, Output::Log(Line::NotCertified { .. }))), "{out:?}");
    assert_eq!(heartbeats(&mut agent, 100, 31_000), [30_000]);
}

#[test]
fn after_the_stop_nothing_is_asked_for() {
    let mut agent = core(Trust::Token);
    online(&mut agent, 0, 30);
    assert_eq!(agent.step(at(1), Input::Stop), [Output::Disconnect]);
    for input in [Input::Timer, Input::Spooled { records: 9, bytes: 9 }, Input::Disconnected(Failure::Unreachable)] {
        assert_eq!(agent.step(at(900_000), input), []);
    }
}
