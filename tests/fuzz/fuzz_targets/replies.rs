//! Fuzzes the scanner of upstream bytes.
#![no_main]

#[path = "../scanner.rs"]
mod scanner;

fuzz_scanner!(pontoon::resp::scanner::ReplyScanner);
