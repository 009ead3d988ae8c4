//! Composes the parts: everything is bound before anything runs, and everything ends in order.
//!
//! The end, step by step:
//!
//! 1. The end is requested by SIGTERM or SIGINT, by `POST /quit`, or by `POST /drain`, which stops before step 8. Where
//!    `runtime.exit_with_clients` is set, it is also requested that long after the last client left.
//! 2. `/readyz` answers `not serving: draining` from here on. `/livez` does not change. systemd is notified, if it started pontoon with
//!    `Type=notify`; after `POST /drain` it is notified once the exit is requested, too. The configuration is no longer reloaded.
//! 3. For `runtime.shutdown_delay` (none by default; with `handover` at least 200 ms) everything else goes on. New clients are served, by
//!    the successor where one shares the port.
//! 4. Listeners close once no client waits in them. The files of Unix sockets are removed, except those that systemd or a successor put
//!    there.
//! 5. Sessions with nothing outstanding end at once, others when the requests that had arrived are answered. Ready connections are closed,
//!    and background tasks of upstreams end.
//! 6. After `runtime.drain_timeout` the remaining sessions are cut, and the log has their number.
//! 7. After `POST /drain` alone, pontoon waits here, and its admin server answers, until SIGTERM, SIGINT or `POST /quit`.
//! 8. The admin server closes, the state file is written, event loops end.
//! 9. The exit status is 0 even if sessions were cut, because the end was requested, and `drain_timeout` sets its time. Another status
//!    would mark a unit or a job as failed because a subscriber stayed to the end. A warning in the log reports what was cut.
//!
//! The first signal begins this, or joins what `POST` began. Each further signal skips the present wait, in step 3 or 5.

mod bound;
mod cluster;
mod descriptors;
mod ending;
mod error;
mod last_client;
mod memory;
mod reload;
mod route;
mod running;
mod sentinel;
mod server;
mod service;
mod tasks;

pub use self::bound::App;
pub use self::descriptors::{TooFew, raise_limit};
pub use self::ending::Shutdown;
pub use self::error::StartError;
pub use self::memory::LatchMemory;
pub use self::reload::ConfigSource;
pub use self::server::RouteTls;
