//! The request at the front of a buffer, if it is there as a whole: for those who must not pass on a part of one.

use memchr::memchr;

use super::arguments::StreamOptions;
use super::command_table::{Command, Multiplexing, PinReason, ReplyKind};
use super::header;
use super::scanner::TLS_HANDSHAKE;

/// What a buffer begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front<'a> {
    /// A request, written so that every engine takes it and all read the same.
    Whole(Whole<'a>),
    /// The beginning of one, of at least so many bytes.
    Part(usize),
    /// A request in a line that is not plain or not whole, an array that an engine may refuse by closing the connection, or what is
    /// none.
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
    /// The command with its first argument, as far as that is known.
    pub command: Command,
    /// The argument after it; empty if there is none.
    pub first: &'a [u8],
    /// The name counts as one.
    pub words: usize,
    /// Where the first argument begins.
    arguments: usize,
}

/// A longer line is not waited for here.
const MAX_PLAIN_LINE: usize = 1024;

/// More words than this are no request that a server takes (`1024*1024` in `networking.c`).
const MAX_WHOLE_WORDS: usize = 1024 * 1024;

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
        if words == 0 || words > MAX_WHOLE_WORDS {
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
            at = end + 2;
            // Valkey 9.1 closes the connection (`parseMultibulk` in `networking.c`); other engines do not look at these two bytes.
            if input[end..at] != *b"\r\n" {
                return Self::Other;
            }
            match word {
                0 => (name, arguments) = (text, at),
                1 => first = text,
                _ => {}
            }
        }
        let command = Command::named(name).with(first);
        Self::Whole(Whole { bytes: &input[..at], name, command, first, words, arguments })
    }
}

