//! Fuzzes the scanner of what an upstream may send.
#![no_main]

#[path = "../scanner.rs"]
mod scanner;

fuzz_scanner!(pontoon::resp::scanner::ReplyScanner);
