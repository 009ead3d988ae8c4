//! Parses one whole reply into a tree of values with their positions, for replies that pontoon reads or edits.
//!
//! The frames of redis-protocol lack the positions of numbers and nulls, so pontoon could not replace those.

use std::ops::Range;

use memchr::memmem;

use super::header::{Header, Length};

/// Replies that pontoon reads nest five levels deep, and one more in a transaction. A deeper one is another reply.
const MAX_READ_DEPTH: usize = 16;

/// A value of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value<'a> {
    /// The bytes of the reply that it takes, without the attributes before it.
    pub at: Range<usize>,
    /// The value's type and content.
    pub data: Data<'a>,
}

/// The type and content of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data<'a> {
    /// `+`, `$`, or `=` without its format.
    Text(&'a [u8]),
    /// `-` or `!`.
    Error(&'a [u8]),
    /// `:`
    Number(i64),
    /// `_`, `$-1` or `*-1`.
    Null,
    /// `*` or `~`.
    List(Vec<Value<'a>>),
    /// `%`: keys and values in turn.
    Map(Vec<Value<'a>>),
    /// `,`, `#` or `(`.
    Other,
}

/// The bytes are not one whole reply, or one that is streamed or nested too deep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's reply cannot be parsed")]
pub struct Unreadable;

impl<'a> Value<'a> {
    /// Parses a reply. `reply` must hold it whole, and nothing else. Takes memory in proportion to `reply`, up to about twenty times as
    /// much for a hostile server, so the caller limits its length.
    pub fn parse(reply: &'a [u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader { reply, at: 0 };
        let value = reader.value(0)?;
        if reader.at == reply.len() { Ok(value) } else { Err(Unreadable) }
    }

    /// The text, if the value is UTF-8 text.
    pub fn text(&self) -> Option<&'a str> {
        if let Data::Text(bytes) = self.data { std::str::from_utf8(bytes).ok() } else { None }
    }

    /// The bytes of the text, if the value is text.
    pub fn bytes(&self) -> Option<&'a [u8]> {
        if let Data::Text(bytes) = self.data { Some(bytes) } else { None }
    }

    /// The number, if the value is one.
    pub fn number(&self) -> Option<i64> {
        if let Data::Number(number) = self.data { Some(number) } else { None }
    }

    /// Whether the value is null or an empty text.
    pub fn is_empty(&self) -> bool {
        matches!(self.data, Data::Null | Data::Text(b""))
    }

    /// The elements, if the value is a list.
    pub fn list(&self) -> Option<&[Self]> {
        if let Data::List(elements) = &self.data { Some(elements) } else { None }
    }

    /// The keys and values of a map, or of a list in which they alternate, as RESP2 writes maps.
    pub fn pairs(&self) -> Option<impl Iterator<Item = (&Self, &Self)> + Clone> {
        match &self.data {
            Data::List(all) | Data::Map(all) if all.len().is_multiple_of(2) => {
                Some(all.chunks_exact(2).map(|pair| (&pair[0], &pair[1])))
            }
            _ => None,
        }
    }

    /// The value of this key, in a map or in a list that stands for one.
    pub fn field(&self, name: &str) -> Option<&Self> {
        self.pairs()?.find(|(key, _)| key.text() == Some(name)).map(|(_, value)| value)
    }
}

struct Reader<'a> {
    reply: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Value<'a>, Unreadable> {
        if depth > MAX_READ_DEPTH {
            return Err(Unreadable);
        }
        loop {
            let start = self.at;
            let kind = *self.reply.get(start).ok_or(Unreadable)?;
            self.at += 1;
            let data = match kind {
                b'+' => Data::Text(self.line()?),
                b'-' => Data::Error(self.line()?),
                b':' => Data::Number(number(self.line()?)?),
                b'_' => self.line().map(|_| Data::Null)?,
                b',' | b'#' | b'(' => self.line().map(|_| Data::Other)?,
                b'$' => self.blob()?.map_or(Data::Null, Data::Text),
                b'!' => Data::Error(self.blob()?.ok_or(Unreadable)?),
                // A format of three letters and a colon precede the text.
                b'=' => Data::Text(self.blob()?.and_then(|text| text.get(4..)).ok_or(Unreadable)?),
                b'*' => self.elements(1, depth)?.map_or(Data::Null, Data::List),
                b'~' => Data::List(self.elements(1, depth)?.ok_or(Unreadable)?),
                b'%' => Data::Map(self.elements(2, depth)?.ok_or(Unreadable)?),
                b'|' => {
                    self.elements(2, depth)?.ok_or(Unreadable)?;
                    continue;
                }
                _ => return Err(Unreadable),
            };
            return Ok(Value { at: start..self.at, data });
        }
    }

    fn line(&mut self) -> Result<&'a [u8], Unreadable> {
        let rest = &self.reply[self.at..];
        let end = memmem::find(rest, b"\r\n").ok_or(Unreadable)?;
        self.at += end + 2;
        Ok(&rest[..end])
    }

    /// `None`: the value is null.
    fn length(&mut self) -> Result<Option<usize>, Unreadable> {
        match Header::default().read(self.reply, &mut self.at) {
            Some(Ok(Length::Known(length))) => usize::try_from(length).map(Some).map_err(|_| Unreadable),
            Some(Ok(Length::Null)) => Ok(None),
            _ => Err(Unreadable),
        }
    }

    fn blob(&mut self) -> Result<Option<&'a [u8]>, Unreadable> {
        let Some(length) = self.length()? else { return Ok(None) };
        let rest = &self.reply[self.at..];
        let (text, rest) = rest.split_at_checked(length).ok_or(Unreadable)?;
        if !rest.starts_with(b"\r\n") {
            return Err(Unreadable);
        }
        self.at += length + 2;
        Ok(Some(text))
    }

    /// Reads an aggregate with `each` values for each element that its header counts.
    fn elements(&mut self, each: usize, depth: usize) -> Result<Option<Vec<Value<'a>>>, Unreadable> {
        let Some(count) = self.length()? else { return Ok(None) };
        let count = count.checked_mul(each).ok_or(Unreadable)?;
        // Allocates for what the reply can hold, not for what its header claims.
        let mut all = Vec::with_capacity(count.min((self.reply.len() - self.at) / 16));
        for _ in 0..count {
            all.push(self.value(depth + 1)?);
        }
        Ok(Some(all))
    }
}

