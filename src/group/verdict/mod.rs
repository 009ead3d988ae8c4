//! Judges whether a bridge uses only TLS, whether its group is safe to require TLS, and whether the bridge is still needed. The judgement
//! does no I/O: it only reads what others have observed. Every yes lists its evidence, and anything unknown counts as no.

mod days;
mod facts;
mod needed;
mod safe;

pub use self::facts::{RouteFacts, Settings, Verdict};
pub use self::needed::bridge_needed;
pub use self::safe::{expiring_certificate, safe_to_require_tls, uses_only_tls};

#[cfg(test)]
mod tests;
