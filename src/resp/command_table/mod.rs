//! What pontoon knows about each command. No other module of the crate holds such knowledge.
//!
//! `table` lists the commands with their [`Facts`]: what they are about, how servers reply, what they do to their connection, and whether
//! clients may share a connection for them. [`Command`] finds a row by name. A test compares the table with what every engine reports about
//! its commands. For commands that the table lacks, [`may_be_shared`] reads what the server reports.

mod command;
mod command_info;
mod facts;
mod table;

pub use self::command::Command;
pub use self::command_info::{CommandInfo, may_be_shared};
pub use self::facts::{
    AddressReply, Arguments, Effect, Facts, Family, Leaves, Multiplexing, PinReason, ReplyKind, Subscription,
    Transaction,
};
