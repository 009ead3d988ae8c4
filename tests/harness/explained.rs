//! Each error that clients get from pontoon itself has its paragraph in docs/errors.md.

use std::sync::OnceLock;

/// The messages that docs/errors.md explains, in pieces between which there may be anything.
fn explained() -> &'static [Vec<String>] {
    static EXPLAINED: OnceLock<Vec<Vec<String>>> = OnceLock::new();
    EXPLAINED.get_or_init(|| {
        let page = std::fs::read_to_string("docs/errors.md").unwrap();
        let spans = page.split("**`").skip(1).map(|rest| rest.split('`').next().unwrap());
        let unwrapped = spans.map(|span| span.replace('\n', " "));
        unwrapped.map(|span| span.split('…').map(str::to_owned).collect()).collect()
    })
}

/// Fails if one of the errors with which `pontoon run` ended is not explained by docs/errors.md.
#[track_caller]
pub fn assert_start_explained(stderr: &str) {
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(!errors.is_empty(), "no error: {stderr}");
    for error in errors {
        let is_explained = explained().iter().any(|pieces| matches(error, pieces));
        assert!(is_explained, "docs/errors.md does not explain {error:?}");
    }
}

/// Whether a reply is pontoon's own error.
pub fn is_pontoons_error(reply: &[u8]) -> bool {
    reply.starts_with(b"-") && reply.windows(10).any(|window| window == b" pontoon: ")
}

/// Fails if a reply is pontoon's own error and docs/errors.md does not explain it.
#[track_caller]
pub fn assert_explained(reply: &[u8]) {
    if !is_pontoons_error(reply) {
        return;
    }
    let reply = String::from_utf8_lossy(reply);
    let reply = reply.trim_end();
    let (code, words) = reply.split_once(" pontoon: ").unwrap();
    let parts: Vec<_> = words.split("; then ").collect();
    // With several endpoints, each has its reason, and one code stands for all of them.
    let codes = if parts.len() > 1 { vec!["-ERR", "-LOADING"] } else { vec![code] };
    for part in parts {
        let is_explained = codes.iter().any(|code| {
            let text = format!("{code} pontoon: {part}");
            explained().iter().any(|pieces| matches(&text, pieces))
        });
        assert!(is_explained, "docs/errors.md does not explain {part:?}");
    }
}

fn matches(text: &str, pieces: &[String]) -> bool {
    let (first, rest) = pieces.split_first().unwrap();
    let Some(mut left) = text.strip_prefix(first.as_str()) else { return false };
    for piece in rest {
        let Some(at) = left.find(piece.as_str()) else { return false };
        left = &left[at + piece.len()..];
    }
    left.is_empty() || rest.last().is_some_and(String::is_empty)
}
