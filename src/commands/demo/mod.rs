//! `pontoon demo`: the main job with nothing installed. A TLS endpoint with a throw-away CA, a bridge before it, and
//! a plaintext conversation through both.
//!
//! Standard output is what the command is for; it has no log.

mod conversation;
mod endpoint;
mod tap;

pub use self::conversation::run;
