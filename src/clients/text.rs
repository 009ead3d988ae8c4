//! Makes names that clients and processes choose safe to show.

use crate::printable::is_hidden;

/// Maximum number of bytes of a client's text. A longer text is cut.
const MAX_CLIENT_TEXT: usize = 64;

/// Returns at most 64 bytes of UTF-8 without characters that control a terminal or are invisible; `None` if nothing is left.
pub(super) fn clean(bytes: &[u8]) -> Option<Box<str>> {
    // A sequence that the cut broke is not part of the name.
    let (cut, was_cut) = match bytes.get(..MAX_CLIENT_TEXT) {
        Some(cut) => (cut, bytes.len() > MAX_CLIENT_TEXT),
        None => (bytes, false),
    };
    let text = String::from_utf8_lossy(cut);
    let text = if was_cut { text.trim_end_matches('\u{fffd}') } else { &text };
    let mut clean = String::with_capacity(text.len());
    for c in text.trim().chars() {
        // Use one `?`, because an escape would take the room of the name. U+FFFD stands for bytes that are no UTF-8.
        let c = if is_hidden(c) || matches!(c, '\u{fffc}' | '\u{fffd}') { '?' } else { c };
        if clean.len() + c.len_utf8() > MAX_CLIENT_TEXT {
            break;
        }
        clean.push(c);
    }
    (!clean.is_empty()).then(|| clean.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_normal_name_is_unchanged_and_a_hostile_one_is_harmless() {
        let clean = |bytes: &[u8]| clean(bytes).map(String::from);
        assert_eq!(clean(b"redis-py"), Some("redis-py".into()));
        assert_eq!(clean("Größe".as_bytes()), Some("Größe".into()));
        assert_eq!(clean(b"a\r\n\x1b[2Jb\0"), Some("a???[2Jb?".into()));
        assert_eq!(clean("a\u{202e}b\u{200b}c\u{9b}d".as_bytes()), Some("a?b?c?d".into()));
        assert_eq!(clean(b"a\xff\xfeb"), Some("a??b".into()));
        assert_eq!(clean(b""), None);
        assert_eq!(clean(b" \t "), None);
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(clean(&vec![b'x'; 1 << 20]).map(|text| text.len()), Some(64));
        let umlauts = format!("x{}", "ü".repeat(40));
        assert_eq!(clean(&umlauts.as_bytes()[..65]).as_deref(), Some(&*format!("x{}", "ü".repeat(31))));
    }
}
