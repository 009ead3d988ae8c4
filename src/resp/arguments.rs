//! Reads the arguments that matter, word by word as they pass: what they make of a request, and what they say about the client.
//!
//! Each word decides whether the next one is kept. Passwords are never kept.

use super::client_requests::{MARK_LENGTH, without_mark};
use super::command_table::{Arguments, Command, Effect, Leaves, ReplyKind};
use super::hello::HelloWord;
use super::request::{ReplyMode, Request};
use super::scanner::Word;
use super::words::is_same;

/// Longer values are cut here. It is one byte more than is ever shown, so that the reader notices the cut.
pub const MAX_CLIENT_INFO: usize = 65;

/// Number of bytes of a value that are read, because a mark may have to be removed from its end.
const MAX_VALUE: usize = MAX_CLIENT_INFO + MARK_LENGTH;

/// What a request says about its client. It holds once the server accepts the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientInfo {
    /// CLIENT SETNAME.
    Name(Vec<u8>),
    /// CLIENT SETINFO LIB-NAME.
    Library(Vec<u8>),
    /// CLIENT SETINFO LIB-VER.
    Version(Vec<u8>),
    /// HELLO, with its options.
    Hello {
        /// RESP3 (`true`) or RESP2. `None`: the protocol does not change.
        resp3: Option<bool>,
        /// The name that SETNAME gives.
        name: Option<Vec<u8>>,
    },
    /// SELECT.
    Database(u32),
    /// RESET.
    Reset,
}

impl ClientInfo {
    /// Reads CLIENT SETINFO. Takes pontoon's mark off a library's name.
    pub fn by_setinfo(option: &[u8], value: &[u8]) -> Option<Self> {
        let value = &value[..value.len().min(MAX_VALUE)];
        if is_same(option, b"LIB-NAME") {
            Some(Self::Library(cut(without_mark(value))))
        } else if is_same(option, b"LIB-VER") {
            Some(Self::Version(cut(value.to_vec())))
        } else {
            None
        }
    }
}

fn cut(mut value: Vec<u8>) -> Vec<u8> {
    value.truncate(MAX_CLIENT_INFO);
    value
}

/// Follows the words of XREAD and XREADGROUP after the name to find the option BLOCK (`xreadCommand` in `t_stream.c`).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StreamOptions {
    /// Number of words of the present option that still follow.
    skip: u8,
    blocks: bool,
    /// STREAMS has passed: keys and ids follow.
    ended: bool,
}

impl StreamOptions {
    /// Reads the next word.
    pub(super) fn word(&mut self, word: &[u8]) {
        if self.ended {
            return;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        let is = |option: &str| is_same(word, option.as_bytes());
        if is("BLOCK") {
            self.blocks = true;
            self.skip = 1;
        } else if is("COUNT") {
            self.skip = 1;
        } else if is("GROUP") {
            // A group and a consumer may have any name.
            self.skip = 2;
        } else if is("STREAMS") {
            self.ended = true;
        }
    }

    /// Whether BLOCK is among the words so far.
    pub(super) fn blocks(self) -> bool {
        self.blocks
    }
}

/// Reads the arguments of one request.
#[derive(Debug, Default)]
pub(super) struct ArgumentReader {
    command: Command,
    /// What is kept of the argument that is being read.
    keep: Keep,
    /// The first two arguments, or the one that is being read.
    words: [Word; 2],
    /// A name or a version that the client gives.
    value: Option<Vec<u8>>,
    hello: HelloState,
    streams: StreamOptions,
}

/// What is kept of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Keep {
    /// Nothing of this argument or of any later one.
    #[default]
    Nothing,
    /// Nothing of this argument.
    Skipped,
    /// Its first bytes, in the word with this index.
    Word(usize),
    /// Its first bytes, up to the limit for values.
    Value,
}

/// What the options of HELLO have said so far.
#[derive(Debug, Clone, Copy, Default)]
struct HelloState {
    resp3: Option<bool>,
    /// What the next word is. `None`: the server refuses the request because of an earlier word.
    expects: Option<HelloWord>,
    has_options: bool,
    authenticates: bool,
}

impl ArgumentReader {
    /// Prepares for the arguments of this command.
    pub(super) fn begin(&mut self, command: Command) {
        self.command = command;
        self.value = None;
        self.keep = Keep::Nothing;
        match command.facts().arguments {
            Arguments::Ignored => return,
            Arguments::Words | Arguments::Client => {}
            Arguments::Hello => {
                self.hello = HelloState { expects: Some(HelloWord::Version), ..HelloState::default() };
            }
            Arguments::Streams => self.streams = StreamOptions::default(),
        }
        self.words = [Word::default(); 2];
        self.keep = Keep::Word(0);
    }

    /// Reads a part of the present argument.
    #[inline]
    pub(super) fn note(&mut self, bytes: &[u8]) {
        match self.keep {
            Keep::Nothing | Keep::Skipped => {}
            Keep::Word(number) => self.words[number].push(bytes),
            Keep::Value => {
                let value = self.value.get_or_insert_default();
                value.extend_from_slice(&bytes[..bytes.len().min(MAX_VALUE - value.len())]);
            }
        }
    }

