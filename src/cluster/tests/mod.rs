//! What clients and operators are promised of rewriting, against replies of real engines and against made-up ones.

mod captured;
mod documented;
mod hostile;
mod made_up;
mod support;
