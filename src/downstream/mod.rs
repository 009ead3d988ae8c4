//! The client's side: an accepted client, its stream, and whether it is still there.
//!
//! Accepting it is `listener`'s work, and serving it `session`'s.

mod accepted;
pub(crate) mod presence;
mod stream;

pub use self::accepted::Accepted;
pub use self::stream::ClientStream;
