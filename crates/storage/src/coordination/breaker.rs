//! The circuit breaker as a pure state machine; drivers keep it and hand in the time.
//!
//! Closed: every call may go. After `failure_threshold` failures in a row it opens: calls wait.
//! After `open_for` it is half open: one probe at a time may go, and its end decides. A probe that
//! never reports frees its place after `probe_timeout`. No wait is ever longer than the setting
//! says, even when the clock steps back.

use model::Timestamp;
use std::time::Duration;

/// When a breaker opens and how it closes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row that open it; 0 counts as 1.
    pub failure_threshold: u32,
    /// How long calls wait before a probe may go.
    pub open_for: Duration,
    /// After this a probe that has not reported is given up.
    pub probe_timeout: Duration,
}

/// The state of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BreakerState {
    #[default]
    Closed,
    Open,
    HalfOpen,
}

impl BreakerState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// May a call go out?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Allowed,
    /// It may, as the one probe of a half-open breaker: its end must be reported.
    Probe,
    /// Not before this time has passed.
    Wait(Duration),
}

/// A breaker as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerView {
    pub state: BreakerState,
    /// Failures in a row.
    pub failures: u32,
    /// When it last opened, unless it is closed.
    pub opened_at: Option<Timestamp>,
    /// When it is not closed: after this time a call may go.
    pub retry_in: Option<Duration>,
    /// How often it has opened.
    pub trips: u64,
}

/// The state machine of one breaker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BreakerMachine {
    pub(super) state: BreakerState,
    pub(super) failures: u32,
    pub(super) opened_at: Option<Timestamp>,
    /// When the outstanding probe went out.
    pub(super) probe_at: Option<Timestamp>,
    pub(super) trips: u64,
}

impl BreakerMachine {
    /// May a call go out now? `Probe` takes the probe's place.
    pub fn admit(&mut self, settings: BreakerSettings, now: Timestamp) -> Admission {
        // After a step back of the clock waiting starts anew, instead of lasting until the clock
        // has caught up.
        self.opened_at = self.opened_at.map(|at| at.min(now));
        self.probe_at = self.probe_at.map(|at| at.min(now));
        match self.retry_in(settings, now) {
            None => Admission::Allowed,
            Some(Duration::ZERO) => {
                self.state = BreakerState::HalfOpen;
                self.probe_at = Some(now);
                Admission::Probe
            }
            Some(wait) => Admission::Wait(wait),
        }
    }

    /// How a call ended. Returns the state before.
    pub fn report(&mut self, success: bool, settings: BreakerSettings, now: Timestamp) -> BreakerState {
        let before = self.state_at(settings, now);
        if success {
            self.failures = 0;
            // A call from before the trip proves nothing about the destination now.
            if before == BreakerState::HalfOpen {
                self.state = BreakerState::Closed;
                self.opened_at = None;
                self.probe_at = None;
            }
            return before;
        }
        self.failures = self.failures.saturating_add(1);
        let opens = match before {
            BreakerState::Closed => self.failures >= settings.failure_threshold.max(1),
            BreakerState::HalfOpen => true,
            BreakerState::Open => false,
        };
        if opens {
            self.state = BreakerState::Open;
            self.opened_at = Some(now);
            self.probe_at = None;
            self.trips += 1;
        }
        before
    }

    /// Looks without changing anything.
    pub fn view(&self, settings: BreakerSettings, now: Timestamp) -> BreakerView {
        BreakerView {
            state: self.state_at(settings, now),
            failures: self.failures,
            opened_at: self.opened_at,
            retry_in: self.retry_in(settings, now),
            trips: self.trips,
        }
    }

    /// Lets a probe out now, if it is open.
    pub fn half_open(&mut self, _now: Timestamp) {
        if self.state == BreakerState::Open {
            self.state = BreakerState::HalfOpen;
            self.probe_at = None;
        }
    }

    fn state_at(&self, settings: BreakerSettings, now: Timestamp) -> BreakerState {
        match self.state {
            BreakerState::Open if self.retry_in(settings, now) == Some(Duration::ZERO) => BreakerState::HalfOpen,
            state => state,
        }
    }

