//! The `pontoon` program.

use std::process::ExitCode;

use anstyle::{AnsiColor, Effects, Style};

/// How an error begins on a terminal.
const ERROR: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);

fn main() -> ExitCode {
    match pontoon::cli::main(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.message.lines() {
                anstream::eprintln!("{ERROR}error:{ERROR:#} {}", pontoon::printable::printable(line));
            }
            ExitCode::from(failure.code)
        }
    }
}
