//! Many clients send random commands of every kind, over the bridge and over their own connections: each sees the same replies.
//!
//! `TEST_DIFFERENTIAL` is the number of commands, if it is to be more than the few that fit between other tests.

use crate::harness::{Authority, Pontoon, Redis, Wire, command};

use super::SHARED;

const CLIENTS: usize = 12;

type Words = Vec<String>;

fn words(all: &[&str]) -> Words {
    all.iter().map(|word| (*word).to_owned()).collect()
}

/// A client's part of the conversation.
struct Part {
    number: usize,
    in_transaction: bool,
}

impl Part {
    /// A command on this client's own keys, whose reply depends only on what this client has sent.
    fn command(&mut self, random: &mut fastrand::Rng) -> Words {
        let key = |random: &mut fastrand::Rng| format!("k{}:{}", self.number, random.u8(..4));
        let list = format!("l{}", self.number);
        let name = |random: &mut fastrand::Rng| format!("n{}-{}", self.number, random.u8(..3));
        let picked = match random.u8(..40) {
            0..=4 => vec!["SET".into(), key(random), random.u32(..).to_string()],
            5..=9 => vec!["GET".into(), key(random)],
            10 => vec!["INCR".into(), key(random)],
            11 => vec!["APPEND".into(), key(random), "x".repeat(random.usize(..3000))],
            12 => vec!["DEL".into(), key(random)],
            13 => vec!["RPUSH".into(), list, random.u8(..).to_string()],
            14 => vec!["LRANGE".into(), list, "0".into(), "-1".into()],
            15 => vec!["MGET".into(), key(random), key(random), "none".into()],
            16 => vec!["EVAL".into(), "return redis.call('INCR', KEYS[1])".into(), "1".into(), key(random)],
            17 => vec!["EVAL".into(), "redis.call('SELECT', 5) return {1,{'x',false}}".into(), "0".into()],
            18 => vec!["PING".into()],
            19 => vec!["ECHO".into(), "e".repeat(random.usize(..100))],
            20 => words(&["NOSUCHCOMMAND", "x"]),
            21 => words(&["GET"]),
            22 => vec!["SELECT".into(), random.u8(..4).to_string()],
            23 => vec!["SELECT".into(), ["16", "x", "-1"][random.usize(..3)].into()],
            24 => vec!["CLIENT".into(), "SETNAME".into(), name(random)],
            25 => words(&["CLIENT", "SETNAME", "in valid"]),
            26 => words(&["CLIENT", "GETNAME"]),
            27 => {
                self.in_transaction = true;
                words(&["MULTI"])
            }
            28 | 29 if self.in_transaction => {
                self.in_transaction = false;
                words(&[["EXEC", "DISCARD"][random.usize(..2)]])
            }
            28 => words(&["EXEC"]),
            29 => vec!["WATCH".into(), key(random)],
            30 => words(&["UNWATCH"]),
            31 => vec!["BLPOP".into(), list, "0.01".into()],
            32 => vec!["SET".into(), key(random), "y".repeat(random.usize(..80_000))],
            33 => words(&["CLIENT", "SETINFO", "LIB-NAME", "x"]),
            34 => words(&["HELLO", "4"]),
            35 => words(&["RESET"]),
            36 => words(&["XREAD", "BLOCK", "1", "STREAMS", "none", "0"]),
            37 => words(&["CLIENT", "TRACKINGINFO"]),
            38 => words(&["OBJECT", "ENCODING", "none"]),
            _ => words(&["SCRIPT", "EXISTS", "x"]),
        };
        // Queued commands are answered at the end; a command that cannot be queued aborts the transaction, with both servers.
        if picked[0] == "RESET" {
            self.in_transaction = false;
        }
        picked
    }

    /// A transaction that is sent in one piece.
    fn transaction(&mut self, random: &mut fastrand::Rng) -> Vec<Words> {
        let mut all = vec![words(&["MULTI"])];
        for _ in 0..random.usize(..4) {
            let key = format!("k{}:{}", self.number, random.u8(..4));
            let list = format!("l{}", self.number);
            all.push(match random.u8(..6) {
                0 => vec!["SET".into(), key, random.u32(..).to_string()],
                1 => vec!["INCR".into(), key],
                2 => vec!["GET".into(), key],
                3 => vec!["RPUSH".into(), list, "x".into()],
                4 => words(&["GET"]),
                _ => vec!["MGET".into(), key, "none".into()],
            });
        }
        all.push(words(&["EXEC"]));
        all
    }
}

#[test]
fn every_client_sees_what_it_would_see_on_its_own_connection() {
    compare(&SHARED);
}

#[test]
fn every_client_of_a_reused_connection_sees_what_it_would_without_pontoon() {
    compare(&["--sharing", "dedicated", "--pool-reuse", "true"]);
}

fn compare(mode: &[&str]) {
    let total: usize = std::env::var("TEST_DIFFERENTIAL").map_or(6000, |count| count.parse().unwrap());
    let authority = Authority::new();
    let (redis, other) = (Redis::start(&authority), Redis::start(&authority));
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, mode);
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bridged: Vec<Wire> = (0..CLIENTS).map(|_| pontoon.client()).collect();
    let mut direct: Vec<Wire> = (0..CLIENTS).map(|_| other.direct()).collect();
    let mut parts: Vec<Part> = (0..CLIENTS).map(|number| Part { number, in_transaction: false }).collect();
    for (i, (bridged, direct)) in bridged.iter_mut().zip(&mut direct).enumerate().filter(|(i, _)| i % 3 == 0)
    {
        // Not compared, because the reply holds the connection's id.
        for wire in [bridged, direct] {
            let reply = wire.ask(&["HELLO", "3"]);
            assert!(reply.starts_with(b"%"), "{i}");
        }
    }
    let mut sent = 0;
    let mut history: Vec<Vec<Words>> = vec![Vec::new(); CLIENTS];
    while sent < total {
        // All send before any of them reads.
        let mut counts = Vec::new();
        for (i, part) in parts.iter_mut().enumerate() {
            let mut commands: Vec<Words> =
                (0..random.usize(..6)).map(|_| part.command(&mut random)).collect();
            if !part.in_transaction && random.u8(..4) == 0 {
                commands.extend(part.transaction(&mut random));
            }
            let count = commands.len();
            let bytes: Vec<u8> = commands.iter().flat_map(|words| command(words)).collect();
            bridged[i].send(&bytes);
            direct[i].send(&bytes);
            history[i].extend(commands);
            counts.push(count);
            sent += count;
        }
        for (i, count) in counts.into_iter().enumerate() {
            for n in 0..count {
                let (got, wanted) = (bridged[i].reply(), direct[i].reply());
                let of = history[i].len() - count + n;
                let text =
                    |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
                assert!(
                    got == wanted,
                    "seed {seed}, client {i}: {:?} is answered {:?}, and without the bridge {:?}; before: {:?}",
                    history[i][of],
                    text(&got),
                    text(&wanted),
                    &history[i][of.saturating_sub(20)..of],
                );
            }
            let from = history[i].len().saturating_sub(40);
            history[i].drain(..from);
        }
    }
    // pontoon notices at once that ready connections are lost.
    pontoon.allows("localhost");
}
