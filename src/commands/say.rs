//! How commands speak to the terminal.

/// Writes a line to standard output, with its colours where a terminal shows them. A reader that has seen enough (`| head`)
/// is no reason to panic.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(anstream::stdout(), $($words)*);
    }};
}
