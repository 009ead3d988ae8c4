//! Whatever command a client sends and however it leaves, the next client finds what it would on a new connection.

use std::fs;
use std::time::Duration;

use super::commands::{Said, Written, all, missing, replies, written};
use super::view::{View, differences, settle_with, view};
use super::{DEDICATED, SHARED, database_of, reused, road};
use crate::harness::{Dual, Engine, Mood, Pontoon, Redis, Wire, command, eventually, raise_descriptor_limit};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    Closes,
    Resets,
    HalfCloses,
    InMidPipeline,
    InMidCommand,
}

const WAYS: [Leaves; 5] =
    [Leaves::Closes, Leaves::Resets, Leaves::HalfCloses, Leaves::InMidPipeline, Leaves::InMidCommand];

/// Takes some milliseconds, longer than a client takes to leave. In Valkey 9.1 the time stands still within a script.
const SLOW: &str = "for n = 1, 300000 do end return 'left over'";

/// What a client says besides the command under test.
#[derive(Debug, Clone, Copy)]
enum With {
    Nothing,
    SetupBefore,
    SetupAfter,
    ProtocolBefore,
}

const WITHS: [With; 4] = [With::Nothing, With::SetupBefore, With::SetupAfter, With::ProtocolBefore];

fn conversation(said: &Said, with: With) -> Said {
    let setup = vec![vec!["SELECT", "5"], vec!["CLIENT", "SETNAME", "first"]];
    match with {
        With::Nothing => said.clone(),
        With::SetupBefore => [setup, said.clone()].concat(),
        With::SetupAfter => [said.clone(), setup].concat(),
        With::ProtocolBefore => [vec![vec!["HELLO", "3"]], said.clone()].concat(),
    }
}

/// A client's whole life.
struct Life {
    said: Said,
    written: Written,
    leaves: Leaves,
    /// Whether it is pinned before it says anything else, in shared mode.
    pinned: bool,
}

impl Life {
    fn says(&self, text: &str) -> bool {
        self.said.iter().any(|words| words.join(" ").starts_with(text))
    }

    fn describe(&self) -> String {
        let said: Vec<String> = self.said.iter().map(|words| words.join(" ")).collect();
        let pinned = if self.pinned { "large SET ; " } else { "" };
        format!("{:?} after {pinned}{} ({:?})", self.leaves, said.join(" ; "), self.written)
    }

    fn live(&self, mut client: Wire) {
        if self.pinned {
            client.expect(&["SET", "large", &"v".repeat(LARGE)], "+OK\r\n");
        }
        let bytes = written(&self.said, self.written);
        if self.leaves == Leaves::InMidPipeline {
            let _ = client.try_send(&[command(&["EVAL", SLOW, "0"]), bytes].concat());
            return;
        }
        client.send(&bytes);
        // QUIT, and requests that make the server close, may get fewer.
        for _ in 0..replies(&self.said) {
            if client.try_reply().is_none() {
                return;
            }
        }
        match self.leaves {
            Leaves::Closes | Leaves::InMidPipeline => {}
            Leaves::Resets => {
                let _ = socket2::SockRef::from(&client.writer()).set_linger(Some(Duration::ZERO));
            }
            Leaves::HalfCloses => {
                let _ = client.writer().shutdown(std::net::Shutdown::Write);
                client.rest();
            }
            Leaves::InMidCommand => {
                let _ = client.try_send(b"*2\r\n$3\r\nGET\r\n$100\r\nhalf");
            }
        }
    }
}

/// Larger than what is sent over a shared connection.
const LARGE: usize = 40_000;

/// Every command: those about connections in at most `most_ways` ways of leaving, the others in one. `offset` selects other ways in each
/// test. `TEST_ISOLATION=full`: every command in every way.
fn lives(offset: usize, most_ways: usize, pinned: bool) -> Vec<Life> {
    const WRITTEN: [Written; 3] = [Written::Arrays, Written::Lines, Written::SmallArrays];
    let full = std::env::var("TEST_ISOLATION").as_deref() == Ok("full");
    let mut lives = Vec::new();
    for (number, (said, about_connections)) in all().into_iter().enumerate() {
        // After SCRIPT DEBUG and a client that leaves, Valkey 9.1 crashes at the next script of any client.
        if Engine::here().is_valkey_from_9()
            && said.iter().any(|words| words.join(" ").starts_with("SCRIPT DEBUG"))
        {
            continue;
        }
        let number = number + offset;
        let ways = match (full, about_connections) {
            (true, _) => WAYS.len(),
            (false, true) => most_ways,
            (false, false) => 1,
        };
        for n in number..number + ways {
            let leaves = WAYS[n % WAYS.len()];
            // Successive ways get different combinations of these.
            let with = match WITHS[(number / WAYS.len() + n) % WITHS.len()] {
                // In RESP3 EXEC's reply would hold a push message, which RESP forbids.
                With::ProtocolBefore if is_subscribed_by_exec(&said) => With::Nothing,
                with => with,
            };
            let written = WRITTEN[(n + number) % WRITTEN.len()];
            lives.push(Life { said: conversation(&said, with), written, leaves, pinned });
        }
    }
    lives
}

