//! Scans requests: arrays of bulk strings, and inline commands.

use super::super::arguments::{ArgumentReader, ClientInfo};
use super::super::command_table::{Arguments, Command, Leaves};
use super::super::header::{self, Header, Length};
use super::super::request::Request;
use super::super::words::is_space;
use super::super::{client_ids, client_requests};
use super::{Event, Word};

/// Redis' `PROTO_INLINE_MAX_SIZE`: a longer inline command is a protocol error.
const MAX_INLINE: usize = 64 * 1024;

/// Servers answer more words with an error at once, and close (`processMultibulkBuffer` in `networking.c`).
const MAX_WORDS: u64 = i32::MAX as u64;

/// The first byte of a TLS connection: a record of type "handshake" ([RFC 8446, 5.1](https://www.rfc-editor.org/rfc/rfc8446#section-5.1)).
/// No request begins with it.
pub const TLS_HANDSHAKE: u8 = 0x16;

/// A command with more words is not read ahead to find out whether it is whole.
const MAX_LOOKED_AT_TWICE: usize = 16;

/// Number of commands whose words are kept, because a client's first commands reveal its library.
const FIRST_COMMANDS: u8 = 4;

/// Scans what a client sends.
#[derive(Debug, Default)]
pub struct RequestScanner {
    state: RequestScanState,
    header: Header,
    /// Number of arguments still to come, the current one included.
    left: u64,
    /// Number of arguments seen, the name included.
    seen: u64,
    name: Word,
    /// What is read of the arguments that matter.
    arguments: ArgumentReader,
    /// Number of commands so far, up to [`FIRST_COMMANDS`] and one.
    early: u8,
    /// Quotes or escapes make an inline command's words uncertain.
    quoted: bool,
    /// The kind of the request that ended last.
    request: Request,
    /// The command of the request that ended last.
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum RequestScanState {
    #[default]
    Start,
    Count,
    BulkMark,
    BulkLength,
    /// Bytes of the payload left. CRLF follows.
    Payload(u64),
    /// Bytes left of the CRLF after a payload.
    PayloadEnd(u8),
    Inline {
        length: usize,
        in_word: bool,
    },
    Malformed,
    /// The client speaks TLS, which is malformed here.
    Tls,
}

impl RequestScanner {
    /// Consumes `input` up to the end of the first frame that ends in it. Returns how much it consumed.
    pub fn next(&mut self, input: &[u8]) -> (usize, Event) {
        let mut at = 0;
        while at < input.len() {
            match self.state {
                RequestScanState::Start => {
                    if let Some((length, name, words, command)) = short_command(&input[at..]) {
                        self.command = command;
                        self.request = Request::of(command, words);
                        self.quoted = false;
                        if self.early <= FIRST_COMMANDS {
                            self.keep_early(name, words);
                        }
                        return (at + length, Event::Frame);
                    }
                    self.begin();
                    if input[at] == TLS_HANDSHAKE {
                        self.state = RequestScanState::Tls;
                    } else if input[at] == b'*' {
                        at += 1;
                        self.state = RequestScanState::Count;
                    } else {
                        self.state = RequestScanState::Inline { length: 0, in_word: false };
                    }
                }
                RequestScanState::Count => match self.header.read(input, &mut at) {
                    None => break,
                    Some(Ok(Length::Known(count @ 1..=MAX_WORDS))) => {
                        self.left = count;
                        self.state = RequestScanState::BulkMark;
                    }
                    // Redis skips an empty array without a reply.
                    Some(Ok(Length::Known(0) | Length::Null)) => self.state = RequestScanState::Start,
                    _ => return self.malformed(at),
                },
                RequestScanState::BulkMark => {
                    if input[at] != b'$' {
                        return self.malformed(at);
                    }
                    at += 1;
                    self.state = RequestScanState::BulkLength;
                }
                RequestScanState::BulkLength => match self.header.read(input, &mut at) {
                    None => break,
                    Some(Ok(Length::Known(length))) => self.state = RequestScanState::Payload(length),
                    _ => return self.malformed(at),
                },
                RequestScanState::Payload(left) => {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                    self.note(&input[at..at + n]);
                    at += n;
                    let left = left - n as u64;
                    self.state = if left > 0 {
                        RequestScanState::Payload(left)
                    } else {
                        RequestScanState::PayloadEnd(2)
                    };
                }
                RequestScanState::PayloadEnd(left) => {
                    // Redis ignores these two bytes, too.
                    let n = usize::from(left).min(input.len() - at);
                    at += n;
                    let left = left - n as u8;
                    if left > 0 {
                        self.state = RequestScanState::PayloadEnd(left);
                        break;
                    }
                    if self.argument_ended() {
                        self.ended();
                        return (at, Event::Frame);
                    }
                }
                RequestScanState::Inline { length, in_word } => {
                    let (n, ended) = self.inline(&input[at..], length, in_word);
                    at += n;
                    if ended && self.seen > 0 {
                        self.ended();
                        return (at, Event::Frame);
                    }
                }
                RequestScanState::Malformed | RequestScanState::Tls => return (at, Event::Malformed),
            }
        }
        // An empty payload at the end of the input is complete.
        if self.state == RequestScanState::Payload(0) {
            self.state = RequestScanState::PayloadEnd(2);
        }
        let malformed = matches!(self.state, RequestScanState::Malformed | RequestScanState::Tls);
        (at, if malformed { Event::Malformed } else { Event::NeedMore })
    }

