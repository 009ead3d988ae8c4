//! `pontoon demo`: the main job with nothing installed.

/// Runs it.
pub fn run(_serve: bool) -> anyhow::Result<()> {
    Ok(())
}
