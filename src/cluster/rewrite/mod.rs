//! Puts local addresses into replies that name nodes.
//!
//! By splicing: the places of hosts and ports are found in the reply, and these bytes are replaced. Whatever else is in
//! it, known or not, is copied. A reply whose shape is not known is refused, for it might hold an address that was not found.

mod nodes;
mod redirect;
mod rewriter;
mod shards;
mod slots;
mod splice;

pub use self::redirect::may_redirect;
pub use self::rewriter::{RewriteError, Rewriter};
