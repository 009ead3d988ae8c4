//! Scans replies of every RESP2 and RESP3 type.

use memchr::memchr;

use super::super::command_table::Subscription;
use super::super::header::{self, Header, Length};
use super::{Event, Word};

/// Deeper than any server nests: scripts in Lua nest some 8,000 levels deep (`redisProtocolToLuaType` and `luaReplyToRedisReply` in
/// `script_lua.c` stop at the depth of Lua's stack). An aggregate that is the last element of another one does not count. The limit bounds
/// the memory that a hostile server can claim.
const MAX_DEPTH: usize = 8192;

/// The memory for deeper nesting is freed after the frame.
const MAX_KEPT_DEPTH: usize = 64;

/// The code of a replica's error for writes.
const READ_ONLY: &[u8; 8] = b"READONLY";

/// The kind of a frame from the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// `>`: an out-of-band push, and the subscription or unsubscription that it confirms.
    Push(Option<Confirmed>),
    /// `-` or `!`.
    Error,
    /// Any other reply.
    Other,
}

/// What a push confirms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// A subscription.
    Subscribe(Subscription),
    /// The end of a subscription.
    Unsubscribe(Subscription),
}

impl Confirmed {
    /// The kind of subscription that begins.
    pub fn subscribes(self) -> Option<Subscription> {
        if let Self::Subscribe(kind) = self { Some(kind) } else { None }
    }

    /// The kind of subscription that ends.
    pub fn unsubscribes(self) -> Option<Subscription> {
        if let Self::Unsubscribe(kind) = self { Some(kind) } else { None }
    }
}

