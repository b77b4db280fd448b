//! The machine: one thing happens, and it says what to do.

use crate::backoff::Backoff;
use crate::trust::{Certificate, Entry, Trust};
use crate::upload::{Acked, Cut, Limits, Sent, Upload};
use wire::{BatchAck, Policy, Welcome};

/// The time, twice: one that only goes forward, and one that can be shown to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds from any beginning, never back.
    pub mono_ms: u64,
    /// Milliseconds since the epoch by the clock of the host, which may jump.
    pub unix_ms: i64,
}

/// Times that decide; all in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub limits: Limits,
    pub heartbeat_ms: u64,
    pub backoff_base_ms: u64,
    pub backoff_max_ms: u64,
    /// The waits after a refusal, which does not pass by itself.
    pub refused_base_ms: u64,
    pub refused_max_ms: u64,
    /// From connecting to the welcome.
    pub greet_ms: u64,
    /// From sending to the acknowledgement.
    pub ack_ms: u64,
    /// Distinguishes this agent's waits from others'.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            heartbeat_ms: 30_000,
            backoff_base_ms: 500,
            backoff_max_ms: 30_000,
            refused_base_ms: 15_000,
            refused_max_ms: 300_000,
            greet_ms: 20_000,
            ack_ms: 120_000,
            seed: 0,
        }
    }
}

/// What the spool kept of earlier runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    pub epoch: u64,
    pub first_unacked: u64,
    /// Marked and not known to be acknowledged, in order.
    pub sent: Vec<Sent>,
}

/// Why there is no connection, or no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nobody answers, or the connection broke.
    Unreachable,
    /// One side does not believe the other's certificate.
    Untrusted,
    /// The server does not take the token or certificate. It may again: keys are kept.
    Unauthenticated,
    /// The server does not know the call.
    Unsupported,
    /// What came makes no sense.
    Protocol,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The beginning.
    Start,
    /// The time given with this has come, or more.
    Timer,
    /// A connection stands, and whoever wants a password had it.
    Connected,
    Welcome(Welcome),
    Ack(BatchAck),
    Policy(Policy),
    RetryLater {
        after_ms: u64,
    },
    Disconnected(Failure),
    /// So many records more are in the spool, behind all that is marked: durable, or with the next [`Output::Cut`].
    Spooled {
        records: u64,
        bytes: u64,
    },
    /// The answer to [`Output::Cut`].
    Cut(Option<Cut>),
    /// Of this batch only the records through `last` are left, or none: the others were given up.
    Left {
        sent: Sent,
        last: Option<u64>,
    },
    /// The answer to [`Output::NewEpoch`]. [`Input::Spooled`] follows.
    Renamed(Restored),
    /// The answer to [`Output::Enrol`] and [`Output::Renew`].
    Certified(Result<Certificate, Failure>),
    Stop,
}

/// One thing to do. To be finished before the next is begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Change the token for a certificate.
    Enrol,
    /// Ask for another certificate, over the connection there is.
    Renew,
    /// Make a connection. One that still stands is left in peace: what was handed to it goes on its way.
    Connect,
    /// End the connection, whatever state it is in; no [`Input::Disconnected`] is wanted.
    Disconnect,
    Hello {
        first_unacked: u64,
    },
    /// Make what waits durable, say what the next batch is, and remember, on disk, that it is sent at this time: all
    /// by one write. What cannot be remembered is no batch.
    Cut {
        from_seq: u64,
        records_max: u64,
        bytes_max: u64,
        sent_unix_ms: i64,
    },
    /// Send those of these records that there still are. Where not all are, [`Input::Left`] follows.
    Send(Sent),
    SendStatus,
    /// Make a record that says "alive".
    Heartbeat,
    /// These are durable at the other end.
    Forget {
        through_seq: u64,
    },
    /// Give the spool another name, and forget what was marked: the server knows more of this one than its owner, so
    /// this is an old copy (of a virtual machine, from a backup), whose numbers would be taken for others' records.
    NewEpoch,
    /// Give [`Input::Timer`] then; one timer only.
    Wake {
        mono_ms: u64,
    },
    Log(Line),
}