/// A request in a line, if all of it is there and it is as plain as can be: printable words without quotes, with spaces between, of
/// a command that is sent as it is whoever sends it. Engines divide other lines in ways of their own (`sdssplitargs` in `sds.c`).
#[cold]
fn line(input: &[u8]) -> Front<'_> {
    let Some(end) = memchr(b'\n', &input[..input.len().min(MAX_PLAIN_LINE)]) else { return Front::Other };
    let (bytes, text) = (&input[..=end], &input[..end]);
    let words = text.strip_suffix(b"\r").unwrap_or(text);
    if words.iter().any(|byte| !matches!(byte, b' '..=b'~') || matches!(byte, b'"' | b'\'' | b'\\')) {
        return Front::Other;
    }
    let words: Vec<&[u8]> = words.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).collect();
    let Some(&name) = words.first() else { return Front::Other };
    let first = words.get(1).copied().unwrap_or_default();
    let command = Command::named(name).with(first);
    // Its arguments are not read here.
    if command.facts().multiplexing != Multiplexing::Shared && command != Command::QUIT {
        return Front::Other;
    }
    Front::Whole(Whole { bytes, name, command, first, words: words.len(), arguments: bytes.len() })
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
    pub fn multiplexing(&self) -> Multiplexing {
        match self.command.facts().multiplexing {
            Multiplexing::Dedicated(PinReason::Blocking) if self.lacks_block() => Multiplexing::Shared,
            // With AUTH it has five words at least.
            Multiplexing::PerClient
                if self.command == Command::HELLO && self.words > 2 && self.words != 4 =>
            {
                Multiplexing::Dedicated(PinReason::Auth)
            }
            // A server hashes the whole name, but compares it up to a zero byte: by chance it takes "AUTH\0x" for AUTH.
            Multiplexing::Unknown if self.name.contains(&0) => {
                Multiplexing::Dedicated(PinReason::ConnectionState)
            }
            multiplexing => multiplexing,
        }
    }

    /// XREAD and XREADGROUP without BLOCK.
    fn lacks_block(&self) -> bool {
        if self.command.facts().reply != ReplyKind::BlockingByOption {
            return false;
        }
        let mut options = StreamOptions::default();
        self.arguments().for_each(|word| options.word(word));
        !options.blocks()
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
    use crate::resp::replies::{encode_command, encode_secret};
    use crate::resp::scanner::{Event, RequestScanner};
    use proptest::prelude::*;

    fn multiplexing(words: &[&str]) -> Multiplexing {
        let request = encode_command(words);
        let Front::Whole(whole) = Front::of(&request) else { panic!("{words:?}") };
        whole.multiplexing()
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
            b"*1\r\n$4\r\nPINGxx",
            b"*2\r\n$3\r\nGETxx$1\r\nk\r\n",
            b"*1\r\n$4\r\nPING\n\r",
            b"PING\r\r\n",
            b"GET\x0ck\r\n",
            b"GET\tk\r\n",
            b"GET \xe9\r\n",
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
            assert_eq!((whole.name, whole.first, whole.multiplexing()), (name, first, Multiplexing::Shared));
            assert!(whole.bytes.ends_with(b"\n"));
        }
    }

    #[test]
    fn reading_streams_blocks_only_where_it_says_so() {
        assert_eq!(multiplexing(&["XREAD", "COUNT", "1", "STREAMS", "block", "0"]), Multiplexing::Shared);
        let blocks = ["XREADGROUP", "GROUP", "g", "c", "block", "0", "STREAMS", "s", ">"];
        assert_eq!(multiplexing(&blocks), Multiplexing::Dedicated(PinReason::Blocking));
        for (group, consumer) in [("streams", "c"), ("g", "STREAMS"), ("group", "streams")] {
            let blocks = ["XREADGROUP", "GROUP", group, consumer, "BLOCK", "0", "STREAMS", "s", ">"];
            assert_eq!(
                multiplexing(&blocks),
                Multiplexing::Dedicated(PinReason::Blocking),
                "{group} {consumer}"
            );
        }
        assert_eq!(
            multiplexing(&["XREADGROUP", "GROUP", "block", "block", "STREAMS", "s", ">"]),
            Multiplexing::Shared
        );
        assert_eq!(multiplexing(&["BLPOP", "k", "0"]), Multiplexing::Dedicated(PinReason::Blocking));
        // A server reads words up to a zero byte.
        assert_eq!(
            multiplexing(&["XREAD", "BLOCK\0x", "0", "STREAMS", "s", "$"]),
            Multiplexing::Dedicated(PinReason::Blocking)
        );
        assert_eq!(
            multiplexing(&["SCRIPT", "DEBUG\0x", "YES"]),
            Multiplexing::Dedicated(PinReason::ConnectionState)
        );
        assert_eq!(multiplexing(&["AUTH\0x", "pw"]), Multiplexing::Dedicated(PinReason::ConnectionState));
    }

    fn odd_byte() -> impl Strategy<Value = u8> {
        prop_oneof![proptest::sample::select(b"*$0123456789+-? \r\n\0\x0c".to_vec()), any::<u8>()]
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

        #[test]
        fn a_whole_request_is_written_as_every_engine_takes_it(
            words in proptest::collection::vec("[A-Za-z]{3}|[\r\n$*0-9 ]{0,12}|[a-z]{100}", 1..5),
            in_a_line in any::<bool>(),
            // Bytes that stand in another's place, or between others.
            wrong in proptest::collection::vec((any::<proptest::sample::Index>(), any::<bool>(), odd_byte()), 0..3),
        ) {
            let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
            let mut input =
                if in_a_line { [&words.join(&b' '), &b"\r\n"[..]].concat() } else { encode_secret(&words).to_vec() };
            for (at, instead, byte) in &wrong {
                let at = at.index(input.len());
                input.splice(at..at + usize::from(*instead), [*byte]);
            }
            let front = Front::of(&input);
            match front {
                Front::Whole(whole) if whole.bytes[0] == b'*' => {
                    let words: Vec<&[u8]> = std::iter::once(whole.name).chain(whole.arguments()).collect();
                    prop_assert_eq!(whole.bytes, &encode_secret(&words)[..]);
                }
                Front::Whole(whole) => {
                    let line = whole.bytes.strip_suffix(b"\n").unwrap();
                    let line = line.strip_suffix(b"\r").unwrap_or(line);
                    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !b"\"'\\".contains(byte);
                    prop_assert!(line.iter().all(|byte| is_plain(byte) || *byte == b' '));
                }
                _ => prop_assert!(in_a_line || !wrong.is_empty()),
            }
        }
    }
}
