//! The modules under test, where they are.

#[path = "../../src/resp/commands.rs"]
pub mod commands;
#[path = "../../src/resp/header.rs"]
mod header;
#[path = "../../src/resp/scanner/mod.rs"]
pub mod scanner;
