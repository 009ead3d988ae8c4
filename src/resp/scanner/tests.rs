//! Tests the scanner against a generator that knows where its frames end, and against redis-protocol's decoder.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use redis_protocol::resp3::decode::complete::decode;

use super::super::arguments::ClientInfo;
use super::super::command_table::{AddressReply, Leaves, Subscription, Transaction};
use super::super::request::{ReplyMode, Request};
use super::*;

/// Where frames end in a stream that comes in these pieces, and whether the scanner finds it malformed.
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

/// Frames that redis-protocol reads, too.
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
                // Keys of a map must differ, for decoders that build one.
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

/// Any frame, also of types that redis-protocol does not read.
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
            vec(inner.clone(), 1..4).prop_map(|all| aggregate(b'>', all.len(), &all)),
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
    fn any_split_of_a_stream_of_requests_gives_the_same_client_info(
        frames in vec(request_about_client(), 1..8), pieces in vec(1..20_usize, 0..60)
    ) {
        let (stream, _) = concat(&frames);
        let whole = client_infos(&stream, &[]);
        prop_assert_eq!(client_infos(&stream, &pieces), whole.clone());
        prop_assert_eq!(client_infos(&stream, &vec![1; stream.len()]), whole);
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

/// What each request of a stream says about its client, if the stream comes in these pieces.
fn client_infos(stream: &[u8], pieces: &[usize]) -> Vec<Option<ClientInfo>> {
    let mut state = (RequestScanner::default(), Vec::new());
    let next = |(scanner, infos): &mut (RequestScanner, Vec<_>), input: &[u8]| {
        let (n, event) = scanner.next(input);
        if event == Event::Frame {
            infos.push(scanner.client_info());
        }
        (n, event)
    };
    ends(&mut state, next, stream, pieces);
    state.1
}

fn request_about_client() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(b"CLIENT".to_vec()),
        Just(b"setname".to_vec()),
        Just(b"SETINFO".to_vec()),
        Just(b"lib-name".to_vec()),
        Just(b"LIB-VER".to_vec()),
        Just(b"HELLO".to_vec()),
        Just(b"3".to_vec()),
        Just(b"AUTH".to_vec()),
        Just(b"select".to_vec()),
        Just(b"RESET".to_vec()),
        blob(),
    ];
    (vec(word, 1..8), any::<bool>()).prop_map(|(words, inline)| {
        if inline {
            return [words.join(&b' '), b"\r\n".to_vec()].concat();
        }
        let words: Vec<Vec<u8>> = words.iter().map(|word| counted(b'$', word)).collect();
        aggregate(b'*', words.len(), &words)
    })
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
fn a_request_is_known_by_its_name_in_any_case_and_form() {
    let three_channels = Request::Subscribe { kind: Subscription::Channel, count: 3 };
    for (text, expected) in [
        ("GET k", Request::Plain),
        ("get subscribe", Request::Plain),
        ("blpop k 0", Request::Blocking),
        ("XREAD BLOCK 0 STREAMS s $", Request::Blocking),
        ("Subscribe a b c", three_channels),
        ("PUNSUBSCRIBE", Request::Unsubscribe { kind: Subscription::Pattern, count: 0 }),
        ("SSUBSCRIBE a", Request::Subscribe { kind: Subscription::Shard, count: 1 }),
        (
            "HELLO 3 AUTH u p",
            Request::Hello { resp3: Some(true), leaves: Leaves::Authenticated, has_options: true },
        ),
        ("HELLO", Request::Hello { resp3: None, leaves: Leaves::SetUp, has_options: false }),
        ("client reply off", Request::ReplyMode(ReplyMode::Off)),
        ("CLIENT REPLY SKIP", Request::ReplyMode(ReplyMode::Skip)),
        ("CLIENT SETNAME a", Request::Leaves(Leaves::SetUp)),
        ("client tracking on", Request::Leaves(Leaves::UntilClose)),
        ("CLIENT ID", Request::Leaves(Leaves::UntilClose)),
        ("client no-evict on", Request::Leaves(Leaves::UntilClose)),
        ("CLIENT IMPORT-SOURCE ON", Request::Leaves(Leaves::UntilClose)),
        ("CLIENT", Request::Leaves(Leaves::UntilClose)),
        ("SCRIPT LOAD x", Request::Plain),
        ("script debug yes", Request::Leaves(Leaves::UntilClose)),
        ("DEBUG SLEEP 0", Request::Leaves(Leaves::UntilClose)),
        ("RESET", Request::Reset),
        ("MONITOR", Request::Monitor),
        ("PSYNC ? -1", Request::Replication),
        ("AVERYLONGMODULECOMMAND.X a", Request::Leaves(Leaves::UntilClose)),
    ] {
        assert_eq!(request(&words(text)), expected, "{text}");
        assert_eq!(request(format!("{text}\r\n").as_bytes()), expected, "{text} inline");
    }
}

