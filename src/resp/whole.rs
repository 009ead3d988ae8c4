//! Reads the request at the front of a buffer once it is there as a whole, for shared connections, which must not carry a part of one.

use memchr::memchr;

use super::arguments::StreamOptions;
use super::command_table::{Command, Multiplexing, PinReason, ReplyKind};
use super::header;
use super::scanner::TLS_HANDSHAKE;

/// What a buffer begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front<'a> {
    /// A request that every engine accepts and reads the same way.
    Whole(Whole<'a>),
    /// The beginning of a request of at least this many bytes.
    Part(usize),
    /// Anything else: a line that is not plain or not whole, an array for which an engine may close the connection, or no request.
    Other,
    /// The first byte of a TLS handshake.
    Tls,
}

/// A request: an array of strings, or a line of plain words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole<'a> {
    /// All bytes of the request.
    pub bytes: &'a [u8],
    /// The command's name.
    pub name: &'a [u8],
    /// The command with its first argument, as far as the table knows them.
    pub command: Command,
    /// The argument after the name; empty if there is none.
    pub first: &'a [u8],
    /// Number of words, the name included.
    pub words: usize,
    /// Where the first argument begins.
    arguments: usize,
}

/// Longer lines are not read here.
const MAX_PLAIN_LINE: usize = 1024;

/// Servers refuse a request with more words (`1024*1024` in `networking.c`).
const MAX_WHOLE_WORDS: usize = 1024 * 1024;

impl<'a> Front<'a> {
    /// Reads the front of `input`, which is not empty.
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
            // Valkey 9.1 closes the connection (`parseMultibulk` in `networking.c`). Other engines ignore these two bytes.
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

/// Reads a request in a line, if it is there as a whole and plain: printable words without quotes, separated by spaces, of a command that
/// needs no state of the client. Engines split other lines in different ways (`sdssplitargs` in `sds.c`).
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
    // The arguments of a line are not read here, so only commands that are sent unchanged qualify.
    if command.facts().multiplexing != Multiplexing::Shared && command != Command::QUIT {
        return Front::Other;
    }
    Front::Whole(Whole { bytes, name, command, first, words: words.len(), arguments: bytes.len() })
}

/// Handles a header that is not whole, or too long for `header::short`.
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
    /// How the request can be sent.
    #[inline]
    pub fn multiplexing(&self) -> Multiplexing {
        match self.command.facts().multiplexing {
            Multiplexing::Dedicated(PinReason::Blocking) if self.lacks_block() => Multiplexing::Shared,
            // A HELLO with AUTH has at least five words.
            Multiplexing::PerClient
                if self.command == Command::HELLO && self.words > 2 && self.words != 4 =>
            {
                Multiplexing::Dedicated(PinReason::Auth)
            }
            // A server hashes the whole name but compares it only up to a zero byte. So it may take "AUTH\0x" for AUTH if the hashes
            // collide.
            Multiplexing::Unknown if self.name.contains(&0) => {
                Multiplexing::Dedicated(PinReason::ConnectionState)
            }
            multiplexing => multiplexing,
        }
    }

    /// Whether this is XREAD or XREADGROUP without BLOCK.
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
    fn a_request_is_read_once_it_is_whole() {
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
    fn a_header_announces_the_size_of_its_request() {
        assert_eq!(Front::of(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000000\r\nx"), Front::Part(100_000_032));
        assert_eq!(Front::of(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$20000\r\nx"), Front::Part(20_030));
    }

    #[test]
    fn other_input_than_plain_requests_is_left_to_the_scanner() {
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
    fn reading_streams_blocks_only_with_the_option_block() {
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
        // Servers compare words only up to a zero byte.
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
        fn the_scanner_takes_each_whole_request_as_one_frame(
            input in proptest::collection::vec(proptest::sample::select(b"*$1230\r\n-?abGET".to_vec()), 1..40)
        ) {
            if let Front::Whole(whole) = Front::of(&input) {
                prop_assert_eq!(RequestScanner::default().next(&input), (whole.bytes.len(), Event::Frame));
            }
        }

        #[test]
        fn a_whole_request_has_a_form_that_every_engine_accepts(
            words in proptest::collection::vec("[A-Za-z]{3}|[\r\n$*0-9 ]{0,12}|[a-z]{100}", 1..5),
            in_a_line in any::<bool>(),
            // Bytes that replace others or are inserted between them.
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
