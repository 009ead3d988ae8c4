//! Promises of rewriting to clients and operators, tested with replies of real engines and generated ones.

mod captured;
mod captured_sentinels;
mod documented;
mod hostile;
mod made_up;
mod sentinel;
mod support;
