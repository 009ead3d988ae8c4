//! Any pipeline that a client writes completely before it reads the first reply is answered completely, as it is without pontoon: the
//! server keeps the replies meanwhile.

use crate::harness::{Authority, Pontoon, Redis, SLOTS, Wire, command, eventually, free_port, own_slots};

/// How clients get their connections.
const MODES: [&[&str]; 3] = [
    &["--sharing", "dedicated"],
    &["--sharing", "shared", "--workers", "1"],
    // This bridge answers AUTH itself, and so looks at every request.
    &["--sharing", "shared", "--workers", "1", "--auth-client", "accept"],
];

/// A request in a pipeline.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Reads a value of this many bytes.
    Get(usize),
    /// Writes a value of this many bytes.
    Set(usize),
    /// Requests from MULTI to EXEC, which read a value of this many bytes.
    Transaction(usize),
}

const SIZES: [usize; 5] = [10, 1_000, 33_000, 200_000, 2_000_000];

fn value(size: usize) -> String {
    "v".repeat(size)
}

/// The requests, and the replies to them.
fn pipeline(steps: &[Step]) -> (Vec<u8>, Vec<u8>) {
    let (mut requests, mut replies) = (Vec::new(), Vec::new());
    for step in steps {
        match *step {
            Step::Get(size) => {
                requests.extend(command(&["GET", &format!("{{k}}{size}")]));
                replies.extend(format!("${size}\r\n{}\r\n", value(size)).into_bytes());
            }
            Step::Set(size) => {
                requests.extend(command(&["SET", "{k}other", &value(size)]));
                replies.extend(b"+OK\r\n");
            }
            Step::Transaction(size) => {
                requests.extend(command(&["MULTI"]));
                requests.extend(command(&["GET", &format!("{{k}}{size}")]));
                requests.extend(command(&["EXEC"]));
                replies.extend(b"+OK\r\n+QUEUED\r\n*1\r\n");
                replies.extend(format!("${size}\r\n{}\r\n", value(size)).into_bytes());
            }
        }
    }
    (requests, replies)
}

fn prepare(direct: &mut Wire, sizes: &[usize]) {
    for size in sizes {
        direct.expect(&["SET", &format!("{{k}}{size}"), &value(*size)], "+OK\r\n");
    }
}

/// Writes the whole pipeline, then reads all replies, and asserts that an ordinary request is answered afterwards.
fn comes_to_its_end(pontoon: &Pontoon, steps: &[Step]) {
    let (requests, replies) = pipeline(steps);
    let mut client = pontoon.client();
    client.expect(&["PING"], "+PONG\r\n");
    client.send(&requests);
    let got = client.exactly(replies.len());
    let wrong = got.iter().zip(&replies).position(|(got, expected)| got != expected);
    assert_eq!(wrong, None, "of {} bytes", replies.len());
    client.expect(&["ECHO", "x"], "$1\r\nx\r\n");
}

/// Pipelines that are hard in one way or another.
fn hard() -> Vec<Vec<Step>> {
    vec![
        [vec![Step::Get(6_000_000)], vec![Step::Set(33_000); 400]].concat(),
        [vec![Step::Get(12_000_000)], vec![Step::Set(10); 60_000]].concat(),
        // More replies than may wait for a client of shared mode.
        vec![Step::Get(1_000); 50_000],
        [vec![Step::Transaction(6_000_000)], vec![Step::Set(33_000); 200], vec![Step::Transaction(10)]]
            .concat(),
    ]
}

/// Steps whose requests and replies have some 20 MB together.
fn random(seed: u64) -> Vec<Step> {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut steps, mut left) = (Vec::new(), 20_000_000);
    while left > 0 && steps.len() < 20_000 {
        let size = SIZES[random.usize(..SIZES.len())];
        let step = [Step::Get, Step::Set, Step::Transaction][random.usize(..3)](size);
        for _ in 0..random.usize(1..4) {
            steps.push(step);
            left -= i64::try_from(size).unwrap() + 100;
        }
    }
    steps
}

#[test]
fn a_pipeline_written_before_a_reply_is_read_is_answered_completely() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    prepare(&mut redis.direct(), &[10, 1_000, 6_000_000, 12_000_000]);
    for mode in MODES {
        let pontoon = Pontoon::with(&redis.endpoint(), &authority, mode);
        for steps in hard() {
            comes_to_its_end(&pontoon, &steps);
        }
    }
}

#[test]
fn a_pipeline_with_any_mix_of_sizes_is_answered_completely() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    prepare(&mut redis.direct(), &SIZES);
    for mode in MODES {
        let pontoon = Pontoon::with(&redis.endpoint(), &authority, mode);
        for seed in 0..6 {
            comes_to_its_end(&pontoon, &random(seed));
        }
    }
}

