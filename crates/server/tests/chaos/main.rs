//! The whole process under what happens to machines: `kill -9`, a full disk, a receiver that is away.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

mod agents;
mod correlations;
mod full_disk;
mod kill;
mod outage;
mod process;
