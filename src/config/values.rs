//! Settings as given, by file, variable or flag: text with its place, not checked yet.

use std::collections::BTreeMap;

/// A value and where it was given: `pontoon.toml:3:1: limits.handshakes`, `--handshakes`, `PONTOON_HANDSHAKES`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Where.
    pub place: String,
    /// What.
    pub text: String,
}

/// Settings by their key's path. A key given without any value (an empty list) is there, and empty.
pub type Values = BTreeMap<&'static str, Vec<Given>>;