    /// Ends the present argument.
    #[inline]
    pub(super) fn end_argument(&mut self) {
        if self.keep != Keep::Nothing {
            self.next();
        }
    }

    #[cold]
    fn next(&mut self) {
        self.keep = match (self.command.facts().arguments, self.keep) {
            (Arguments::Words, Keep::Word(0)) => Keep::Word(1),
            (Arguments::Client, Keep::Word(0)) => match self.row() {
                Command::CLIENT_SETNAME => Keep::Value,
                _ => Keep::Word(1),
            },
            (Arguments::Client, Keep::Word(1)) if self.row() == Command::CLIENT_SETINFO => Keep::Value,
            (Arguments::Hello, _) => self.next_of_hello(),
            // All arguments are read, because options may stand in any order.
            (Arguments::Streams, _) => {
                self.streams.word(self.words[0].get());
                Keep::Word(0)
            }
            _ => Keep::Nothing,
        };
        match self.keep {
            Keep::Word(number) => self.words[number] = Word::default(),
            Keep::Value => self.value = Some(Vec::new()),
            Keep::Nothing | Keep::Skipped => {}
        }
    }

    fn next_of_hello(&mut self) -> Keep {
        let Some(ended) = self.hello.expects else { return Keep::Nothing };
        let word = self.words[0].get();
        self.hello.expects = ended.next(word).ok();
        match ended {
            HelloWord::Version => self.hello.resp3 = self.hello.expects.map(|_| word == b"3"),
            HelloWord::Option => self.hello.has_options = true,
            HelloWord::Password => self.hello.authenticates = true,
            HelloWord::User | HelloWord::Name => {}
        }
        match self.hello.expects {
            None => Keep::Nothing,
            Some(HelloWord::Version | HelloWord::Option) => Keep::Word(0),
            Some(HelloWord::User | HelloWord::Password) => Keep::Skipped,
            Some(HelloWord::Name) => Keep::Value,
        }
    }

    /// The row of the command with its first argument.
    pub(super) fn row(&self) -> Command {
        match self.command.facts().arguments {
            Arguments::Words | Arguments::Client => self.command.with(self.words[0].get()),
            Arguments::Ignored | Arguments::Hello | Arguments::Streams => self.command,
        }
    }

    /// The first two arguments, if they are kept.
    pub(super) fn first_words(&self) -> [&[u8]; 2] {
        match self.command.facts().arguments {
            Arguments::Words | Arguments::Client => [self.words[0].get(), self.words[1].get()],
            Arguments::Ignored | Arguments::Hello | Arguments::Streams => [&[], &[]],
        }
    }

    /// The kind of request. `words` counts its words, the name included. `in_quotes`: quotes or escapes make the words uncertain.
    pub(super) fn request(&self, words: u64, in_quotes: bool) -> Request {
        let row = self.row();
        let facts = row.facts();
        let by_option = facts.reply == ReplyKind::BlockingByOption;
        match facts.effect {
            _ if by_option && !self.streams.blocks() && !in_quotes => Request::Plain,
            Effect::Hello => Request::Hello {
                resp3: self.hello.resp3,
                leaves: if self.hello.authenticates { Leaves::Authenticated } else { Leaves::SetUp },
                has_options: self.hello.has_options,
            },
            Effect::ReplyMode => reply_mode(self.words[1].get()),
            _ => Request::of(row, words),
        }
    }

    /// What the request says about its client.
    pub(super) fn client_info(&mut self) -> Option<ClientInfo> {
        let value = self.value.take();
        match self.row() {
            Command::SELECT => {
                std::str::from_utf8(self.words[0].get()).ok()?.parse().ok().map(ClientInfo::Database)
            }
            Command::RESET => Some(ClientInfo::Reset),
            Command::HELLO => {
                // A SETNAME at the end may lack its name.
                let name = value.filter(|_| self.hello.expects != Some(HelloWord::Name));
                Some(ClientInfo::Hello { resp3: self.hello.resp3, name: name.map(cut) })
            }
            Command::CLIENT_SETNAME => value.map(cut).map(ClientInfo::Name),
            Command::CLIENT_SETINFO => ClientInfo::by_setinfo(self.words[1].get(), &value?),
            _ => None,
        }
    }
}

fn reply_mode(mode: &[u8]) -> Request {
    if mode.eq_ignore_ascii_case(b"OFF") {
        Request::ReplyMode(ReplyMode::Off)
    } else if mode.eq_ignore_ascii_case(b"SKIP") {
        Request::ReplyMode(ReplyMode::Skip)
    } else if mode.eq_ignore_ascii_case(b"ON") {
        Request::ReplyMode(ReplyMode::On)
    } else {
        // The server answers with a syntax error.
        Request::Plain
    }
}
