//! `pontoon fleet`: asks many bridges, and gives one verdict for each group of servers.
//!
//! `sources` finds the bridges, `asking` asks each of them, `joining` joins their routes by group, `answers` judges a group, `text` prints
//! the report, and `memory` stores which bridges have answered.

mod answers;
mod asking;
mod command;
mod joining;
mod memory;
mod sources;
#[cfg(test)]
mod tests;
mod text;

pub use self::command::{FleetOptions, run};
pub use self::memory::BadFleetState;
pub use self::sources::{BridgeSource, read};
