//! The admin server: liveness, readiness, metrics, inventory, commands, and a page for people. Liveness never depends on
//! the upstream: a Redis outage must not restart the pod.

pub mod client;
mod commands;
mod costly;
mod desk;
mod guard;
mod history;
mod inventory;
mod page;
mod places;
mod readiness;
mod router;
mod routes;
mod server;

pub use self::commands::{Command, WAITING};
pub use self::desk::{Shared, Shown};
pub use self::readiness::Readiness;
pub use self::router::Admin;
pub use self::routes::{Auth, PlaintextReport, Route, RouteReport, ServersReport};