#[test]
fn what_a_client_says_about_itself_is_read_in_any_case_and_form() {
    let value = |text: &str| text.as_bytes().to_vec();
    let hello = |resp3, name: Option<&str>| ClientInfo::Hello { resp3, name: name.map(value) };
    for (text, expected) in [
        ("CLIENT SETNAME app", Some(ClientInfo::Name(value("app")))),
        ("client setinfo lib-name redis-py", Some(ClientInfo::Library(value("redis-py")))),
        ("client setinfo lib-name redis-py(pontoon)", Some(ClientInfo::Library(value("redis-py")))),
        ("CLIENT SETINFO LIB-VER 8.1.0", Some(ClientInfo::Version(value("8.1.0")))),
        ("CLIENT SETINFO OTHER x", None),
        ("CLIENT LIST TYPE normal", None),
        ("HELLO", Some(hello(None, None))),
        ("HELLO 3", Some(hello(Some(true), None))),
        ("hello 2 SETNAME app", Some(hello(Some(false), Some("app")))),
        ("HELLO 3 AUTH u p SETNAME app", Some(hello(Some(true), Some("app")))),
        ("HELLO 3 SETNAME app AUTH u p", Some(hello(Some(true), Some("app")))),
        ("HELLO 3 AUTH SETNAME AUTH SETNAME app", Some(hello(Some(true), Some("app")))),
        ("HELLO 4 SETNAME app", Some(hello(None, None))),
        ("HELLO 3 OTHER SETNAME app", Some(hello(Some(true), None))),
        ("SELECT 15", Some(ClientInfo::Database(15))),
        ("select x", None),
        ("SELECT -1", None),
        ("SELECT 4294967296", None),
        ("RESET", Some(ClientInfo::Reset)),
        ("AUTH u p", None),
        ("SET CLIENT SETNAME", None),
        ("CONFIG SET requirepass p", None),
        ("SCRIPT LOAD SETNAME x", None),
    ] {
        let inline = format!("{text}\r\n");
        let infos = [words(text), inline.into_bytes()].map(|stream| client_infos(&stream, &[]));
        assert_eq!(infos, [[expected.clone()], [expected]], "{text}");
    }
    assert_eq!(client_infos(b"CLIENT SETNAME \"a b\"\r\n", &[]), [None], "quotes make words uncertain");
    let empty = [counted(b'$', b"CLIENT"), counted(b'$', b"SETNAME"), counted(b'$', b"")];
    assert_eq!(client_infos(&aggregate(b'*', 3, &empty), &[]), [Some(ClientInfo::Name(Vec::new()))]);
}

#[test]
fn client_info_of_one_request_does_not_leak_into_the_next() {
    let stream = [words("CLIENT SETNAME a"), words("GET k"), words("CLIENT LIST"), words("HELLO")].concat();
    let hello = ClientInfo::Hello { resp3: None, name: None };
    let expected = [Some(ClientInfo::Name(b"a".to_vec())), None, None, Some(hello)];
    assert_eq!(client_infos(&stream, &[]), expected);
    assert_eq!(client_infos(&stream, &vec![1; stream.len()]), expected);
}

#[test]
fn a_long_name_is_cut_to_what_is_shown() {
    let long = words(&format!("CLIENT SETNAME {}", "n".repeat(1 << 20)));
    for pieces in [&[][..], &[1; 200], &[1 << 19]] {
        let [Some(ClientInfo::Name(name))] = &client_infos(&long, pieces)[..] else { panic!("a name") };
        assert_eq!(name, &[b'n'; 65]);
    }
}