/// What an operator should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Online,
    /// The connection failed; tried again after this time.
    Offline {
        failure: Failure,
        retry_ms: u64,
    },
    /// Neither certificate nor token.
    NothingToShow,
    Certified {
        not_after_unix_s: i64,
    },
    NotCertified {
        failure: Failure,
        retry_ms: u64,
    },
    /// The server acknowledged what it was never sent.
    ImpossibleAck {
        through_seq: u64,
    },
    /// No acknowledgement in time.
    Silent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waiting to try (again).
    Apart {
        until_ms: u64,
    },
    Enrolling,
    /// Up to the welcome, which is due.
    Greeting {
        due_ms: u64,
    },
    Online {
        since_ms: u64,
    },
    Stopped,
}

/// Longest the server can ask an agent to stay away.
const RETRY_LATER_MAX_MS: u64 = 3_600_000;
/// A connection that lasted is no failure when it ends.
const STABLE_MS: u64 = 10_000;

/// The agent's decisions.
#[derive(Debug, Clone)]
pub struct Core {
    config: Config,
    limits: Limits,
    epoch: u64,
    upload: Upload,
    trust: Trust,
    phase: Phase,
    backoff: Backoff,
    /// Server's clock minus ours.
    offset_ms: i64,
    heartbeat_ms: u64,
    next_heartbeat_ms: u64,
    /// Renewal is under way, or not to be tried before this.
    renewing: bool,
    renew_not_before_ms: u64,
    /// Since when something is under way without an acknowledgement.
    unacked_since_ms: Option<u64>,
    /// The connection shows a certificate that was replaced: another is made once nothing is under way.
    moves: bool,
    awake_ms: Option<u64>,
}

impl Core {
    pub fn new(config: Config, trust: Trust, restored: Restored) -> Self {
        Self {
            limits: config.limits,
            epoch: restored.epoch,
            upload: Upload::new(restored.first_unacked, restored.sent),
            trust,
            phase: Phase::Apart { until_ms: 0 },
            backoff: Backoff::new(config.seed),
            offset_ms: 0,
            heartbeat_ms: config.heartbeat_ms,
            next_heartbeat_ms: 0,
            renewing: false,
            renew_not_before_ms: 0,
            unacked_since_ms: None,
            moves: false,
            awake_ms: None,
            config,
        }
    }

    pub fn is_online(&self) -> bool {
        matches!(self.phase, Phase::Online { .. })
    }

    /// The server's clock minus this host's; 0 before the first welcome.
    pub fn offset_ms(&self) -> i64 {
        self.offset_ms
    }

    /// The time by the clock of the server, which gives and takes certificates.
    fn server_unix_ms(&self, now: Now) -> i64 {
        now.unix_ms.saturating_add(self.offset_ms)
    }

