//! Any pipeline that a client writes completely before it reads the first reply comes to its end, as it does without pontoon: the server
//! keeps the replies meanwhile.

use crate::harness::{Authority, Pontoon, Redis, SLOTS, Wire, command, eventually, free_port, own_slots};

/// How clients get their connections.
const MODES: [&[&str]; 3] = [
    &["--sharing", "dedicated"],
    &["--sharing", "shared", "--workers", "1"],
    // It answers AUTH itself, and so looks at every request.
    &["--sharing", "shared", "--workers", "1", "--auth-client", "accept"],
];

/// A request in a pipeline.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A value of so many bytes, read.
    Get(usize),
    /// One, written.
    Set(usize),
    /// Requests from MULTI to EXEC, which read one.
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

/// Writes all of it, then reads all replies, and has an ordinary request answered after it.
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
        // More than may wait for a client that shares a connection.
        vec![Step::Get(1_000); 50_000],
        [vec![Step::Transaction(6_000_000)], vec![Step::Set(33_000); 200], vec![Step::Transaction(10)]]
            .concat(),
    ]
}

/// Of these, requests and replies have some 20 MB together.
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
fn a_pipeline_that_is_written_before_a_reply_is_read_comes_to_its_end() {
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
fn so_does_any_mix_of_sizes() {
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
fn so_does_one_in_a_cluster() {
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
fn others_who_share_the_connection_are_served_meanwhile() {
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
    eventually("it has a connection of its own", || pontoon.metric("pontoon_sessions_pinned", "") == 1);
    assert_eq!(slow.exactly(replies.len()), replies);
    slow.expect(&["CLIENT", "GETNAME"], "$4\r\nslow\r\n");
    eventually("it shares again", || pontoon.metric("pontoon_sessions_pinned", "") == 0);
    slow.expect(&["CLIENT", "GETNAME"], "$4\r\nslow\r\n");
    other.expect(&["PING"], "+PONG\r\n");
}

/// A client for which more waits than its socket takes, and that has asked for all of it in one piece. What it sends after it is `tail`.
fn lag(pontoon: &Pontoon, before: &[&[&str]], tail: &[u8]) -> (Wire, Vec<u8>) {
    let mut client = pontoon.client();
    for words in before {
        client.ask(words);
    }
    let (mut requests, replies) = pipeline(&vec![Step::Get(1_000_000); 20]);
    requests.extend(tail);
    client.send(&requests);
    eventually("it has the connection for its own", || pontoon.metric("pontoon_sessions_pinned", "") == 1);
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
fn a_transaction_that_is_handed_off_binds_nobody_for_good() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    prepare(&mut redis.direct(), &[6_000_000]);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, MODES[1]);
    let mut client = pontoon.client();
    let steps = [vec![Step::Transaction(6_000_000)], vec![Step::Get(6_000_000); 3]].concat();
    let (requests, replies) = pipeline(&steps);
    client.send(&requests);
    eventually("it has the connection for its own", || pontoon.metric("pontoon_sessions_pinned", "") == 1);
    assert!(client.exactly(replies.len()) == replies);
    eventually("it shares again", || pontoon.metric("pontoon_sessions_pinned", "") == 0);
}

#[test]
fn a_client_that_waits_for_leave_gets_it_once_there_is_some() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    prepare(&mut redis.direct(), &[1_000_000]);
    let args = [MODES[1], &["--max-pinned", "1"]].concat();
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &args);
    let mut blocks = pontoon.client();
    blocks.send(&command(&["BLPOP", "none", "0"]));
    eventually("it has leave", || pontoon.metric("pontoon_sessions_pinned", "") == 1);
    let steps = [vec![Step::Get(1_000_000); 40], vec![Step::Set(33_000); 400]].concat();
    let (requests, replies) = pipeline(&steps);
    let mut client = pontoon.client();
    let mut writer = client.writer();
    let writes = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &requests));
    let mut direct = redis.direct();
    eventually("its replies wait at the server", || {
        let clients = String::from_utf8(direct.ask(&["CLIENT", "LIST"])).unwrap();
        clients.lines().any(|line| !line.contains(" omem=0 "))
    });
    // Nothing tells when the bridge stops to read: it does within a moment, and looks again every second.
    assert!(direct.is_silent(std::time::Duration::from_millis(300)));
    drop(blocks);
    writes.join().unwrap().unwrap();
    assert!(client.exactly(replies.len()) == replies);
}