#[test]
fn a_password_is_never_kept() {
    let secret = "s3cr3t-Pa55";
    // The form that the scanner's Debug output would have.
    let printed = format!("{:?}", secret.as_bytes());
    let printed = printed.trim_matches(['[', ']']);
    for text in [
        "AUTH s3cr3t-Pa55",
        "AUTH user s3cr3t-Pa55",
        "HELLO 3 AUTH user s3cr3t-Pa55",
        "hello 2 SETNAME name auth user s3cr3t-Pa55 SETNAME other",
        "HELLO AUTH user s3cr3t-Pa55",
        "HELLO 4 AUTH user s3cr3t-Pa55",
        "CONFIG SET requirepass s3cr3t-Pa55",
        "ACL SETUSER user >s3cr3t-Pa55",
    ] {
        for stream in [words(text), format!("{text}\r\n").into_bytes()] {
            let mut scanner = RequestScanner::default();
            for byte in &stream {
                scanner.next(std::slice::from_ref(byte));
                assert!(!format!("{scanner:?}").contains(printed), "{text}: {scanner:?}");
            }
            let mut whole = RequestScanner::default();
            whole.next(&stream);
            assert!(!format!("{whole:?} {:?}", scanner.client_info()).contains(printed), "{text}");
        }
    }
}

#[test]
fn the_words_of_the_first_commands_are_kept_in_either_way_of_reading() {
    let stream =
        [words("info"), words("CONFIG GET save"), words("GET a"), words("GET b"), words("GET c")].concat();
    let expected: [Option<(&[&str], u64)>; 5] = [
        Some((&["info"], 1)),
        Some((&["CONFIG", "GET", "save"], 3)),
        Some((&["GET"], 2)),
        Some((&["GET"], 2)),
        None,
    ];
    for piece in [stream.len(), 1] {
        let mut scanner = RequestScanner::default();
        let mut found = Vec::new();
        for input in stream.chunks(piece) {
            let mut at = 0;
            while at < input.len() {
                let (n, event) = scanner.next(&input[at..]);
                at += n;
                if event == Event::Frame {
                    found.push(scanner.beginning().map(|(words, count)| {
                        let words = words.into_iter().filter(|word| !word.is_empty());
                        (
                            words.map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>(),
                            count,
                        )
                    }));
                }
            }
        }
        let found: Vec<_> =
            found.iter().map(|found| found.as_ref().map(|(words, count)| (&words[..], *count))).collect();
        assert_eq!(format!("{found:?}"), format!("{expected:?}"));
    }
}

#[test]
fn ok_differs_from_other_statuses_once_statuses_are_kept() {
    for (reply, ok) in [
        ("+OK\r\n", true),
        ("+QUEUED\r\n", false),
        ("-OK\r\n", false),
        ("$2\r\nOK\r\n", false),
        ("+OKAY\r\n", false),
    ] {
        for piece in [reply.len(), 1] {
            let mut scanner = ReplyScanner::default();
            scanner.keep_status(true);
            for input in reply.as_bytes().chunks(piece) {
                scanner.next(input);
            }
            assert_eq!(scanner.is_ok(), ok, "{reply}");
        }
    }
}

#[test]
fn the_name_of_one_request_does_not_change_the_next() {
    assert_eq!(
        request(&[words("CLIENT REPLY OFF"), words("CLIENT")].concat()),
        Request::Leaves(Leaves::UntilClose)
    );
    assert_eq!(request(&[words("SUBSCRIBE a"), words("SUB")].concat()), Request::Leaves(Leaves::UntilClose));
}

#[test]
fn quotes_make_the_effects_of_an_inline_command_uncertain() {
    assert_eq!(request(b"\"SUBSCRIBE\" a\r\n"), Request::Unknown);
    assert_eq!(request(b"CLUSTER \"SLOTS\"\r\n"), Request::Unknown);
    assert_eq!(request(b"SET k \"a b\"\r\n"), Request::Leaves(Leaves::UntilClose));
    assert_eq!(request(b"SUBSCRIBE \"a b\"\r\n"), Request::Unknown);
    assert_eq!(request(b"INFO \"server\"\r\n"), Request::Addresses(AddressReply::Info));
    assert_eq!(request(b"\"INFO\" server\r\n"), Request::Unknown);
}

#[test]
fn empty_requests_are_skipped_as_redis_skips_them() {
    for stream in [&b"\r\n"[..], b"\n", b"   \r\n", b"*0\r\n", b"*-1\r\n"] {
        assert_eq!(request_ends(stream, &[]), (vec![], false), "{stream:?}");
    }
    let mut scanner = RequestScanner::default();
    assert_eq!(scanner.next(b"*0\r\n\r\n*1\r\n$4\r\nPING\r\n"), (20, Event::Frame));
    assert!(scanner.at_boundary());
}

