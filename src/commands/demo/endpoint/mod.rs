//! An endpoint that speaks Redis' protocol over TLS: a few commands, in memory, for a demonstration.

mod server;
mod store;

pub(super) use self::server::{DemoEndpoint, Identity};
