//! The user that pontoon authenticates as: a name, and a secret that may change while pontoon runs.
//!
//! This module reads secrets from their sources and refreshes them. `upstream` presents them on connections.

mod answer;
mod command;
mod expiry;
pub mod iam;
mod secret;
mod source;
mod user;

pub use self::expiry::Expiry;
pub use self::secret::Secret;
pub use self::source::{SecretSource, SourceError};
pub use self::user::{Credentials, Login, NoSecret, SecretRefresh, Settings};

#[cfg(test)]
mod tests;