/// Scans what an upstream sends.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug, Default)]
pub struct ReplyScanner {
    state: ReplyScanState,
    header: Header,
    /// The innermost open aggregate, if `depth` is not 0.
    top: Level,
    /// The aggregates that enclose it.
    around: Vec<Level>,
    depth: usize,
    /// The type byte of the open frame, or of the one that ended last.
    frame: u8,
    /// The first element of a push, or the beginning of an error, while `naming` is set.
    name: Word,
    naming: bool,
    /// Also keeps the text of a status reply.
    keep_status: bool,
    /// The open line or string is an error, at any depth.
    in_error: bool,
    /// Number of letters of READONLY that the error's text ends with so far. The rest may come with the next read.
    read_only_bytes: usize,
    /// An error contained the word READONLY.
    read_only: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Level {
    left: Left,
    /// The aggregate is an attribute: it describes the frame that follows, and is not an element.
    attribute: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Elements(u64),
    UntilEnd,
}

impl Default for Left {
    fn default() -> Self {
        Self::Elements(0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum ReplyScanState {
    #[default]
    Type,
    /// A line without a length, and whether its last byte so far is CR.
    Line {
        carriage_return: bool,
    },
    BulkLength,
    AggregateLength {
        kind: u8,
    },
    /// Bytes left, the CRLF included, and whether they belong to a chunk of a streamed string.
    Payload {
        left: u64,
        chunk: bool,
    },
    ChunkMark,
    ChunkLength,
    Malformed,
}

impl ReplyScanner {
    /// Consumes `input` up to the end of the first frame that ends in it. Returns how much it consumed.
    pub fn next(&mut self, input: &[u8]) -> (usize, Event) {
        let mut at = 0;
        while at < input.len() {
            match self.state {
                ReplyScanState::Type => {
                    if self.depth == 0
                        && let Some(end) = short_bulk(input, at)
                    {
                        self.frame = b'$';
                        return (end, Event::Frame);
                    }
                    let kind = input[at];
                    at += 1;
                    if !self.element_begins(kind) {
                        return self.malformed(at);
                    }
                }
                ReplyScanState::Line { carriage_return } => {
                    let rest = &input[at..];
                    let Some(end) = memchr(b'\n', rest) else {
                        self.note(rest);
                        self.state = ReplyScanState::Line { carriage_return: rest.last() == Some(&b'\r') };
                        return (input.len(), Event::NeedMore);
                    };
                    at += end + 1;
                    let complete = if end == 0 { carriage_return } else { rest[end - 1] == b'\r' };
                    self.note(&rest[..end.saturating_sub(1)]);
                    if !complete {
                        self.state = ReplyScanState::Line { carriage_return: false };
                    } else if self.element_ended() {
                        return (at, Event::Frame);
                    }
                }
                ReplyScanState::BulkLength => match self.header.read(input, &mut at) {
                    None => break,
                    Some(Ok(Length::Known(length))) => {
                        self.state = ReplyScanState::Payload { left: length + 2, chunk: false };
                    }
                    Some(Ok(Length::Streamed)) => self.state = ReplyScanState::ChunkMark,
                    Some(Ok(Length::Null)) => {
                        if self.element_ended() {
                            return (at, Event::Frame);
                        }
                    }
                    Some(Err(_)) => return self.malformed(at),
                },
                ReplyScanState::AggregateLength { kind } => match self.header.read(input, &mut at) {
                    None => break,
                    Some(Ok(length)) => match self.aggregate_begins(kind, length) {
                        Ok(true) => return (at, Event::Frame),
                        Ok(false) => {}
                        Err(()) => return self.malformed(at),
                    },
                    Some(Err(_)) => return self.malformed(at),
                },
                ReplyScanState::Payload { left, chunk } => {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                    if self.naming || self.in_error {
                        let text = usize::try_from(left.saturating_sub(2)).unwrap_or(usize::MAX);
                        self.note(&input[at..at + n.min(text)]);
                    }
                    at += n;
                    let left = left - n as u64;
                    if left > 0 {
                        self.state = ReplyScanState::Payload { left, chunk };
                    } else if chunk {
                        self.state = ReplyScanState::ChunkMark;
                    } else if self.element_ended() {
                        return (at, Event::Frame);
                    }
                }
                ReplyScanState::ChunkMark => {
                    if input[at] != b';' {
                        return self.malformed(at);
                    }
                    at += 1;
                    self.state = ReplyScanState::ChunkLength;
                }
                ReplyScanState::ChunkLength => match self.header.read(input, &mut at) {
                    None => break,
                    Some(Ok(Length::Known(0))) => {
                        if self.element_ended() {
                            return (at, Event::Frame);
                        }
                    }
                    Some(Ok(Length::Known(length))) => {
                        self.state = ReplyScanState::Payload { left: length + 2, chunk: true };
                    }
                    _ => return self.malformed(at),
                },
                ReplyScanState::Malformed => return (at, Event::Malformed),
            }
        }
        (at, if self.state == ReplyScanState::Malformed { Event::Malformed } else { Event::NeedMore })
    }

    /// Whether the stream is between two frames.
    pub fn at_boundary(&self) -> bool {
        self.state == ReplyScanState::Type && self.depth == 0 && self.frame_is_whole()
    }

    /// Number of bytes that the open string still lacks.
    pub fn due(&self) -> u64 {
        if let ReplyScanState::Payload { left, .. } = self.state { left } else { 0 }
    }

    /// The kind of the frame that ended last.
    #[inline]
    pub fn reply(&self) -> Reply {
        match self.frame {
            b'>' => Reply::Push(self.confirmed()),
            b'-' | b'!' => Reply::Error,
            _ => Reply::Other,
        }
    }

    /// Whether a reply has begun and not ended. A push is not a reply.
    #[inline]
    pub fn is_within_reply(&self) -> bool {
        !self.at_boundary() && !matches!(self.reply(), Reply::Push(_))
    }

    /// The first word of the error that ended last.
    pub fn error_code(&self) -> &[u8] {
        let end = self.name.bytes.iter().position(|byte| !byte.is_ascii_uppercase());
        &self.name.bytes[..end.unwrap_or(self.name.bytes.len())]
    }

    /// Whether the frame that ended last contains an error READONLY, or an error whose text has that word, as Redis 6 reports errors of
    /// scripts. A whole reply that is the error READONLY does not count. A script can produce such an error itself, so this is only a hint.
    #[inline]
    pub fn take_read_only_hint(&mut self) -> bool {
        self.read_only
            && std::mem::take(&mut self.read_only)
            && !(self.reply() == Reply::Error && self.error_code() == READ_ONLY)
    }

    /// Whether the server closes after the error that ended last (`setProtocolError` in `networking.c`).
    pub fn is_protocol_error(&self) -> bool {
        self.name.bytes.starts_with(b"ERR Protocol error:")
    }

    /// Whether the caller will ask [`is_ok`](Self::is_ok) or [`is_queued`](Self::is_queued) about replies that begin from now on.
    #[inline]
    pub fn keep_status(&mut self, keep: bool) {
        self.keep_status = keep;
    }

    /// Whether the frame that ended last is `+OK`.
    pub fn is_ok(&self) -> bool {
        // A line that arrived in pieces keeps its carriage return.
        self.frame == b'+' && matches!(self.name.get(), b"OK" | b"OK\r")
    }

    /// Whether the frame that ended last is `+QUEUED`: the request waits for EXEC.
    pub fn is_queued(&self) -> bool {
        self.frame == b'+' && matches!(self.name.get(), b"QUEUED" | b"QUEUED\r")
    }

    /// An attribute alone is not a frame: the value that it describes must follow.
    fn frame_is_whole(&self) -> bool {
        self.frame != b'|'
    }

    fn confirmed(&self) -> Option<Confirmed> {
        Some(match self.name.get() {
            b"subscribe" => Confirmed::Subscribe(Subscription::Channel),
            b"psubscribe" => Confirmed::Subscribe(Subscription::Pattern),
            b"ssubscribe" => Confirmed::Subscribe(Subscription::Shard),
            b"unsubscribe" => Confirmed::Unsubscribe(Subscription::Channel),
            b"punsubscribe" => Confirmed::Unsubscribe(Subscription::Pattern),
            b"sunsubscribe" => Confirmed::Unsubscribe(Subscription::Shard),
            _ => return None,
        })
    }

    #[inline]
    fn note(&mut self, bytes: &[u8]) {
        if self.naming {
            self.name.push(bytes);
        }
        if self.in_error {
            self.look_for_read_only(bytes);
        }
    }

    #[cold]
    fn look_for_read_only(&mut self, bytes: &[u8]) {
        for byte in bytes {
            // READONLY begins with the only R in it, so a mismatch can only begin a new match.
            let goes_on = READ_ONLY[self.read_only_bytes] == *byte;
            self.read_only_bytes =
                if goes_on { self.read_only_bytes + 1 } else { usize::from(READ_ONLY[0] == *byte) };
            if self.read_only_bytes == READ_ONLY.len() {
                (self.read_only, self.read_only_bytes) = (true, 0);
            }
        }
    }

    /// Returns whether this type may stand here.
    #[inline]
    fn element_begins(&mut self, kind: u8) -> bool {
        if self.depth == 0 {
            self.frame = kind;
            if matches!(kind, b'-' | b'!') || (kind == b'+' && self.keep_status) {
                self.naming = true;
                self.name = Word::default();
            }
        }
        self.in_error = matches!(kind, b'-' | b'!');
        self.read_only_bytes = 0;
        self.state = match kind {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => ReplyScanState::Line { carriage_return: false },
            b'$' | b'!' | b'=' => ReplyScanState::BulkLength,
            // Within another frame, a push is what EXEC replies for a subscription.
            b'*' | b'%' | b'~' | b'|' | b'>' => ReplyScanState::AggregateLength { kind },
            b'.' if self.depth > 0 && self.top.left == Left::UntilEnd => {
                // The end mark is a line, and counts as the last of one element.
                self.top.left = Left::Elements(1);
                ReplyScanState::Line { carriage_return: false }
            }
            _ => return false,
        };
        true
    }

    /// Returns whether the frame ended with the aggregate.
    fn aggregate_begins(&mut self, kind: u8, length: Length) -> Result<bool, ()> {
        let left = match length {
            Length::Null if kind == b'*' => return Ok(self.element_ended()),
            Length::Null => return Err(()),
            Length::Streamed => Left::UntilEnd,
            Length::Known(count) => {
                Left::Elements(if matches!(kind, b'%' | b'|') { count * 2 } else { count })
            }
        };
        let attribute = kind == b'|';
        if left == Left::Elements(0) {
            if attribute {
                self.state = ReplyScanState::Type;
                return Ok(false);
            }
            return Ok(self.element_ended());
        }
        // An aggregate that ends with the enclosing one takes its level.
        let within = self.depth > 0;
        let is_last = within && !attribute && !self.top.attribute && self.top.left == Left::Elements(1);
        if !is_last {
            if within {
                if self.depth == MAX_DEPTH {
                    return Err(());
                }
                self.around.push(self.top);
            }
            self.depth += 1;
        }
        self.top = Level { left, attribute };
        self.state = ReplyScanState::Type;
        if kind == b'>' && !within {
            self.naming = true;
            self.name = Word::default();
        } else {
            // The first element of this push is an aggregate, and not a name.
            self.naming = false;
        }
        Ok(false)
    }

    /// Closes the aggregates that this element completes. Returns whether the frame is complete.
    #[inline]
    fn element_ended(&mut self) -> bool {
        self.state = ReplyScanState::Type;
        self.naming = false;
        while self.depth > 0 {
            match &mut self.top.left {
                Left::UntilEnd => return false,
                Left::Elements(left) => {
                    *left -= 1;
                    if *left > 0 {
                        return false;
                    }
                }
            }
            let attribute = self.top.attribute;
            self.depth -= 1;
            if let Some(outer) = self.around.pop() {
                self.top = outer;
            }
            if attribute {
                return false;
            }
        }
        if self.around.capacity() > MAX_KEPT_DEPTH {
            self.around = Vec::new();
        }
        true
    }

    fn malformed(&mut self, at: usize) -> (usize, Event) {
        self.state = ReplyScanState::Malformed;
        (at, Event::Malformed)
    }
}

/// The end of the bulk string at `input[at]`, if all of it is there and it is short, as most are.
#[inline]
fn short_bulk(input: &[u8], mut at: usize) -> Option<usize> {
    let length = header::short(input, &mut at, b'$')?;
    Some(at + length + 2).filter(|end| *end <= input.len())
}
