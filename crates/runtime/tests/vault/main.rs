//! Secrets against a real OpenBao, which speaks Vault's API; a hostile server is played by
//! `testkit::Receiver`, because the real one cannot be made to answer wrongly.

#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

mod files;
mod hostile;
mod init_script;
mod rotation;
mod start;
mod support;
mod tls;
mod token;
