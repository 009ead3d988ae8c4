//! A session pairs one client with upstream connections, from the accepted socket to a named [`End`].
//!
#![doc = include_str!("map.md")]

mod abort_reason;
mod client_session;
mod context;
mod counts;
mod dedicated;
mod end;
mod farewell;
mod guard;
mod ledger;
mod low_water;
mod outage;
mod outbox;
mod output;
mod owed;
mod profile;
mod relogin;
mod rewriting;
mod scratch;
mod serve;
mod settings;
mod setup;
mod shared;
mod slow;
mod user;
mod wire;

pub use self::context::RouteContext;
pub use self::end::End;
pub use self::guard::{ClientAuth, LocalPassword};
pub use self::ledger::Opaque;
pub use self::serve::{refuse, serve};
pub use self::settings::{Accept, OutageErrors, Settings, Upgrade};
pub use self::shared::{Multiplexer, Settings as Sharing};
