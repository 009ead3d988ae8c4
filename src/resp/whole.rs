//! The request at the front of a buffer, if it is there as a whole: for those who must not pass on a part of one.

use memchr::memchr;

use super::commands::{self, StreamRead};
use super::families::Command;
use super::header;
use super::scanner::TLS_HANDSHAKE;
use super::sharing::{self, Own, Setup, Sharing};

/// What a buffer begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front<'a> {
    /// A request.
    Whole(Whole<'a>),
    /// The beginning of one, of at least so many bytes.
    Part(usize),
    /// A request in a line that is not plain or not whole, or what is none.
    Other,
    /// A client that speaks TLS.
    Tls,
}

/// A request: an array of strings, or a line of plain words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole<'a> {
    /// All of it.
    pub bytes: &'a [u8],
    /// The command's name.
    pub name: &'a [u8],
    /// The command, as far as that is known.
    pub command: Command,
    /// The argument after it; empty if there is none.
    pub first: &'a [u8],
    /// The name counts as one.
    pub words: usize,
    /// Where the first argument begins.
    arguments: usize,
}

/// A longer line is not waited for here.
const LONGEST_LINE: usize = 1024;

/// More words than this are no request that a server takes (`1024*1024` in `networking.c`).
const MOST_WORDS: usize = 1024 * 1024;

impl<'a> Front<'a> {
    /// Looks at `input`, which is not empty.
    #[inline]
    pub fn of(input: &'a [u8]) -> Self {
        match input.first() {
            Some(b'*') => {}
            Some(&TLS_HANDSHAKE) => return Self::Tls,
            _ => return line(input),
        }
        let mut at = 0;
        let Some(words) = header::short(input, &mut at, b'*') else { return unfinished(input, 0) };
        if words == 0 || words > MOST_WORDS {
            return Self::Other;
        }
        let (mut name, mut first): (&[u8], &[u8]) = (&[], &[]);
        let mut arguments = 0;
        for word in 0..words {
            let Some(length) = header::short(input, &mut at, b'$') else { return unfinished(input, at) };
            let end = at + length;
            let Some(text) = input.get(at..end).filter(|_| end + 2 <= input.len()) else {
                return Self::Part(end + 2);
            };
            // A server does not look at these two bytes either.
            at = end + 2;
            match word {
                0 => (name, arguments) = (text, at),
                1 => first = text,
                _ => {}
            }
        }
        let command = Command::named(name);
        Self::Whole(Whole { bytes: &input[..at], name, command, first, words, arguments })
    }
}

/// A request in a line, if all of it is there and it is as plain as can be: words without quotes, of a command that is
/// sent as it is whoever sends it.
#[cold]
fn line(input: &[u8]) -> Front<'_> {
    let Some(end) = memchr(b'\n', &input[..input.len().min(LONGEST_LINE)]) else { return Front::Other };
    let (bytes, text) = (&input[..=end], &input[..end]);
    if text.iter().any(|byte| matches!(byte, b'"' | b'\'' | b'\\' | 0 | 0x0b)) {
        return Front::Other;
    }
    let words: Vec<&[u8]> = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
    let Some(&name) = words.first() else { return Front::Other };
    let first = words.get(1).copied().unwrap_or_default();
    let command = Command::named(name);
    match sharing::sharing(command, first, words.len() as u64) {
        Sharing::Shared | Sharing::Setup(Setup::Quit) => {
            Front::Whole(Whole { bytes, name, command, first, words: words.len(), arguments: bytes.len() })
        }
        _ => Front::Other,
    }
}

/// At a header that is not whole, or too long to be one of a short word.
#[cold]
fn unfinished(input: &[u8], at: usize) -> Front<'_> {
    let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) else { return Front::Part(at + 1) };
    let kind = if at == 0 { b'*' } else { b'$' };
    if rest[0] != kind {
        return Front::Other;
    }
    let mut header = header::Header::default();
    let mut end = at + 1;
    match header.read(input, &mut end) {
        None => Front::Part(input.len() + 1),
        Some(Ok(header::Length::Known(length))) if at > 0 && rest[1] != b'0' => {
            Front::Part(end.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)))
        }
        Some(_) => Front::Other,
    }
}

impl<'a> Whole<'a> {
    /// How it is sent.
    #[inline]
    pub fn sharing(&self) -> Sharing {
        match sharing::sharing(self.command, self.first, self.words as u64) {
            Sharing::Own(Own::Blocking) if self.waits_for_nobody() => Sharing::Shared,
            // A server hashes the whole name, but compares it up to a zero byte: by chance it takes "AUTH\0x" for AUTH.
            Sharing::Unknown if self.name.contains(&0) => Sharing::Own(Own::Lasts),
            sharing => sharing,
        }
    }

    /// XREAD and XREADGROUP without BLOCK.
    fn waits_for_nobody(&self) -> bool {
        let mut options = StreamRead::default();
        self.arguments().for_each(|word| options.word(word));
        commands::reads_streams(self.name) && !options.blocks()
    }

