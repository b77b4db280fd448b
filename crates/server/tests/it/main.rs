//! The whole server in this process, on port 0, with embedded drivers and real receivers.

#![recursion_limit = "256"]
#![expect(clippy::unwrap_used, reason = "tests: a failure is a panic")]

mod agents;
mod api;
mod browser;
mod delivery;
mod detection;
mod detections;
mod ingest;
mod lifecycle;
mod notify;
mod packaging;
mod prometheus;
mod retention;
mod routes;
mod rule_documents;
mod rule_life;
mod smoke;
mod support;
mod tls;
