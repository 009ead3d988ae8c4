//! Finds the ends of frames in a byte stream as it passes.
//!
//! A scanner is incremental: it keeps its place between calls, looks at each byte once, and skips payloads by their length. It stores only
//! the first bytes of a command's name and of the few arguments that matter. What frames mean beyond that is the work of its callers.
//! Sources: the [RESP specification](https://redis.io/docs/latest/develop/reference/protocol-spec/),
//! [RESP3](https://github.com/redis/redis-specifications/blob/master/protocol/RESP3.md) for streamed types and attributes, and
//! `networking.c` of Redis for what a server accepts as a request.

mod event;
mod replies;
mod requests;
#[cfg(test)]
mod tests;
mod word;

pub use self::event::Event;
pub use self::replies::{Confirmed, Reply, ReplyScanner};
pub use self::requests::{RequestScanner, TLS_HANDSHAKE};
pub(super) use self::word::Word;
