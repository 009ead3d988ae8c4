//! Why sessions stay in plaintext or pinned to a dedicated connection, and what to do about it.

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// A state that sessions should leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StayState {
    /// The upstream connection is in plaintext.
    Plaintext,
    /// The session has a dedicated connection on a route in shared mode.
    Pinned,
}

/// Live sessions of a client that are in plaintext or pinned for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StayReason {
    /// `plaintext` or `pinned`.
    pub state: StayState,
    /// Number of such sessions.
    pub sessions: u64,
    /// The reason, and for plaintext also how it ends.
    pub why: String,
}

impl StayReason {
    /// Describes the sessions in one line: `1 pinned: subscribed`.
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
    /// The connection was opened before TLS was seen.
    BeforeTls {
        /// Cancelled once TLS is seen.
        seen: CancellationToken,
        /// How its sessions move to TLS then.
        then: TlsMove,
    },
}

/// When a session in plaintext moves to TLS after TLS was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMove {
    /// Never, because `tls.upgrade` is `keep`.
    Never,
    /// Between two commands, because `tls.upgrade` is `drain`.
    BetweenCommands,
    /// When its shared connection is replaced.
    WithSharedConnection,
}

impl PlaintextCause {
    /// Says why, and how it ends. `hold` is what binds the session to its connection.
    pub(super) fn words(&self, hold: Option<&str>) -> String {
        let Self::BeforeTls { seen, then } = self else {
            return "tls.mode is \"disabled\": set it to \"preferred\"".into();
        };
        let words = match (seen.is_cancelled(), then, hold) {
            (false, ..) => {
                "no endpoint has offered TLS yet: `pontoon status` names the next step under \"uses only TLS\""
            }
            (true, TlsMove::Never, _) => {
                "started before TLS was seen, and tls.upgrade is \"keep\": reconnect the client; with \
                 tls.upgrade = \"drain\" later sessions move by themselves"
            }
            (true, TlsMove::WithSharedConnection, _) => {
                "share a connection that was opened before TLS was seen: they leave it with their next command after \
                 another client has connected"
            }
            (true, TlsMove::BetweenCommands, None) => "move to TLS between two commands",
            (true, TlsMove::BetweenCommands, Some(hold)) => {
                return format!("{hold}: moves to TLS when that ends; if it lasts, reconnect the client");
            }
        };
        words.into()
    }
}
