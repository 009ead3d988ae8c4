//! No client can find out, by any command, that another client had its connection before it, or shares it now.

mod certificates;
pub mod commands;
mod differential;
mod ids;
mod passwords;
mod pinned;
mod remembered;
mod unknown;
mod upgrade;
pub mod view;

use crate::harness::{Authority, Dual, Mood, Pontoon, Redis, Wire, eventually};
use view::{database_of, settle};

/// Number of connections that wait for a client.
fn idle(pontoon: &Pontoon) -> u64 {
    pontoon.metric("pontoon_upstream_connections", "state=\"idle\"")
}

/// Number of clients so far that got a connection which had served another one.
fn reused(pontoon: &Pontoon) -> u64 {
    pontoon.metric("pontoon_upstream_leases_total", "origin=\"reused\"")
}

/// A Redis, and a bridge with one thread: a connection that is kept goes to the next client.
fn bridge(args: &[&str]) -> (Redis, Pontoon) {
    bridge_to(&[], args)
}

/// As [`bridge`], with options for the server.
fn bridge_to(options: &[&str], args: &[&str]) -> (Redis, Pontoon) {
    let authority = Authority::new();
    let mut redis = Redis::with(authority.issue(&["localhost"]), &authority, options);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &[&ONE_THREAD[..], args].concat()).ready();
    redis.keep(authority);
    (redis, pontoon)
}

/// Connections are reused, and shared only if a later argument says so.
const ONE_THREAD: [&str; 4] = ["--workers", "1", "--pool-reuse", "true"];

/// Each client has its own connection while it is connected.
const DEDICATED: [&str; 2] = ["--sharing", "dedicated"];

/// Clients share a connection.
const SHARED: [&str; 2] = ["--sharing", "shared"];

/// A server that accepts plaintext, and TLS once `dual` is set to it; and a bridge that then moves sessions to TLS.
fn road() -> (Redis, Dual, Pontoon) {
    let authority = Authority::new();
    let mut redis = Redis::start(&authority);
    let dual = Dual::new(&redis, Mood::Accept, Mood::Close);
    let drain = ["--tls-mode", "preferred", "--tls-upgrade", "drain"];
    let args = [&ONE_THREAD[..], &DEDICATED, &drain].concat();
    let pontoon = Pontoon::with(&dual.endpoint(), &authority, &args);
    pontoon.allows("traffic is in plaintext until an endpoint accepts TLS");
    pontoon.allows("transit encryption observed: plaintext only");
    redis.keep(authority);
    (redis, dual, pontoon)
}

/// Lets the server accept TLS, and waits until the only session, this client's, has moved to it.
fn move_to_tls(client: &mut Wire, dual: &Dual, pontoon: &Pontoon) {
    // Within a command a session does not move. Connections that were made before TLS was seen are not kept.
    client.send(b"*2\r\n$4\r\nECHO\r\n");
    dual.set(Mood::Accept, Mood::Accept);
    eventually("TLS is seen", || pontoon.metric("pontoon_transit_encryption", "mode=\"tls\"") == 1);
    client.send(b"$1\r\nx\r\n");
    client.expect_next("$1\r\nx\r\n");
    eventually("the session moves to TLS", || pontoon.metric("pontoon_sessions_upgraded_total", "") == 1);
}
