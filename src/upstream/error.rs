//! Why there is no upstream connection: the stage, the endpoint, the cause, and what to do.

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use rustix::io::Errno;

use crate::credentials::NoSecret;
use crate::endpoint::Endpoint;
use crate::moment::Moment;
use crate::resolve::ResolveError;
use crate::tls::channel::HandshakeError;
use crate::tls::explain;

/// The steps from an endpoint to a greeted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Waiting for a turn: handshakes in flight are limited, and dialling pauses after a failure.
    Queue,
    /// Resolving the name to addresses.
    Resolve,
    /// The TCP connection.
    Tcp,
    /// The TLS handshake.
    Tls,
    /// Getting credentials and having the server accept them.
    Auth,
    /// Sending the greeting: library name and client name.
    Greeting,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 6] = [Self::Queue, Self::Resolve, Self::Tcp, Self::Tls, Self::Auth, Self::Greeting];

    /// The stage as a metric label and in messages.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Resolve => "resolve",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Auth => "auth",
            Self::Greeting => "greeting",
        }
    }
}

/// Why an endpoint could not be reached.
#[derive(Debug, thiserror::Error)]
pub struct ConnectError {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The stage that failed.
    pub stage: Stage,
    /// The cause.
    pub source: Cause,
    /// The endpoint may accept plaintext, which its route's latch refuses.
    pub is_downgrade: bool,
}

/// What follows an error where plaintext is refused.
const DOWNGRADE: &str =
    "; plaintext stays refused, as after any use of TLS: to go back, set tls.mode = \"disabled\"";

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, stage, source, is_downgrade } = self;
        match stage {
            Stage::Auth => match source {
                Cause::AuthRefused { .. } => source.fmt(f),
                _ => write!(f, "authenticating to {endpoint} failed: {source}"),
            },
            Stage::Queue => write!(f, "waiting for {endpoint} failed: {source}"),
            Stage::Resolve => write!(f, "name lookup for {endpoint} failed: {source}"),
            Stage::Tcp => write!(f, "TCP connection to {endpoint} failed: {source}"),
            Stage::Tls => write!(f, "TLS handshake with {endpoint} failed: {source}"),
            Stage::Greeting => write!(f, "greeting {endpoint} failed: {source}"),
        }?;
        if *is_downgrade { f.write_str(DOWNGRADE) } else { Ok(()) }
    }
}

/// Why a stage failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The name has no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The transport failed.
    #[error("{}", describe(.0))]
    Io(#[from] io::Error),
    /// TLS failed with a server that accepts it. The text says what to do.
    #[error("{0}")]
    Tls(String),
    /// The server does not accept TLS. The text says what to do.
    #[error("{0}")]
    NotTls(String),
    /// There are no credentials to present.
    #[error(transparent)]
    NoSecret(#[from] NoSecret),
    /// The server refused every known secret.
    #[error("upstream refused the credentials of user {user}: {words}")]
    AuthRefused {
        /// The user.
        user: String,
        /// The server's words about the newest secret.
        words: String,
    },
    /// The server's words in place of a reply to the greeting.
    #[error("the server replied \"{0}\" and closed the connection")]
    Refused(String),
    /// The server does not use the Redis protocol.
    #[error("peer does not use the Redis protocol: {0}")]
    NotRedis(String),
    /// The server closed the connection and sent nothing.
    #[error("the peer closed the connection")]
    Closed,
    /// The stage's share of `limits.connect_timeout` has passed.
    #[error("timed out after {} in stage {}{}", humantime::format_duration(*.after), .stage.label(), hint(*.stage))]
    TimedOut {
        /// The time since the attempt began.
        after: Duration,
        /// The stage that was running.
        stage: Stage,
    },
}

impl ConnectError {
    /// Formats the error of a connection to a sentinel, whose credentials have keys of their own.
    pub fn of_sentinel(&self) -> String {
        match self.source {
            Cause::AuthRefused { .. } => {
                format!("{}: {self}. Check sentinel.username and sentinel.password_file", self.endpoint)
            }
            _ => self.to_string(),
        }
    }
}

impl Cause {
    /// Whether the failure can end without a change to the configuration or the server.
    fn is_outage(&self) -> bool {
        match self {
            Self::Resolve(_) | Self::Io(_) | Self::Closed | Self::TimedOut { .. } => true,
            // These are the words of a server that is starting, has lost its primary or has too many clients. redis-py also treats the last
            // as a lost connection.
            Self::Refused(words) => ["LOADING", "MASTERDOWN", "BUSY", "ERR max number of clients"]
                .iter()
                .any(|beginning| words.starts_with(beginning)),
            Self::Tls(_)
            | Self::NotTls(_)
            | Self::NoSecret(_)
            | Self::AuthRefused { .. }
            | Self::NotRedis(_) => false,
        }
    }

    /// Whether the process or the machine has no file descriptor left.
    pub(super) fn is_lack_of_descriptors(&self) -> bool {
        let (Self::Io(error) | Self::Resolve(ResolveError::Unavailable(error))) = self else { return false };
        is_lack_of_descriptors(error)
    }
}

fn is_lack_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

impl From<HandshakeError> for Cause {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Tls(error @ rustls::Error::InvalidMessage(_)) => Self::NotTls(explain(&error)),
            HandshakeError::Tls(error) => Self::Tls(explain(&error)),
            HandshakeError::Io(error) => Self::Io(error),
            HandshakeError::Closed => Self::Closed,
        }
    }
}

/// The operating system's error in its usual words, without the number.
fn describe(error: &io::Error) -> String {
    let words = error.to_string();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "connection refused: nothing listens on this port, or a firewall rejects the connection".into()
        }
        io::ErrorKind::ConnectionReset => "connection reset by the peer".into(),
        _ if is_lack_of_descriptors(error) => {
            "too many open files: raise the limit (ulimit -n, LimitNOFILE=) or lower limits.max_clients"
                .into()
        }
        _ => words,
    }
}

fn hint(stage: Stage) -> &'static str {
    match stage {
        Stage::Queue => " (limits.handshakes is reached, or dialling pauses after a failure: see the log)",
        Stage::Auth => " (waiting for the source of the credentials)",
        Stage::Tls => " (a plaintext Redis does not answer a TLS handshake: is transit encryption on?)",
        _ => "",
    }
}

/// None of a route's endpoints could be reached. The attempts are in the order in which they were made.
#[derive(Debug, Clone)]
pub struct Unreachable {
    /// The error of each attempt; never empty.
    pub attempts: Vec<Arc<ConnectError>>,
}

impl Unreachable {
    /// Whether the outage can end without a change to the configuration or the server, by every attempt's error.
    pub fn is_outage(&self) -> bool {
        self.attempts.iter().all(|attempt| attempt.source.is_outage())
    }
}

/// No endpoint of a route can be reached, by the last attempt at each.
#[derive(Debug, Clone)]
pub struct Outage {
    /// When the last of the endpoints began to fail.
    pub since: Moment,
    /// The last error of each endpoint.
    pub why: Unreachable,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upstream not reached since {}: {}", self.since, self.why)
    }
}

impl std::error::Error for Unreachable {}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, attempt) in self.attempts.iter().enumerate() {
            if i > 0 {
                f.write_str("; then ")?;
            }
            attempt.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_full_or_loading_is_an_outage() {
        for words in ["ERR max number of clients reached", "LOADING Redis is loading the dataset in memory"] {
            assert!(Cause::Refused(words.into()).is_outage(), "{words}");
        }
        assert!(!Cause::Refused("NOPERM this user has no permissions".into()).is_outage());
    }
}