    /// Takes one thing in.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Start => self.next_heartbeat_ms = now.mono_ms,
            Input::Timer => self.awake_ms = None,
            Input::Connected => self.connected(&mut out),
            Input::Welcome(welcome) => self.welcome(now, &welcome, &mut out),
            Input::Ack(ack) => self.ack(now, ack, &mut out),
            Input::Policy(policy) => self.policy(policy),
            Input::RetryLater { after_ms } => self.retry_later(now, after_ms, &mut out),
            Input::Disconnected(failure) => self.disconnected(now, failure, &mut out),
            Input::Spooled { records, bytes } => self.upload.spooled(now.mono_ms, records, bytes),
            Input::Cut(cut) => self.cut(now, cut, &mut out),
            Input::Left { sent, last } => {
                self.upload.left(sent, last);
                self.unacked_since_ms = self.unacked_since_ms.filter(|_| self.upload.in_flight().next().is_some());
            }
            Input::Renamed(restored) => {
                self.epoch = restored.epoch;
                self.upload = Upload::new(restored.first_unacked, restored.sent);
            }
            Input::Certified(result) => self.certified(now, result, &mut out),
            Input::Stop => {
                self.phase = Phase::Stopped;
                out.push(Output::Disconnect);
            }
        }
        if self.phase != Phase::Stopped {
            self.due(now, &mut out);
            self.wake(now, &mut out);
        }
        out
    }

    fn connected(&mut self, out: &mut Vec<Output>) {
        if matches!(self.phase, Phase::Greeting { .. }) {
            out.push(Output::Hello { first_unacked: self.upload.first_unacked() });
        }
    }

    fn welcome(&mut self, now: Now, welcome: &Welcome, out: &mut Vec<Output>) {
        if !matches!(self.phase, Phase::Greeting { .. }) {
            return;
        }
        self.phase = Phase::Online { since_ms: now.mono_ms };
        out.push(Output::Log(Line::Online));
        self.offset_ms = welcome.server_time_unix_ms.saturating_sub(now.unix_ms);
        if welcome.heartbeat_interval_seconds > 0 {
            self.heartbeat_ms = welcome.heartbeat_interval_seconds.unsigned_abs().clamp(1, 3_600) * 1_000;
            self.next_heartbeat_ms = self.next_heartbeat_ms.min(now.mono_ms.saturating_add(self.heartbeat_ms));
        }
        if let Some(policy) = welcome.policy {
            self.policy(policy);
        }
        // A server that knows this spool says how far it came; one that lost its memory may say less than we know.
        let told = welcome.acked.filter(|acked| acked.epoch == self.epoch);
        if let Some(ack) = told
            && !self.apply_ack(now, ack.through_seq, out)
        {
            out.push(Output::NewEpoch);
            return;
        }
        for sent in self.upload.in_flight() {
            out.push(Output::Send(sent));
        }
        self.unacked_since_ms = self.upload.in_flight().next().map(|_| now.mono_ms);
    }

    fn ack(&mut self, now: Now, ack: BatchAck, out: &mut Vec<Output>) {
        if self.is_online() && ack.epoch == self.epoch {
            self.apply_ack(now, ack.through_seq, out);
        }
    }

    /// Whether the connection still stands.
    fn apply_ack(&mut self, now: Now, through_seq: u64, out: &mut Vec<Output>) -> bool {
        match self.upload.acked(through_seq) {
            Acked::Through(through_seq) => {
                self.backoff.reset();
                self.unacked_since_ms = self.upload.in_flight().next().map(|_| now.mono_ms);
                out.push(Output::Forget { through_seq });
                true
            }
            Acked::Old => true,
            Acked::Impossible => {
                out.push(Output::Log(Line::ImpossibleAck { through_seq }));
                out.push(Output::Disconnect);
                self.disconnected(now, Failure::Protocol, out);
                false
            }
        }
    }

    fn policy(&mut self, policy: Policy) {
        let own = self.config.limits;
        let pick = |asked: u32, own: u64| if asked == 0 { own } else { u64::from(asked).min(own) };
        self.limits.batch_records = pick(policy.batch_records_max, own.batch_records);
        self.limits.batch_bytes = pick(policy.batch_bytes_max, own.batch_bytes);
        self.limits.in_flight = pick(policy.batches_in_flight_max, own.in_flight as u64) as usize;
    }

    fn retry_later(&mut self, now: Now, after_ms: u64, out: &mut Vec<Output>) {
        if matches!(self.phase, Phase::Greeting { .. } | Phase::Online { .. }) {
            let retry_ms = self.backoff.jitter(after_ms.clamp(1_000, RETRY_LATER_MAX_MS).saturating_mul(2));
            out.push(Output::Disconnect);
            self.apart(now, Failure::Unreachable, retry_ms, out);
        }
    }

    fn disconnected(&mut self, now: Now, failure: Failure, out: &mut Vec<Output>) {
        match self.phase {
            Phase::Greeting { .. } => {}
            Phase::Online { since_ms } => {
                if now.mono_ms.saturating_sub(since_ms) >= STABLE_MS {
                    self.backoff.reset();
                }
            }
            // Ended by us, or of a connection before the last.
            Phase::Apart { .. } | Phase::Enrolling | Phase::Stopped => return,
        }
        let retry_ms = self.wait(failure);
        self.apart(now, failure, retry_ms, out);
    }

    fn apart(&mut self, now: Now, failure: Failure, retry_ms: u64, out: &mut Vec<Output>) {
        self.phase = Phase::Apart { until_ms: now.mono_ms.saturating_add(retry_ms) };
        self.renewing = false;
        self.moves = false;
        self.unacked_since_ms = None;
        out.push(Output::Log(Line::Offline { failure, retry_ms }));
    }

    fn wait(&mut self, failure: Failure) -> u64 {
        match failure {
            Failure::Unreachable | Failure::Protocol => {
                self.backoff.next_ms(self.config.backoff_base_ms, self.config.backoff_max_ms)
            }
            Failure::Untrusted | Failure::Unauthenticated | Failure::Unsupported => {
                self.backoff.next_ms(self.config.refused_base_ms, self.config.refused_max_ms)
            }
        }
    }

    fn cut(&mut self, now: Now, cut: Option<Cut>, out: &mut Vec<Output>) {
        let Some(sent) = self.upload.cut(now.mono_ms, cut) else { return };
        if self.is_online() {
            out.push(Output::Send(sent));
            self.unacked_since_ms.get_or_insert(now.mono_ms);
        }
    }

    fn certified(&mut self, now: Now, result: Result<Certificate, Failure>, out: &mut Vec<Output>) {
        match (result, self.phase) {
            (Ok(certificate), _) => {
                self.trust.certified(certificate);
                self.renewing = false;
                self.renew_not_before_ms = now.mono_ms.saturating_add(60_000);
                out.push(Output::Log(Line::Certified { not_after_unix_s: certificate.not_after_unix_s }));
                match self.phase {
                    // At once, and whatever this clock says of it: it was given just now. That it was given is no
                    // proof that it works, so the waits go on growing until something is acknowledged.
                    Phase::Enrolling => self.connect(now, out),
                    Phase::Online { .. } => self.moves = true,
                    Phase::Apart { .. } | Phase::Greeting { .. } | Phase::Stopped => {}
                }
            }
            // It gives no certificates, but it is who it should be: the token will do.
            (Err(Failure::Unsupported), Phase::Enrolling) => {
                self.trust = Trust::Token;
                self.phase = Phase::Apart { until_ms: now.mono_ms };
            }
            (Err(failure), Phase::Enrolling) => {
                let retry_ms = self.wait(failure);
                self.phase = Phase::Apart { until_ms: now.mono_ms.saturating_add(retry_ms) };
                out.push(Output::Log(Line::NotCertified { failure, retry_ms }));
            }
            (Err(failure), _) => {
                let retry_ms = self.backoff.jitter(self.config.refused_max_ms);
                self.renewing = false;
                self.renew_not_before_ms = now.mono_ms.saturating_add(retry_ms);
                out.push(Output::Log(Line::NotCertified { failure, retry_ms }));
            }
        }
    }

    /// What the time alone makes due.
    fn due(&mut self, now: Now, out: &mut Vec<Output>) {
        if now.mono_ms >= self.next_heartbeat_ms {
            out.push(Output::Heartbeat);
            if self.is_online() {
                out.push(Output::SendStatus);
            }
            // In step with the first; after a sleep of the host, one and not many.
            let next = self.next_heartbeat_ms.saturating_add(self.heartbeat_ms);
            self.next_heartbeat_ms =
                if next > now.mono_ms { next } else { now.mono_ms.saturating_add(self.heartbeat_ms) };
        }
        match self.phase {
            Phase::Apart { until_ms } if now.mono_ms >= until_ms => self.enter(now, out),
            Phase::Greeting { due_ms } if now.mono_ms >= due_ms => {
                out.push(Output::Disconnect);
                self.disconnected(now, Failure::Unreachable, out);
            }
            Phase::Online { .. } => self.online(now, out),
            Phase::Apart { .. } | Phase::Greeting { .. } | Phase::Enrolling | Phase::Stopped => {}
        }
    }

    fn enter(&mut self, now: Now, out: &mut Vec<Output>) {
        match self.trust.entry(self.server_unix_ms(now)) {
            Entry::Connect => self.connect(now, out),
            Entry::Enrol => {
                self.phase = Phase::Enrolling;
                out.push(Output::Enrol);
            }
            Entry::Nothing => {
                self.phase = Phase::Apart { until_ms: now.mono_ms.saturating_add(self.config.refused_max_ms) };
                out.push(Output::Log(Line::NothingToShow));
            }
        }
    }

    fn connect(&mut self, now: Now, out: &mut Vec<Output>) {
        self.moves = false;
        self.phase = Phase::Greeting { due_ms: now.mono_ms.saturating_add(self.config.greet_ms) };
        out.push(Output::Connect);
    }

    fn online(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.ack_due_ms().is_some_and(|due| now.mono_ms >= due) {
            out.push(Output::Log(Line::Silent));
            out.push(Output::Disconnect);
            self.disconnected(now, Failure::Unreachable, out);
            return;
        }
        if self.renew_due_ms(now).is_some_and(|due| now.mono_ms >= due) {
            self.renewing = true;
            out.push(Output::Renew);
        }
        if self.moves {
            // Nothing new is begun, so this is soon, or the silence above ends it.
            if self.upload.in_flight().next().is_none() {
                self.unacked_since_ms = None;
                self.connect(now, out);
            }
            return;
        }
        if self.upload.due_ms(&self.limits).is_some_and(|due| now.mono_ms >= due) {
            let sent_unix_ms = self.server_unix_ms(now);
            let from_seq = self.upload.begin_cut(now.mono_ms, sent_unix_ms);
            let (records_max, bytes_max) = (self.limits.batch_records, self.limits.batch_bytes);
            out.push(Output::Cut { from_seq, records_max, bytes_max, sent_unix_ms });
        }
    }

    fn ack_due_ms(&self) -> Option<u64> {
        Some(self.unacked_since_ms?.saturating_add(self.config.ack_ms))
    }

    fn renew_due_ms(&self, now: Now) -> Option<u64> {
        if self.renewing {
            return None;
        }
        let ahead_ms =
            u64::try_from(self.trust.renew_at_unix_ms()?.saturating_sub(self.server_unix_ms(now))).unwrap_or(0);
        // A clock that jumps is looked at again within the hour.
        let due = now.mono_ms.saturating_add(ahead_ms.min(RETRY_LATER_MAX_MS));
        let is_due = ahead_ms == 0;
        Some(if is_due { self.renew_not_before_ms } else { due.max(self.renew_not_before_ms) })
    }

    fn wake(&mut self, now: Now, out: &mut Vec<Output>) {
        let next = match self.phase {
            Phase::Apart { until_ms } => Some(until_ms),
            Phase::Greeting { due_ms } => Some(due_ms),
            Phase::Online { .. } => {
                let next_batch = self.upload.due_ms(&self.limits).filter(|_| !self.moves);
                let due = [self.ack_due_ms(), self.renew_due_ms(now), next_batch];
                due.into_iter().flatten().min()
            }
            Phase::Enrolling | Phase::Stopped => None,
        };
        let next = next.map_or(self.next_heartbeat_ms, |next| next.min(self.next_heartbeat_ms));
        if self.awake_ms != Some(next) {
            self.awake_ms = Some(next);
            out.push(Output::Wake { mono_ms: next });
        }
    }
}
