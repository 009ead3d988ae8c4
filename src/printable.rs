//! Makes text from others safe for a terminal, a log and a page. What a server, a certificate or a client sends may hold characters that
//! control the terminal, change the text direction around them, or are invisible. All outputs use this module.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` on one line, with `\u{…}` for each [hidden](is_hidden) character, and `
/// `, `\r` and `\t` for line ends and tabs.
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, |c, escaped| match c {
        '\n' | '\r' | '\t' => escaped.extend(c.escape_default()),
        c if is_hidden(c) => escaped.extend(c.escape_unicode()),
        c => escaped.push(c),
    })
}

/// Does what [`printable`] does, but keeps line ends.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escape(text, |c, escaped| match c {
        '\n' => escaped.push(c),
        '\r' | '\t' => escaped.extend(c.escape_default()),
        c if is_hidden(c) => escaped.extend(c.escape_unicode()),
        c => escaped.push(c),
    })
}

/// The same JSON, with JSON's own escapes for hidden characters, which occur only in strings. The encoder itself escapes only those of
/// ASCII.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    escape(json, |c, escaped| {
        if !is_hidden(c) || c.is_ascii_whitespace() {
            return escaped.push(c);
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    })
}

/// Whether a reader cannot see this character: a control character, one that changes the text direction, another Unicode format character,
/// or one that is ignored in display.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

fn escape(text: &str, push: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        push(c, &mut escaped);
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}[2J\u{9b}\0\u{7f}\u{202e}\u{2069}\u{200b}\u{feff}\u{fe0f}\u{e0041}z";

    #[test]
    fn ordinary_text_stays_as_it_is() {
        for text in
            ["", "redis-py 5.0", "Größe, 大きさ, \u{627}\u{644}\u{62d}\u{62c}\u{645}", "\\x1b \u{fffd} 🙂"]
        {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text), "{text}");
            assert_eq!(printable_json(text), text);
        }
    }

    #[test]
    fn hidden_characters_are_escaped() {
        assert_eq!(
            printable(HOSTILE),
            r"a\u{1b}[2J\u{9b}\u{0}\u{7f}\u{202e}\u{2069}\u{200b}\u{feff}\u{fe0f}\u{e0041}z"
        );
        assert_eq!(printable("a\r\n\tb"), r"a\r\n\tb");
        assert_eq!(printable_lines("a\r\n\u{85}b\n"), "a\\r\n\\u{85}b\n");
    }

    #[test]
    fn escaped_json_means_the_same() {
        let json = serde_json::to_string(&[HOSTILE, "a\nb"]).unwrap();
        let escaped = printable_json(&json);
        assert!(!escaped.chars().any(is_hidden), "{escaped}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&escaped).unwrap(), [HOSTILE, "a\nb"]);
    }
}
