//! What each command does. Only here, and in `main`, errors are `anyhow`'s and the terminal is spoken to.

/// Writes a line to standard output. A reader that has seen enough (`| head`) is no reason to panic.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

pub mod check;
pub mod completions;
pub mod demo;
pub mod health;
pub mod probe;
pub mod run;
