//! `pontoon check`: what `run` would do, step by step, once, and how each step went.

mod dialled;
mod local;
mod report;
mod steps;
mod topology;

pub use self::steps::{CheckOptions, run};
