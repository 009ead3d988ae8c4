//! pontoon carries plaintext Redis and Valkey clients over verified TLS.

pub mod config;
pub mod endpoint;
pub mod listener;
pub mod resp;
pub mod session;
pub mod telemetry;
pub mod tls;
pub mod upstream;
