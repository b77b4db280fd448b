//! What every process of ours needs to run: a clock, stop and drain, backoff, configuration from
//! layers, secrets, logs, health, the service manager, and serving HTTP with bounds.
//!
//! Always true here: no process globals (two servers run in one test process), nothing about
//! events or alerts, and the only place that reads the environment or the system clock.

pub mod backoff;
mod clock;
pub mod config;
mod credentials;
pub mod env_file;
mod health;
pub mod http;
pub mod logging;
mod secret;
pub mod secrets;
#[cfg(unix)]
mod service_manager;
mod stop;
mod supervisor;
pub mod tls;
pub mod trust;

pub use clock::{Clock, ManualClock, SystemClock};
pub use credentials::{Credentials, CredentialsWriter, KeyRing, Login};
pub use health::Health;
pub use secret::Secret;
#[cfg(unix)]
pub use service_manager::ServiceManager;
pub use stop::{Stop, Stopper};
pub use supervisor::{Ended, Supervisor};
