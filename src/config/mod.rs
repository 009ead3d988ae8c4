//! The validated configuration: what `run` and `check` obey. Immutable once built.
//!
//! A flag beats a variable, a variable beats the file, the file beats the default.

mod args;
mod auth;
mod duplicates;
mod file;
pub mod keys;
mod load;
mod problems;
mod validate;
mod values;

pub use self::args::{args, audit_args, probe_args};
pub use self::load::{Config, Route};
pub use self::problems::Problems;
pub use self::validate::{duration, positive};

#[cfg(test)]
mod tests;
