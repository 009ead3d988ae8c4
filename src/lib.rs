//! pontoon carries plaintext Redis and Valkey clients over verified TLS.

pub mod admin;
pub mod app;
pub mod cli;
pub mod commands;
pub mod config;
pub mod drain;
pub mod endpoint;
pub mod listener;
pub mod metrics;
pub mod resolve;
pub mod resp;
pub mod session;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod workers;
