//! The modules under test, where they are, and the promise that the scanners' targets test.

#[path = "../../src/resp/client_ids.rs"]
mod client_ids;
#[path = "../../src/resp/client_requests.rs"]
mod client_requests;
#[path = "../../src/resp/commands.rs"]
pub mod commands;
#[path = "../../src/resp/families.rs"]
mod families;
#[path = "../../src/resp/header.rs"]
mod header;
#[path = "../../src/resp/scanner/mod.rs"]
pub mod scanner;
#[path = "../../src/resp/sharing.rs"]
mod sharing;
#[path = "../../src/resp/standing.rs"]
mod standing;
#[path = "../../src/resp/value.rs"]
pub mod value;
#[path = "../../src/resp/words.rs"]
mod words;

/// Any bytes, in any two pieces and byte by byte: the same frames end in the same places, and nothing panics.
#[macro_export]
macro_rules! fuzz_scanner {
    ($scanner:ty) => {
        fn ends(pieces: &[&[u8]]) -> (Vec<usize>, bool) {
            use resp::scanner::Event;
            let mut scanner = <$scanner>::default();
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

        libfuzzer_sys::fuzz_target!(|input: (usize, &[u8])| {
            let (at, stream) = input;
            let (first, second) = stream.split_at(at % (stream.len() + 1));
            let whole = ends(&[stream]);
            assert_eq!(ends(&[first, second]), whole);
            let single: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(ends(&single), whole);
        });
    };
}
