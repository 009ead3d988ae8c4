//! The client's side: an accepted client, its stream, and whether it is still connected.
//!
//! `listener` accepts clients, and `session` serves them.

mod accepted;
pub(crate) mod presence;
mod stream;

pub use self::accepted::Accepted;
pub use self::stream::ClientStream;
