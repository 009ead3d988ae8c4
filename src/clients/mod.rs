//! The inventory: who is on the bridge now, who was, and what each needs to leave it.
//!
//! A session is entered when it begins and leaves a note when it ends; in between its own task writes what it learns
//! ([`SessionRecord`]). Whoever asks pays for the answer: processes are looked up in `/proc` when somebody wants to see them,
//! and now and then for those that nobody has asked about. What a client's bytes mean is `session`'s business.
//!
//! A client's fields, for `/clients`, `pontoon status`, the page and the state file, are [`ClientRecord`]'s; those of a live session are
//! `report::SessionReport`'s; why sessions stay in plaintext, or pinned, is in [`StayReason`]'s words.

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
pub use self::inventory::{Counter, Inventory, InventoryEntry};
pub use self::process::Process;
pub use self::report::{InventoryReport, SessionReport, UpstreamReport};
pub use self::session::{Library, Peer, SessionRecord, SessionUpstream, TrafficCounts};
pub use self::stay::{PlaintextCause, StayReason, TlsMove};
pub use self::totals::{InPlaintext, Totals};