#[test]
fn a_pipeline_in_a_cluster_is_answered_completely() {
    let authority = Authority::new();
    let bus_port = free_port().to_string();
    let options =
        ["--cluster-enabled", "yes", "--cluster-port", &bus_port, "--cluster-announce-ip", "127.0.0.1"];
    let redis = Redis::with(authority.issue(&["localhost", "127.0.0.1"]), &authority, &options);
    own_slots(&mut redis.direct(), 0..SLOTS);
    eventually("the cluster serves", || {
        redis.direct().ask(&["CLUSTER", "INFO"]).windows(16).any(|text| text == b"cluster_state:ok")
    });
    prepare(&mut redis.direct(), &[10, 1_000, 6_000_000, 12_000_000]);
    for mode in &MODES[..2] {
        let args = [*mode, &["--topology", "cluster"]].concat();
        let pontoon = Pontoon::with(&redis.endpoint(), &authority, &args);
        // A server that is busy with large replies may answer a new connection late.
        pontoon.allows("TLS handshake");
        for steps in hard() {
            comes_to_its_end(&pontoon, &steps);
        }
    }
}

#[test]
fn other_clients_of_the_shared_connection_are_served_meanwhile() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    prepare(&mut redis.direct(), &[6_000_000]);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, MODES[1]);
    let (mut slow, mut other) = (pontoon.client(), pontoon.client());
    slow.expect(&["CLIENT", "SETNAME", "slow"], "+OK\r\n");
    other.expect(&["PING"], "+PONG\r\n");
    let (requests, replies) = pipeline(&[vec![Step::Get(6_000_000)], vec![Step::Set(33_000); 100]].concat());
    slow.send(&requests);
    for _ in 0..100 {
        other.expect(&["PING"], "+PONG\r\n");
    }
    eventually("the client is pinned", || pontoon.metric("pontoon_sessions_pinned", "") == 1);
    assert_eq!(slow.exactly(replies.len()), replies);
    slow.expect(&["CLIENT", "GETNAME"], "$4\r\nslow\r\n");
    eventually("the client shares again", || pontoon.metric("pontoon_sessions_pinned", "") == 0);
    slow.expect(&["CLIENT", "GETNAME"], "$4\r\nslow\r\n");
    other.expect(&["PING"], "+PONG\r\n");
}

/// A client that has requested, in one piece, more than its socket holds. It sends `tail` after that.
fn lag(pontoon: &Pontoon, before: &[&[&str]], tail: &[u8]) -> (Wire, Vec<u8>) {
    let mut client = pontoon.client();
    for words in before {
        client.ask(words);
    }
    let (mut requests, replies) = pipeline(&vec![Step::Get(1_000_000); 20]);
    requests.extend(tail);
    client.send(&requests);
    eventually("the client is pinned", || pontoon.metric("pontoon_sessions_pinned", "") == 1);
    (client, replies)
}

#[test]
fn a_client_with_a_name_keeps_it_whatever_it_sends_next() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    prepare(&mut redis.direct(), &[1_000_000]);
    for tail in
        [&["SUBSCRIBE", "channel"][..], &["MONITOR"], &["CLIENT", "GETNAME"], &["CLIENT", "REPLY", "SKIP"]]
    {
        let pontoon = Pontoon::with(&redis.endpoint(), &authority, MODES[1]);
        let mut direct = redis.direct();
        direct.ask(&["CLIENT", "SETNAME", "named"]);
        let tail = [command(tail), command(&["PING"]), command(&["PING"])].concat();
        direct.send(&tail);
        let (mut client, replies) = lag(&pontoon, &[&["CLIENT", "SETNAME", "named"]], &tail);
        assert!(client.exactly(replies.len()) == replies, "{}", tail.escape_ascii());
        let first = direct.reply();
        assert_eq!(String::from_utf8(client.reply()), String::from_utf8(first), "{}", tail.escape_ascii());
    }
}

#[test]
fn a_transaction_handed_to_a_dedicated_connection_pins_only_for_a_while() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    prepare(&mut redis.direct(), &[6_000_000]);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, MODES[1]);
    let mut client = pontoon.client();
    let steps = [vec![Step::Transaction(6_000_000)], vec![Step::Get(6_000_000); 3]].concat();
    let (requests, replies) = pipeline(&steps);
    client.send(&requests);
    eventually("the client is pinned", || pontoon.metric("pontoon_sessions_pinned", "") == 1);
    assert!(client.exactly(replies.len()) == replies);
    eventually("the client shares again", || pontoon.metric("pontoon_sessions_pinned", "") == 0);
}

#[test]
fn a_client_that_waits_to_be_pinned_is_pinned_once_there_is_room() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    prepare(&mut redis.direct(), &[1_000_000]);
    let args = [MODES[1], &["--max-pinned", "1"]].concat();
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &args);
    let mut blocks = pontoon.client();
    blocks.send(&command(&["BLPOP", "none", "0"]));
    eventually("the blocking client is pinned", || pontoon.metric("pontoon_sessions_pinned", "") == 1);
    let steps = [vec![Step::Get(1_000_000); 40], vec![Step::Set(33_000); 400]].concat();
    let (requests, replies) = pipeline(&steps);
    let mut client = pontoon.client();
    let mut writer = client.writer();
    let writes = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &requests));
    let mut direct = redis.direct();
    eventually("the client's replies wait at the server", || {
        let clients = String::from_utf8(direct.ask(&["CLIENT", "LIST"])).unwrap();
        clients.lines().any(|line| !line.contains(" omem=0 "))
    });
    // No event shows when the bridge stops reading: it does within a moment, and looks again every second.
    assert!(direct.is_silent(std::time::Duration::from_millis(300)));
    drop(blocks);
    writes.join().unwrap().unwrap();
    assert!(client.exactly(replies.len()) == replies);
}
