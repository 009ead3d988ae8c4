//! `POST /drain`, `/reload` and `/quit`: what a running pontoon can be told. Whoever runs the app obeys.

use axum::extract::State;
use axum::http::StatusCode;
use tokio::sync::{mpsc, oneshot};

use super::state::AdminState;

/// Commands that may wait to be obeyed; beyond, who commands is told to come again.
pub const WAITING: usize = 16;

/// What a running pontoon is told to do.
#[derive(Debug)]
pub enum AdminCommand {
    /// Read the configuration again, and answer with what became of it, or with why nothing did.
    Reload(oneshot::Sender<Result<String, String>>),
    /// Take no more clients and have the sessions end, as on SIGTERM; but stay.
    Drain,
    /// End: the work next door is done.
    Quit,
}

pub(super) async fn drain(State(AdminState { shared, .. }): State<AdminState>) -> (StatusCode, String) {
    tell(&shared.commands, AdminCommand::Drain, "draining")
}

pub(super) async fn quit(State(AdminState { shared, .. }): State<AdminState>) -> (StatusCode, String) {
    tell(&shared.commands, AdminCommand::Quit, "ending")
}

pub(super) async fn reload(State(AdminState { shared, .. }): State<AdminState>) -> (StatusCode, String) {
    let (answer, answered) = oneshot::channel();
    let (status, said) = tell(&shared.commands, AdminCommand::Reload(answer), "");
    if status != StatusCode::ACCEPTED {
        return (status, said);
    }
    match answered.await {
        Ok(Ok(done)) => (StatusCode::OK, done + "\n"),
        Ok(Err(problem)) => (StatusCode::UNPROCESSABLE_ENTITY, problem + "\n"),
        Err(_) => ending(),
    }
}

fn tell(commands: &mpsc::Sender<AdminCommand>, command: AdminCommand, said: &str) -> (StatusCode, String) {
    match commands.try_send(command) {
        Ok(()) => (StatusCode::ACCEPTED, format!("{said}\n")),
        Err(mpsc::error::TrySendError::Full(_)) => {
            (StatusCode::SERVICE_UNAVAILABLE, "earlier commands are under way: try again\n".into())
        }
        Err(mpsc::error::TrySendError::Closed(_)) => ending(),
    }
}

fn ending() -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, "pontoon is ending: nothing more can be asked of it\n".into())
}
