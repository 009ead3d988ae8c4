//! The property that the scanners' targets test.

/// Tests that any bytes give the same frame ends as a whole, in any two pieces and byte by byte, and that nothing panics.
#[macro_export]
macro_rules! fuzz_scanner {
    ($scanner:ty) => {
        fn ends(pieces: &[&[u8]]) -> (Vec<usize>, bool) {
            use pontoon::resp::scanner::Event;
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
