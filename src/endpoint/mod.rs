//! Addresses: an upstream's host and port, a listener's address.
//!
//! This module only parses. `resolve` resolves names, and `listener` binds.

mod error;
mod host;
mod listen;
mod redacted;
mod upstream;

pub use self::error::AddressError;
pub use self::host::{DEFAULT_PORT, Endpoint, Host};
pub use self::listen::{ListenAddr, Peers};
pub use self::redacted::without_secrets;
pub use self::upstream::UpstreamAddress;
