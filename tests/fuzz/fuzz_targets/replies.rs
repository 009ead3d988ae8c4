//! The scanner of what an upstream may send.
#![no_main]
#![allow(dead_code, unused_imports, reason = "the target uses a part of the module that it takes in")]

#[path = "../resp.rs"]
mod resp;

fuzz_scanner!(resp::scanner::ReplyScanner);
