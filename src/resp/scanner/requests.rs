//! Requests: arrays of bulk strings, and inline commands.

use super::super::commands::{self, Leaves, Request, StreamRead};
use super::super::families::Command;
use super::super::header::{self, Header, Length};
use super::super::{client_ids, client_requests, sharing};
use super::told::{KEPT, Keep, Told};
use super::{Event, Word};

/// Redis' `PROTO_INLINE_MAX_SIZE`: a longer inline command is a protocol error.
const MAX_INLINE: usize = 64 * 1024;

/// A server answers more words with an error at once, and closes (`processMultibulkBuffer` in `networking.c`).
const MOST_WORDS: u64 = i32::MAX as u64;

/// How a TLS connection begins: a record of the type "handshake"
/// ([RFC 8446, 5.1](https://www.rfc-editor.org/rfc/rfc8446#section-5.1)). No request begins so.
pub const TLS_HANDSHAKE: u8 = 0x16;

/// A longer command is not looked at twice to find out whether it is whole.
const MAX_SHORT: usize = 16;

/// The words of so many commands are kept: how a client begins tells which library it uses.
const EARLY: u8 = 4;

/// Follows what a client sends.
#[derive(Debug, Default)]
pub struct RequestScanner {
    state: State,
    header: Header,
    /// Arguments still to come, the current one included.
    left: u64,
    /// Arguments seen, the name included.
    seen: u64,
    /// The name, and where they matter two words after it.
    words: [Word; 3],
    /// The name is one whose arguments matter.
    arguments_matter: bool,
    /// What is kept of the present argument.
    keep: Keep,
    /// An argument that is told.
    value: Option<Vec<u8>>,
    /// Commands so far, of [`EARLY`].
    early: u8,
    /// Quotes or escapes make an inline command's words uncertain.
    quoted: bool,
    /// What the request that ended last is.
    request: Request,
    /// Which it is.
    command: Command,
    /// The options of XREAD and XREADGROUP.
    stream_read: StreamRead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Start,
    Count,
    BulkMark,
    BulkLength,
    /// So many bytes, and then CRLF.
    Payload(u64),
    /// So many bytes of CRLF.
    PayloadEnd(u8),
    Inline {
        length: usize,
        in_word: bool,
    },
    Malformed,
    /// Malformed, too.
    Tls,
}

impl RequestScanner {
    /// Consumes `input` up to the end of the first frame that ends in it. Returns how much it consumed.
    pub fn next(&mut self, input: &[u8]) -> (usize, Event) {
        let mut at = 0;
        while at < input.len() {
            match self.state {
                State::Start => {
                    if let Some((length, name, words, request)) = short_command(&input[at..]) {
                        self.command = Command::named(name);
                        self.request = with_what_it_leaves(request, self.command, &[], name);
                        (self.arguments_matter, self.quoted) = (false, false);
                        if self.early <= EARLY {
                            self.keep_early(name, words);
                        }
                        return (at + length, Event::Frame);
                    }
                    self.begin();
                    if input[at] == TLS_HANDSHAKE {
                        self.state = State::Tls;
                    } else if input[at] == b'*' {
                        at += 1;
                        self.state = State::Count;
                    } else {
                        self.state = State::Inline { length: 0, in_word: false };
                    }
                }
                State::Count => match self.header.read(input, &mut at) {
                    None => break,
                    Some(Ok(Length::Known(count @ 1..=MOST_WORDS))) => {
                        self.left = count;
                        self.state = State::BulkMark;
                    }
                    // Redis skips an empty array without a reply.
                    Some(Ok(Length::Known(0) | Length::Null)) => self.state = State::Start,
                    _ => return self.malformed(at),
                },
                State::BulkMark => {
                    if input[at] != b'$' {
                        return self.malformed(at);
                    }
                    at += 1;
                    self.state = State::BulkLength;
                }
                State::BulkLength => match self.header.read(input, &mut at) {
                    None => break,
                    Some(Ok(Length::Known(length))) => self.state = State::Payload(length),
                    _ => return self.malformed(at),
                },
                State::Payload(left) => {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                    self.note(&input[at..at + n]);
                    at += n;
                    let left = left - n as u64;
                    self.state = if left > 0 { State::Payload(left) } else { State::PayloadEnd(2) };
                }
                State::PayloadEnd(left) => {
                    // Redis does not look at these two bytes either.
                    let n = usize::from(left).min(input.len() - at);
                    at += n;
                    let left = left - n as u8;
                    if left > 0 {
                        self.state = State::PayloadEnd(left);
                        break;
                    }
                    if self.argument_ended() {
                        self.ended();
                        return (at, Event::Frame);
                    }
                }
                State::Inline { length, in_word } => {
                    let (n, ended) = self.inline(&input[at..], length, in_word);
                    at += n;
                    if ended && self.seen > 0 {
                        self.ended();
                        return (at, Event::Frame);
                    }
                }
                State::Malformed | State::Tls => return (at, Event::Malformed),
            }
        }
        // An empty payload at the end of the input is complete as it is.
        if self.state == State::Payload(0) {
            self.state = State::PayloadEnd(2);
        }
        let malformed = matches!(self.state, State::Malformed | State::Tls);
        (at, if malformed { Event::Malformed } else { Event::NeedMore })
    }

