//! The agent against a world that loses connections, acknowledgements, servers and agents at any moment.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

use agent_core::{Certificate, Config, Core, Cut, Failure, Input, Limits, Now, Output, Restored, Sent, Trust};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use wire::{BatchAck, Welcome};

const EPOCH: u64 = 77;

enum ToServer {
    Hello,
    Batch(Sent, Vec<u64>),
}

#[derive(Default)]
struct Connection {
    to_server: VecDeque<ToServer>,
    to_agent: VecDeque<Input>,
}

#[derive(Default)]
struct Server {
    /// Number → time of first sending: together the identity of the event.
    durable: BTreeMap<u64, i64>,
    /// Received, not yet durable, in order of arrival.
    pending: Vec<(u64, i64)>,
    /// The batches behind `pending`, to be acknowledged.
    unacked: Vec<u64>,
    /// As `durable`, in the order in which records became it for the first time.
    order: Vec<u64>,
}

struct World {
    now: Now,
    seed: u64,
    /// What the agent's disk has. Not every number has a record.
    spool: BTreeMap<u64, u64>,
    next_seq: u64,
    marks: Vec<Sent>,
    checkpoint: u64,
    forgotten: u64,
    core: Core,
    wake_ms: u64,
    connection: Option<Connection>,
    server: Server,
    server_is_up: bool,
    /// Every time that a number was ever sent with.
    sent_ms: BTreeMap<u64, i64>,
    heartbeats: u64,
    /// Records to be told of again: a cut did not get them.
    retold: u64,
}

fn config(seed: u64) -> Config {
    let limits = Limits { batch_records: 5, batch_bytes: 1_000, in_flight: 3, spacing_ms: 15 };
    Config { limits, seed, ..Config::default() }
}

const CERTIFICATE: Certificate = Certificate { not_after_unix_s: 9_000_000_000, renew_after_unix_s: 8_000_000_000 };

fn trust() -> Trust {
    Trust::Certificate { current: Some(CERTIFICATE), has_token: false }
}

impl World {
    fn new(seed: u64) -> Self {
        let core = Core::new(config(seed), trust(), Restored { epoch: EPOCH, ..Restored::default() });
        let mut world = Self {
            now: Now { mono_ms: 1_000, unix_ms: 1_700_000_000_000 },
            seed,
            spool: BTreeMap::new(),
            next_seq: 0,
            marks: Vec::new(),
            checkpoint: 0,
            forgotten: 0,
            core,
            wake_ms: u64::MAX,
            connection: None,
            server: Server::default(),
            server_is_up: true,
            sent_ms: BTreeMap::new(),
            heartbeats: 0,
            retold: 0,
        };
        world.step(Input::Start, usize::MAX);
        world
    }

