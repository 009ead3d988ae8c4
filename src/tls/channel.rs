//! The TLS channel of one connection.
