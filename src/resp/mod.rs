//! RESP, the Redis serialization protocol: what a session needs to know of it. No I/O.
//!
//! [`scanner`] finds where frames end as bytes pass. [`command_table`] is what pontoon knows of each command, [`request`] what a
//! request means for its replies, and [`arguments`] reads those arguments that matter. [`connection_state`] is what requests leave with their
//! connection. [`replies`] reads and writes the few frames that pontoon itself sends or receives, and [`value`] reads those of which the
//! inside matters. Where clients share a connection, [`whole`] reads their requests. [`words`] splits a line into words, and
//! [`hello`] reads those of HELLO, as a server does. [`client_requests`] has what is sent in place of some requests.

pub mod arguments;
pub mod client_ids;
pub mod client_requests;
pub mod command_table;
pub mod connection_state;
mod header;
pub mod hello;
pub mod replies;
pub mod request;
pub mod scanner;
pub mod value;
pub mod whole;
pub mod words;
