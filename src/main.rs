//! The `pontoon` program.

fn main() {}
