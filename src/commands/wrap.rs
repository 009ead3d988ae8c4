//! Wraps text for people at the terminal's width, between words.

use textwrap::{Options, WordSplitter, fill};

use super::table::terminal_width;

/// Indentation of what follows a label, as in `position     step 0 of 2`.
const LABEL: usize = 13;

/// Wraps lines that are longer than the terminal is wide. Commands and configurations stay as they are, because people copy them.
pub(super) fn wrapped(text: &str) -> String {
    // Tests may run in a terminal, but expect unwrapped lines.
    match terminal_width().filter(|_| !cfg!(test)) {
        Some(width) => wrap_at(text, width.into()),
        None => text.to_owned(),
    }
}

fn wrap_at(text: &str, width: usize) -> String {
    let wrap = |line: &str| match indentation(line) {
        Some(indentation) => {
            let indentation = " ".repeat(indentation);
            let options = Options::new(width).subsequent_indent(&indentation).break_words(false);
            fill(line, options.word_splitter(WordSplitter::NoHyphenation))
        }
        None => line.to_owned(),
    };
    text.lines().map(wrap).collect::<Vec<_>>().join("\n")
}

/// The indentation of the lines that continue this one. `None` if it must not be wrapped.
fn indentation(line: &str) -> Option<usize> {
    let plain = anstream::adapter::strip_str(line).to_string();
    let has_label =
        plain.chars().nth(LABEL - 1) == Some(' ') && plain.chars().nth(LABEL).is_some_and(|c| c != ' ');
    match &plain {
        item if item.starts_with("  - ") || item.starts_with("  + ") => Some(4),
        labelled if has_label && (labelled.starts_with(&" ".repeat(LABEL)) || !labelled.starts_with(' ')) => {
            Some(LABEL)
        }
        copied if copied.starts_with(' ') => None,
        _ => Some(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_and_labelled_lines_wrap_under_their_own_text() {
        let text = "note         roll out the bridges first\n             with TLS master.example\n  - the servers are not asked yet";
        assert_eq!(
            wrap_at(text, 30),
            "note         roll out the\n             bridges first\n             with TLS\n             \
             master.example\n  - the servers are not asked\n    yet"
        );
    }

    #[test]
    fn commands_and_long_words_are_not_broken() {
        let command = "  aws elasticache modify-replication-group --region eu-west-1";
        assert_eq!(wrap_at(command, 20), command);
        assert_eq!(
            wrap_at("cache: a-word-that-is-longer-than-the-terminal", 20),
            "cache:\n  a-word-that-is-longer-than-the-terminal"
        );
    }

    #[test]
    fn colours_take_no_room() {
        let text = "\u{1b}[33mnote\u{1b}[0m         short enough";
        assert_eq!(wrap_at(text, 25), text);
    }
}