fn is_subscribed_by_exec(said: &Said) -> bool {
    let says = |name: &str| said.iter().any(|words| words[0].ends_with(name));
    says("MULTI") && says("SUBSCRIBE")
}

/// A bridge, and what a client of a new connection to its server would find.
struct Stage {
    /// Dropped before the server, because pontoon would log that the server is gone.
    pontoon: Pontoon,
    redis: Redis,
    /// A connection that bypasses the bridge.
    direct: Wire,
    new: View,
    shared: bool,
    /// Whether the connection of the client that looks may be reused.
    keeps_the_last: bool,
    password: Option<&'static str>,
    found: Vec<String>,
}

impl Stage {
    fn new(redis: Redis, pontoon: Pontoon, password: Option<&'static str>) -> Self {
        let connect = || {
            let mut direct = redis.direct();
            if let Some(password) = password {
                direct.expect(&["AUTH", password], "+OK\r\n");
            }
            direct
        };
        let mut direct = connect();
        direct.expect(&["ACL", "SETUSER", "first", "on", "nopass", "~*", "&*", "+@all"], "+OK\r\n");
        let new = view(&mut connect());
        let mut stage = Self {
            redis,
            pontoon,
            direct,
            new,
            shared: false,
            keeps_the_last: true,
            password,
            found: Vec::new(),
        };
        stage.settle();
        stage
    }

    fn settle(&mut self) {
        self.settle_with(0);
    }

    fn settle_with(&mut self, clients: usize) {
        settle_with(&self.pontoon, &mut self.direct, 1, clients as u64);
    }

    /// Records what the next client finds that a new connection would not have.
    fn look(&mut self, life: &Life) {
        let mut next = self.pontoon.client();
        let mut found = Vec::new();
        let mut write = |next: &mut Wire, direct: &mut Wire, value: &str| {
            let reply = String::from_utf8_lossy(&next.ask(&["SET", "probe", value])).into_owned();
            let database = database_of(direct, "probe");
            if reply != "+OK\r\n" || database != "0" {
                found.push(format!("it writes to database {database:?} and gets {reply:?}"));
            }
        };
        write(&mut next, &mut self.direct, "small");
        if self.shared {
            write(&mut next, &mut self.direct, &"v".repeat(LARGE));
        }
        let differ = differences(&view(&mut next), &self.new);
        if self.shared {
            // This needs a connection in RESP3.
            let mut third = self.pontoon.client();
            third.ask(&["HELLO", "3"]);
            write(&mut third, &mut self.direct, "small");
        }
        found.extend(differ);
        if !self.keeps_the_last {
            next.ask(&["CLIENT", "ID"]);
        }
        if !found.is_empty() {
            self.found.push(format!("{}: {}", life.describe(), found.join("; ")));
        }
    }

    /// Runs clients one after another, and looks as another client after each.
    fn play(&mut self, lives: &[Life]) {
        for life in lives {
            life.live(self.pontoon.client());
            self.settle();
            self.look(life);
            self.settle();
        }
    }

    #[track_caller]
    fn finish(self) {
        let missing = missing(&mut self.direct_again());
        assert!(missing.is_empty(), "commands.txt lacks {missing:?}");
        assert!(self.found.is_empty(), "{} findings: {:#?}", self.found.len(), self.found);
    }

    fn direct_again(&self) -> Wire {
        let mut direct = self.redis.direct();
        if let Some(password) = self.password {
            direct.expect(&["AUTH", password], "+OK\r\n");
        }
        direct
    }
}

