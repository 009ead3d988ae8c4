//! All sessions of all routes: live ones, and totals of ended ones.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::history::{ClientHistory, MAX_REMEMBERED_CLIENTS, PastClients};
use super::process::{self, Process};
use super::report::{InventoryReport, SessionReport, libraries};
use super::session::{Lookup, Peer, SessionRecord};
use super::totals::Totals;
use crate::moment::Moment;

/// Shortest time between two searches of `/proc`.
const LOOKUP_PAUSE: Duration = Duration::from_millis(500);

/// A search of `/proc` takes at most one part in this many of the time.
const LOOKUP_SHARE: u32 = 50;

/// All sessions of all routes.
#[derive(Default)]
pub struct Inventory {
    numbers: AtomicU64,
    live: Mutex<BTreeMap<u64, Arc<SessionRecord>>>,
    /// A session was entered.
    entered: Notify,
    past: Mutex<PastSessions>,
    /// When `/proc` may be searched again; `None` for immediately.
    next_lookup: Mutex<Option<Instant>>,
}

/// Totals of ended sessions.
#[derive(Default)]
struct PastSessions {
    memory: PastClients,
    routes: HashMap<Arc<str>, Totals>,
    /// Since when each route is watched, in this run or an earlier one.
    watched: HashMap<Arc<str>, Moment>,
    /// When the inventory was created, in this run or an earlier one.
    since: Moment,
}

impl Inventory {
    /// Creates an empty inventory.
    pub fn new() -> Arc<Self> {
        let inventory = Self::default();
        inventory.past.lock().since = Moment::now();
        Arc::new(inventory)
    }

    /// Returns when the inventory was created, in this run or an earlier one.
    pub fn since(&self) -> Moment {
        self.past.lock().since
    }

    /// Starts to watch a route, if it is not watched already.
    pub fn watch(&self, route: &Arc<str>) {
        let now = Moment::now();
        self.past.lock().watched.entry(Arc::clone(route)).or_insert(now);
    }

    /// Returns since when a route is watched, in this run or an earlier one.
    pub fn watched_since(&self, route: &str) -> Moment {
        self.past.lock().watched.get(route).copied().unwrap_or(Moment::now())
    }

    /// Renames routes, all at once: from the first name of each pair to the second. Their clients stay the same.
    pub fn rename(&self, names: &HashMap<Arc<str>, Arc<str>>) {
        let new = |route: &Arc<str>| Arc::clone(names.get(route).unwrap_or(route));
        let mut past = self.past.lock();
        for (route, totals) in std::mem::take(&mut past.routes) {
            past.routes.entry(new(&route)).or_default().merge(&totals);
        }
        for (route, since) in std::mem::take(&mut past.watched) {
            let known = past.watched.entry(new(&route)).or_insert(since);
            *known = since.min(*known);
        }
        past.memory.rename(new);
        // A session that ends meanwhile waits for the lock and then counts for the new name.
        for session in self.live() {
            session.is_on(&new(&session.route()));
        }
    }

    /// Enters a new session.
    pub fn enter(self: &Arc<Self>, route: &Arc<str>, peer: Peer) -> InventoryEntry {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let session = Arc::new(SessionRecord::new(number, Arc::clone(route), peer, Moment::now()));
        self.live.lock().insert(number, Arc::clone(&session));
        self.entered.notify_one();
        InventoryEntry { session, inventory: Arc::clone(self) }
    }

    /// Waits for a new session since the last call.
    pub async fn entered(&self) {
        self.entered.notified().await;
    }

    /// Returns the number of live sessions over all routes.
    pub fn active(&self) -> usize {
        self.live.lock().len()
    }

    /// Returns the number of sessions of this run, including ended ones.
    pub fn so_far(&self) -> u64 {
        self.numbers.load(Ordering::Relaxed)
    }

    /// Returns the totals of a route.
    pub fn totals(&self, route: &str) -> Totals {
        let mut totals = self.past.lock().routes.get(route).copied().unwrap_or_default();
        let now = Moment::now();
        for session in self.live().iter().filter(|session| &*session.route() == route) {
            totals.add(session, true, now);
        }
        totals
    }

    /// Returns the number of live sessions of a route at each endpoint.
    pub fn sessions_by_endpoint(&self, route: &str) -> HashMap<String, u64> {
        let mut sessions = HashMap::new();
        for session in self.live().iter().filter(|session| &*session.route() == route) {
            if let Some(upstream) = &session.facts.lock().upstream {
                *sessions.entry(upstream.endpoint.to_string()).or_default() += 1;
            }
        }
        sessions
    }

