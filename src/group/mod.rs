//! Surveys a group of servers: what its nodes report of their clients, what an endpoint accepts, and whether the group can
//! require TLS.
//!
//! [`gather`] asks every node once for its evidence, [`watch()`] again and again for a while, an [`Observer`] asks again and again, and [`verdict`] judges what they
//! found. A `survey` finds and asks the nodes, `members` remembers which a group has, `node` reads what one replies, `quiet` counts the time
//! in which none had a client in plaintext, `plaintext` looks whether they refuse it, and `arrivals` the connections that nobody has seen. [`probe`] looks at one endpoint from outside. Connections are `upstream`'s work.

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
