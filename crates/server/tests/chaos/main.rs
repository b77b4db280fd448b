//! The whole process under what happens to machines: `kill -9`, a full disk, a broken link, a receiver that is away.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

mod agents;
mod apart;
mod correlations;
mod full_disk;
mod hosts;
mod kill;
mod outage;
mod process;
mod wire;
