//! Ends are passed on: when a client closes, resets or half-closes, the server learns it as it would without a bridge, and no session
//! outlives its client.

mod blocking;
mod differential;
mod drain;
mod fuzzed;
mod gone;
mod half_closed;
mod lost;
mod subscribers;

use std::thread;
use std::time::Duration;

use crate::harness::{Authority, Link, Pontoon, Redis, Wire, within};

/// The time that a session may take to end if its client is gone and its upstream hangs: 6 s, and the rest for a machine that stalls.
const HANGING: Duration = Duration::from_secs(20);

/// The time that a session may take to end if the upstream answers: 1 s, or at once after RST. It is shorter than the time with an
/// upstream that hangs.
const PROMPT: Duration = Duration::from_secs(5);

/// How a client gets its upstream connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Each client has its own connection, which ends with it.
    Dedicated,
    /// The next client gets the connection that an earlier one left.
    Reused,
    /// Clients share one connection.
    Shared,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Dedicated, Self::Reused, Self::Shared];

    fn args(self) -> [&'static str; 4] {
        match self {
            Self::Dedicated => ["--sharing", "dedicated", "--pool-reuse", "false"],
            Self::Reused => ["--sharing", "dedicated", "--pool-reuse", "true"],
            Self::Shared => ["--sharing", "shared", "--pool-reuse", "true"],
        }
    }

    /// A bridge in this mode.
    fn bridge(self, endpoint: &str, authority: &Authority, args: &[&str]) -> Pontoon {
        Pontoon::with(endpoint, authority, &[&self.args()[..], args].concat())
    }

    /// A Redis, and a bridge to it in this mode.
    fn with_redis(self, args: &[&str]) -> (Redis, Pontoon) {
        let authority = Authority::new();
        let mut redis = Redis::start(&authority);
        let pontoon = self.bridge(&redis.endpoint(), &authority, args);
        redis.keep(authority);
        (redis, pontoon)
    }

    /// A Redis, and a bridge that reaches it over a link with this round trip.
    fn with_link(self, round_trip: Duration) -> (Redis, Link, Pontoon) {
        let authority = Authority::new();
        let mut redis = Redis::start(&authority);
        let link = Link::to(redis.tls_port, round_trip);
        let pontoon = self.bridge(&link.endpoint(), &authority, &[]);
        redis.keep(authority);
        (redis, link, pontoon)
    }
}

/// How a client ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Close,
    Reset,
    HalfClose,
}

impl End {
    const ALL: [Self; 3] = [Self::Close, Self::Reset, Self::HalfClose];

    /// Ends the client. A client that half-closed is returned, because it can still read.
    fn of(self, mut client: Wire) -> Option<Wire> {
        match self {
            Self::Close => drop(client),
            Self::Reset => client.reset(),
            Self::HalfClose => {
                client.finish();
                return Some(client);
            }
        }
        None
    }
}

/// Runs a test in all modes at once, and fails with the names of those in which it failed.
#[track_caller]
fn in_each_mode(test: impl Fn(Mode) + Sync) {
    let name = thread::current().name().unwrap_or_default().to_owned();
    let failed: Vec<Mode> = thread::scope(|scope| {
        let test = &test;
        let threads = Mode::ALL.map(|mode| {
            let thread = thread::Builder::new().name(format!("{name} ({mode:?})"));
            (mode, thread.spawn_scoped(scope, move || test(mode)).unwrap())
        });
        threads.into_iter().filter_map(|(mode, thread)| thread.join().is_err().then_some(mode)).collect()
    });
    assert!(failed.is_empty(), "failed in these modes: {failed:?}");
}

/// A number that the server reports in `INFO clients`.
fn clients_info(direct: &mut Wire, field: &str) -> usize {
    let info = String::from_utf8(direct.ask(&["INFO", "clients"])).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.trim_end().parse().unwrap()
}

/// Declares what pontoon logs when it dials an upstream that hangs for seconds: to keep a connection ready, or to see whether the upstream
/// is up.
fn allow_timeouts(pontoon: &Pontoon) {
    pontoon.allows("timed out");
}

fn sessions(pontoon: &Pontoon) -> u64 {
    pontoon.metric("pontoon_sessions_active", "")
}

/// Asserts that all sessions end within `bound`.
#[track_caller]
fn all_sessions_end(pontoon: &Pontoon, bound: Duration) {
    within(bound, "all sessions have ended", || sessions(pontoon) == 0);
}
