//! RESP, the Redis serialization protocol: what the relay needs to know of it. No I/O.
