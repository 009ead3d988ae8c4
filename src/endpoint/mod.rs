//! Where things are: an upstream's host and port, a listener's address.
//!
//! Parsing only. Resolving names is `resolve`'s work, binding is `listener`'s.

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
