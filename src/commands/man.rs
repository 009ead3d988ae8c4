//! `pontoon man`: writes man pages, one for each command.

use std::path::Path;

use anyhow::Context as _;
use clap::Command;

/// Writes the man pages into `directory`, and creates it if it does not exist.
pub fn run(directory: &Path, command: Command) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(command, directory))
        .with_context(|| format!("cannot write man pages to {}", directory.display()))
}