/// Asserts that many clients got a connection that had served another one: otherwise the test shows nothing. Some do not, because the view
/// itself asks for the id of its connection, which then serves no other client, and because some ways of leaving close the connection.
#[track_caller]
fn expect_reuse(pontoon: &Pontoon, lives: usize) {
    let reused = reused(pontoon);
    assert!(3 * reused > lives as u64, "{reused} of {lives} clients got a connection that was kept");
}

fn dedicated(args: &[&str]) -> Stage {
    let (redis, pontoon) = super::bridge(&[&DEDICATED[..], args].concat());
    Stage::new(redis, pontoon, None)
}

#[test]
fn the_next_client_finds_a_new_connection_with_reuse() {
    let mut stage = dedicated(&[]);
    let lives = lives(0, WAYS.len(), false);
    stage.play(&lives);
    expect_reuse(&stage.pontoon, lives.len());
    stage.finish();
}

#[test]
fn the_next_client_finds_a_new_connection_before_tls_is_seen() {
    let (redis, _dual, pontoon) = road();
    let mut stage = Stage::new(redis, pontoon, None);
    let lives = lives(2, WAYS.len(), false);
    stage.play(&lives);
    expect_reuse(&stage.pontoon, lives.len());
    stage.finish();
}

#[test]
fn the_next_client_finds_a_new_connection_after_a_move_to_tls() {
    raise_descriptor_limit();
    let mut lives = lives(3, 3, false);
    // When the server closes a connection, those that were made before it are not kept, so clients that QUIT come last.
    lives.sort_by_key(|life| life.says("QUIT"));
    let (mut kept, mut found) = (0, Vec::new());
    for part in lives.chunks(MOVED) {
        let (redis, dual, pontoon) = road();
        let mut stage = Stage::new(redis, pontoon, None);
        stage.keeps_the_last = false;
        let mut clients = moved(&stage.pontoon, &dual, part.len());
        for life in part {
            life.live(clients.pop().unwrap());
            stage.settle_with(clients.len());
            stage.look(life);
            stage.settle_with(clients.len());
        }
        kept += reused(&stage.pontoon);
        found.append(&mut stage.found);
    }
    assert!(
        kept > lives.len() as u64 / 3,
        "{kept} of {} clients got a connection that was kept",
        lives.len()
    );
    assert!(found.is_empty(), "{} findings: {found:#?}", found.len());
}

/// Number of clients that move at once.
const MOVED: usize = 300;

/// `count` clients whose sessions began in plaintext and have moved to TLS.
fn moved(pontoon: &Pontoon, dual: &Dual, count: usize) -> Vec<Wire> {
    let mut clients: Vec<Wire> = (0..count).map(|_| pontoon.client()).collect();
    for client in &mut clients {
        client.expect(&["PING"], "+PONG\r\n");
        // Within a command a session does not move. Connections that were made before TLS was seen are not kept.
        client.send(b"*2\r\n$4\r\nECHO\r\n");
    }
    dual.set(Mood::Accept, Mood::Accept);
    eventually("TLS is seen", || pontoon.metric("pontoon_transit_encryption", "mode=\"tls\"") == 1);
    for client in &mut clients {
        client.send(b"$1\r\nx\r\n");
        client.expect_next("$1\r\nx\r\n");
    }
    let all = count as u64;
    eventually("all sessions move", || pontoon.metric("pontoon_sessions_upgraded_total", "") == all);
    clients
}

#[test]
fn the_next_client_finds_a_new_connection_with_route_credentials() {
    const PASSWORD: &str = "secret";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    fs::write(&file, PASSWORD).unwrap();
    let args = [&DEDICATED[..], &["--auth-password-file", file.to_str().unwrap()]].concat();
    let (redis, pontoon) = super::bridge_to(&["--requirepass", PASSWORD], &args);
    let mut stage = Stage::new(redis, pontoon, Some(PASSWORD));
    let lives = lives(4, 3, false);
    stage.play(&lives);
    expect_reuse(&stage.pontoon, lives.len());
    stage.finish();
}

fn shared(offset: usize, pinned: bool) {
    let (redis, pontoon) = super::bridge(&SHARED);
    let mut stage = Stage::new(redis, pontoon, None);
    stage.shared = true;
    stage.play(&lives(offset, 3, pinned));
    stage.finish();
}

#[test]
fn the_next_client_finds_a_new_connection_in_shared_mode() {
    shared(5, false);
}

#[test]
fn the_next_client_finds_a_new_connection_after_a_pinned_client() {
    shared(6, true);
}
