//! The record of one live session. The session's own task writes it; reports read it.
//!
//! Counters are plain atomics with a single writer, and the time comes from the inventory, so that a request costs only a few stores. Facts
//! that change rarely are behind a lock.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::history::Who;
use super::process::{Ends, Process};
use super::stay::{PlaintextCause, StayState};
use super::text::clean;
use crate::moment::Moment;

/// Where a client connects from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP.
    Tcp {
        /// The client's address.
        client: SocketAddr,
        /// The address that it connected to; `None` if the client is not a process of this machine.
        local: Option<SocketAddr>,
    },
    /// Over a Unix socket, with what the kernel reports about the process.
    Unix {
        /// Its PID; `None` if it is in a process namespace that pontoon cannot see.
        pid: Option<u32>,
        /// The user that it runs as.
        uid: Option<u32>,
    },
}

/// The upstream connection of a session.
pub struct SessionUpstream {
    /// The endpoint as configured.
    pub endpoint: Arc<dyn Display + Send + Sync>,
    /// The address of the server.
    pub address: SocketAddr,
    /// Why it is in plaintext; `None` if it uses TLS.
    pub plaintext: Option<PlaintextCause>,
    /// Whether the TLS is the client's own.
    pub passthrough: bool,
    /// `dialled` for this client, `warm` or `reused`.
    pub origin: &'static str,
}

/// A client's library, as shown to users.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Library {
    /// The library's name.
    pub name: Box<str>,
    /// The library's version; `None` if it is not known.
    pub version: Option<Box<str>>,
    /// Whether it was guessed from the client's commands.
    pub guessed: bool,
}

/// A live session.
pub struct SessionRecord {
    pub(super) number: u64,
    route: Mutex<Arc<str>>,
    pub(super) peer: Peer,
    pub(super) since: Moment,
    last: AtomicU64,
    commands: AtomicU64,
    to_upstream: AtomicU64,
    to_client: AtomicU64,
    pub(super) facts: Mutex<SessionFacts>,
}

/// Facts that are not counted.
#[derive(Default)]
pub(super) struct SessionFacts {
    /// `None` if it was not looked up.
    pub(super) process: Option<Arc<Process>>,
    pub(super) upstream: Option<SessionUpstream>,
    /// The traffic in plaintext, and when the session moved to TLS.
    moved: Option<(TrafficCounts, Moment)>,
    /// When pontoon authenticates again for the session.
    reauthenticates: Option<Moment>,
    /// Why it is pinned to a dedicated connection on a route in shared mode.
    pub(super) pinned: Option<&'static str>,
    /// What binds it to its connection, if that was determined.
    hold: Option<&'static str>,
    pub(super) database: u32,
    pub(super) resp3: bool,
    pub(super) client_name: Option<Box<str>>,
    library: Option<Box<str>>,
    version: Option<Box<str>>,
    guess: Option<(&'static str, Option<Box<str>>)>,
}

impl SessionFacts {
    /// Returns the library that the client named, or else the guessed one.
    pub(super) fn library(&self) -> Option<Library> {
        match (&self.library, &self.guess) {
            (Some(name), _) => {
                Some(Library { name: name.clone(), version: self.version.clone(), guessed: false })
            }
            (None, Some((name, version))) => {
                Some(Library { name: (*name).into(), version: version.clone(), guessed: true })
            }
            (None, None) => None,
        }
    }
}

impl SessionRecord {
    pub(super) fn new(number: u64, route: Arc<str>, peer: Peer, since: Moment) -> Self {
        Self {
            number,
            route: Mutex::new(route),
            peer,
            since,
            last: AtomicU64::new(since.unix()),
            commands: AtomicU64::new(0),
            to_upstream: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            facts: Mutex::default(),
        }
    }

    /// Counts bytes and commands sent upstream.
    #[inline]
    pub fn sent(&self, bytes: usize, commands: u64) {
        add(&self.to_upstream, bytes as u64);
        add(&self.commands, commands);
        self.last.store(Moment::now().unix(), Ordering::Relaxed);
    }

    /// Counts bytes sent to the client.
    #[inline]
    pub fn received(&self, bytes: usize) {
        add(&self.to_client, bytes as u64);
        self.last.store(Moment::now().unix(), Ordering::Relaxed);
    }

    /// Notes an upstream connection, the first or another one.
    pub fn connected(&self, upstream: SessionUpstream) {
        let mut facts = self.facts.lock();
        let was_plaintext = facts.upstream.as_ref().is_some_and(|before| before.plaintext.is_some());
        if upstream.plaintext.is_none() && was_plaintext {
            facts.moved = Some((self.counts(), Moment::now()));
        }
        facts.upstream = Some(upstream);
        facts.hold = None;
    }

