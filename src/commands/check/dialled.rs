//! Reports the steps of an established connection, and asks the server for its version.

use std::time::{Duration, Instant};

use super::report::CheckReport;
use crate::group::Info;
use crate::resp::replies::Answer;
use crate::upstream::{AuthOutcome, Cause, Lease, Stage, ask};

/// Reports each step of `connection` with its time, and the answers to PING and INFO. Returns `None` if the server does not answer.
pub(super) async fn dialled(
    mut connection: Lease,
    who: &str,
    deadline: Duration,
    report: &mut CheckReport,
) -> Option<Lease> {
    let endpoint = connection.endpoint.to_string();
    let mut waited_for_secret = None;
    for (stage, took) in connection.timings.clone() {
        let detail = match stage {
            Stage::Resolve => endpoint.clone(),
            Stage::Tcp => connection.peer.to_string(),
            Stage::Tls => connection.tls_details().unwrap_or_default(),
            Stage::Auth => {
                waited_for_secret = Some(took);
                continue;
            }
            Stage::Greeting | Stage::Queue => "CLIENT SETINFO, CLIENT SETNAME".into(),
        };
        report.ok(stage.label(), Some(took), &detail);
    }
    let auth = match connection.auth {
        AuthOutcome::None => None,
        AuthOutcome::Accepted => Some(format!("accepted: {who}")),
        AuthOutcome::Withheld => Some(format!("not sent, because this connection is plaintext: {who}")),
        AuthOutcome::Unwanted => Some(format!("not needed, because the server has no password: {who}")),
    };
    if let Some(detail) = auth {
        report.ok("auth", waited_for_secret, &detail);
    }
    let started = Instant::now();
    let answers = tokio::time::timeout(deadline, async {
        Ok::<_, Cause>([
            ask(&mut connection, &["PING"]).await?,
            ask(&mut connection, &["INFO", "server"]).await?,
        ])
    });
    match answers.await {
        Err(_) => {
            report.failed("ping", &format!("no answer within {}", humantime::format_duration(deadline)));
            None
        }
        Ok(Err(cause)) => {
            report.failed("ping", &cause.to_string());
            None
        }
        Ok(Ok([ping, info])) => {
            let took = Some(started.elapsed());
            match ping {
                Answer::Text(text) => report.ok("ping", took, &text),
                // Clients that send their own credentials are served.
                Answer::Error(text)
                    if text.starts_with("NOAUTH") && connection.auth == AuthOutcome::Withheld =>
                {
                    report.failed(
                        "auth",
                        &format!(
                            "the server requires credentials, and pontoon sends none in plaintext: require TLS first, or set \
                             auth.allow_plaintext ({text})"
                        ),
                    );
                }
                Answer::Error(text) if text.starts_with("NOPERM") => {
                    report.warn("ping", &format!("the user may not run PING, and may run other commands ({text})"));
                }
                Answer::Error(text) if text.starts_with("NOAUTH") => report.warn(
                    "ping",
                    &format!("the server requires credentials: set [route.auth], or have each client send its own ({text})"),
                ),
                Answer::Error(text) => report.failed("ping", &text),
                Answer::Number(_) | Answer::Other => report.failed("ping", "the server did not answer PONG"),
            }
            if let Answer::Text(info) = info {
                report.ok("server", None, &Info(&info).describe());
            }
            Some(connection)
        }
    }
}