    /// Returns when pontoon next authenticates again for a session of a route; `None` for never.
    pub fn next_reauthentication(&self, route: &str) -> Option<Moment> {
        let live = self.live();
        live.iter()
            .filter(|session| &*session.route() == route)
            .filter_map(|session| session.next_reauthentication())
            .min()
    }

    /// Returns a report of at most `limit` sessions and `limit` clients.
    pub fn report(&self, limit: usize) -> InventoryReport {
        let now = Moment::now();
        let live = self.live();
        let memory = self.past.lock().memory.clone().with_live(&live).merged();
        let clients_total = memory.len();
        let (clients, forgotten) = memory.into_clients(limit);
        InventoryReport {
            sessions: live.iter().take(limit).map(|session| SessionReport::of(session, now)).collect(),
            sessions_total: live.len(),
            libraries: libraries(&clients),
            clients,
            clients_total,
            clients_forgotten: forgotten,
        }
    }

    /// Returns all clients, including those with live sessions, for the state file.
    pub fn history(&self) -> ClientHistory {
        let live = self.live();
        let now = Moment::now();
        let (memory, mut routes, since, watched) = {
            let past = self.past.lock();
            (past.memory.clone(), past.routes.clone(), past.since, past.watched.clone())
        };
        for session in &live {
            routes.entry(session.route()).or_default().add(session, true, now);
        }
        let last = |(route, totals): (Arc<str>, Totals)| Some(((*route).into(), totals.plaintext.last?));
        let used = |(route, totals): (&Arc<str>, &Totals)| Some(((**route).into(), totals.last_used?));
        let last_used = routes.iter().filter_map(used).collect();
        let last_in_plaintext = routes.into_iter().filter_map(last).collect();
        let (clients, forgotten) = memory.with_live(&live).merged().into_clients(MAX_REMEMBERED_CLIENTS);
        let watched_since = watched.iter().map(|(route, at)| ((**route).into(), *at)).collect();
        ClientHistory { since, watched_since, clients, forgotten, last_in_plaintext, last_used }
    }

    /// Adds what an earlier run saw.
    pub fn restore(&self, history: ClientHistory) {
        let mut past = self.past.lock();
        past.since = past.since.min(history.since);
        past.memory.restore(history.clients, history.forgotten);
        let mut watched = history.watched_since;
        // An older file has one time for all routes that it names.
        for route in history.last_in_plaintext.keys().chain(history.last_used.keys()) {
            watched.entry(route.clone()).or_insert(history.since);
        }
        for (route, at) in watched {
            let since = past.watched.entry(route.into()).or_insert(at);
            *since = at.min(*since);
        }
        for (route, at) in history.last_in_plaintext {
            let last = &mut past.routes.entry(route.into()).or_default().plaintext.last;
            *last = (*last).max(Some(at));
        }
        for (route, at) in history.last_used {
            let last = &mut past.routes.entry(route.into()).or_default().last_used;
            *last = (*last).max(Some(at));
        }
    }

    /// Finds the processes of sessions for which they are not known yet. Reads `/proc`, which blocks. If that was done a moment ago, does
    /// nothing, and returns when to call it again.
    pub fn look_up(&self) -> Option<Instant> {
        // Held until the end, so that two calls do not do the same work.
        let mut next = self.next_lookup.lock();
        let began = Instant::now();
        if next.is_some_and(|next| began < next) {
            return *next;
        }
        let unknown: Vec<(Arc<SessionRecord>, Lookup)> = self
            .live()
            .into_iter()
            .filter_map(|session| session.unknown_process().map(|lookup| (session, lookup)))
            .collect();
        if unknown.is_empty() {
            return None;
        }
        let ends: Vec<_> = unknown
            .iter()
            .filter_map(|(_, lookup)| if let Lookup::Ends(ends) = lookup { Some(*ends) } else { None })
            .collect();
        let found = if ends.is_empty() { HashMap::new() } else { process::find(&ends) };
        let mut by_pid: HashMap<u32, Arc<Process>> = HashMap::new();
        for (session, lookup) in unknown {
            let process = match lookup {
                Lookup::Pid(pid, uid) => {
                    Arc::clone(by_pid.entry(pid).or_insert_with(|| Arc::new(Process::of(pid, uid))))
                }
                // Store an empty process, so that the search is not repeated.
                Lookup::Ends(ends) => found.get(&ends).cloned().unwrap_or_default(),
            };
            session.facts.lock().process = Some(process);
        }
        *next = Some(Instant::now() + LOOKUP_PAUSE.max(began.elapsed() * LOOKUP_SHARE));
        None
    }

    fn live(&self) -> Vec<Arc<SessionRecord>> {
        self.live.lock().values().cloned().collect()
    }
}

