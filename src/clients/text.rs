//! Names that clients and processes give themselves, made safe to show.

/// Bytes of a text from a client: a longer one is cut.
const MAX_CLIENT_TEXT: usize = 64;

/// At most 64 bytes of UTF-8 without what could steer a terminal or hide from its reader; `None`: nothing is left.
pub(super) fn clean(bytes: &[u8]) -> Option<Box<str>> {
    // A sequence that the cut has broken is no character of the name.
    let (cut, was_cut) = match bytes.get(..MAX_CLIENT_TEXT) {
        Some(cut) => (cut, bytes.len() > MAX_CLIENT_TEXT),
        None => (bytes, false),
    };
    let text = String::from_utf8_lossy(cut);
    let text = if was_cut { text.trim_end_matches('\u{fffd}') } else { &text };
    let mut clean = String::with_capacity(text.len());
    for c in text.trim().chars() {
        let c = if is_unsafe(c) { '?' } else { c };
        if clean.len() + c.len_utf8() > MAX_CLIENT_TEXT {
            break;
        }
        clean.push(c);
    }
    (!clean.is_empty()).then(|| clean.into())
}

/// Control characters, and those that change the direction of text, take no room, or stand for nothing.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffd}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_as_it_is_and_a_hostile_one_is_harmless() {
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