#[test]
fn input_that_is_not_resp_stays_malformed() {
    for stream in [
        &b"*1\r\n+PING\r\n"[..],
        b"*x\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$1x\r\n",
        b"*1000000000000000000000\r\n",
    ] {
        assert!(request_ends(stream, &[]).1, "{stream:?}");
    }
    for stream in
        [&b"HTTP/1.1 200 OK\r\n"[..], b"$-2\r\n", b"$1x\r\n", b".\r\n", b"*1\r\n.\r\n", b"$?\r\n+x\r\n"]
    {
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
fn nesting_deeper_than_any_server_is_malformed() {
    assert!(reply_ends(&b"*2\r\n".repeat(100_000), &[]).1);
}

#[test]
fn a_script_reply_may_nest_as_deep_as_lua_allows() {
    let last = [b"*1\r\n".repeat(100_000), b":1\r\n".to_vec()].concat();
    let first = [b"*2\r\n".repeat(8_000), b":1\r\n".repeat(8_001)].concat();
    let map = [b"%1\r\n+k\r\n".repeat(100_000), b"*0\r\n".to_vec()].concat();
    for reply in [last, first, map] {
        let all = [&reply[..], b"+OK\r\n"].concat();
        assert_eq!(reply_ends(&all, &[7, 4096]), (vec![reply.len(), all.len()], false));
    }
}

#[test]
fn pushes_differ_from_replies_and_name_what_they_confirm() {
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
    let within = last(b"*2\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n+OK\r\n");
    assert_eq!(within, Reply::Other, "EXEC ran SUBSCRIBE");
    let confirmed = Confirmed::Unsubscribe(Subscription::Shard);
    assert_eq!(last(b">3\r\n+sunsubscribe\r\n_\r\n:0\r\n"), Reply::Push(Some(confirmed)));
}

#[test]
fn an_attribute_alone_is_not_a_frame() {
    let mut scanner = ReplyScanner::default();
    assert!(scanner.at_boundary());
    scanner.next(b"|1\r\n+a\r\n+b\r\n");
    assert!(!scanner.at_boundary());
    assert_eq!(scanner.next(b":1\r\n"), (4, Event::Frame));
    assert!(scanner.at_boundary());
}

/// The seeds of the fuzz targets, and the inputs with which the targets found bugs.
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

#[test]
fn a_request_says_what_it_leaves_on_its_connection() {
    use Leaves::{Asking, Authenticated, SetUp, UntilClose, UntilReset};
    for (words, expected) in [
        (&["HELLO", "3"][..], Request::Hello { resp3: Some(true), leaves: SetUp, has_options: false }),
        (
            &["HELLO", "3", "SETNAME", "n"],
            Request::Hello { resp3: Some(true), leaves: SetUp, has_options: true },
        ),
        (
            &["HELLO", "3", "AUTH", "u", "p"],
            Request::Hello { resp3: Some(true), leaves: Authenticated, has_options: true },
        ),
        (&["CLIENT", "SETINFO", "LIB-NAME", "x"], Request::Leaves(SetUp)),
        (&["CLIENT", "SETNAME", "x"], Request::Leaves(SetUp)),
        (&["SELECT", "3"], Request::Leaves(SetUp)),
        (&["CLIENT", "CACHING", "yes"], Request::Leaves(UntilReset)),
        (&["READONLY"], Request::Leaves(UntilReset)),
        (&["ASKING"], Request::Leaves(Asking)),
        (&["CLIENT", "TRACKING", "on"], Request::Leaves(UntilClose)),
        (&["WATCH", "k"], Request::Transaction(Transaction::Watches)),
        (&["UNWATCH"], Request::Transaction(Transaction::Unwatches)),
        (&["INFO", "server"], Request::Addresses(AddressReply::Info)),
        (&["COMMAND", "DOCS"], Request::Plain),
        (&["HSET", "h", "f", "v"], Request::Plain),
        (&["EVAL", "return 1", "0"], Request::Plain),
        (&["EVALSHA", "x", "0"], Request::Plain),
        (&["FCALL", "f", "0"], Request::Plain),
        (&["SCRIPT", "LOAD", "return 1"], Request::Plain),
        (&["CLIENT", "GETNAME"], Request::Plain),
        (&["CLIENT", "MAINT_NOTIFICATIONS", "OFF"], Request::Plain),
        (&["CONFIG", "GET", "x"], Request::Plain),
    ] {
        let mut request = format!("*{}\r\n", words.len());
        request.extend(words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())));
        let mut scanner = RequestScanner::default();
        assert_eq!(scanner.next(request.as_bytes()), (request.len(), Event::Frame));
        assert_eq!(scanner.request(), expected, "{words:?}");
    }
}

