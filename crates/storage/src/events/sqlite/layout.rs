//! Where an event lies: which file, and which row of it. Pure but for listing folders.

use crate::StorageResult;
use crate::sqlite::io_error;
use model::{EventId, OrgId, Timestamp};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

const DAY_MS: i64 = 86_400_000;
const MINUTE_MICROS: i64 = 60_000_000;
/// Bits of the number within a lane.
const NUMBER_BITS: u32 = 20;
const LANE_BITS: u32 = 16;
const MS_SHIFT: u32 = NUMBER_BITS + LANE_BITS;
/// Lanes of one file: runs of accepting processes, and one more for every 2^20 events of a run.
pub(super) const LANES_MAX: i64 = 1 << LANE_BITS;

/// A day of acceptance (UTC): days since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Day(i64);

impl Day {
    pub fn of(id: EventId) -> Self {
        Self::at(id.accepted())
    }
    pub fn at(time: Timestamp) -> Self {
        Self(time.millis().div_euclid(DAY_MS))
    }
    fn first_ms(self) -> i64 {
        self.0 * DAY_MS
    }
    pub fn first_minute(self) -> i64 {
        self.0 * 1_440
    }
    pub fn last_minute(self) -> i64 {
        self.first_minute() + 1_439
    }
    /// `YYYY-MM-DD`.
    pub fn name(self) -> String {
        Timestamp::from_millis(self.first_ms()).day()
    }
    /// Whether the day is one that a four-digit year can name.
    pub fn has_a_name(self) -> bool {
        (0..=2_932_895).contains(&self.0)
    }
    fn parse(name: &str) -> Option<Self> {
        let day = Self::at(Timestamp::parse(&format!("{name}T00:00:00Z"))?);
        (day.has_a_name() && day.name() == name).then_some(day)
    }
    pub fn start(self) -> Timestamp {
        Timestamp::from_millis(self.first_ms())
    }
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
    /// The keys of events accepted in `from ..= to`, as far as they are of this day.
    pub fn keys(self, from: Timestamp, to: Timestamp) -> Option<RangeInclusive<i64>> {
        let first = from.micros().div_euclid(1_000) + i64::from(from.micros().rem_euclid(1_000) > 0);
        let first = first.saturating_sub(self.first_ms()).max(0);
        let last = to.millis().saturating_sub(self.first_ms()).min(DAY_MS - 1);
        (first <= last).then(|| first << MS_SHIFT..=((last + 1) << MS_SHIFT) - 1)
    }
}

/// Minutes since the epoch.
pub(super) fn minute_of(time: Timestamp) -> i64 {
    time.micros().div_euclid(MINUTE_MICROS)
}

pub(super) fn minute_start(minute: i64) -> Timestamp {
    Timestamp::from_micros(minute.saturating_mul(MINUTE_MICROS))
}

/// Which file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub org: OrgId,
    pub day: Day,
}

impl Key {
    pub fn file(&self, dir: &Path) -> PathBuf {
        dir.join(self.org.as_str()).join(format!("{}.db", self.day.name()))
    }
}

/// The lane's name in the file: run and high part of the number.
pub(super) fn lane_prefix(id: EventId) -> i64 {
    (i64::from(id.run()) << 28) | (id.counter() >> NUMBER_BITS) as i64
}

/// The row of `id`, whose lane is `lane`, in the file of its day.
pub(super) fn row_key(id: EventId, lane: i64) -> i64 {
    let ms = id.accepted().millis().rem_euclid(DAY_MS);
    (ms << MS_SHIFT) | (lane << NUMBER_BITS) | (id.counter() & ((1 << NUMBER_BITS) - 1)) as i64
}

/// The first key of the millisecond in which `id` was accepted.
pub(super) fn first_key_of_ms(id: EventId) -> i64 {
    id.accepted().millis().rem_euclid(DAY_MS) << MS_SHIFT
}

/// The first key after the millisecond in which `id` was accepted.
pub(super) fn first_key_after_ms(id: EventId) -> i64 {
    first_key_of_ms(id) + (1 << MS_SHIFT)
}

