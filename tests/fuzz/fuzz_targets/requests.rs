//! Fuzzes the scanner of what a client may send.
#![no_main]

#[path = "../scanner.rs"]
mod scanner;

fuzz_scanner!(pontoon::resp::scanner::RequestScanner);
