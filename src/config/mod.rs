//! The validated configuration of `run` and `check`, which never changes once it is built.
//!
//! A flag overrides a variable, a variable overrides the file, and the file overrides the default.

mod args;
mod auth;
mod duplicates;
mod file;
pub mod keys;
mod load;
mod nearest;
mod problems;
mod validate;
mod values;

pub use self::args::{args, audit_args, probe_args};
pub use self::load::{Config, Route};
pub use self::problems::Problems;
pub use self::validate::{duration, positive};

#[cfg(test)]
mod tests;