#[test]
fn reading_streams_blocks_only_with_the_option_block() {
    let plain = ["XREAD", "COUNT", "block", "STREAMS", "block", "0"];
    let blocks = ["XREADGROUP", "GROUP", "streams", "c", "NOACK", "block", "0", "STREAMS", "s", ">"];
    let named = ["xreadgroup", "GROUP", "block", "block", "STREAMS", "s", ">"];
    for (words, expected) in
        [(&plain[..], Request::Plain), (&blocks, Request::Blocking), (&named, Request::Plain)]
    {
        let mut array = format!("*{}\r\n", words.len());
        array.extend(words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())));
        let line = words.join(" ") + "\n";
        for request in [array, line] {
            let mut scanner = RequestScanner::default();
            assert_eq!(scanner.next(request.as_bytes()), (request.len(), Event::Frame));
            assert_eq!(scanner.request(), expected, "{request}");
        }
    }
}

#[test]
fn an_unknown_command_may_leave_anything_behind() {
    for (name, expected) in [
        ("WEIRD", Request::Leaves(Leaves::UntilClose)),
        ("MY.COMMAND", Request::Leaves(Leaves::UntilClose)),
        ("json.get", Request::Plain),
        ("FT.SEARCH", Request::Plain),
        ("GET", Request::Plain),
    ] {
        for rest in ["", " x", " \"x\""] {
            let line = format!("{name}{rest}\r\n");
            let mut scanner = RequestScanner::default();
            scanner.next(line.as_bytes());
            let expected = if rest.ends_with('"') && expected == Request::Plain {
                Request::Leaves(Leaves::UntilClose)
            } else {
                expected
            };
            assert_eq!(scanner.request(), expected, "{line}");
        }
        let array = format!("*2\r\n${}\r\n{name}\r\n$1\r\nx\r\n", name.len());
        let mut scanner = RequestScanner::default();
        assert_eq!(scanner.next(array.as_bytes()), (array.len(), Event::Frame));
        assert_eq!(scanner.request(), expected, "{name}");
    }
}

#[test]
fn a_rewound_request_is_read_the_same_way() {
    for whole in [words("CLUSTER SLOTS"), words("CLIENT KILL ID 7"), b"CLIENT \"KILL\" ID 7\r\n".to_vec()] {
        for end in 1..whole.len() {
            let mut scanner = RequestScanner::default();
            assert_eq!(scanner.next(&whole[..end]).1, Event::NeedMore);
            scanner.rewind();
            assert_eq!(scanner.next(&whole), (whole.len(), Event::Frame), "{end}");
            assert_eq!(scanner.request(), request(&whole), "{end}");
        }
    }
}

#[test]
fn a_line_with_a_zero_byte_is_malformed() {
    for line in [&b"a\0b\n"[..], b"PING\0x\r\n", b"\0\n"] {
        assert_eq!(RequestScanner::default().next(line).1, Event::Malformed, "{}", line.escape_ascii());
    }
}

#[test]
fn only_an_error_within_a_reply_hints_at_readonly() {
    let mut scanner = ReplyScanner::default();
    let mut hints = |reply: &[u8]| {
        assert_eq!(scanner.next(reply), (reply.len(), Event::Frame));
        scanner.take_read_only_hint()
    };
    assert!(!hints(b"-READONLY You can't write against a read only replica.\r\n"));
    assert!(hints(b"*2\r\n:1\r\n-READONLY You can't write\r\n"), "an earlier READONLY reply changes nothing");
    assert!(hints(b"-ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write\r\n"));
    assert!(hints(b"!12\r\nERR READONLY\r\n"));
    let (error, end) = (&b"*1\r\n-READREADONLY You can't"[..], b" write\r\n");
    for at in 0..error.len() {
        let mut scanner = ReplyScanner::default();
        for part in [&error[..at], &error[at..], end] {
            scanner.next(part);
        }
        assert!(scanner.take_read_only_hint(), "split after {at} bytes");
    }
    assert!(!hints(b"*2\r\n-READ\r\n-ONLY\r\n"), "two errors");
    for text in [&b"$8\r\nREADONLY\r\n"[..], b"+READONLY\r\n", b"*1\r\n+READONLY\r\n", b"-ERR no\r\n"] {
        assert!(!hints(text), "{}", text.escape_ascii());
    }
}
