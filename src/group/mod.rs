//! Surveys a group of servers: what its nodes report of their clients, what an endpoint accepts, and whether the group can
//! require TLS.
//!
//! [`gather`] asks every node once for its evidence, an [`Observer`] asks again and again, and [`verdict`] judges what they
//! found. [`probe`] looks at one endpoint from outside. Connections are `upstream`'s work.

mod client_list;
mod evidence;
mod info;
mod observer;
pub mod probe;
pub mod verdict;

pub use self::evidence::{Asking, Evidence, NodeEvidence, SimilarClients, gather};
pub use self::info::Info;
pub use self::observer::{Observation, Observer};
