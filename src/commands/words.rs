//! Phrases that several commands print.

use crate::counted::counted;

/// Formats the closing line of a report: `3 groups: 2 safe to require TLS, 1 not`.
pub(super) fn how_many_are_safe(what: &str, answers: impl Iterator<Item = bool>) -> String {
    let (safe, not): (Vec<bool>, Vec<bool>) = answers.partition(|safe| *safe);
    let all = counted(safe.len() + not.len(), what);
    match (safe.len(), not.len()) {
        (0, 0) => all,
        (0, not) => format!("{all}: {not} not safe to require TLS"),
        (safe, 0) => format!("{all}: {safe} safe to require TLS"),
        (safe, not) => format!("{all}: {safe} safe to require TLS, {not} not"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_counts_both_answers() {
        let line = |answers: &[bool]| how_many_are_safe("group", answers.iter().copied());
        assert_eq!(line(&[true, false, true]), "3 groups: 2 safe to require TLS, 1 not");
        assert_eq!(line(&[true]), "1 group: 1 safe to require TLS");
        assert_eq!(line(&[false, false]), "2 groups: 2 not safe to require TLS");
    }
}
