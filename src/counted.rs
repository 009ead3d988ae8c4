//! Formats counts with their nouns.

/// Formats a count and its noun: `1 client`, `2 clients`. `what` is the singular.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
