//! Breakers shared by all forwarders: read the keys, let [`BreakerMachine`] decide, write if nobody
//! else has written. One caller wins, so one probe goes out at a time over all processes.

use super::RedisCoordination;
use super::keys::BreakerKeys;
use crate::coordination::{BreakerMachine, BreakerSettings, BreakerState};
use crate::{StorageError, StorageResult};
use model::{ErrorKind, Timestamp};
use redis::Script;
use std::sync::LazyLock;
use std::time::Duration;

static READ: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("breaker_read.lua")));
static WRITE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("breaker_write.lua")));

/// Lost races in a row before a call gives up.
const RACES_MAX: u32 = 200;

type Parts = [String; 5];

impl RedisCoordination {
    /// Lets `work` act on the machine of `name` at the shared time, and keeps what it did.
    pub(super) async fn with_breaker<T>(
        &self,
        name: &str,
        settings: Option<BreakerSettings>,
        now: Timestamp,
        mut work: impl FnMut(&mut BreakerMachine, Timestamp) -> T + Send,
    ) -> StorageResult<T> {
        let keys = self.config.breaker(name);
        for race in 0..RACES_MAX {
            let mut read = READ.prepare_invoke();
            keys.machine.iter().for_each(|key| {
                read.key(key);
            });
            if let Some([open, _]) = &keys.second {
                read.key(open);
            }
            let (p0, p1, p2, p3, p4, server, left): (String, String, String, String, String, i64, u64) =
                self.client.script(&read).await?;
            let parts = [p0, p1, p2, p3, p4];
            let now = self.shared_time(server, now);
            let before = machine(&parts, Duration::from_millis(left), settings, now);
            let mut after = before.clone();
            let answer = work(&mut after, now);
            if after == before || self.write_breaker(&keys, &parts, &after, settings, now).await? {
                return Ok(answer);
            }
            let pause = fastrand::u64(0..=u64::from(race.min(20)));
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        let context = format!("the breaker `{name}` is changed by others all the time");
        Err(StorageError::new(ErrorKind::Unavailable, context))
    }

    async fn write_breaker(
        &self,
        keys: &BreakerKeys,
        read: &Parts,
        machine: &BreakerMachine,
        settings: Option<BreakerSettings>,
        now: Timestamp,
    ) -> StorageResult<bool> {
        let mut write = WRITE.prepare_invoke();
        keys.machine.iter().chain(keys.second.iter().flatten()).for_each(|key| {
            write.key(key);
        });
        read.iter().chain(&texts(machine)).for_each(|value| {
            write.arg(value);
        });
        let flag = match (machine.state, machine.opened_at, settings) {
            (BreakerState::Open, Some(at), Some(settings)) => settings.open_for.saturating_sub(now.since(at)),
            _ => Duration::ZERO,
        };
        match flag.as_millis() {
            0 => write.arg(""),
            left => write.arg(u64::try_from(left).unwrap_or(u64::MAX)),
        };
        // Sent once: a second try would find its own first one and take it for somebody else's.
        self.client.script_once(&write).await
    }
}

/// The machine as the keys say. `flag`: what the second family's open flag has left. Another program
/// may have written any of it: nothing here is an error, and no wait is longer than the settings say.
fn machine(parts: &Parts, flag: Duration, settings: Option<BreakerSettings>, now: Timestamp) -> BreakerMachine {
    let [state, failures, opened, probed, trips] = parts;
    let mut machine = BreakerMachine {
        state: state_of(state),
        failures: failures.trim().parse::<u64>().map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX)),
        opened_at: epoch(opened),
        probe_at: epoch(probed),
        trips: trips.parse().unwrap_or(0),
    };
    if machine.state == BreakerState::Closed {
        (machine.opened_at, machine.probe_at) = (None, None);
        // A forwarder that knows only the second family has opened it.
        if !flag.is_zero() {
            machine.state = BreakerState::Open;
            let open_for = settings.map_or(flag, |s| s.open_for);
            machine.opened_at = Some(now.plus(flag).minus(open_for).min(now));
        }
    }
    // Another program opens it without clearing our probe.
    if machine.state == BreakerState::Open || machine.probe_at < machine.opened_at {
        machine.probe_at = None;
    }
    machine
}

