//! What a running pontoon can be told.

use tokio::sync::oneshot;

/// What a running pontoon can be told.
#[derive(Debug)]
pub enum Command {
    /// Obey another configuration. The reply: what changed, or why nothing did.
    Reload(oneshot::Sender<Result<String, String>>),
    /// Take no client any more, have sessions end, and stay.
    Drain,
    /// As SIGTERM.
    Quit,
}
