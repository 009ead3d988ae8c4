//! Logging: format, level, and the subscriber that obeys them.

/// How the log is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Text for people or JSON for programs.
    pub format: Format,
    /// Least severe level written; a `RUST_LOG`-style filter (`info,pontoon::session=debug`). `None`: `info`.
    pub level: Option<String>,
}

/// The log's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One line a record, for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
