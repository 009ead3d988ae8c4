//! The `pontoon` program.

use std::process::ExitCode;

#[expect(clippy::print_stderr, reason = "errors go to standard error")]
fn main() -> ExitCode {
    match pontoon::cli::main(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.message.lines() {
                eprintln!("error: {}", pontoon::printable::printable(line));
            }
            ExitCode::from(failure.code)
        }
    }
}