    /// Whether the client speaks TLS, which is not RESP.
    pub fn speaks_tls(&self) -> bool {
        self.state == RequestScanState::Tls
    }

    /// The name of the request that has begun. `None`: not known yet. Empty: longer than any name that matters.
    pub fn name(&self) -> Option<&[u8]> {
        (self.state != RequestScanState::Start && self.seen > 0).then(|| self.name.get())
    }

    /// Whether the stream is between two requests.
    pub fn at_boundary(&self) -> bool {
        self.state == RequestScanState::Start
    }

    /// Whether the request that ended last is CLIENT, or may be.
    #[inline]
    pub fn may_be_client(&self) -> bool {
        // Quotes may hide any word.
        self.command == Command::CLIENT || self.hides_name()
    }

    /// Whether all of the request that ended last must be read before it is sent.
    pub fn must_be_seen(&self) -> bool {
        self.quoted || client_requests::must_be_seen(self.arguments.row())
    }

    /// Whether the reply to the request that ended last shows the client the id of its connection.
    #[inline]
    pub fn asks_for_id(&self) -> bool {
        self.reads_arguments() && (self.quoted || client_ids::is_shown_by(self.arguments.row()))
    }

    /// Whether the request that has begun may turn out to be CLIENT.
    pub fn may_yet_be_client(&self) -> bool {
        !self.at_boundary() && (self.seen == 0 || self.may_be_client())
    }

    fn hides_name(&self) -> bool {
        self.quoted && self.name.get().is_empty()
    }

    /// Forgets the request that has begun. Its bytes must come again from the first one.
    pub fn rewind(&mut self) {
        self.state = RequestScanState::Start;
        self.header = Header::default();
    }

    /// Number of bytes that the open argument still lacks.
    pub fn due(&self) -> u64 {
        if let RequestScanState::Payload(left) = self.state { left } else { 0 }
    }

    /// The kind of the request that ended last.
    pub fn request(&self) -> Request {
        self.request
    }

    /// The command of the request that ended last.
    #[inline]
    pub fn command(&self) -> Command {
        self.command
    }

    /// The first words of the command that ended last, and the number of its words, while it is one of the client's first commands.
    #[inline]
    pub fn beginning(&self) -> Option<([&[u8]; 3], u64)> {
        if self.early > FIRST_COMMANDS {
            return None;
        }
        let [first, second] =
            if self.reads_arguments() { self.arguments.first_words() } else { [&[][..]; 2] };
        Some(([self.name.get(), first, second], self.seen))
    }

    /// The second argument of the request that ended last, if its command reads two. Empty if it is longer than any name that matters.
    pub fn second_argument(&self) -> &[u8] {
        self.arguments.first_words()[1]
    }

    /// Whether [`client_info`](Self::client_info) may return something.
    #[inline]
    pub fn reads_arguments(&self) -> bool {
        self.command.facts().arguments != Arguments::Ignored
    }

    /// What the request that ended last says about its client.
    pub fn client_info(&mut self) -> Option<ClientInfo> {
        if !self.reads_arguments() || self.quoted {
            return None;
        }
        self.arguments.client_info()
    }

