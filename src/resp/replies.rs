//! Reads and writes the few frames that pontoon itself sends or receives: greetings, checks, its own errors.

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::encode::extend_encode;
use redis_protocol::resp2::types::{BytesFrame, OwnedFrame};

use zeroize::Zeroizing;

use super::scanner::{Event, ReplyScanner};

/// The reply to most commands that return nothing.
pub const OK: &[u8] = b"+OK\r\n";

/// Redis' reply to a client beyond its limit (`networking.c`), byte for byte.
pub const MAX_CLIENTS: &[u8] = b"-ERR max number of clients reached\r\n";

/// The reply to a command of pontoon's own. It is RESP2, because pontoon sends its commands before any HELLO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Text of any type.
    Text(String),
    /// The text of an error reply.
    Error(String),
    /// An integer.
    Number(i64),
    /// Anything else.
    Other,
}

/// An error reply from pontoon: `-ERR pontoon: …`. It is one line, because control characters in `text` become spaces.
pub fn error_reply(text: &str) -> Vec<u8> {
    error_reply_with("ERR", text)
}

/// An error reply from pontoon with a code that clients act on.
pub fn error_reply_with(code: &str, text: &str) -> Vec<u8> {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("-{code} pontoon: {line}\r\n").into_bytes()
}

/// A command, encoded as a client sends it.
pub fn encode_command(words: &[&str]) -> Vec<u8> {
    let words =
        words.iter().map(|word| BytesFrame::BulkString(Bytes::copy_from_slice(word.as_bytes()))).collect();
    let mut bytes = BytesMut::new();
    extend_encode(&mut bytes, &BytesFrame::Array(words), false)
        .expect("a growing buffer holds any array of strings");
    bytes.to_vec()
}

/// A command, encoded, of which a word is a secret.
pub fn encode_secret<W: AsRef<[u8]>>(words: &[W]) -> Zeroizing<Vec<u8>> {
    let length = words.iter().map(|word| word.as_ref().len() + 32).sum();
    // Allocates the final size at once, because a buffer that grows leaves copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    bytes.extend(format!("*{}\r\n", words.len()).as_bytes());
    for word in words.iter().map(AsRef::as_ref) {
        bytes.extend(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// The reply at the front of `bytes` and its length. `None`: the reply has not arrived whole. The error is text for people.
pub fn decode_answer(bytes: &[u8]) -> Result<Option<(Answer, usize)>, String> {
    let text = |data: Vec<u8>| String::from_utf8_lossy(&data).into_owned();
    let end = match ReplyScanner::default().next(bytes) {
        (end, Event::Frame) => end,
        (_, Event::NeedMore) => return Ok(None),
        (_, Event::Malformed) => return Err("the reply is no RESP".into()),
    };
    // The decoder recurses as deep as a reply nests, and the server chooses that depth.
    if bytes.starts_with(b"*") {
        return Ok(Some((Answer::Other, end)));
    }
    match decode(&bytes[..end]) {
        Err(error) => Err(format!("the reply is no RESP: {error}")),
        Ok(None) => Ok(None),
        Ok(Some((frame, length))) => {
            let answer = match frame {
                OwnedFrame::SimpleString(data) | OwnedFrame::BulkString(data) => Answer::Text(text(data)),
                OwnedFrame::Error(text) => Answer::Error(text),
                OwnedFrame::Integer(number) => Answer::Number(number),
                OwnedFrame::Array(_) | OwnedFrame::Null => Answer::Other,
            };
            Ok(Some((answer, length)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reply_is_always_one_line() {
        let reply = error_reply("the server said \"-ERR no\r\n+OK\r\n\"");
        assert_eq!(reply, b"-ERR pontoon: the server said \"-ERR no  +OK  \"\r\n");
    }

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        assert_eq!(encode_command(&["GET", "k"]), b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    }

    #[test]
    fn answers_are_read_one_by_one_once_they_are_whole() {
        assert_eq!(decode_answer(b"+OK\r").unwrap(), None);
        assert_eq!(decode_answer(b"+OK\r\n+next").unwrap(), Some((Answer::Text("OK".into()), 5)));
        assert_eq!(decode_answer(b"-ERR no\r\n").unwrap(), Some((Answer::Error("ERR no".into()), 9)));
        assert_eq!(decode_answer(b"*0\r\n").unwrap(), Some((Answer::Other, 4)));
        assert!(decode_answer(b"HTTP/1.1 400 Bad Request\r\n").is_err());
    }

    #[test]
    fn a_deeply_nested_reply_costs_no_stack() {
        assert!(decode_answer(&b"*2\r\n".repeat(100_000)).is_err());
        assert_eq!(decode_answer(&b"*1\r\n".repeat(100_000)).unwrap(), None);
        let deep = [b"*1\r\n".repeat(100_000), b":1\r\n".to_vec()].concat();
        assert_eq!(decode_answer(&deep).unwrap(), Some((Answer::Other, deep.len())));
    }
}
