//! The inventory of clients: which are on the bridge now, which were, and what each needs to leave it.
//!
//! A session is entered when it starts and is summed up when it ends. In between, its own task records what it learns ([`SessionRecord`]).
//! The reader of a report pays for it: `/proc` is searched for processes when a report is requested, and rarely otherwise. `session` parses
//! the clients' bytes.
//!
//! [`ClientRecord`] has the fields of a client for `/clients`, `pontoon status`, the page and the state file. `report::SessionReport` has
//! those of a live session. [`StayReason`] says why sessions stay in plaintext or pinned.

mod advice;
mod container;
mod guess;
mod history;
mod inventory;
mod process;
mod report;
mod session;
mod stay;
mod text;
mod totals;

pub use self::advice::{Advice, advice};
pub use self::guess::Guess;
pub use self::history::{ClientHistory, ClientRecord, MAX_REMEMBERED_CLIENTS};
pub use self::inventory::{Inventory, InventoryEntry};
pub use self::process::{Process, owners};
pub use self::report::{InventoryReport, SessionReport, UpstreamReport};
pub use self::session::{Library, Peer, SessionRecord, SessionUpstream, TrafficCounts};
pub use self::stay::{PlaintextCause, StayReason, TlsMove};
pub use self::totals::{InPlaintext, Totals};
