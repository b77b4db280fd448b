//! Everything that keeps something, as driver families.
//!
//! A family is a folder: `mod.rs` holds the trait, its promises and the guide for adding a driver;
//! each driver is a file beside it; `contract.rs` is the suite that every driver runs. Driver types
//! are not public: a family shows its trait, its config enum and `open`.

pub mod backup;
pub mod catalog;
pub mod coordination;
mod error;
pub mod events;
pub mod hunt;
pub mod queue;
mod redis;
mod sqlite;
mod sqlite_functions;

pub use error::{StorageError, StorageResult};
pub use redis::{RedisAddress, RedisConfig, RedisPlace, RedisTls, redis_advice};
