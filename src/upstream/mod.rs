//! Upstream connections: from an endpoint to a greeted connection, or an [`Unreachable`] that says why there is none.
//!
//! Some are ready before a client comes (see [`pool`]). `session` relays a client's bytes over a connection.

mod ask;
mod attempt;
mod auth;
mod connection;
mod demand;
mod dial;
mod error;
mod failover;
mod gate;
mod generation;
mod greeting;
mod ids;
mod lease;
mod node_tls;
pub mod pool;
mod race;
mod route;
mod settings;
mod share;
mod spread;
mod transit;

pub use self::ask::{
    ServerRole, TopologyReplies, ask, ask_encoded, ask_frame, ask_frames, next_frame, role, topology,
};
pub(crate) use self::auth::present;
pub use self::auth::{AuthOutcome, command as login_command};
pub use self::connection::{Connection, Dialled};
pub(crate) use self::dial::{Protection, once};
pub use self::error::{Cause, ConnectError, Outage, Stage, Unreachable};
pub use self::generation::Generation;
pub(crate) use self::greeting::next_answer_within;
pub use self::ids::{PassedOnId, SeenId};
pub use self::lease::Lease;
pub use self::node_tls::NodeTls;
pub(crate) use self::race::Race;
pub use self::route::{EndpointFacts, Upstream};
pub use self::settings::Settings;
pub use self::transit::{Latch, ObservedTransit};
