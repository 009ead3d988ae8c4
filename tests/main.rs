//! pontoon as its users meet it: the program as a process, between real clients and a real `redis-server`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stderr, reason = "a failing test shows the log of the program under test")]
#![allow(clippy::needless_pass_by_value, reason = "fixtures are handed over")]
#![allow(clippy::disallowed_types, reason = "poisoning helps here: a thread that panics fails its test")]

mod harness;

mod activation;
mod addresses;
mod admin;
mod alerts;
mod audit;
mod auth;
mod bad_input;
mod client_auth;
mod client_requests;
mod clients;
mod cluster;
mod command_table;
mod commands;
mod deploy;
mod documents;
mod ending;
mod ends;
mod failover;
mod failures;
mod fleet;
mod fleets;
mod handover;
mod hostile;
#[cfg(feature = "iam")]
mod iam;
mod inventory;
mod isolation;
mod json;
mod last_words;
mod lifecycle;
mod limits;
mod matrix;
mod observed;
mod outage;
mod page;
mod passthrough;
mod peers;
#[cfg(feature = "iam")]
mod plan;
mod pool;
mod preferred;
mod probe;
mod progress;
mod reload;
mod road;
mod roads;
mod sentinel;
mod sessions;
mod shared;
mod systemd;
mod tls;
mod transparent;
mod verdict;
#[cfg(feature = "iam")]
mod whole_road;
