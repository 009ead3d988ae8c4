//! Prints lines for people.

/// Writes a line to standard output, in colour if it is a terminal. Ignores errors: a reader may close the pipe early (`| head`).
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(anstream::stdout(), $($words)*);
    }};
}
