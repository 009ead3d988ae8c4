//! Any bytes, in any two pieces: the same frames end in the same places, and nothing panics.
#![no_main]
#![allow(dead_code, unused_imports, reason = "the target uses a part of the module that it takes in")]

#[path = "../resp.rs"]
mod resp;

use libfuzzer_sys::fuzz_target;
use resp::scanner::{Event, RequestScanner};

fn ends(pieces: &[&[u8]]) -> (Vec<usize>, bool) {
    let mut scanner = RequestScanner::default();
    let (mut found, mut before) = (Vec::new(), 0);
    for piece in pieces {
        let mut at = 0;
        while at < piece.len() {
            let (n, event) = scanner.next(&piece[at..]);
            at += n;
            match event {
                Event::NeedMore => assert_eq!(at, piece.len()),
                Event::Frame => found.push(before + at),
                Event::Malformed => return (found, true),
            }
        }
        before += piece.len();
    }
    (found, false)
}

fuzz_target!(|input: (usize, &[u8])| {
    let (at, stream) = input;
    let (first, second) = stream.split_at(at % (stream.len() + 1));
    let whole = ends(&[stream]);
    assert_eq!(ends(&[first, second]), whole);
    let single: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(ends(&single), whole);
});
