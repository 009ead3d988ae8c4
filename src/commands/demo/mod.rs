//! `pontoon demo`: shows the main use without an installation. It starts a TLS endpoint with a throw-away CA and a bridge to it, and sends
//! a plaintext conversation through both.
//!
//! It prints to standard output, and has no log.

mod conversation;
mod endpoint;
mod tap;

pub use self::conversation::run;
