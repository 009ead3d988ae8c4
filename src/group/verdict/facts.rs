//! What is known of a route, what is long enough, and what a verdict holds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clients::InPlaintext;
use crate::group::Observation;
use crate::moment::Moment;
use crate::tls;
use crate::upstream::EndpointFacts;

/// How long is long enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// So long nobody may have been in plaintext, by the servers' count and by this bridge's own.
    pub quiet_for: Duration,
    /// Whether connections that came and went unseen speak against yes.
    pub unseen_blocks: bool,
    /// So long no client may have used the bridge.
    pub unused_for: Duration,
    /// So long the certificates must still be good.
    pub certificate_left: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self { quiet_for: DAY, unseen_blocks: false, unused_for: DAY * 7, certificate_left: DAY * 14 }
    }
}

/// An answer, and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Yes or no.
    pub answer: bool,
    /// What speaks against yes, or for the bridge. Of "uses only TLS" and "safe to require TLS": empty where the answer is yes.
    pub because: Vec<String>,
    /// What speaks for it.
    pub evidence: Vec<String>,
}

/// What is known of a route.
#[derive(Debug)]
pub struct RouteFacts {
    /// The present.
    pub now: Moment,
    /// As configured.
    pub mode: tls::TlsMode,
    /// Sessions in plaintext move to TLS by themselves (`tls.upgrade`).
    pub upgrades: bool,
    /// Certificates are verified.
    pub verifies: bool,
    /// Why the upstream does not count as reached; `None`: it was reached lately.
    pub unreached: Option<String>,
    /// Where the mode is `preferred`: TLS was seen, and plaintext is over.
    pub latched: bool,
    /// What is known of each endpoint. Cluster nodes are just more of them.
    pub endpoints: Vec<EndpointFacts>,
    /// This bridge's own sessions in plaintext.
    pub plaintext: InPlaintext,
    /// Sessions now.
    pub active: u64,
    /// When a client used the route last; `None`: none has.
    pub last_used: Option<Moment>,
    /// Clients were watched since then.
    pub watched_since: Moment,
    /// What the servers said; `None`: they are not asked.
    pub servers: Option<Observation>,
    /// What the servers said is not older than this.
    pub patience: Duration,
}
