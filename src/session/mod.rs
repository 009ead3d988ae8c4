//! A session pairs one client with upstream connections, from the accepted socket to a named [`End`].
//!
//! - `serve` begins one, and chooses its engine; `core` is the session: the client, which stays when its connection is swapped.
//! - `relay` is the engine over a dedicated connection, `shared` the one over shared connections.
//! - `ledger` has the requests without a reply, and what each reply decides; `rewriting` holds replies that name nodes.
//! - `guard` answers AUTH, `relogin` sends it; `about` and `setup` keep what the client says of itself and has set up.
//! - `wire`, `outbox`, `scratch` and `low_water` move bytes; `owed` is what a drain still serves.
//! - `slow` and `counts` measure; `farewell` and `end` have the last words.

mod about;
mod context;
mod core;
mod counts;
mod end;
mod farewell;
mod guard;
mod ledger;
mod low_water;
mod outbox;
mod owed;
mod relay;
mod relogin;
mod rewriting;
mod scratch;
mod serve;
mod settings;
mod setup;
mod shared;
mod slow;
mod unanswerable;
mod user;
mod wire;

pub use self::context::Context;
pub use self::end::End;
pub use self::guard::{ClientAuth, LocalPassword};
pub use self::ledger::Opaque;
pub use self::serve::{refuse, serve};
pub use self::settings::{Accept, Settings, Upgrade};
pub use self::shared::{Hubs, Settings as Sharing};
