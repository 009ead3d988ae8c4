//! Many clients over few upstream connections: a client's commands go over a connection that it shares with other clients of its thread,
//! and over a dedicated one if they must.
//!
//! - `serve` runs a client's session, and moves it between shared and dedicated connections.
//! - `client` reads one client's requests. `looking` and `setting_up` decide what goes where, by [`crate::resp::command_table`].
//! - `connection` takes the requests of all its clients. `in_flight` knows which client each reply is for.
//! - `driver` is the task that sends the requests. `handing_out` gives the replies to the clients, and `writer` writes them.
//! - `multiplexer` keeps the shared connections of each thread, in `slots`. `hand_off` turns one into a client's dedicated connection.

mod client;
mod connection;
mod driver;
mod hand_off;
mod handing_out;
mod in_flight;
mod looking;
mod multiplexer;
mod serve;
mod setting_up;
mod settings;
mod slots;
mod writer;

pub(super) use self::hand_off::HandedOff;
pub use self::multiplexer::Multiplexer;
pub(super) use self::serve::serve;
pub use self::settings::Settings;
