//! Serves a client over a dedicated connection.
//!
//! - `relay` holds both sides, and runs one wake-up of the session. `pumps` is one pass in each direction.
//! - `requests` reads what the client sends, `replies` what the upstream sends.
//! - `ending` decides when the session is over. `observing` measures.
//! - `pinned` is for a client of shared mode that holds a dedicated connection for now.

mod ending;
mod observing;
mod pinned;
mod pumps;
mod relay;
mod replies;
mod requests;

pub(super) use self::pinned::{Pinned, Writes};
pub(super) use self::relay::{Ended, MOVE_AGAIN, Relay};
