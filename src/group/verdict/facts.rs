//! The facts about a route, the limits that they are compared with, and the verdict.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clients::InPlaintext;
use crate::group::Observation;
use crate::moment::Moment;
use crate::tls;
use crate::upstream::EndpointFacts;

/// Limits of the verdicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long no client may have been in plaintext, by the servers' count and by this bridge's own.
    pub quiet_for: Duration,
    /// Whether unseen connections speak against yes.
    pub unseen_blocks: bool,
    /// How long no client may have used the bridge.
    pub unused_for: Duration,
    /// How long the certificates must still be valid.
    pub certificate_left: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self { quiet_for: DAY, unseen_blocks: false, unused_for: DAY * 7, certificate_left: DAY * 14 }
    }
}

/// An answer and what it is based on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether the answer is yes.
    pub answer: bool,
    /// The reasons against yes, or the reasons why the bridge is needed. For "uses only TLS" and "safe to require TLS" empty if the answer
    /// is yes.
    pub because: Vec<String>,
    /// The facts that support yes.
    pub evidence: Vec<String>,
}

/// The facts about a route.
#[derive(Debug)]
pub struct RouteFacts {
    /// The current time.
    pub now: Moment,
    /// `tls.mode` as configured.
    pub mode: tls::TlsMode,
    /// Whether sessions in plaintext move to TLS by themselves (`tls.upgrade`).
    pub upgrades: bool,
    /// Whether certificates are verified.
    pub verifies: bool,
    /// Why the upstream counts as unreachable; `None` if it was reached recently.
    pub unreached: Option<String>,
    /// In mode `preferred`: TLS was seen, so plaintext is refused from then on.
    pub latched: bool,
    /// The facts about each endpoint, including each cluster node.
    pub endpoints: Vec<EndpointFacts>,
    /// This bridge's own sessions in plaintext.
    pub plaintext: InPlaintext,
    /// Number of sessions now.
    pub active: u64,
    /// When a client last used the route; `None` if no client has.
    pub last_used: Option<Moment>,
    /// Since when clients were watched.
    pub watched_since: Moment,
    /// What the servers reported; `None` if they are not asked.
    pub servers: Option<Observation>,
    /// How old the servers' report may be.
    pub patience: Duration,
}
