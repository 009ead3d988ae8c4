//! The result of a call to a scanner.

/// How far a call to `next` came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// All input was consumed and no frame ended in it.
    NeedMore,
    /// A frame ended exactly where consumption stopped.
    Frame,
    /// The input is not RESP. The scanner stays in this state.
    Malformed,
}
