//! The scanner against a generator that knows where its frames end, and against redis-protocol's decoder.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use redis_protocol::resp3::decode::complete::decode;

use super::super::commands::{ReplyMode, Request, Subscription};
use super::*;

/// Where frames end, and whether the stream turned out malformed, when it comes in these pieces.
fn ends<S>(
    scanner: &mut S,
    next: impl Fn(&mut S, &[u8]) -> (usize, Event),
    stream: &[u8],
    pieces: &[usize],
) -> (Vec<usize>, bool) {
    let mut found = Vec::new();
    let (mut start, mut pieces) = (0, pieces.iter().copied().chain(std::iter::repeat(usize::MAX)));
    while start < stream.len() {
        let end = start + pieces.next().unwrap_or(usize::MAX).clamp(1, stream.len() - start);
        let mut at = start;
        while at < end {
            let (n, event) = next(scanner, &stream[at..end]);
            assert!(n <= end - at);
            at += n;
            match event {
                Event::NeedMore => assert_eq!(at, end, "all input is consumed"),
                Event::Frame => found.push(at),
                Event::Malformed => return (found, true),
            }
        }
        start = end;
    }
    (found, false)
}

fn reply_ends(stream: &[u8], pieces: &[usize]) -> (Vec<usize>, bool) {
    ends(&mut ReplyScanner::default(), ReplyScanner::next, stream, pieces)
}

fn request_ends(stream: &[u8], pieces: &[usize]) -> (Vec<usize>, bool) {
    ends(&mut RequestScanner::default(), RequestScanner::next, stream, pieces)
}

fn blob() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..40), Just(b"\r\n$-1\r\n*1\r\n".to_vec()), Just(Vec::new())]
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    "[ -~]{0,20}".prop_map(String::into_bytes)
}

fn counted(kind: u8, payload: &[u8]) -> Vec<u8> {
    [format!("{}{}\r\n", char::from(kind), payload.len()).as_bytes(), payload, b"\r\n"].concat()
}

fn aggregate(kind: u8, count: usize, elements: &[Vec<u8>]) -> Vec<u8> {
    [format!("{}{count}\r\n", char::from(kind)).into_bytes(), elements.concat()].concat()
}

/// Frames that redis-protocol reads too.
fn common_frame() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        line().prop_map(|text| [b"+", &text[..], b"\r\n"].concat()),
        line().prop_map(|text| [b"-", &text[..], b"\r\n"].concat()),
        any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
        blob().prop_map(|payload| counted(b'$', &payload)),
        blob().prop_map(|payload| counted(b'!', &payload)),
        Just(b"_\r\n".to_vec()),
        Just(b"#t\r\n".to_vec()),
        Just(b",1.5\r\n".to_vec()),
        Just(b"(3492890328409238509324850943850943825024385\r\n".to_vec()),
        Just(b"=7\r\ntxt:abc\r\n".to_vec()),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(|all| aggregate(b'*', all.len(), &all)),
            vec(inner, 0..5).prop_map(|all| {
                // Keys in a map must differ, for a decoder that builds one.
                let pairs: Vec<Vec<u8>> = all
                    .iter()
                    .enumerate()
                    .map(|(n, value)| [format!(":{n}\r\n").as_bytes(), value].concat())
                    .collect();
                aggregate(b'%', pairs.len(), &pairs)
            }),
        ]
    })
}

/// Those, and what only the scanner must know.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        4 => common_frame(),
        1 => Just(b"$-1\r\n".to_vec()),
        1 => Just(b"*-1\r\n".to_vec()),
        1 => vec(blob(), 0..4).prop_map(|chunks| {
            let chunks: Vec<Vec<u8>> =
                chunks.iter().filter(|chunk| !chunk.is_empty()).map(|chunk| counted(b';', chunk)).collect();
            [b"$?\r\n", &chunks.concat()[..], b";0\r\n"].concat()
        }),
    ];
    let value = leaf.prop_recursive(4, 60, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(|all| aggregate(b'~', all.len(), &all)),
            vec(inner.clone(), 0..5).prop_map(|all| [b"*?\r\n", &all.concat()[..], b".\r\n"].concat()),
            (vec(inner.clone(), 0..3), inner).prop_map(|(all, value)| {
                let pairs: Vec<Vec<u8>> = all.iter().map(|value| [b"+a\r\n", &value[..]].concat()).collect();
                [aggregate(b'|', pairs.len(), &pairs), value].concat()
            }),
        ]
    });
    prop_oneof![
        5 => value.clone(),
        1 => vec(value, 1..4).prop_map(|all| aggregate(b'>', all.len(), &all)),
    ]
}

fn any_request() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(blob(), 1..6).prop_map(|words| {
            let words: Vec<Vec<u8>> = words.iter().map(|word| counted(b'$', word)).collect();
            aggregate(b'*', words.len(), &words)
        }),
        1 => "[a-zA-Z][ -~]{0,30}\r?\n".prop_map(String::into_bytes),
    ]
}