    #[cold]
    fn keep_early(&mut self, name: &[u8], words: u64) {
        self.early += 1;
        self.name = Word::default();
        self.name.push(name);
        self.seen = words;
    }

    fn ended(&mut self) {
        self.early = self.early.saturating_add(1);
        self.request = self.arguments.request(self.seen, self.quoted);
        if self.quoted {
            // A hidden argument of CLUSTER may ask for addresses of nodes.
            let is_known = !self.name.get().is_empty() && self.command != Command::CLUSTER;
            self.request = self.request.in_quotes(is_known);
        }
        if matches!(self.request, Request::Quit | Request::Closes) && (self.quoted || self.name.has_zero()) {
            // The session may answer QUIT itself, so it must be certain. A server has no command "QUIT\0x", and may or may not close at
            // "HOST:\0x".
            self.request = Request::Leaves(Leaves::UntilClose);
        }
    }

    fn begin(&mut self) {
        self.seen = 0;
        self.name = Word::default();
        self.command = Command::default();
        self.quoted = false;
    }

    #[inline]
    fn note(&mut self, bytes: &[u8]) {
        if self.seen == 0 {
            self.name.push(bytes);
        } else {
            self.arguments.note(bytes);
        }
    }

    /// Returns whether this argument was the last.
    #[inline]
    fn argument_ended(&mut self) -> bool {
        self.word_seen();
        self.left -= 1;
        self.state = if self.left == 0 { RequestScanState::Start } else { RequestScanState::BulkMark };
        self.left == 0
    }

    #[inline]
    fn word_seen(&mut self) {
        if self.seen == 0 {
            self.command = Command::named(self.name.get());
            self.arguments.begin(self.command);
        } else {
            self.arguments.end_argument();
        }
        self.seen += 1;
    }

    /// Returns the number of bytes consumed, and whether the line ended.
    fn inline(&mut self, input: &[u8], length: usize, mut in_word: bool) -> (usize, bool) {
        for (i, &byte) in input.iter().enumerate() {
            if byte == b'\n' {
                if in_word {
                    self.word_ended();
                }
                self.state = RequestScanState::Start;
                return (i + 1, true);
            }
            if length + i >= MAX_INLINE {
                self.state = RequestScanState::Malformed;
                return (i, false);
            }
            // The server ends the line at a zero byte, and then waits for an end that never comes (`processInlineBuffer` in
            // `networking.c`).
            if byte == 0 {
                self.state = RequestScanState::Malformed;
                return (i, false);
            }
            if is_space(byte) {
                // Between words these two bytes are blanks. After a word they belong to it (`sdssplitargs` in `sds.c`).
                self.quoted |= in_word && matches!(byte, 0x0b | 0x0c);
                if in_word {
                    self.word_ended();
                }
                in_word = false;
            } else {
                in_word = true;
                self.quoted |= matches!(byte, b'"' | b'\'' | b'\\');
                self.note(&[byte]);
            }
        }
        self.state = RequestScanState::Inline { length: length + input.len(), in_word };
        (input.len(), false)
    }

    fn word_ended(&mut self) {
        // A name in quotes could be any command.
        if self.seen == 0 && self.quoted {
            self.name = Word::default();
        }
        self.word_seen();
    }

    fn malformed(&mut self, at: usize) -> (usize, Event) {
        self.state = RequestScanState::Malformed;
        (at, Event::Malformed)
    }
}

/// Reads a command that lies whole in `input`, as most do, and whose arguments do not matter. Returns its length, its name, the number of
/// its words, and the command.
#[inline]
fn short_command(input: &[u8]) -> Option<(usize, &[u8], u64, Command)> {
    let mut at = 0;
    let words =
        header::short(input, &mut at, b'*').filter(|words| (1..=MAX_LOOKED_AT_TWICE).contains(words))?;
    // A server may take a name with a zero byte for a shorter one.
    let name = argument(input, &mut at).filter(|name| !name.contains(&0))?;
    let command = Command::named(name);
    if command.facts().arguments != Arguments::Ignored {
        return None;
    }
    for _ in 1..words {
        argument(input, &mut at)?;
    }
    Some((at, name, words as u64, command))
}

#[inline]
fn argument<'a>(input: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let length = header::short(input, at, b'$')?;
    let start = *at;
    *at += length + 2;
    (*at <= input.len()).then(|| &input[start..start + length])
}
