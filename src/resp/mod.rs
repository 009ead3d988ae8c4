//! RESP, the Redis serialization protocol: what the relay needs to know of it. No I/O.
//!
//! [`scanner`] finds where frames end as bytes pass, [`commands`] tells what a request means for its replies,
//! [`families`] what it is about; [`replies`] reads and writes the few frames that pontoon itself sends or receives, and
//! [`value`] reads those of which the inside matters. Where clients share a connection, [`whole`] reads their
//! requests, [`sharing`] tells which may go there, and [`standing`] what the others leave behind. [`words`] splits a line into words,
//! and [`hello`] reads those of HELLO, as a server does. [`client_requests`] tells
//! what is sent in place of some requests.

pub mod client_ids;
pub mod client_requests;
pub mod commands;
pub mod families;
mod header;
pub mod hello;
pub mod replies;
pub mod scanner;
pub mod sharing;
pub mod standing;
pub mod value;
pub mod whole;
pub mod words;
