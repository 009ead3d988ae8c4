//! pontoon carries plaintext Redis and Valkey clients over verified TLS, as a sidecar beside the client.
//!
//! # The core
//!
//! [`session`] serves one client, from the accepted socket to a named end:
//!
#![doc = include_str!("session/map.md")]
//!
//! # The story of one connection
//!
//! [`app`] has bound everything and runs. A [`listener`] accepts a client if the route has room for it, and passes it to the event-loop
//! thread with the fewest clients ([`workers`]). There it becomes a [`session`], is entered in the inventory ([`clients`]), and leases a
//! connection from the route's [`upstream`]. A connection may be ready in its [pool](upstream::pool): dialled ahead, or left clean by a
//! client. If not, pontoon resolves the name ([`resolve`]), races its addresses, performs the TLS handshake ([`tls`]) and greets the
//! server, as the configured user ([`credentials`]) if there is one. One deadline covers all of this. Where `tls.mode` is `preferred`, what
//! the endpoint was last seen to accept decides between TLS and plaintext; once it accepted TLS, plaintext is refused. If no connection can
//! be made, the client's connection is closed; [`session`] says which clients first get the stage and the cause as an error.
//!
//! Otherwise the relay moves bytes both ways in one task. Two scanners ([`resp`]) note where requests and replies end, so that the session
//! knows how many replies are outstanding. It needs this number when a side ends: an error may be sent to the client only between two
//! replies, and a pontoon that drains ([`drain`]) waits for the outstanding replies. What the scanners cannot follow makes a session
//! *opaque*: its bytes still flow, and nothing is guessed. Each end has a name ([`session::End`]) and is counted ([`metrics`]). If no reply
//! was outstanding, the upstream connection is made clean and waits for the next client.
//!
//! With `sharing = "shared"` a session reads whole requests. Most of them go over one connection together with those of the thread's other
//! clients, and that connection's own task hands out the replies. A request that needs a dedicated connection, such as a transaction, is
//! relayed as above while it needs one: [`resp::command_table`] says which.
//!
//! # Floors
//!
//! A module imports only from floors below its own; a test enforces it. Settings live with the module that uses them, and [`config`] fills
//! them in.
//!
//! | floor | modules |
//! | --- | --- |
//! | 7 | `main`, [`cli`], [`commands`] |
//! | 6 | [`app`] |
//! | 5 | [`config`], [`admin`] |
//! | 4 | [`session`] |
//! | 3 | [`cluster`], [`group`], [`listener`] |
//! | 2 | [`upstream`], [`downstream`], [`state`], [`plan`] |
//! | 1 | [`tls`], [`resolve`], [`credentials`], [`telemetry`], [`clients`], [`notify`] |
//! | 0 | [`resp`], [`endpoint`], [`counted`], [`drain`], [`metrics`], [`moment`], [`workers`], [`printable`] |

pub mod admin;
pub mod app;
pub mod cli;
pub mod clients;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod counted;
pub mod credentials;
pub mod downstream;
pub mod drain;
pub mod endpoint;
pub mod group;
pub mod listener;
pub mod metrics;
pub mod moment;
pub mod notify;
pub mod plan;
pub mod printable;
pub mod resolve;
pub mod resp;
pub mod session;
pub mod state;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod workers;

#[cfg(test)]
mod floors;