pub(super) fn lane_of(row_key: i64) -> i64 {
    (row_key >> NUMBER_BITS) & (LANES_MAX - 1)
}

/// The id that lies at `row_key` of `day` in the lane named `prefix`.
pub(super) fn event_id(day: Day, row_key: i64, prefix: i64) -> EventId {
    let ms = day.first_ms() + (row_key >> MS_SHIFT);
    let high = (prefix & ((1 << 28) - 1)) as u64;
    let low = (row_key & ((1 << NUMBER_BITS) - 1)) as u64;
    EventId::new(Timestamp::from_millis(ms), (prefix >> 28) as u32, (high << NUMBER_BITS) | low)
}

/// Days that have a file in `folder`, oldest first.
pub(super) fn days_in(folder: &Path) -> StorageResult<Vec<Day>> {
    let mut days = Vec::new();
    for name in names_in(folder)? {
        days.extend(name.strip_suffix(".db").and_then(Day::parse));
    }
    days.sort_unstable();
    Ok(days)
}

/// Everything in `folder` that belongs to a day before `first_kept`: files, their WALs, broken ones.
pub(super) fn files_before(folder: &Path, first_kept: Day) -> StorageResult<Vec<(Day, PathBuf)>> {
    let mut files = Vec::new();
    for name in names_in(folder)? {
        let day = name.get(..10).and_then(Day::parse).filter(|day| *day < first_kept);
        files.extend(day.map(|day| (day, folder.join(&name))));
    }
    Ok(files)
}

/// Files of days in `folder` that were put aside because they were broken, without their WALs, oldest
/// first.
pub(super) fn put_aside_in(folder: &Path) -> StorageResult<Vec<(Day, PathBuf)>> {
    let mut files = Vec::new();
    for name in names_in(folder)? {
        let Some((day, number)) = name.split_once(".db.corrupt-") else { continue };
        let day = Day::parse(day).filter(|_| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
        files.extend(day.map(|day| (day, folder.join(&name))));
    }
    files.sort_unstable();
    Ok(files)
}

pub(super) fn org_folders(dir: &Path) -> StorageResult<Vec<OrgId>> {
    Ok(names_in(dir)?.iter().filter_map(|name| name.parse().ok()).collect())
}

fn names_in(folder: &Path) -> StorageResult<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error(format!("failed to list {}", folder.display()), error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| io_error(format!("failed to list {}", folder.display()), e))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_comes_back_from_its_row(
            ms in 0i64..253_402_300_800_000,
            run: u32,
            counter in 0u64..(1 << 48),
            lane in 0..LANES_MAX,
        ) {
            let id = EventId::new(Timestamp::from_millis(ms), run, counter);
            let (key, prefix) = (row_key(id, lane), lane_prefix(id));
            prop_assert!(key >= 0 && prefix >= 0);
            prop_assert_eq!(lane_of(key), lane);
            prop_assert_eq!(event_id(Day::of(id), key, prefix), id);
            prop_assert!(Day::of(id).keys(id.accepted(), id.accepted()).unwrap().contains(&key));
        }
    }

    #[test]
    fn rows_sort_by_time_of_acceptance_first() {
        let early = EventId::new(Timestamp::from_millis(1_000), u32::MAX, (1 << 48) - 1);
        let late = EventId::new(Timestamp::from_millis(1_001), 0, 0);
        assert!(row_key(early, LANES_MAX - 1) < row_key(late, 0));
    }

    #[test]
    fn only_files_named_by_a_day_count_as_days() {
        for (name, is_day) in [
            ("2026-01-31", true),
            ("1970-01-01", true),
            ("9999-12-30", true),
            ("2026-02-31", false),
            ("2026-1-31", false),
            ("../../etc", false),
            ("", false),
        ] {
            assert_eq!(Day::parse(name).is_some(), is_day, "{name}");
        }
        assert_eq!(Day::parse("2026-01-31").unwrap().name(), "2026-01-31");
    }
}
