//! Surveys a group of servers: what its nodes report about their clients, what an endpoint accepts, and whether the group can require TLS.
//!
//! [`gather`] asks every node once for its evidence, [`watch()`] asks repeatedly for a limited time, and an [`Observer`] asks for as long
//! as pontoon runs. [`verdict`] judges what they found. `survey` finds and asks the nodes, `members` remembers which nodes a group has, and
//! `node` reads one node's replies. `quiet` counts the time in which no node had a client in plaintext, `plaintext` tests whether nodes
//! refuse it, and `arrivals` counts connections that no survey has seen. [`probe`] examines one endpoint from outside. Connections are
//! `upstream`'s work.

mod arrivals;
mod client_list;
mod evidence;
mod info;
mod members;
mod node;
mod observer;
mod plaintext;
pub mod probe;
mod quiet;
#[cfg(test)]
mod roads;
mod servers;
mod survey;
pub mod verdict;
mod watch;

pub use self::evidence::{Asking, Evidence, NodeEvidence, SimilarClients, gather};
pub use self::info::Info;
pub use self::node::ListClients;
pub use self::observer::{Observation, Observer, Pace};
pub use self::plaintext::PlaintextAccess;
pub use self::watch::{SeenClients, WatchEvent, WatchPace, WatchReport, WatchedNode, watch};
