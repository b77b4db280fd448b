//! Secrets that change while we run: from Vault (HashiCorp Vault or OpenBao), from files, and from
//! the environment.
//!
//! A value comes from three places. The environment gives a text or names a file (`file:/path`);
//! files are read again when they change; Vault's word about a secret replaces what the other two
//! say about it. `CURRENT` and `NEXT` of one secret are one secret here: see [`SecretSet`].
//!
//! Always true here:
//! * What readers hold is the last good state. An outage of Vault, a file that is gone, or a
//!   snapshot that lacks a required key changes nothing for who already runs. Only a `NEXT` ends
//!   with its file.
//! * Readers see one whole state or the next, never a part of one.
//! * Nothing that is logged, shown by `Debug` or said by an error holds a secret; neither does a URL.
//! * TLS is verified. Redirects are not followed: a token goes to the configured host only.
//!
//! Files: `set` what is known about secrets and their names; `local` environment and files;
//! `config` and `kv_path` settings; `api` the four calls of Vault; `session` the token's life;
//! `refused` what follows a login that was refused;
//! `live` start, refresh and the handles.

mod api;
mod config;
mod error;
mod kv_path;
mod live;
mod local;
mod refused;
mod session;
mod set;
mod sources;

pub use config::{SecretsConfig, VaultConfig};
pub use error::{Failure, Step, VaultError};
pub use kv_path::KvPath;
pub use live::{HEALTH_PART, RefreshError, Refresher, Secrets, StartError};
pub use local::{Local, from_environment, read_secret, unusable};
pub use session::Counts;
pub use set::{NAMES, SecretSet};