fn number(line: &[u8]) -> Result<i64, Unreadable> {
    std::str::from_utf8(line).ok().and_then(|text| text.parse().ok()).ok_or(Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::scanner::{Event, ReplyScanner};
    use proptest::prelude::*;

    fn data(reply: &[u8]) -> Data<'_> {
        Value::parse(reply).unwrap().data
    }

    #[test]
    fn every_type_is_read() {
        assert_eq!(data(b"+OK\r\n"), Data::Text(b"OK"));
        assert_eq!(data(b"$2\r\n\r\n\r\n"), Data::Text(b"\r\n"));
        assert_eq!(data(b"=7\r\ntxt:abc\r\n"), Data::Text(b"abc"));
        assert_eq!(data(b"-ERR no\r\n"), Data::Error(b"ERR no"));
        assert_eq!(data(b"!6\r\nERR no\r\n"), Data::Error(b"ERR no"));
        assert_eq!(data(b":-7\r\n"), Data::Number(-7));
        for null in [&b"_\r\n"[..], b"$-1\r\n", b"*-1\r\n"] {
            assert_eq!(data(null), Data::Null);
        }
        assert_eq!(data(b"#t\r\n"), Data::Other);
    }

    #[test]
    fn values_know_their_positions_without_attributes() {
        let value = Value::parse(b"*2\r\n|1\r\n+a\r\n+b\r\n:1\r\n$1\r\nx\r\n").unwrap();
        let places: Vec<Range<usize>> = value.list().unwrap().iter().map(|value| value.at.clone()).collect();
        assert_eq!((value.at, places), (0..27, vec![16..20, 20..27]));
    }

    #[test]
    fn maps_of_both_protocols_are_pairs() {
        for reply in [&b"%1\r\n+a\r\n:1\r\n"[..], b"*2\r\n+a\r\n:1\r\n"] {
            let value = Value::parse(reply).unwrap();
            let pairs: Vec<_> = value.pairs().unwrap().map(|(k, v)| (k.text(), v.number())).collect();
            assert_eq!(pairs, [(Some("a"), Some(1))]);
        }
        assert!(Value::parse(b"*1\r\n+a\r\n").unwrap().pairs().is_none());
    }

    #[test]
    fn a_cut_absurd_or_trailed_reply_is_refused() {
        for reply in [
            &b""[..],
            b"+OK\r",
            b"$3\r\nab\r\n",
            b"*2\r\n:1\r\n",
            b":1\r\n:2\r\n",
            b"|1\r\n+a\r\n+b\r\n",
            b"*999999999999999999\r\n",
            b"%999999999999999999\r\n",
            b"$999999999999999999\r\n",
            b"=3\r\ntxt\r\n",
            b":one\r\n",
            b"*?\r\n.\r\n",
            b">1\r\n+a\r\n",
            b"HTTP/1.1 400\r\n",
        ] {
            assert_eq!(Value::parse(reply), Err(Unreadable), "{}", reply.escape_ascii());
        }
        assert_eq!(Value::parse(&b"*1\r\n".repeat(100_000)), Err(Unreadable));
        assert_eq!(Value::parse(&b"|0\r\n".repeat(100_000)), Err(Unreadable));
    }

    proptest! {
        #[test]
        fn the_scanner_takes_each_parsed_reply_as_one_frame(
            reply in proptest::collection::vec(proptest::sample::select(b"*$+:-_%~|=!,#0123\r\n-?ab".to_vec()), 0..40)
        ) {
            if Value::parse(&reply).is_ok() {
                prop_assert_eq!(ReplyScanner::default().next(&reply), (reply.len(), Event::Frame));
            }
        }
    }
}