    /// Notes when pontoon authenticates again for the session; `None` for never.
    pub fn reauthenticates(&self, at: Option<Moment>) {
        self.facts.lock().reauthenticates = at;
    }

    /// Returns when pontoon authenticates again for the session.
    pub(super) fn next_reauthentication(&self) -> Option<Moment> {
        self.facts.lock().reauthenticates
    }

    /// Notes why the session is pinned to a dedicated connection. `None` means that it shares one, or that the route is in dedicated mode.
    pub fn pinned(&self, reason: Option<&'static str>) {
        self.facts.lock().pinned = reason;
    }

    /// Notes what binds the session to its upstream connection.
    pub fn held_by(&self, hold: &'static str) {
        self.facts.lock().hold = Some(hold);
    }

    /// Returns why the session is in plaintext or pinned.
    pub(super) fn stay(&self) -> Option<(StayState, String)> {
        let facts = self.facts.lock();
        if let Some(cause) = facts.upstream.as_ref()?.plaintext.as_ref() {
            return Some((StayState::Plaintext, cause.words(facts.hold)));
        }
        let pinned = facts.pinned?;
        let why = facts.hold.map_or_else(|| pinned.replace('_', " "), str::to_owned);
        Some((StayState::Pinned, why))
    }

    /// Notes that the client selected another database.
    pub fn selected(&self, database: u32) {
        self.facts.lock().database = database;
    }

    /// Notes the protocol version.
    pub fn speaks(&self, resp3: bool) {
        self.facts.lock().resp3 = resp3;
    }

    /// Notes the name that the client gave its connection. An empty name removes it.
    pub fn named(&self, name: &[u8]) {
        let name = clean(name);
        let mut facts = self.facts.lock();
        if let Some(version) = name.as_deref().and_then(stack_exchange) {
            facts.guess = Some(("SE.Redis", (!version.is_empty()).then(|| version.into())));
        }
        facts.client_name = name;
    }

    /// Notes the library that the client named.
    pub fn uses_library(&self, name: &[u8]) {
        self.facts.lock().library = clean(name);
    }

    /// Notes the library version that the client named.
    pub fn uses_version(&self, version: &[u8]) {
        self.facts.lock().version = clean(version);
    }

    /// Notes the library that the client's commands look like.
    pub fn looks_like(&self, library: &'static str) {
        self.facts.lock().guess = Some((library, None));
    }

    /// Notes that the client sent RESET, which resets database, protocol and name.
    pub fn reset(&self) {
        let mut facts = self.facts.lock();
        facts.database = 0;
        facts.resp3 = false;
        facts.client_name = None;
    }

    /// Returns the current name of the session's route.
    pub(super) fn route(&self) -> Arc<str> {
        Arc::clone(&self.route.lock())
    }

    /// Notes that the route was renamed.
    pub(super) fn is_on(&self, route: &Arc<str>) {
        *self.route.lock() = Arc::clone(route);
    }

    /// Returns the session's number, as in the log.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns the client's process and library, without looking up a process.
    pub fn client(&self) -> (Option<Arc<Process>>, Option<Library>) {
        let facts = self.facts.lock();
        (self.process(&facts), facts.library())
    }

    pub(super) fn last(&self) -> Moment {
        Moment::at(self.last.load(Ordering::Relaxed))
    }

    pub(super) fn counts(&self) -> TrafficCounts {
        TrafficCounts {
            commands: self.commands.load(Ordering::Relaxed),
            bytes_to_upstream: self.to_upstream.load(Ordering::Relaxed),
            bytes_to_client: self.to_client.load(Ordering::Relaxed),
        }
    }

    /// Whether the session has or had an upstream connection.
    pub(super) fn was_connected(&self) -> bool {
        self.facts.lock().upstream.is_some()
    }

    /// Returns the traffic in plaintext, and when the session moved to TLS, if it did; `None` if it was never in plaintext.
    pub(super) fn in_plaintext(&self) -> Option<(TrafficCounts, Option<Moment>)> {
        let facts = self.facts.lock();
        match (&facts.upstream, facts.moved) {
            (_, Some((counts, at))) => Some((counts, Some(at))),
            (Some(upstream), None) if upstream.plaintext.is_some() => Some((self.counts(), None)),
            _ => None,
        }
    }

    /// Returns the process, without looking it up.
    pub(super) fn process(&self, facts: &SessionFacts) -> Option<Arc<Process>> {
        if let Some(process) = &facts.process {
            return Some(Arc::clone(process));
        }
        match self.peer {
            Peer::Unix { pid, uid } => Some(Arc::new(Process { pid, uid, ..Process::default() })),
            Peer::Tcp { .. } => None,
        }
    }

