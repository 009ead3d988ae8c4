//! Splits a line into words, and compares words, as a server does.

use zeroize::Zeroizing;

/// Words, of which some may be secret.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Words {
    text: Zeroizing<Vec<u8>>,
    /// The end of each word in `text`.
    ends: Vec<usize>,
}

/// A quote is not closed, or text follows it directly. A server refuses such a line and closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unbalanced quotes in request")]
pub struct UnbalancedQuotes;

impl Words {
    /// Splits a line as `sdssplitargs` in Redis' `sds.c` does.
    pub fn of_line(line: &[u8]) -> Result<Self, UnbalancedQuotes> {
        // Servers end the line at a zero byte.
        let mut rest = up_to_zero(line);
        let mut words = Self::with_capacity(rest.len());
        loop {
            let blanks = rest.iter().take_while(|byte| is_space(**byte)).count();
            rest = &rest[blanks..];
            if rest.is_empty() {
                return Ok(words);
            }
            rest = words.take(rest)?;
        }
    }

    /// Copies words that are split already.
    pub fn new(words: &[&[u8]]) -> Self {
        let mut all = Self::with_capacity(words.iter().map(|word| word.len()).sum());
        for word in words {
            all.text.extend_from_slice(word);
            all.ends.push(all.text.len());
        }
        all
    }

    /// The words in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.ends.iter().scan(0, |start, end| Some(&self.text[std::mem::replace(start, *end)..*end]))
    }

    /// Whether there are no words.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Allocates for all the text at once, because a buffer that grows leaves copies behind.
    fn with_capacity(length: usize) -> Self {
        Self { text: Zeroizing::new(Vec::with_capacity(length)), ends: Vec::new() }
    }

    /// Takes the word at the front. Returns what follows it.
    fn take<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], UnbalancedQuotes> {
        let mut quote = None;
        while let [byte, after @ ..] = rest {
            let (taken, left) = match (quote, *byte, after) {
                (None, b' ' | b'\n' | b'\r' | b'\t', _) => break,
                (None, b'"' | b'\'', _) => {
                    quote = Some(*byte);
                    rest = after;
                    continue;
                }
                (Some(b'"'), b'\\', [b'x', high, low, after @ ..])
                    if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
                {
                    (hex(*high) << 4 | hex(*low), after)
                }
                (Some(b'"'), b'\\', [escaped, after @ ..]) => (unescaped(*escaped), after),
                (Some(b'\''), b'\\', [b'\'', after @ ..]) => (b'\'', after),
                (Some(end), byte, _) if byte == end => {
                    if after.first().is_some_and(|next| !is_space(*next)) {
                        return Err(UnbalancedQuotes);
                    }
                    self.ends.push(self.text.len());
                    return Ok(after);
                }
                (_, byte, _) => (byte, after),
            };
            self.text.push(taken);
            rest = left;
        }
        if quote.is_some() {
            return Err(UnbalancedQuotes);
        }
        self.ends.push(self.text.len());
        Ok(rest)
    }
}

/// Whether a server takes `word` for `name`. Servers compare with `strcasecmp`, which stops at a zero byte.
pub fn is_same(word: &[u8], name: &[u8]) -> bool {
    up_to_zero(word).eq_ignore_ascii_case(name)
}

/// The part of a word that `strcasecmp` compares.
pub(super) fn up_to_zero(word: &[u8]) -> &[u8] {
    word.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// C's `isspace`.
pub(super) fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit.to_ascii_lowercase() - b'a' + 10,
    }
}

fn unescaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, UnbalancedQuotes> {
        Words::of_line(line).map(|words| words.iter().map(<[u8]>::to_vec).collect())
    }

    #[test]
    fn a_line_is_split_as_a_server_splits_it() {
        for (line, words) in [
            (&b""[..], &[][..]),
            (b" \t\r\n\x0b\x0c", &[]),
            (b"  AUTH  pw\r\n", &[&b"AUTH"[..], b"pw"]),
            (br#"AUTH "p w""#, &[b"AUTH", b"p w"]),
            (br#"AUTH 'p "w'"#, &[b"AUTH", b"p \"w"]),
            (br"AUTH 'it\'s' '\x41\n'", &[b"AUTH", b"it's", br"\x41\n"]),
            (
                br#""\x41\x6f\xFf" "\n\r\t\b\a\q\"\\" "\xg0\x4""#,
                &[b"Ao\xff", b"\n\r\t\x08\x07q\"\\", b"xg0x4"],
            ),
            (br#"A"U T"  A'U'"#, &[b"AU T", b"AU"]),
            (br#""" ''"#, &[b"", b""]),
            (br"a\x41 \n", &[br"a\x41", br"\n"]),
            // These two bytes separate words, but do not end one.
            (b"AUTH\x0bpw\x0c \x0bx", &[b"AUTH\x0bpw\x0c", b"x"]),
            (b"\"pw\"\x0bx", &[b"pw", b"x"]),
            (b"AUTH\0pw", &[b"AUTH"]),
        ] {
            assert_eq!(split(line).unwrap(), words, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn a_quote_needs_its_end_and_a_space_after_it() {
        for line in [
            &br#"""#[..],
            b"'",
            br#"AUTH "pw"#,
            br#"AUTH "pw"x"#,
            br"AUTH 'pw'x",
            br#"AUTH "pw\""#,
            br#"AUTH "pw\"#,
            br"AUTH 'pw\'",
            br#"AUTH pw" x"#,
            b"AUTH \"p\0w\"",
        ] {
            assert_eq!(split(line), Err(UnbalancedQuotes), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn words_are_compared_up_to_a_zero_byte() {
        assert!(is_same(b"auth", b"AUTH") && is_same(b"AUTH\0x", b"AUTH"));
        assert!(!is_same(b"AUTHx", b"AUTH") && !is_same(b"AUT", b"AUTH") && !is_same(b"\0AUTH", b"AUTH"));
    }

    proptest! {
        #[test]
        fn quoted_words_read_back(words in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..6)) {
            let quoted = |word: &Vec<u8>| {
                let escaped: String = word.iter().map(|byte| match byte {
                    b' '..=b'~' if !matches!(byte, b'"' | b'\\') => char::from(*byte).to_string(),
                    b'"' | b'\\' => format!("\\{}", char::from(*byte)),
                    byte => format!("\\x{byte:02x}"),
                }).collect();
                format!("\"{escaped}\"")
            };
            let line = words.iter().map(quoted).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(split(line.as_bytes()).unwrap(), words.clone());
            prop_assert_eq!(Words::of_line(line.as_bytes()).unwrap(), Words::new(&words.iter().map(Vec::as_slice).collect::<Vec<_>>()));
        }

        #[test]
        fn any_line_is_split_or_refused(line in proptest::collection::vec(proptest::sample::select(b"\"'\\x4 a\t\r\n\x0b\0n".to_vec()), 0..30)) {
            if let Ok(words) = Words::of_line(&line) {
                prop_assert!(words.text.len() <= line.len());
                prop_assert_eq!(words.is_empty(), up_to_zero(&line).iter().all(|byte| is_space(*byte)));
                // Without quotes every byte of a word is kept.
                if !line.iter().any(|byte| b"\"'\\\x0b\0".contains(byte)) {
                    let plain: Vec<Vec<u8>> = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(<[u8]>::to_vec).collect();
                    prop_assert_eq!(split(&line).unwrap(), plain);
                }
            }
        }
    }
}
