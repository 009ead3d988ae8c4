//! `pontoon completions`: shell completions on standard output.

use std::io;

use clap::Command;
use clap_complete::Shell;

/// Writes them.
pub fn run(shell: Shell, command: &mut Command) {
    clap_complete::generate(shell, command, "pontoon", &mut io::stdout());
}
