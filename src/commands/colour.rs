//! Colours for terminals. The output streams remove them if the output is not a terminal.

use anstyle::{AnsiColor, Style};

/// The meaning of a coloured word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tint {
    /// The subject works.
    Good,
    /// The subject needs attention.
    Doubtful,
    /// The subject does not work.
    Bad,
}

impl Tint {
    fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green,
            Self::Doubtful => AnsiColor::Yellow,
            Self::Bad => AnsiColor::Red,
        }
        .on_default()
    }

    /// Colours `words`.
    pub(super) fn paint(self, words: &str) -> String {
        let style = self.style();
        format!("{style}{words}{style:#}")
    }
}

/// The questions that verdicts answer, each with the colours of yes and of no.
pub(super) const QUESTIONS: [(&str, Tint, Tint); 3] = [
    ("uses only TLS", Tint::Good, Tint::Bad),
    ("safe to require TLS", Tint::Good, Tint::Bad),
    ("bridge still needed", Tint::Doubtful, Tint::Good),
];

/// Returns `yes` or `no`.
pub(super) fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// Colours the yes or no at the end of each line that answers one of [`QUESTIONS`]. Leaves indented lines, which are reasons, uncoloured.
pub(super) fn with_coloured_answers(text: &str) -> String {
    let line = |line: &str| {
        let coloured = || {
            let (question, answer) = line.rsplit_once(": ").filter(|_| !line.starts_with(' '))?;
            let (_, yes, no) = QUESTIONS.iter().find(|(known, ..)| question.ends_with(known))?;
            let tint = match answer {
                "yes" => yes,
                "no" => no,
                _ => return None,
            };
            Some(format!("{question}: {}", tint.paint(answer)))
        };
        coloured().unwrap_or_else(|| line.to_owned())
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_are_coloured_each_by_its_meaning() {
        let text = "cache: uses only TLS: yes\n  - safe to require TLS: no\nsafe to require TLS: no\nbridge still needed: no";
        assert_eq!(
            with_coloured_answers(text),
            "cache: uses only TLS: \u{1b}[32myes\u{1b}[0m\n  - safe to require TLS: no\nsafe to require TLS: \u{1b}[31mno\u{1b}[0m\n\
             bridge still needed: \u{1b}[32mno\u{1b}[0m"
        );
    }
}
