//! A minimal endpoint with Redis' protocol over TLS: a few commands, kept in memory.

mod server;
mod store;

pub(super) use self::server::{DemoEndpoint, Identity};
