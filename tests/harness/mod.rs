//! What the tests are made of: a `redis-server` with TLS, a certificate authority, a cluster, pontoon, a wire to talk over, servers that
//! misbehave.

mod authority;
mod client_program;
mod cluster;
mod counting;
mod dual;
mod engine;
mod explained;
mod fake;
mod forwarder;
mod front;
mod hosts;
pub mod http;
mod limit;
mod link;
mod load;
mod node;
mod pontoon;
pub mod programs;
mod recording;
mod redis;
mod revealed;
mod sentinel;
mod sentinel_member;
mod sockets;
mod stop;
mod wire;

use std::io;
use std::time::{Duration, Instant};

pub use authority::{Authority, Identity};
pub use client_program::ClientProgram;
pub use cluster::{Cluster, SLOTS, own_slots};
pub use counting::{CountingNode, Transit};
pub use dual::{Dual, Mood};
pub use engine::Engine;
pub use explained::{assert_start_explained, is_pontoons_error};
pub use fake::{Fake, Tls};
pub use forwarder::Forwarder;
pub use hosts::Hosts;
pub use link::Link;
pub use load::{Failure, Load};
pub use node::Node;
pub use pontoon::{
    CHECK, Pontoon, clients_share, pontoon, pontoon_activated, pontoon_command, pontoon_with_hosts,
    with_hosts,
};
pub use recording::{Page, Recording};
pub use redis::{Redis, free_port, valkey};
pub use revealed::assert_reveals_no_address;
pub use sentinel::{MASTER_NAME, SentinelGroup, SentinelSettings};
pub use sentinel_member::{Entrance, MemberSettings, SentinelMember};
pub use sockets::connected_to;
pub use stop::StopOnDrop;
pub use wire::{Wire, command};

/// What takes longer than this on loopback is taken never to happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds.
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    within(PATIENCE, what, condition);
}

/// As [`eventually`], within `bound`.
#[track_caller]
pub fn within(bound: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + bound;
    while !condition() {
        assert!(Instant::now() < deadline, "did not happen within {bound:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Repeats a call that was interrupted. A process that is stopped and resumed, as when its machine is saved, interrupts calls on sockets
/// that have a time limit: `signal(7)`, "Interruption of system calls and library functions by stop signals".
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            ended => return ended,
        }
    }
}

/// A Redis and a bridge to it.
pub fn bridge() -> (Redis, Pontoon) {
    let authority = Authority::new();
    let mut redis = Redis::start(&authority);
    let pontoon = Pontoon::to(&redis.endpoint(), &authority);
    redis.keep(authority);
    (redis, pontoon)
}

/// A script that keeps the server busy for this long, and returns 1. It uses the processor's clock, because since Redis 7.2 TIME stands
/// still while a script runs. Before 7.0 TIME is the only clock.
pub fn busy_script(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    format!(
        "local os = rawget(_G, 'os') local function now() if os then return os.clock() end \
         local time = redis.call('TIME') return time[1] + time[2] / 1000000 end \
         local start = now() repeat until now() - start > {seconds} return 1"
    )
}

/// Asserts that a command which the engine lacks gets the server's own error through the bridge.
#[track_caller]
pub fn expect_unknown(direct: &mut Wire, client: &mut Wire, words: &[&str]) {
    let error = String::from_utf8(direct.ask(words)).unwrap();
    assert!(error.to_lowercase().starts_with("-err unknown "), "{error}");
    client.expect(words, &error);
}

/// Raises the descriptor limit for tests with thousands of clients, each of which takes two descriptors.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}
