//! `pontoon fleet`: many bridges, one answer for each group of servers.
//!
//! `sources` finds the bridges, `asking` asks each of them, `joining` puts their routes together by group, `answers` judges a group,
//! `text` prints it, and `memory` remembers which bridges have answered.

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
