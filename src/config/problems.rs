//! Collects all problems of a configuration.

use std::fmt;

use crate::endpoint::without_secrets;

/// One or more problems, each with its place and its remedy.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl Problems {
    /// Adds a problem.
    pub(super) fn add(&mut self, place: impl fmt::Display, problem: impl fmt::Display) {
        self.0.push(format!("{place}: {problem}"));
    }

    /// Adds a problem whose text may repeat `given`. What could be a secret is removed.
    pub(super) fn add_about(&mut self, place: impl fmt::Display, given: &str, problem: impl fmt::Display) {
        self.add(place, without_secrets(problem.to_string(), given));
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Problems {}
