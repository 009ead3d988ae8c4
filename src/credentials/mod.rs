//! Who pontoon is towards a server: a user, and a secret that may change while pontoon runs.
//!
//! Where secrets come from and when they are read again. Presenting them on a connection is `upstream`'s work.

mod command;
pub mod iam;
mod secret;
mod source;
mod user;

pub use self::secret::Secret;
pub use self::source::{SecretSource, SourceError};
pub use self::user::{Credentials, Login, NoSecret, SecretRefresh, Settings};

#[cfg(test)]
mod tests;