    /// The words after the name.
    pub fn arguments(&self) -> impl Iterator<Item = &'a [u8]> {
        let (bytes, mut at) = (self.bytes, self.arguments);
        std::iter::from_fn(move || {
            let length = header::short(bytes, &mut at, b'$')?;
            let text = bytes.get(at..at + length)?;
            at += length + 2;
            Some(text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::replies::encode_command;
    use crate::resp::scanner::{Event, RequestScanner};
    use proptest::prelude::*;

    fn sharing(words: &[&str]) -> Sharing {
        let request = encode_command(words);
        let Front::Whole(whole) = Front::of(&request) else { panic!("{words:?}") };
        whole.sharing()
    }

    #[test]
    fn a_request_is_there_or_a_part_of_it_is() {
        let request = encode_command(&["SET", "key", "value"]);
        let Front::Whole(whole) = Front::of(&request) else { panic!() };
        assert_eq!(
            (whole.bytes, whole.name, whole.first, whole.words),
            (&request[..], &b"SET"[..], &b"key"[..], 3)
        );
        assert_eq!(whole.arguments().collect::<Vec<_>>(), [&b"key"[..], b"value"]);
        for end in 1..request.len() {
            let Front::Part(least) = Front::of(&request[..end]) else { panic!("{end}") };
            assert!(least > end && least <= request.len(), "{end} {least}");
        }
        let two = [&request[..], b"*1\r\n"].concat();
        assert!(matches!(Front::of(&two), Front::Whole(whole) if whole.bytes == request));
    }

    #[test]
    fn a_header_tells_how_large_a_request_will_be() {
        assert_eq!(Front::of(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000000\r\nx"), Front::Part(100_000_032));
        assert_eq!(Front::of(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$20000\r\nx"), Front::Part(20_030));
    }

    #[test]
    fn what_is_no_array_of_strings_is_left_to_others() {
        for other in [
            &b"PIN"[..],
            b"GET \"k\"\r\n",
            b"MULTI\r\n",
            b"SELECT 1\r\n",
            b"\r\n",
            b"*0\r\n",
            b"*-1\r\n",
            b"*1\r\n+OK\r\n",
            b"*x\r\n",
            b"*01\r\n$4\r\nPING\r\n",
            b"*1\r\n$04\r\nPING\r\n",
            b"*1\r\n$-1\r\n",
        ] {
            assert_eq!(Front::of(other), Front::Other, "{}", other.escape_ascii());
        }
        assert_eq!(Front::of(&[TLS_HANDSHAKE, 3]), Front::Tls);
    }

    #[test]
    fn a_plain_line_is_a_request() {
        for (line, name, first) in
            [(&b"PING\r\n"[..], &b"PING"[..], &b""[..]), (b"get  k\nGET", b"get", b"k")]
        {
            let Front::Whole(whole) = Front::of(line) else { panic!("{}", line.escape_ascii()) };
            assert_eq!((whole.name, whole.first, whole.sharing()), (name, first, Sharing::Shared));
            assert!(whole.bytes.ends_with(b"\n"));
        }
    }

    #[test]
    fn reading_streams_blocks_only_where_it_says_so() {
        assert_eq!(sharing(&["XREAD", "COUNT", "1", "STREAMS", "block", "0"]), Sharing::Shared);
        let blocks = ["XREADGROUP", "GROUP", "g", "c", "block", "0", "STREAMS", "s", ">"];
        assert_eq!(sharing(&blocks), Sharing::Own(Own::Blocking));
        for (group, consumer) in [("streams", "c"), ("g", "STREAMS"), ("group", "streams")] {
            let blocks = ["XREADGROUP", "GROUP", group, consumer, "BLOCK", "0", "STREAMS", "s", ">"];
            assert_eq!(sharing(&blocks), Sharing::Own(Own::Blocking), "{group} {consumer}");
        }
        assert_eq!(sharing(&["XREADGROUP", "GROUP", "block", "block", "STREAMS", "s", ">"]), Sharing::Shared);
        assert_eq!(sharing(&["BLPOP", "k", "0"]), Sharing::Own(Own::Blocking));
        // A server reads words up to a zero byte.
        assert_eq!(sharing(&["XREAD", "BLOCK\0x", "0", "STREAMS", "s", "$"]), Sharing::Own(Own::Blocking));
        assert_eq!(sharing(&["SCRIPT", "DEBUG\0x", "YES"]), Sharing::Own(Own::Lasts));
        assert_eq!(sharing(&["AUTH\0x", "pw"]), Sharing::Own(Own::Lasts));
    }

    proptest! {
        #[test]
        fn a_whole_request_is_one_to_the_scanner_too(
            input in proptest::collection::vec(proptest::sample::select(b"*$1230\r\n-?abGET".to_vec()), 1..40)
        ) {
            if let Front::Whole(whole) = Front::of(&input) {
                prop_assert_eq!(RequestScanner::default().next(&input), (whole.bytes.len(), Event::Frame));
            }
        }
    }
}
