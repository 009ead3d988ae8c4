//! `pontoon completions`: shell completions on standard output.

use std::io::Write;

use clap::Command;
use clap_complete::Shell;

/// Writes the completions for `shell`.
pub fn run(shell: Shell, command: &mut Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "pontoon", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}
