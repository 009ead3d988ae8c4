//! `POST /drain`, `/reload` and `/quit`: passes commands to the app, which carries them out.

use axum::extract::State;
use axum::http::StatusCode;
use tokio::sync::{mpsc, oneshot};

use super::state::AdminState;

/// Maximum number of waiting commands. Further ones are refused with 503.
pub const WAITING: usize = 16;

/// A command to a running pontoon.
#[derive(Debug)]
pub enum AdminCommand {
    /// Reload the configuration, and answer with the result or the reason for the failure.
    Reload(oneshot::Sender<Result<String, String>>),
    /// Accept no more clients and end the sessions, as on SIGTERM, but keep running.
    Drain,
    /// Drain and exit, because the app that used the sidecar is done.
    Quit,
}

pub(super) async fn drain(State(AdminState { shared, .. }): State<AdminState>) -> (StatusCode, String) {
    tell(&shared.commands, AdminCommand::Drain, "draining")
}

pub(super) async fn quit(State(AdminState { shared, .. }): State<AdminState>) -> (StatusCode, String) {
    tell(&shared.commands, AdminCommand::Quit, "shutting down")
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
            (StatusCode::SERVICE_UNAVAILABLE, "earlier commands are still running: try again\n".into())
        }
        Err(mpsc::error::TrySendError::Closed(_)) => ending(),
    }
}

fn ending() -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, "pontoon is shutting down, command ignored\n".into())
}
