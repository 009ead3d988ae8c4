//! `pontoon check`: validates the configuration, dials each route as `run` would, and reports each step.

mod dialled;
mod local;
mod report;
mod sentinel;
mod steps;
mod topology;

pub use self::steps::{CheckOptions, run};