    /// Returns what is needed to look up the process; `None` if that was done, or cannot succeed.
    pub(super) fn unknown_process(&self) -> Option<Lookup> {
        if self.facts.lock().process.is_some() {
            return None;
        }
        match self.peer {
            Peer::Unix { pid: Some(pid), uid } => Some(Lookup::Pid(pid, uid)),
            Peer::Tcp { client, local: Some(local) } => Some(Lookup::Ends((client, local))),
            _ => None,
        }
    }

    /// Returns the client that the session counts for.
    pub(super) fn who(&self) -> Who {
        let facts = self.facts.lock();
        let process = self.process(&facts);
        let process = process.as_deref();
        let library = facts.library();
        Who {
            route: self.route(),
            process: process.and_then(|process| process.name.clone()),
            uid: process.and_then(|process| process.uid),
            container: process.and_then(|process| process.container.clone()),
            library,
            client_name: facts.client_name.clone(),
            own_tls: facts.upstream.as_ref().is_some_and(|upstream| upstream.passthrough),
        }
    }
}

/// How to look up a process.
pub(super) enum Lookup {
    Pid(u32, Option<u32>),
    Ends(Ends),
}

/// The traffic of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TrafficCounts {
    /// Commands sent upstream.
    pub commands: u64,
    /// Bytes sent upstream, before encryption.
    pub bytes_to_upstream: u64,
    /// Bytes sent to the client, before encryption.
    pub bytes_to_client: u64,
}

impl TrafficCounts {
    pub(super) fn add(&mut self, other: Self) {
        self.commands += other.commands;
        self.bytes_to_upstream += other.bytes_to_upstream;
        self.bytes_to_client += other.bytes_to_client;
    }
}

/// Only the session's own task writes, so no atomic read-modify-write is needed.
#[inline]
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

/// Returns the version from the default connection name of StackExchange.Redis: `HOST(SE.Redis-v2.6.122.38350)`. Empty if the name was cut
/// within the version; `None` for any other name.
fn stack_exchange(name: &str) -> Option<&str> {
    let (_, version) = name.split_once("(SE.Redis-v")?;
    Some(version.strip_suffix(')').unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionRecord {
        let peer = Peer::Unix { pid: None, uid: Some(33) };
        SessionRecord::new(1, "r".into(), peer, Moment::at(10))
    }

    fn library(session: &SessionRecord) -> Option<(String, Option<String>, bool)> {
        let library = session.facts.lock().library()?;
        Some((library.name.into(), library.version.map(Into::into), library.guessed))
    }

    #[test]
    fn a_named_library_takes_precedence_over_a_guess() {
        let session = session();
        assert_eq!(library(&session), None);
        session.looks_like("go-redis");
        assert_eq!(library(&session), Some(("go-redis".into(), None, true)));
        session.uses_version(b"9.1");
        assert_eq!(library(&session), Some(("go-redis".into(), None, true)), "a version without a library");
        session.uses_library(b"go-redis(,go1.22)");
        assert_eq!(library(&session), Some(("go-redis(,go1.22)".into(), Some("9.1".into()), false)));
    }

    #[test]
    fn stackexchange_redis_is_recognised_by_its_connection_name() {
        let session = session();
        session.named(b"cart-0(SE.Redis-v2.6.122.38350)");
        assert_eq!(library(&session), Some(("SE.Redis".into(), Some("2.6.122.38350".into()), true)));
        session.named(b"cart-0(SE.Redis-v2.6.1");
        assert_eq!(library(&session), Some(("SE.Redis".into(), None, true)));
    }

    #[test]
    fn reset_forgets_what_the_server_forgets() {
        let session = session();
        session.selected(3);
        session.speaks(true);
        session.named(b"name");
        session.uses_library(b"lib");
        session.reset();
        let facts = session.facts.lock();
        assert_eq!((facts.database, facts.resp3, &facts.client_name), (0, false, &None));
        assert_eq!(facts.library().unwrap().name.as_ref(), "lib");
    }

    #[test]
    fn traffic_is_counted_with_the_time_of_the_last_byte() {
        let session = session();
        assert_eq!(session.last(), Moment::at(10));
        session.sent(100, 2);
        session.sent(1, 1);
        Moment::set(13);
        session.received(7);
        let counts = TrafficCounts { commands: 3, bytes_to_upstream: 101, bytes_to_client: 7 };
        assert_eq!((session.counts(), session.last()), (counts, Moment::at(13)));
    }
}