    fn random(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    /// Gives the input; does at most `outputs_max` of what is said, then the agent dies.
    fn step(&mut self, input: Input, outputs_max: usize) {
        let mut inputs = VecDeque::from([input]);
        let mut done = 0;
        while let Some(input) = inputs.pop_front() {
            for output in self.core.step(self.now, input) {
                if done == outputs_max {
                    return self.agent_restarts();
                }
                done += 1;
                inputs.extend(self.perform(output));
            }
        }
    }

    fn perform(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Connect if self.server_is_up => {
                self.connection = Some(Connection::default());
                return Some(Input::Connected);
            }
            Output::Connect => return Some(Input::Disconnected(Failure::Unreachable)),
            Output::Disconnect => self.connection = None,
            Output::Hello { first_unacked } => {
                assert!(first_unacked >= self.checkpoint);
                self.connection.as_mut().unwrap().to_server.push_back(ToServer::Hello);
            }
            Output::Cut { from_seq, records_max, sent_unix_ms, .. } => {
                // A disk that takes nothing.
                if self.random(20) == 0 {
                    let records = self.spool.range(from_seq..).count() as u64;
                    self.retold += records;
                    return Some(Input::Cut(None));
                }
                let mut seqs = self.spool.range(from_seq..).map(|(seq, _)| *seq).take(records_max as usize);
                let cut = seqs.next().map(|first_seq| {
                    let rest: Vec<u64> = seqs.collect();
                    let through_seq = rest.last().copied().unwrap_or(first_seq);
                    Cut { first_seq, through_seq, records: rest.len() as u64 + 1, bytes: 10 }
                });
                self.marks.extend(cut.map(|Cut { first_seq, through_seq, .. }| Sent {
                    first_seq,
                    through_seq,
                    sent_unix_ms,
                }));
                return Some(Input::Cut(cut));
            }
            Output::Send(sent) => {
                assert!(
                    self.marks.iter().any(|m| m.first_seq <= sent.first_seq
                        && m.through_seq == sent.through_seq
                        && m.sent_unix_ms == sent.sent_unix_ms),
                    "only what is marked is sent"
                );
                let seqs: Vec<u64> = self.spool.range(sent.first_seq..=sent.through_seq).map(|(s, _)| *s).collect();
                for seq in &seqs {
                    let time = *self.sent_ms.entry(*seq).or_insert(sent.sent_unix_ms);
                    assert_eq!(time, sent.sent_unix_ms, "record {seq} would be another event");
                }
                if let Some(connection) = &mut self.connection {
                    connection.to_server.push_back(ToServer::Batch(sent, seqs));
                }
            }
            Output::Heartbeat => self.heartbeats += 1,
            Output::Forget { through_seq } => {
                for (seq, _) in self.spool.range(..=through_seq) {
                    assert!(self.server.durable.contains_key(seq), "{seq} was forgotten and is not durable");
                }
                self.forgotten = self.forgotten.max(through_seq + 1);
                if self.random(2) == 0 {
                    self.save();
                }
            }
            Output::Wake { mono_ms } => self.wake_ms = mono_ms,
            Output::NewEpoch => panic!("nobody copied the spool"),
            Output::SendStatus | Output::Log(_) | Output::Enrol | Output::Renew => {}
        }
        None
    }

    fn save(&mut self) {
        self.checkpoint = self.forgotten;
        self.marks.retain(|sent| sent.through_seq >= self.checkpoint);
        self.spool = self.spool.split_off(&self.checkpoint);
    }

    fn agent_restarts(&mut self) {
        self.connection = None;
        self.forgotten = self.checkpoint;
        self.retold = 0;
        let sent = self.marks.clone();
        let restored = Restored { epoch: EPOCH, first_unacked: self.checkpoint, sent };
        let seed = self.random(u64::MAX);
        self.core = Core::new(config(seed), trust(), restored);
        self.wake_ms = u64::MAX;
        self.step(Input::Start, usize::MAX);
        let from = self.marks.last().map_or(self.checkpoint, |last| last.through_seq + 1);
        let records = self.spool.range(from..).count() as u64;
        self.step(Input::Spooled { records, bytes: records * 10 }, usize::MAX);
    }

    fn append(&mut self, outputs_max: usize) {
        let records = self.random(8) + 1;
        for _ in 0..records {
            self.next_seq += u64::from(self.random(10) == 0);
            self.spool.insert(self.next_seq, self.next_seq);
            self.next_seq += 1;
        }
        self.step(Input::Spooled { records, bytes: records * 10 }, outputs_max);
    }

    fn server_reads(&mut self) {
        let now_ms = self.now.unix_ms;
        let remembers = self.random(4) != 0;
        let Some(connection) = &mut self.connection else { return };
        match connection.to_server.pop_front() {
            None => {}
            Some(ToServer::Hello) => {
                let last = self.server.durable.keys().last().copied();
                let acked = last.filter(|_| remembers).map(|through_seq| BatchAck { epoch: EPOCH, through_seq });
                let server_time_unix_ms = now_ms + 3_000;
                let welcome = Welcome { server_time_unix_ms, heartbeat_interval_seconds: 30, acked, policy: None };
                connection.to_agent.push_back(Input::Welcome(welcome));
            }
            Some(ToServer::Batch(sent, seqs)) => {
                self.server.pending.extend(seqs.iter().map(|seq| (*seq, sent.sent_unix_ms)));
                self.server.unacked.push(sent.through_seq);
            }
        }
    }

