//! Puts local addresses into replies that name nodes.
//!
//! It finds hosts and ports in the reply, replaces these bytes, and copies all others, known or not. It refuses a reply of an unknown form,
//! because that might contain an address that was not found.

mod nodes;
mod redirect;
mod replication;
mod rewriter;
mod sentinel;
mod shards;
mod slots;
mod splice;

pub use self::redirect::may_redirect;
pub use self::rewriter::{RewriteError, Rewriter};
pub use self::sentinel::AtSentinel;
