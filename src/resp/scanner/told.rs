//! What requests tell of the client that sends them: names and versions, database, protocol.
//!
//! [`Keep`] decides, argument by argument, which are kept for it. A password is none of them, at no moment.

use super::super::client_requests::{MARK_LENGTH, without_mark};
use super::Word;

/// Longer values are cut: one more than is ever shown, so that the cut can be told.
pub const LONGEST: usize = 65;

/// So much of a value is looked at: a mark may be taken off.
pub(super) const KEPT: usize = LONGEST + MARK_LENGTH;

/// Said by a request, and true if the server accepts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// CLIENT SETNAME.
    Name(Vec<u8>),
    /// CLIENT SETINFO LIB-NAME.
    Library(Vec<u8>),
    /// CLIENT SETINFO LIB-VER.
    Version(Vec<u8>),
    /// HELLO, with what was asked for.
    Hello {
        /// RESP3, or RESP2.
        resp3: Option<bool>,
        /// SETNAME.
        name: Option<Vec<u8>>,
    },
    /// SELECT.
    Database(u32),
    /// RESET.
    Reset,
}

impl Told {
    /// By a request with these words and this value.
    pub(super) fn by([name, first, second]: [&[u8]; 3], value: Option<Vec<u8>>) -> Option<Self> {
        let is = |word: &[u8], text: &str| word.eq_ignore_ascii_case(text.as_bytes());
        if is(name, "SELECT") {
            return std::str::from_utf8(first).ok()?.parse().ok().map(Self::Database);
        }
        if is(name, "RESET") {
            return Some(Self::Reset);
        }
        if is(name, "HELLO") {
            let resp3 = match first {
                b"2" => Some(false),
                b"3" => Some(true),
                _ => None,
            };
            return Some(Self::Hello { resp3, name: value.map(cut) });
        }
        let value = value?;
        if is(first, "SETNAME") {
            Some(Self::Name(cut(value)))
        } else if is(first, "SETINFO") {
            Self::by_setinfo(second, &value)
        } else {
            None
        }
    }

    /// By CLIENT SETINFO. A mark on a library's name is pontoon's.
    pub fn by_setinfo(option: &[u8], value: &[u8]) -> Option<Self> {
        let value = &value[..value.len().min(KEPT)];
        if option.eq_ignore_ascii_case(b"LIB-NAME") {
            Some(Self::Library(cut(without_mark(value))))
        } else if option.eq_ignore_ascii_case(b"LIB-VER") {
            Some(Self::Version(cut(value.to_vec())))
        } else {
            None
        }
    }
}

fn cut(mut value: Vec<u8>) -> Vec<u8> {
    value.truncate(LONGEST);
    value
}

/// What is kept of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Keep {
    /// Nothing, and nothing of those that follow.
    #[default]
    Nothing,
    /// Its first bytes, as this word.
    Word(usize),
    /// As much as is kept of values.
    Value,
    /// Nothing; so many follow of which the same is true.
    Skip(u8),
}

impl Keep {
    /// What is kept of the argument with this number, after the others, of a command whose arguments matter.
    pub(super) fn next(self, words: &[Word; 3], number: u64) -> Self {
        let [name, first, second] = [words[0].get(), words[1].get(), words[2].get()];
        let is = |word: &[u8], text: &str| word.eq_ignore_ascii_case(text.as_bytes());
        match number {
            1 => Self::Word(1),
            2 if is(name, "CLIENT") && is(first, "SETNAME") => Self::Value,
            // HELLO takes options after a version only.
            2 if is(name, "HELLO") && !matches!(first, b"2" | b"3") => Self::Nothing,
            2 => Self::Word(2),
            3 if is(name, "CLIENT") && is(first, "SETINFO") => Self::Value,
            _ if !is(name, "HELLO") => Self::Nothing,
            _ => match self {
                Self::Word(_) if is(second, "SETNAME") => Self::Value,
                // A user's name and a password.
                Self::Word(_) if is(second, "AUTH") => Self::Skip(1),
                Self::Word(_) | Self::Nothing => Self::Nothing,
                Self::Skip(0) | Self::Value => Self::Word(2),
                Self::Skip(left) => Self::Skip(left - 1),
            },
        }
    }
}
