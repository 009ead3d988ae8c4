//! The known name that an unknown one was probably meant to be.

/// Minimum likeness, of at most 1, of a known name that is suggested for an unknown one.
const LIKENESS: f64 = 0.6;

/// The name in `known` that is most like `name`, if one is. Tables are not compared: `tls.pins` is compared as `pins`.
pub(super) fn nearest<S: AsRef<str>>(name: &str, known: impl Iterator<Item = S>) -> Option<S> {
    known
        .map(|known| (strsim::normalized_damerau_levenshtein(last(name), last(known.as_ref())), known))
        .filter(|(likeness, _)| *likeness >= LIKENESS)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

/// A key's own name, without its table.
fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}
