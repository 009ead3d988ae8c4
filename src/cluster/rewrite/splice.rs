//! Replaces values in a reply, and copies everything else.

use std::ops::Range;

use crate::resp::value::{Data, Value};

pub(super) struct Splice<'a> {
    reply: &'a [u8],
    edits: Vec<(Range<usize>, Vec<u8>)>,
}

impl<'a> Splice<'a> {
    pub(super) fn new(reply: &'a [u8]) -> Self {
        Self { reply, edits: Vec::new() }
    }

    /// Whether the value is a simple string (`+`).
    pub(super) fn is_status(&self, value: &Value<'_>) -> bool {
        self.kind(value) == Some(b'+')
    }

    /// Replaces a value with a text: of the same type if that was a string or an error, else as a bulk string. `text` is one line.
    pub(super) fn text(&mut self, value: &Value<'_>, text: &str) {
        let bytes = match self.kind(value) {
            Some(kind @ (b'+' | b'-')) => format!("{}{text}\r\n", char::from(kind)),
            Some(b'!') => format!("!{}\r\n{text}\r\n", text.len()),
            Some(b'=') => format!("={}\r\n{}{text}\r\n", text.len() + FORMAT, self.format(value)),
            _ => format!("${}\r\n{text}\r\n", text.len()),
        };
        self.edits.push((value.at.clone(), bytes.into_bytes()));
    }

    /// Replaces a value with a number.
    pub(super) fn number(&mut self, value: &Value<'_>, number: u16) {
        self.edits.push((value.at.clone(), format!(":{number}\r\n").into_bytes()));
    }

    /// Replaces a port: with a number if it was one, else with a text.
    pub(super) fn port(&mut self, value: &Value<'_>, port: u16) {
        match value.data {
            Data::Number(_) => self.number(value, port),
            _ => self.text(value, &port.to_string()),
        }
    }

    /// Replaces a list with null, as the protocol of the reply writes it.
    pub(super) fn null_list(&mut self, value: &Value<'_>) {
        self.edits.push((value.at.clone(), b"*-1\r\n".to_vec()));
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.edits.sort_by_key(|(at, _)| at.start);
        let mut spliced = Vec::with_capacity(self.reply.len());
        let mut copied = 0;
        for (at, bytes) in self.edits {
            spliced.extend_from_slice(self.reply.get(copied..at.start).unwrap_or_default());
            spliced.extend(bytes);
            copied = at.end;
        }
        spliced.extend_from_slice(self.reply.get(copied..).unwrap_or_default());
        spliced
    }

    fn kind(&self, value: &Value<'_>) -> Option<u8> {
        self.reply.get(value.at.start).copied()
    }

    /// Returns the format prefix of a verbatim string, such as `txt:`.
    fn format(&self, value: &Value<'_>) -> &'a str {
        let whole = self.reply.get(value.at.clone()).unwrap_or_default();
        let text = memchr::memchr(b'\n', whole).and_then(|end| whole.get(end + 1..end + 1 + FORMAT));
        text.and_then(|format| std::str::from_utf8(format).ok()).unwrap_or("txt:")
    }
}

/// Length of a verbatim string's format prefix in bytes.
const FORMAT: usize = 4;
