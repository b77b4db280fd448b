//! `muttd`, the control plane, as a library: what the binary runs, and what tests run whole.

pub mod agent_downloads;
pub mod agent_tokens;
mod agents;
pub mod api;
pub mod app;
pub mod authority;
pub mod commands;
pub mod config;
mod demo;
mod detection_rules;
mod field_maps;
mod host;
mod hunt;
mod ingest_http;
pub mod keys;
mod maintenance;
pub mod retention;
mod routing;
mod rule_documents;
mod rule_files;
mod sigma_files;
mod site;
mod worker_http;
