//! The admin server: health, metrics, the inventory, the verdicts, commands, and a page for people. Liveness never depends on the upstream,
//! because an outage of Redis must not restart the pod.

pub mod client;
mod commands;
mod costly;
mod guard;
mod history;
mod inventory;
mod page;
mod permits;
mod router;
mod routes;
mod server;
mod serving;
mod state;

pub use self::commands::{AdminCommand, WAITING};
pub use self::router::{Admin, MetricsServer};
pub use self::routes::{
    AdminRoute, AuthRequirement, PlaintextReport, RouteReport, ServerReport, ServersReport,
};
pub use self::serving::{Serving, ServingReport};
pub use self::state::{AdminContext, AdminView};
