//! A client over a connection of its own.
//!
//! - `relay` has the two sides, and one wake-up of the session; `pumps` is a pass in each direction.
//! - `requests` reads what the client sends, `replies` what the upstream sends.
//! - `ending` decides when the session is over; `observing` measures.
//! - `pinned` is for a client that shares a connection otherwise.

mod ending;
mod observing;
mod pinned;
mod pumps;
mod relay;
mod replies;
mod requests;

pub(super) use self::pinned::{Pinned, Writes};
pub(super) use self::relay::{Ended, MOVE_AGAIN, Relay};
