//! pontoon carries plaintext Redis and Valkey clients over verified TLS, as a sidecar beside the client.
//!
//! # Where the heart is
//!
//! [`session`] serves one client, from the accepted socket to a named end:
//!
#![doc = include_str!("session/map.md")]
//!
//! # The story of one connection
//!
//! [`app`] has bound everything and runs. A [`listener`] accepts a client, if the route has a place for it, and hands it
//! to the event-loop thread with the fewest ([`workers`]). There it becomes a [`session`], is entered in the inventory
//! ([`clients`]), and asks the route's
//! [`upstream`] for a connection. One may be ready in its [pool](upstream::pool): dialled ahead, or left clean by a client
//! that went. If not, a name is looked up ([`resolve`]), its addresses are raced, TLS shakes hands ([`tls`]), and pontoon
//! greets the server, as the configured user ([`credentials`]) if there is one, all under one deadline. Where `tls.mode` is
//! `preferred`, what the endpoint was last seen to accept decides between TLS and plaintext, and once it was TLS, it is TLS.
//! If that fails, the client's connection is closed; [`session`] says which clients are told the step and the cause before.
//!
//! Otherwise the relay moves bytes both ways in one task. As they pass, two scanners ([`resp`]) note where requests and
//! replies end, so that the session knows how many replies are due. It needs to know that when a side ends: a client may be told
//! of a loss only between two replies, and a pontoon that leaves ([`drain`]) waits for the replies that are due. What the scanners cannot follow makes a session *opaque*:
//! its bytes still flow, and nothing is guessed. The end has a name ([`session::End`]) and is counted ([`metrics`]). If
//! nothing was due then, the upstream connection is made as good as new and waits for the next client.
//!
//! With `sharing = "shared"` a session reads whole requests, and most of them meet those of the thread's other clients on one
//! connection, whose own task hands out the replies. What needs a connection of its own, a transaction say, is relayed as above,
//! for as long as it does: [`resp::command_table`] says which.
//!
//! # Floors
//!
//! A module imports only from floors below its own; a test enforces it. Settings live with the module that obeys them,
//! and [`config`] fills them in.
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
//! | 0 | [`resp`], [`endpoint`], [`drain`], [`metrics`], [`moment`], [`workers`], [`printable`] |

pub mod admin;
pub mod app;
pub mod cli;
pub mod clients;
pub mod cluster;
pub mod commands;
pub mod config;
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