    /// Whether the client speaks TLS, which is no RESP.
    pub fn speaks_tls(&self) -> bool {
        self.state == State::Tls
    }

    /// The name of the request that has begun. `None`: it is not known yet. Empty: it is longer than any that matters.
    pub fn name(&self) -> Option<&[u8]> {
        (self.state != State::Start && self.seen > 0).then(|| self.words[0].get())
    }

    /// Whether the stream stands between two requests.
    pub fn at_boundary(&self) -> bool {
        self.state == State::Start
    }

    /// Whether the request that ended last is CLIENT, or may be.
    #[inline]
    pub fn may_be_client(&self) -> bool {
        // Quotes may hide any word.
        (self.arguments_matter || self.quoted) && (self.hides_name() || self.is_client())
    }

    /// Whether that must not be sent on before all of it was seen.
    pub fn must_be_seen(&self) -> bool {
        self.may_be(client_requests::must_be_seen)
    }

    /// Whether the reply to the request that ended last tells the client the number of its connection.
    #[inline]
    pub fn asks_for_id(&self) -> bool {
        self.arguments_matter && self.is_client() && self.may_be(client_ids::is_told_by)
    }

    /// Whether the request that has begun may turn out to be CLIENT.
    pub fn may_yet_be_client(&self) -> bool {
        !self.at_boundary() && (self.seen == 0 || self.hides_name() || self.is_client())
    }

    fn hides_name(&self) -> bool {
        self.quoted && self.words[0].get().is_empty()
    }

    #[cold]
    fn is_client(&self) -> bool {
        self.words[0].get().eq_ignore_ascii_case(b"CLIENT")
    }

    fn may_be(&self, subcommand: impl Fn(&[u8]) -> bool) -> bool {
        self.quoted || subcommand(self.words[1].get())
    }

    /// Forgets the request that has begun: it is to come again from its beginning.
    pub fn rewind(&mut self) {
        self.state = State::Start;
        self.header = Header::default();
    }

    /// Bytes that the argument which has begun still lacks.
    pub fn due(&self) -> u64 {
        if let State::Payload(left) = self.state { left } else { 0 }
    }

    /// What the request that ended last means for its replies.
    pub fn request(&self) -> Request {
        self.request
    }

    /// Which command the request that ended last is.
    #[inline]
    pub fn command(&self) -> Command {
        self.command
    }

    /// How the client begins, while it does: the first words of the command that ended last, and how many it has.
    #[inline]
    pub fn beginning(&self) -> Option<([&[u8]; 3], u64)> {
        if self.early > EARLY {
            return None;
        }
        let [name, first, second] = &self.words;
        let words = if self.arguments_matter {
            [name.get(), first.get(), second.get()]
        } else {
            [name.get(), &[], &[]]
        };
        Some((words, self.seen))
    }

    /// Whether [`told`](Self::told) may have something.
    #[inline]
    pub fn tells(&self) -> bool {
        self.arguments_matter
    }

    /// What the request that ended last tells of its client.
    pub fn told(&mut self) -> Option<Told> {
        let value = self.value.take();
        let [name, first, second] = &self.words;
        if !self.arguments_matter || self.quoted {
            return None;
        }
        Told::by([name.get(), first.get(), second.get()], value)
    }

    #[cold]
    fn keep_early(&mut self, name: &[u8], words: u64) {
        self.early += 1;
        self.words[0] = Word::default();
        self.words[0].push(name);
        self.seen = words;
    }

    fn ended(&mut self) {
        let [name, first, second] = self.words;
        self.command = Command::named(name.get());
        self.early = self.early.saturating_add(1);
        let request = match commands::classify(name.get(), first.get(), second.get(), self.seen) {
            Request::Blocking
                if commands::reads_streams(name.get()) && !self.stream_read.blocks() && !self.quoted =>
            {
                Request::Plain
            }
            request => with_what_it_leaves(request, self.command, first.get(), name.get()),
        };
        let hidden = name.get().is_empty() || name.get().eq_ignore_ascii_case(b"CLUSTER");
        self.request = match request {
            // It may ask for nodes' addresses.
            _ if self.quoted && hidden => Request::Unknown,
            // Whatever it is, it gets one reply; but what it leaves behind cannot be told.
            Request::Plain | Request::Leaves(_) if self.quoted => Request::Leaves(Leaves::ForGood),
            Request::Plain
            | Request::Leaves(_)
            | Request::Quit
            | Request::Blocking
            | Request::Auth
            | Request::Transaction(_) => request,
            _ if self.quoted => Request::Unknown,
            other => other,
        };
    }

