//! Finds the ends of frames in a byte stream as it passes.
//!
//! Incremental: a scanner keeps its place between calls, looks at no byte twice, skips payloads by their length
//! and buffers nothing but the first bytes of a command's name and of the few arguments that matter. What a frame's
//! bytes mean beyond that is not its business. Sources: the [RESP specification](https://redis.io/docs/latest/develop/reference/protocol-spec/),
//! [RESP3](https://github.com/redis/redis-specifications/blob/master/protocol/RESP3.md) for streamed types and
//! attributes, and `networking.c` of Redis for what a server takes for a request.

mod replies;
mod requests;

use super::words;

pub use self::replies::{Confirmed, Reply, ReplyScanner};
pub use self::requests::{RequestScanner, TLS_HANDSHAKE};

/// How far a call to `next` came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// All input was consumed and no frame ended in it.
    NeedMore,
    /// A frame ended exactly where consumption stopped.
    Frame,
    /// The input is no RESP. The scanner stays in this state.
    Malformed,
}

/// The first bytes of a word, enough to tell every name that matters.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Word {
    bytes: [u8; Word::KEPT],
    /// Of the whole word; capped.
    length: u8,
}

impl Word {
    /// `GEORADIUSBYMEMBER_RO`.
    const KEPT: usize = 20;

    #[inline]
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let have = usize::from(self.length);
        if have < Self::KEPT {
            let n = bytes.len().min(Self::KEPT - have);
            self.bytes[have..have + n].copy_from_slice(&bytes[..n]);
        }
        self.length = self.length.saturating_add(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    }

    /// Whether a zero byte is among the bytes that are kept.
    fn has_zero(&self) -> bool {
        self.bytes[..usize::from(self.length).min(Self::KEPT)].contains(&0)
    }

    /// The word as a server compares it, or nothing if it is longer than any name that matters.
    pub(super) fn get(&self) -> &[u8] {
        let length = usize::from(self.length);
        let kept = &self.bytes[..length.min(Self::KEPT)];
        let compared = words::up_to_zero(kept);
        if length <= Self::KEPT || compared.len() < kept.len() { compared } else { &[] }
    }
}

#[cfg(test)]
mod tests;