fn texts(machine: &BreakerMachine) -> Parts {
    let time = |at: Option<Timestamp>| {
        at.map(|at| format!("{}.{:06}", at.secs(), at.micros().rem_euclid(1_000_000))).unwrap_or_default()
    };
    [
        word(machine.state).to_owned(),
        machine.failures.to_string(),
        time(machine.opened_at),
        time(machine.probe_at),
        machine.trips.to_string(),
    ]
}

/// Contract mutt §4.
fn word(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "CLOSED",
        BreakerState::Open => "OPEN",
        BreakerState::HalfOpen => "HALF_OPEN",
    }
}

fn state_of(word: &str) -> BreakerState {
    match word.trim().to_ascii_uppercase().as_str() {
        "OPEN" => BreakerState::Open,
        "HALF_OPEN" => BreakerState::HalfOpen,
        _ => BreakerState::Closed,
    }
}

/// Epoch seconds as Python prints a float.
fn epoch(text: &str) -> Option<Timestamp> {
    let micros = text.trim().parse::<f64>().ok()? * 1e6;
    (micros.is_finite() && micros.abs() < 9e15).then(|| Timestamp::from_micros(micros.round() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BreakerSettings = BreakerSettings {
        failure_threshold: 3,
        open_for: Duration::from_secs(300),
        probe_timeout: Duration::from_secs(30),
    };

    fn parts(texts: [&str; 5]) -> Parts {
        texts.map(str::to_owned)
    }

    fn read(texts: [&str; 5]) -> BreakerMachine {
        machine(&parts(texts), Duration::ZERO, Some(SETTINGS), Timestamp::from_secs(2_000))
    }

    #[test]
    fn what_is_written_reads_back_the_same_to_the_microsecond() {
        for micros in [0, 1, 999_999, 1_773_144_000_123_457, 1_773_144_000_000_001] {
            let machine = BreakerMachine {
                state: BreakerState::HalfOpen,
                failures: 7,
                opened_at: Some(Timestamp::from_micros(micros)),
                probe_at: Some(Timestamp::from_micros(micros + 3)),
                trips: 9,
            };
            let texts = texts(&machine);
            assert_eq!(super::machine(&texts, Duration::ZERO, None, Timestamp::default()), machine);
        }
    }

    #[test]
    fn what_other_programs_write_is_understood() {
        let open = read(["OPEN", "12", "1900.5", "", ""]);
        assert_eq!(
            (open.state, open.failures, open.opened_at),
            (BreakerState::Open, 12, Some(Timestamp::from_micros(1_900_500_000)))
        );
        assert_eq!(read(["", "", "", "", ""]), BreakerMachine::default());
        assert_eq!(read(["nonsense", "-4", "nan", "x", "y"]), BreakerMachine::default());
        let reopened = read(["HALF_OPEN", "1", "1900", "1500", "1"]);
        assert_eq!(reopened.probe_at, None, "our probe is older than the opening by the other program");
        assert_eq!(read(["CLOSED", "2", "1900", "1950", "1"]).opened_at, None);
    }

    #[test]
    fn the_flag_of_the_second_family_alone_opens_for_as_long_as_it_lives() {
        let now = Timestamp::from_secs(2_000);
        let seen = |flag| machine(&parts(["CLOSED", "1", "", "", ""]), Duration::from_secs(flag), Some(SETTINGS), now);
        assert_eq!(seen(60).view(SETTINGS, now).retry_in, Some(Duration::from_secs(60)));
        assert_eq!(seen(9_999).view(SETTINGS, now).retry_in, Some(Duration::from_secs(300)), "never longer than ours");
    }
}
