//! MUTT on several servers: processes of their own on one Redis, one PostgreSQL and one Vault, set up
//! by an environment file of the original alone.

#![expect(clippy::unwrap_used, reason = "tests")]

mod channel;
mod correlations;
mod drop_in;
mod events;
mod kill;
mod limit;
mod monitoring;
mod refusals;
mod rotation;
mod settings;
mod site;