    /// `None` = closed; zero = a probe may go.
    fn retry_in(&self, settings: BreakerSettings, now: Timestamp) -> Option<Duration> {
        let (since, wait) = match self.state {
            BreakerState::Closed => return None,
            BreakerState::Open => (self.opened_at, settings.open_for),
            BreakerState::HalfOpen => (self.probe_at, settings.probe_timeout),
        };
        Some(since.map_or(Duration::ZERO, |since| wait.saturating_sub(now.since(since))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTINGS: BreakerSettings = BreakerSettings {
        failure_threshold: 3,
        open_for: Duration::from_secs(300),
        probe_timeout: Duration::from_secs(30),
    };

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + secs)
    }

    fn tripped() -> BreakerMachine {
        let mut machine = BreakerMachine::default();
        for _ in 0..3 {
            machine.report(false, SETTINGS, at(0));
        }
        machine
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let mut machine = BreakerMachine::default();
        for success in [false, false, true, false, false] {
            machine.report(success, SETTINGS, at(0));
        }
        assert_eq!(machine.admit(SETTINGS, at(0)), Admission::Allowed);
        assert_eq!(machine.report(false, SETTINGS, at(0)), BreakerState::Closed);
        assert_eq!(machine.admit(SETTINGS, at(100)), Admission::Wait(Duration::from_secs(200)));
        let view = machine.view(SETTINGS, at(100));
        assert_eq!((view.state, view.trips, view.opened_at), (BreakerState::Open, 1, Some(at(0))));
    }

    #[test]
    fn one_probe_at_a_time_and_its_end_decides() {
        let mut machine = tripped();
        assert_eq!(machine.view(SETTINGS, at(300)).state, BreakerState::HalfOpen);
        assert_eq!(machine.admit(SETTINGS, at(300)), Admission::Probe);
        assert_eq!(machine.admit(SETTINGS, at(310)), Admission::Wait(Duration::from_secs(20)));
        let mut failing = machine.clone();
        assert_eq!(failing.report(false, SETTINGS, at(311)), BreakerState::HalfOpen);
        assert_eq!(failing.admit(SETTINGS, at(311)), Admission::Wait(Duration::from_secs(300)));
        assert_eq!(failing.view(SETTINGS, at(311)).trips, 2);
        assert_eq!(machine.report(true, SETTINGS, at(311)), BreakerState::HalfOpen);
        assert_eq!(machine.admit(SETTINGS, at(311)), Admission::Allowed);
        assert_eq!(machine.view(SETTINGS, at(311)).failures, 0);
    }

    #[test]
    fn a_probe_that_never_reports_frees_its_place() {
        let mut machine = tripped();
        assert_eq!(machine.admit(SETTINGS, at(300)), Admission::Probe);
        assert_eq!(machine.admit(SETTINGS, at(330)), Admission::Probe);
    }

    #[test]
    fn a_late_success_does_not_close_an_open_breaker() {
        let mut machine = tripped();
        machine.report(true, SETTINGS, at(1));
        assert_eq!(machine.admit(SETTINGS, at(1)), Admission::Wait(Duration::from_secs(299)));
    }

    #[test]
    fn remediation_lets_a_probe_out_early() {
        let mut machine = tripped();
        machine.half_open(at(5));
        assert_eq!(machine.admit(SETTINGS, at(5)), Admission::Probe);
        let mut closed = BreakerMachine::default();
        closed.half_open(at(5));
        assert_eq!(closed.admit(SETTINGS, at(5)), Admission::Allowed);
    }

    proptest! {
        #[test]
        fn no_clock_makes_it_wait_longer_than_its_settings(steps in proptest::collection::vec((0u8..4, -500i64..500), 1..60)) {
            let mut machine = BreakerMachine::default();
            let mut clock = 0;
            for (what, step) in steps {
                clock += step;
                match what {
                    0 | 1 => {
                        machine.report(what == 0, SETTINGS, at(clock));
                    }
                    2 => machine.half_open(at(clock)),
                    _ => if let Admission::Wait(wait) = machine.admit(SETTINGS, at(clock)) {
                        prop_assert!(wait > Duration::ZERO && wait <= SETTINGS.open_for);
                        prop_assert_eq!(machine.view(SETTINGS, at(clock)).retry_in, Some(wait));
                        let admission = machine.clone().admit(SETTINGS, at(clock).plus(wait));
                        prop_assert_eq!(admission, Admission::Probe);
                    },
                }
            }
        }
    }
}
