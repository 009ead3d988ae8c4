//! Why sessions stay in plaintext, or pinned to a dedicated connection, and what to do about it.

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// How a session is, that another one is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StayState {
    /// Its upstream connection is in plaintext.
    Plaintext,
    /// It has a dedicated connection, where clients share them otherwise.
    Pinned,
}

/// Live sessions of a client that are in plaintext, or pinned, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StayReason {
    /// `plaintext` or `pinned`.
    pub state: StayState,
    /// How many.
    pub sessions: u64,
    /// Why, and of plaintext how it ends.
    pub why: String,
}

impl StayReason {
    /// In a line: `1 pinned: subscribed`.
    pub fn describe(&self) -> String {
        let state = match self.state {
            StayState::Plaintext => "in plaintext",
            StayState::Pinned => "pinned",
        };
        format!("{} {state}: {}", self.sessions, self.why)
    }
}

/// Why an upstream connection is in plaintext.
#[derive(Debug, Clone)]
pub enum PlaintextCause {
    /// `tls.mode` is `disabled`.
    Disabled,
    /// It began before TLS was seen.
    BeforeTls {
        /// Cancelled once TLS was seen.
        seen: CancellationToken,
        /// What becomes of it then.
        then: TlsMove,
    },
}

/// When a session in plaintext goes on over TLS, once TLS was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMove {
    /// Never: `tls.upgrade` is `keep`.
    Never,
    /// Between two commands: `tls.upgrade` is `drain`.
    BetweenCommands,
    /// With its shared connection.
    WithSharedConnection,
}

impl PlaintextCause {
    /// Why, and how it ends. `hold`: what binds the session to its connection.
    pub(super) fn words(&self, hold: Option<&str>) -> String {
        let Self::BeforeTls { seen, then } = self else {
            return "tls.mode is \"disabled\": set it to \"preferred\"".into();
        };
        let words = match (seen.is_cancelled(), then, hold) {
            (false, ..) => {
                "no endpoint was seen to speak TLS: `pontoon status` names the step under \"uses only TLS\""
            }
            (true, TlsMove::Never, _) => {
                "began before TLS was seen, and tls.upgrade = \"keep\" leaves them: reconnect the client; with \
                 tls.upgrade = \"drain\" later sessions move by themselves"
            }
            (true, TlsMove::WithSharedConnection, _) => {
                "share a connection that began before TLS was seen: they leave it with their next command after \
                 another client has connected"
            }
            (true, TlsMove::BetweenCommands, None) => "move to TLS between two commands",
            (true, TlsMove::BetweenCommands, Some(hold)) => {
                return format!("{hold}: moves to TLS once that has ended; reconnect the client if it lasts");
            }
        };
        words.into()
    }
}
