//! `POST /drain`, `/reload` and `/quit`: what a running pontoon can be told. Whoever runs the app obeys.

use axum::extract::State;
use axum::http::StatusCode;
use tokio::sync::{mpsc, oneshot};

use super::desk::Desk;

/// Commands that may wait to be obeyed; beyond, who commands is told to come again.
pub const WAITING: usize = 16;

/// What a running pontoon is told to do.
#[derive(Debug)]
pub enum Command {
    /// Read the configuration again, and answer with what became of it, or with why nothing did.
    Reload(oneshot::Sender<Result<String, String>>),
    /// Take no more clients and have the sessions end, as on SIGTERM; but stay.
    Drain,
    /// End: the work next door is done.
    Quit,
}

pub(super) async fn drain(State(Desk { shared, .. }): State<Desk>) -> (StatusCode, String) {
    tell(&shared.commands, Command::Drain, "draining")
}

pub(super) async fn quit(State(Desk { shared, .. }): State<Desk>) -> (StatusCode, String) {
    tell(&shared.commands, Command::Quit, "ending")
}

pub(super) async fn reload(State(Desk { shared, .. }): State<Desk>) -> (StatusCode, String) {
    let (answer, answered) = oneshot::channel();
    let (status, said) = tell(&shared.commands, Command::Reload(answer), "");
    if status != StatusCode::ACCEPTED {
        return (status, said);
    }
    match answered.await {
        Ok(Ok(done)) => (StatusCode::OK, done + "\n"),
        Ok(Err(problem)) => (StatusCode::UNPROCESSABLE_ENTITY, problem + "\n"),
        Err(_) => ending(),
    }
}

fn tell(commands: &mpsc::Sender<Command>, command: Command, said: &str) -> (StatusCode, String) {
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
