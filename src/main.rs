//! The `pontoon` program.

use std::process::ExitCode;

use pontoon::cli::ERROR;

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
