//! RESP, the Redis serialization protocol: what a session has to know about it. Does no I/O.
//!
//! [`scanner`] finds where frames end as bytes pass. [`command_table`] holds the facts about each command. [`request`] says what a request
//! means for its replies, and [`arguments`] reads the arguments that matter. [`connection_state`] is what requests leave on their
//! connection. [`replies`] reads and writes the few frames that pontoon itself sends or receives. [`value`] parses replies whose content
//! matters. [`whole`] reads the requests of clients that share a connection. [`words`] splits a line into words, and [`hello`] reads the
//! words of HELLO, as a server does. [`client_requests`] holds replacements for some requests. [`client_ids`] finds the ids of connections
//! in requests.

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
