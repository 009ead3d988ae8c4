//! TLS to the upstream: trusted roots, client certificates, and a channel that carries bytes.
//!
//! `upstream` opens TCP connections and sets deadlines.

mod certificate;
pub mod channel;
mod client;
mod error;
mod explain;
mod files;
mod pin;
mod sessions;
mod settings;
mod verify;

pub use self::certificate::{Certificate, expiry};
pub use self::client::{Reload, Tls};
pub use self::error::TlsError;
pub use self::explain::{describe_leaf, explain};
pub use self::pin::{CertificatePin, InvalidPin};
pub use self::settings::{ClientAuthFiles, MinVersion, Settings, TlsMode};