fn concat(frames: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
    let mut stream = Vec::new();
    let mut ends = Vec::new();
    for frame in frames {
        stream.extend(frame);
        ends.push(stream.len());
    }
    (stream, ends)
}

proptest! {
    #[test]
    fn any_split_of_a_stream_of_replies_gives_the_same_frames(
        frames in vec(any_frame(), 1..8), pieces in vec(1..50_usize, 0..60)
    ) {
        let (stream, expected) = concat(&frames);
        prop_assert_eq!(reply_ends(&stream, &[]), (expected.clone(), false));
        prop_assert_eq!(reply_ends(&stream, &pieces), (expected.clone(), false));
        prop_assert_eq!(reply_ends(&stream, &vec![1; stream.len()]), (expected, false));
    }

    #[test]
    fn any_split_of_a_stream_of_requests_gives_the_same_frames(
        frames in vec(any_request(), 1..8), pieces in vec(1..50_usize, 0..60)
    ) {
        let (stream, expected) = concat(&frames);
        prop_assert_eq!(request_ends(&stream, &[]), (expected.clone(), false));
        prop_assert_eq!(request_ends(&stream, &pieces), (expected.clone(), false));
        prop_assert_eq!(request_ends(&stream, &vec![1; stream.len()]), (expected, false));
    }

    #[test]
    fn frames_end_where_redis_protocol_says(frame in common_frame(), rest in blob()) {
        let stream = [&frame[..], &rest].concat();
        let (_, length) = decode(&frame).unwrap().unwrap();
        prop_assert_eq!(reply_ends(&stream, &[]).0.first().copied(), Some(length));
    }

    #[test]
    fn any_bytes_give_the_same_verdict_in_any_split(
        frames in vec(any_frame(), 0..4), at: Index, noise in vec(any::<u8>(), 0..6), pieces in vec(1..9_usize, 0..90)
    ) {
        let mut stream = concat(&frames).0;
        let at = at.index(stream.len() + 1);
        stream.splice(at..at, noise);
        prop_assert_eq!(reply_ends(&stream, &pieces), reply_ends(&stream, &[]));
        prop_assert_eq!(request_ends(&stream, &pieces), request_ends(&stream, &[]));
    }
}

/// What the last request of a stream means.
fn request(stream: &[u8]) -> Request {
    let mut scanner = RequestScanner::default();
    let (frames, malformed) = ends(&mut scanner, RequestScanner::next, stream, &[]);
    assert_eq!((frames.last(), malformed), (Some(&stream.len()), false));
    scanner.request()
}

fn words(text: &str) -> Vec<u8> {
    let words: Vec<Vec<u8>> = text.split(' ').map(|word| counted(b'$', word.as_bytes())).collect();
    aggregate(b'*', words.len(), &words)
}

#[test]
fn a_request_is_told_by_its_name_in_any_case_and_either_form() {
    let three_channels = Request::Subscribe { kind: Subscription::Channel, count: 3 };
    for (text, expected) in [
        ("GET k", Request::Plain),
        ("get subscribe", Request::Plain),
        ("blpop k 0", Request::Blocking),
        ("XREAD BLOCK 0 STREAMS s $", Request::Blocking),
        ("Subscribe a b c", three_channels),
        ("PUNSUBSCRIBE", Request::Unsubscribe { kind: Subscription::Pattern, count: 0 }),
        ("SSUBSCRIBE a", Request::Subscribe { kind: Subscription::Shard, count: 1 }),
        ("HELLO 3 AUTH u p", Request::Hello(Some(3))),
        ("HELLO", Request::Hello(None)),
        ("client reply off", Request::ReplyMode(ReplyMode::Off)),
        ("CLIENT REPLY SKIP", Request::ReplyMode(ReplyMode::Skip)),
        ("CLIENT SETNAME a", Request::Plain),
        ("client tracking on", Request::Plain),
        ("CLIENT ID", Request::Lasting),
        ("client no-evict on", Request::Lasting),
        ("CLIENT IMPORT-SOURCE ON", Request::Lasting),
        ("CLIENT", Request::Lasting),
        ("SCRIPT LOAD x", Request::Plain),
        ("script debug yes", Request::Lasting),
        ("DEBUG SLEEP 0", Request::Lasting),
        ("RESET", Request::Reset),
        ("MONITOR", Request::Monitor),
        ("PSYNC ? -1", Request::Replication),
        ("AVERYLONGMODULECOMMAND.X a", Request::Plain),
    ] {
        assert_eq!(request(&words(text)), expected, "{text}");
        assert_eq!(request(format!("{text}\r\n").as_bytes()), expected, "{text} inline");
    }
}

