//! `installer/install.sh` on a host without systemd (a mount namespace), against the downloads of this program over
//! TLS. With systemd, reboots and a whole control plane it is tested in a booted container: `make packaging-test`.
//!
//! Needs root, as the installer does: without, each test says that it did not run.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

mod arguments;
mod attacks;
mod host;
mod plane;
mod upgrade;
