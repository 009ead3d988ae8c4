//! The commands, one module each. Only this module and `main` use `anyhow` and write to the terminal.

#[macro_use]
mod say;

pub mod audit;
pub mod check;
mod colour;
pub mod completions;
#[cfg(feature = "demo")]
pub mod demo;
pub mod fleet;
pub mod health;
mod json;
pub mod man;
pub mod plan;
pub mod probe;
mod reachable;
pub mod run;
pub mod status;
mod table;
mod words;
mod wrap;
