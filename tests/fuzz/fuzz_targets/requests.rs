//! Fuzzes the scanner of client bytes.
#![no_main]

#[path = "../scanner.rs"]
mod scanner;

fuzz_scanner!(pontoon::resp::scanner::RequestScanner);
