//! Bytes arrive unchanged and in order.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use crate::harness::{Authority, Engine, PATIENCE, Pontoon, Redis, Wire, command};

/// Commands whose replies depend only on the commands before them.
fn random_command(random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let key = |random: &mut fastrand::Rng| format!("k\r\n{}", random.u8(..8)).into_bytes();
    let value = |random: &mut fastrand::Rng| {
        let length = [0, 1, 2, 17, 300, 20_000, 150_000][random.usize(..7)];
        let mut bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        if random.bool() {
            bytes.extend(b"\r\n$-1\r\n*3\r\n");
        }
        bytes
    };
    let words = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
    match random.u8(..14) {
        0 => vec![b"SET".to_vec(), key(random), value(random)],
        1 => vec![b"GET".to_vec(), key(random)],
        2 => vec![b"APPEND".to_vec(), key(random), value(random)],
        3 => vec![b"MGET".to_vec(), key(random), key(random), b"absent".to_vec()],
        4 => vec![b"RPUSH".to_vec(), b"list".to_vec(), value(random), value(random)],
        5 => words(&["LRANGE", "list", "-5", "-1"]),
        6 => words(&["EVAL", "return {1,{2,{3,'x',false}},redis.error_reply('NO \\' pe'),{}}", "0"]),
        7 => words(&["INCRBY", "counter", "9007199254740993"]),
        8 => words(&["INCR", "list"]),
        9 => words(&["NOSUCHCOMMAND", "x"]),
        10 => words(&["SET", "empty", ""]),
        11 => words(&["GET", "empty"]),
        12 => vec![b"ECHO".to_vec(), value(random)],
        _ => words(&["LPOP", "absent", "2"]),
    }
}

/// Writes everything from a separate thread, so that neither side waits for the other to read.
fn converse(mut wire: Wire, requests: &[u8], pieces: impl Fn(usize) -> usize + Send) -> Vec<u8> {
    let mut writer = wire.writer();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut sent = 0;
            while sent < requests.len() {
                let n = pieces(sent).clamp(1, requests.len() - sent);
                writer.write_all(&requests[sent..sent + n]).unwrap();
                sent += n;
            }
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        wire.rest()
    })
}

#[test]
fn random_pipelines_get_the_same_bytes_as_without_the_bridge() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::to(&redis.endpoint(), &authority);
    for (seed, protocol) in [(1, "2"), (2, "3"), (3, "2"), (4, "3")] {
        let mut random = fastrand::Rng::with_seed(seed);
        // Not compared, because HELLO's own reply holds the connection's id.
        let mut requests = command(&["FLUSHALL"]);
        for _ in 0..400 {
            requests.extend(command(&random_command(&mut random)));
        }
        // Marks the end of the conversation, because a server may end a connection when its client half-closes.
        let marker = command(&["ECHO", "the end of it"]);
        let run = |mut wire: Wire| {
            wire.ask(&["HELLO", protocol]);
            let mut writer = wire.writer();
            thread::scope(|scope| {
                scope.spawn(|| writer.write_all(&[&requests[..], &marker].concat()).unwrap());
                let mut replies = Vec::new();
                loop {
                    let reply = wire.reply();
                    let last = reply.ends_with(b"the end of it\r\n");
                    replies.extend(reply);
                    if last {
                        return replies;
                    }
                }
            })
        };
        let direct = run(redis.direct());
        let bridged = run(pontoon.client());
        assert!(direct == bridged, "seed {seed}: replies differ");
    }
}

#[test]
fn any_chunking_of_the_stream_gives_the_same_replies() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::to(&redis.endpoint(), &authority);
    let mut random = fastrand::Rng::with_seed(7);
    let mut requests = command(&["FLUSHALL"]);
    for _ in 0..60 {
        requests.extend(command(&random_command(&mut random)));
    }
    requests.truncate(400_000);
    let whole = converse(pontoon.client(), &requests, |_| usize::MAX);
    assert!(!whole.is_empty());
    for size in [3, 1000, 16_384, 16_385, 65_536, 131_073] {
        assert!(converse(pontoon.client(), &requests, |_| size) == whole, "pieces of {size}");
    }
    let bytewise = &requests[..3000];
    let whole = converse(pontoon.client(), bytewise, |_| usize::MAX);
    assert!(converse(pontoon.client(), bytewise, |_| 1) == whole, "byte by byte");
}

#[test]
fn a_pipeline_of_200_000_commands_may_be_written_before_any_reply_is_read() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::to(&redis.endpoint(), &authority);
    let mut client = pontoon.client();
    let mut requests = Vec::new();
    for n in 0..200_000 {
        requests.extend(command(&["ECHO", &format!("number {n:06}")]));
    }
    client.send(&requests);
    for n in 0..200_000 {
        assert_eq!(client.exactly(20), format!("$13\r\nnumber {n:06}\r\n").as_bytes());
    }
}

#[test]
fn half_a_gigabyte_in_one_value_takes_no_memory_of_the_bridge() {
    const SIZE: usize = 512 * 1024 * 1024;
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::to(&redis.endpoint(), &authority);
    let mut stream = TcpStream::connect(pontoon.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A prime period, so that a lost, repeated or moved piece is noticed.
    let period: Vec<u8> = (0..1_000_003_usize).map(|n| (n * n % 251) as u8).collect();

    write!(stream, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${SIZE}\r\n").unwrap();
    let mut sent = 0;
    while sent < SIZE {
        let n = period.len().min(SIZE - sent);
        stream.write_all(&period[..n]).unwrap();
        sent += n;
    }
    stream.write_all(b"\r\n").unwrap();
    let mut reply = [0; 5];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"+OK\r\n");

    stream.write_all(&command(&["GET", "k"])).unwrap();
    let header = format!("${SIZE}\r\n");
    let mut got = vec![0; header.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, header.as_bytes());
    let mut buffer = vec![0; period.len()];
    let mut received = 0;
    while received < SIZE {
        let n = period.len().min(SIZE - received);
        stream.read_exact(&mut buffer[..n]).unwrap();
        assert!(buffer[..n] == period[..n], "a difference within {n} bytes after {received}");
        received += n;
    }
    stream.read_exact(&mut reply[..2]).unwrap();
    let peak = pontoon.peak_memory_kib();
    assert!(peak < 32 * 1024, "the bridge took {peak} KiB");
}

/// Replies that nest as deep as a Lua script can make them: in their last elements, and in their first.
pub const DEEP: [&str; 2] = [
    "local a = {}; local b = {a}; a[1] = b; return a",
    "local a = 1; for _ = 1, 3000 do a = {a, 1} end; return a",
];

#[test]
fn a_reply_that_nests_deeper_than_any_other_passes_and_the_client_goes_on() {
    if Engine::here().is_before_7() {
        // On this engine such a script overruns its stack, and ends the server.
        return;
    }
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    for sharing in ["dedicated", "shared"] {
        let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--sharing", sharing, "--workers", "1"]);
        let (mut client, mut other) = (pontoon.client(), pontoon.client());
        other.expect(&["PING"], "+PONG\r\n");
        for script in DEEP {
            let direct = redis.direct().ask(&["EVAL", script, "0"]);
            assert!(direct.len() > 8_000, "{}", direct.len());
            assert!(client.ask(&["EVAL", script, "0"]) == direct, "{sharing}: {script}");
            client.expect(&["PING"], "+PONG\r\n");
            other.expect(&["PING"], "+PONG\r\n");
        }
    }
}