    fn server_syncs(&mut self) {
        for (seq, time) in std::mem::take(&mut self.server.pending) {
            match self.server.durable.insert(seq, time) {
                Some(before) => assert_eq!(before, time, "record {seq} is two events"),
                None => self.server.order.push(seq),
            }
        }
        for through_seq in std::mem::take(&mut self.server.unacked) {
            if let Some(connection) = &mut self.connection {
                connection.to_agent.push_back(Input::Ack(BatchAck { epoch: EPOCH, through_seq }));
            }
        }
    }

    fn server_dies(&mut self) {
        self.server.pending.clear();
        self.server.unacked.clear();
        self.connection_breaks();
    }

    fn connection_breaks(&mut self) {
        if self.connection.take().is_some() {
            // What is on its way is gone, or is still read by the server.
            self.step(Input::Disconnected(Failure::Unreachable), usize::MAX);
        }
    }

    fn agent_reads(&mut self, outputs_max: usize) {
        if let Some(input) = self.connection.as_mut().and_then(|c| c.to_agent.pop_front()) {
            self.step(input, outputs_max);
        }
    }

    fn time_passes(&mut self, ms: u64) {
        let records = std::mem::take(&mut self.retold);
        if records > 0 {
            self.step(Input::Spooled { records, bytes: records * 10 }, usize::MAX);
        }
        self.now.mono_ms += ms;
        self.now.unix_ms += ms as i64;
        if self.now.mono_ms >= self.wake_ms {
            self.wake_ms = u64::MAX;
            self.step(Input::Timer, usize::MAX);
        }
    }

    fn action(&mut self) {
        // Most steps are done whole; some end in a crash between two of their outputs.
        let outputs_max = if self.random(25) == 0 { self.random(4) as usize } else { usize::MAX };
        match self.random(100) {
            0..=24 => self.append(outputs_max),
            25..=49 => self.server_reads(),
            50..=64 => self.server_syncs(),
            65..=82 => self.agent_reads(outputs_max),
            83..=93 => {
                let ms = self.random(40);
                self.time_passes(ms);
            }
            94 => self.time_passes(31_000),
            95 => self.connection_breaks(),
            // Another certificate: it moves to another connection.
            96 if self.random(2) == 0 => self.step(Input::Certified(Ok(CERTIFICATE)), outputs_max),
            96 => self.agent_restarts(),
            97 => self.server_dies(),
            98 => {
                self.server_is_up = !self.server_is_up;
                self.server_dies();
            }
            _ => {
                // The host's clock jumps; records keep their time.
                self.now.unix_ms += self.random(200_000) as i64 - 100_000;
            }
        }
    }
}

fn run(seed: u64, actions: usize) {
    let mut world = World::new(seed);
    for _ in 0..actions {
        world.action();
    }
    world.server_is_up = true;
    for _ in 0..20_000 {
        if world.core.is_online() && world.spool.keys().all(|seq| world.server.durable.contains_key(seq)) {
            break;
        }
        world.time_passes(20);
        world.server_reads();
        world.server_syncs();
        world.agent_reads(usize::MAX);
    }
    let left: Vec<&u64> = world.spool.keys().filter(|seq| !world.server.durable.contains_key(seq)).collect();
    assert_eq!(left, Vec::<&u64>::new(), "not delivered");
    assert!(world.server.order.is_sorted(), "records arrive for the first time in order");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_breaks_every_record_arrives_once_and_in_order(seed: u64) {
        run(seed, 400);
    }
}

#[test]
fn a_long_life_of_accidents_loses_nothing() {
    run(20_261_126, 40_000);
}