    fn begin(&mut self) {
        self.seen = 0;
        self.words[0] = Word::default();
        self.arguments_matter = false;
        self.keep = Keep::Word(0);
        self.value = None;
        self.stream_read = StreamRead::default();
        self.quoted = false;
    }

    #[inline]
    fn note(&mut self, bytes: &[u8]) {
        match self.keep {
            Keep::Nothing | Keep::Skip(_) => {}
            Keep::Word(number) => self.words[number].push(bytes),
            Keep::Value => {
                let value = self.value.get_or_insert_default();
                value.extend_from_slice(&bytes[..bytes.len().min(KEPT - value.len())]);
            }
        }
    }

    /// Returns whether it was the last.
    #[inline]
    fn argument_ended(&mut self) -> bool {
        if self.seen == 0 {
            self.name_ended();
        }
        self.word_seen();
        self.left -= 1;
        self.state = if self.left == 0 { State::Start } else { State::BulkMark };
        self.left == 0
    }

    fn name_ended(&mut self) {
        self.arguments_matter = commands::arguments_matter(self.words[0].get());
        self.keep = Keep::Nothing;
        if self.arguments_matter {
            self.words[1] = Word::default();
            self.words[2] = Word::default();
        }
    }

    #[inline]
    fn word_seen(&mut self) {
        self.seen += 1;
        if self.arguments_matter {
            self.next_argument();
        }
    }

    #[cold]
    fn next_argument(&mut self) {
        if commands::reads_streams(self.words[0].get()) {
            // All of them: options may stand in any order.
            if self.seen > 1 {
                self.stream_read.word(self.words[1].get());
            }
            self.keep = Keep::Word(1);
            self.words[1] = Word::default();
            return;
        }
        self.keep = self.keep.next(&self.words, self.seen);
        match self.keep {
            Keep::Word(number) => self.words[number] = Word::default(),
            Keep::Value => self.value = Some(Vec::new()),
            Keep::Nothing | Keep::Skip(_) => {}
        }
    }

    /// Returns how much it consumed, and whether the line ended.
    fn inline(&mut self, input: &[u8], length: usize, mut in_word: bool) -> (usize, bool) {
        for (i, &byte) in input.iter().enumerate() {
            if byte == b'\n' {
                if in_word {
                    self.word_ended();
                }
                self.state = State::Start;
                return (i + 1, true);
            }
            if length + i >= MAX_INLINE {
                self.state = State::Malformed;
                return (i, false);
            }
            // To a server the line ends here, and its end never comes (`processInlineBuffer` in `networking.c`).
            if byte == 0 {
                self.state = State::Malformed;
                return (i, false);
            }
            if byte.is_ascii_whitespace() || byte == 0x0b {
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
        self.state = State::Inline { length: length + input.len(), in_word };
        (input.len(), false)
    }

    fn word_ended(&mut self) {
        if self.seen == 0 {
            // A name in quotes could be any.
            if self.quoted {
                self.words[0] = Word::default();
            }
            self.name_ended();
        }
        self.word_seen();
    }

    fn malformed(&mut self, at: usize) -> (usize, Event) {
        self.state = State::Malformed;
        (at, Event::Malformed)
    }
}

/// The same, for a command of which no more is known than that it has one reply, soon, with what it leaves.
#[inline]
fn with_what_it_leaves(request: Request, command: Command, first: &[u8], name: &[u8]) -> Request {
    match request {
        Request::Plain => sharing::leaves(command, first, name).map_or(request, Request::Leaves),
        _ => request,
    }
}

/// A command that lies whole in `input`, as most do, and whose arguments do not matter: its length, its
/// name, how many words it has, and what it is.
#[inline]
fn short_command(input: &[u8]) -> Option<(usize, &[u8], u64, Request)> {
    let mut at = 0;
    let words = header::short(input, &mut at, b'*').filter(|words| (1..=MAX_SHORT).contains(words))?;
    // A server may take a name with a zero byte in it for a shorter one.
    let name =
        argument(input, &mut at).filter(|name| !commands::arguments_matter(name) && !name.contains(&0))?;
    for _ in 1..words {
        argument(input, &mut at)?;
    }
    let words = words as u64;
    Some((at, name, words, commands::classify(name, &[], &[], words)))
}

#[inline]
fn argument<'a>(input: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let length = header::short(input, at, b'$')?;
    let start = *at;
    *at += length + 2;
    (*at <= input.len()).then(|| &input[start..start + length])
}
