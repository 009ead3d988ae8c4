//! What each command does. Only here, and in `main`, errors are `anyhow`'s and the terminal is spoken to.

pub mod check;
pub mod completions;
pub mod demo;
pub mod health;
pub mod run;
