//! The parts meet: everything is bound before anything runs, and everything ends in order.
//!
//! The end, step by step:
//!
//! 1. It is asked for: by SIGTERM or SIGINT, or `POST /quit`; by `POST /drain`, which stops before step 8; where
//!    `runtime.exit_with_clients` is set, by the last client that left so long ago.
//! 2. `/readyz` answers `not serving: draining` from here on. `/livez` does not change. systemd is told, if it started
//!    pontoon with `Type=notify`; after `POST /drain` alone, once the exit is asked for, too. Nothing is reloaded any more.
//! 3. For `runtime.shutdown_delay` (none by default; with `handover` at least 200 ms) all else goes on, and new clients are
//!    served; where a successor shares the port, by it.
//! 4. Listeners close, once nobody waits in them, and the files of Unix sockets go, but those that systemd or a successor put there.
//! 5. Sessions with nothing pending end at once, others once what had arrived is answered. Connections that are ready for
//!    clients are closed, and nothing is looked after any more.
//! 6. After `runtime.drain_timeout` the rest are cut, and counted in the log.
//! 7. After `POST /drain` alone, pontoon waits here, and answers on its admin address, until SIGTERM, SIGINT or `POST /quit`.
//! 8. The admin server closes, the state file is written, event loops end.
//! 9. The exit status is 0, even where sessions were cut: the end was asked for, and `drain_timeout` says when it is to come.
//!    A status that says otherwise would make a failed unit, or a failed job, of a subscriber that stayed to the end. What
//!    was cut is a warning in the log.
//!
//! The first signal begins this, or goes along with what `POST` began; each further one skips the wait that is on, in
//! step 3 or 5.

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
mod server;
mod service;
mod tasks;

pub use self::bound::App;
pub use self::descriptors::{TooFew, raise_limit};
pub use self::ending::Shutdown;
pub use self::error::StartError;
pub use self::reload::ConfigSource;
