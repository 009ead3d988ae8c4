//! Settings as given by file, variable or flag: text with its place, not validated yet.

use std::collections::BTreeMap;

/// A value and its place, such as `pontoon.toml:3:1: limits.handshakes`, `--handshakes` or `PONTOON_HANDSHAKES`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The place.
    pub place: String,
    /// The value.
    pub text: String,
}

/// Settings by the path of their key. An empty list is an entry without values.
pub type Values = BTreeMap<&'static str, Vec<Given>>;