/// A session's entry in the inventory. Dropping it ends the session.
pub struct InventoryEntry {
    session: Arc<SessionRecord>,
    inventory: Arc<Inventory>,
}

impl InventoryEntry {
    /// Returns the session's record, for other tasks of its thread that send to its client.
    pub fn record(&self) -> Arc<SessionRecord> {
        Arc::clone(&self.session)
    }
}

impl Deref for InventoryEntry {
    type Target = SessionRecord;

    fn deref(&self) -> &SessionRecord {
        &self.session
    }
}

impl Drop for InventoryEntry {
    fn drop(&mut self) {
        let now = Moment::now();
        let mut past = self.inventory.past.lock();
        self.inventory.live.lock().remove(&self.session.number);
        past.memory.ended(&self.session, now);
        past.routes.entry(self.session.route()).or_default().add(&self.session, false, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer::Unix { pid: Some(std::process::id()), uid: Some(0) }
    }

    #[test]
    fn a_session_is_live_until_dropped_and_remembered_afterwards() {
        let inventory = Inventory::new();
        let route: Arc<str> = "r".into();
        let first = inventory.enter(&route, peer());
        let second = inventory.enter(&route, Peer::Unix { pid: Some(std::process::id()), uid: Some(1) });
        first.uses_library(b"redis-py");
        first.sent(10, 2);
        let report = inventory.report(1);
        assert_eq!((report.sessions.len(), report.sessions_total), (1, 2));
        assert_eq!((report.clients.len(), report.clients_total), (1, 2));
        drop((first, second));
        let report = inventory.report(10);
        assert_eq!((report.sessions_total, report.clients_total), (0, 2));
        assert_eq!(report.libraries.len(), 1);
        let totals = inventory.totals("r");
        assert_eq!((totals.active, totals.sessions, totals.counts.commands), (0, 2, 2));
        assert_eq!(inventory.totals("other"), Totals::default());
    }

    #[test]
    fn a_restored_file_and_live_sessions_form_one_history() {
        let (before, after) = (Inventory::new(), Inventory::new());
        let route: Arc<str> = "r".into();
        let live = before.enter(&route, peer());
        after.restore(before.history());
        drop(live);
        let _again = after.enter(&route, peer());
        let history = after.history();
        assert_eq!(
            (history.clients.len(), history.clients[0].sessions, history.clients[0].active),
            (1, 2, 1)
        );
    }

    #[test]
    fn a_renamed_route_keeps_the_time_since_when_it_is_watched() {
        let inventory = Inventory::new();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let restored = |at: u64, route: &str| ClientHistory {
            watched_since: [(route.into(), Moment::at(at))].into(),
            since: Moment::at(at),
            ..ClientHistory::default()
        };
        inventory.restore(restored(10, "a"));
        inventory.watch(&a);
        inventory.watch(&b);
        assert_eq!(inventory.watched_since("a"), Moment::at(10));
        assert!(inventory.watched_since("b") > Moment::at(10), "it is new");
        let over = inventory.enter(&a, peer());
        drop(over);
        let (live, other) = (inventory.enter(&a, peer()), inventory.enter(&b, peer()));
        // The routes swap their names.
        inventory.rename(&[(Arc::clone(&a), Arc::clone(&b)), (Arc::clone(&b), Arc::clone(&a))].into());
        assert_eq!(inventory.watched_since("b"), Moment::at(10));
        let totals = |route| (inventory.totals(route).active, inventory.totals(route).sessions);
        assert_eq!((totals("a"), totals("b")), ((1, 1), (1, 2)));
        drop((live, other));
        assert_eq!((totals("a"), totals("b")), ((0, 1), (0, 2)));
        assert!(
            inventory.report(10).clients.iter().any(|client| &*client.route == "b" && client.sessions == 2)
        );
        // An older file has one time for all routes.
        let last_used = [("old".into(), Moment::at(30))].into();
        inventory.restore(ClientHistory { since: Moment::at(20), last_used, ..ClientHistory::default() });
        assert_eq!(inventory.watched_since("old"), Moment::at(20));
    }

    #[test]
    fn a_process_is_looked_up_on_request_but_not_repeatedly() {
        let inventory = Inventory::new();
        let route: Arc<str> = "r".into();
        let first = inventory.enter(&route, peer());
        let name = |session: &SessionRecord| session.who().process;
        assert_eq!(name(&first), None);
        assert_eq!(inventory.look_up(), None);
        assert!(name(&first).is_some());
        let second = inventory.enter(&route, peer());
        assert!(inventory.look_up().is_some(), "a moment ago");
        assert_eq!(name(&second), None);
    }
}