#[test]
fn the_name_of_one_request_does_not_colour_the_next() {
    assert_eq!(request(&[words("CLIENT REPLY OFF"), words("CLIENT")].concat()), Request::Lasting);
    assert_eq!(request(&[words("SUBSCRIBE a"), words("SUB")].concat()), Request::Plain);
}

#[test]
fn quotes_make_it_uncertain_what_an_inline_command_leaves_behind() {
    assert_eq!(request(b"\"SUBSCRIBE\" a\r\n"), Request::Lasting);
    assert_eq!(request(b"SET k \"a b\"\r\n"), Request::Lasting);
    assert_eq!(request(b"SUBSCRIBE \"a b\"\r\n"), Request::Unknown);
}

#[test]
fn what_redis_takes_for_no_request_is_none() {
    for stream in [&b"\r\n"[..], b"\n", b"   \r\n", b"*0\r\n", b"*-1\r\n"] {
        assert_eq!(request_ends(stream, &[]), (vec![], false), "{stream:?}");
    }
    let mut scanner = RequestScanner::default();
    assert_eq!(scanner.next(b"*0\r\n\r\n*1\r\n$4\r\nPING\r\n"), (20, Event::Frame));
    assert!(scanner.at_boundary());
}

#[test]
fn what_is_no_resp_is_malformed_for_good() {
    for stream in [
        &b"*1\r\n+PING\r\n"[..],
        b"*x\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$1x\r\n",
        b"*1000000000000000000000\r\n",
    ] {
        assert!(request_ends(stream, &[]).1, "{stream:?}");
    }
    for stream in [
        &b"HTTP/1.1 200 OK\r\n"[..],
        b"$-2\r\n",
        b"$1x\r\n",
        b".\r\n",
        b"*1\r\n.\r\n",
        b"*1\r\n>1\r\n",
        b"$?\r\n+x\r\n",
    ] {
        assert!(reply_ends(stream, &[]).1, "{stream:?}");
    }
    let mut scanner = ReplyScanner::default();
    scanner.next(b"?");
    assert_eq!(scanner.next(b"+OK\r\n").1, Event::Malformed);
}

#[test]
fn an_endless_inline_command_is_malformed() {
    assert!(request_ends(&b"a".repeat(70_000), &[]).1);
}

#[test]
fn nesting_beyond_any_server_is_malformed_not_memory() {
    assert!(reply_ends(&b"*1\r\n".repeat(100_000), &[]).1);
}

#[test]
fn pushes_are_told_from_replies_and_say_what_they_confirm() {
    let last = |stream: &[u8]| {
        let mut scanner = ReplyScanner::default();
        assert_eq!(
            ends(&mut scanner, ReplyScanner::next, stream, &[5, 1, 1, 1]).0.last(),
            Some(&stream.len())
        );
        scanner.reply()
    };
    assert_eq!(last(b"+OK\r\n"), Reply::Other);
    assert_eq!(last(b"-ERR\r\n"), Reply::Error);
    assert_eq!(last(b"!3\r\nERR\r\n"), Reply::Error);
    assert_eq!(last(b"|1\r\n+ttl\r\n:1\r\n-ERR\r\n"), Reply::Error);
    assert_eq!(last(b">2\r\n$7\r\nmessage\r\n$1\r\nx\r\n"), Reply::Push(None));
    let confirmed = Confirmed::Subscribe(Subscription::Pattern);
    assert_eq!(last(b">3\r\n$10\r\npsubscribe\r\n$1\r\nx\r\n:1\r\n"), Reply::Push(Some(confirmed)));
    let confirmed = Confirmed::Unsubscribe(Subscription::Shard);
    assert_eq!(last(b">3\r\n+sunsubscribe\r\n_\r\n:0\r\n"), Reply::Push(Some(confirmed)));
}

#[test]
fn an_attribute_alone_is_no_boundary() {
    let mut scanner = ReplyScanner::default();
    assert!(scanner.at_boundary());
    scanner.next(b"|1\r\n+a\r\n+b\r\n");
    assert!(!scanner.at_boundary());
    assert_eq!(scanner.next(b":1\r\n"), (4, Event::Frame));
    assert!(scanner.at_boundary());
}

/// Found once, kept for ever: the seeds of the fuzz targets, and what the targets found.
#[test]
fn the_seeds_of_the_fuzz_targets_give_the_same_verdict_in_any_split() {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds");
    let mut count = 0;
    for target in ["replies", "requests"] {
        for file in std::fs::read_dir(seeds.join(target)).unwrap() {
            let stream = std::fs::read(file.unwrap().path()).unwrap();
            let single = vec![1; stream.len()];
            assert_eq!(reply_ends(&stream, &single), reply_ends(&stream, &[]));
            assert_eq!(request_ends(&stream, &single), request_ends(&stream, &[]));
            count += 1;
        }
    }
    assert!(count >= 20, "{count} seeds");
}
