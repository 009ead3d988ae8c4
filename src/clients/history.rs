//! Clients over all their sessions: added up, limited in number, and stored in the state file.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::session::{Library, SessionRecord};
use super::stay::{StayReason, StayState};
use super::text::clean;
use crate::moment::Moment;

/// Maximum number of clients that are remembered.
pub const MAX_REMEMBERED_CLIENTS: usize = 1000;

/// What identifies a client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Who {
    pub(super) route: Arc<str>,
    pub(super) process: Option<Box<str>>,
    pub(super) uid: Option<u32>,
    pub(super) container: Option<Box<str>>,
    pub(super) library: Option<Library>,
    pub(super) client_name: Option<Box<str>>,
    pub(super) own_tls: bool,
}

#[derive(Debug, Clone)]
pub(super) struct ClientActivity {
    first: Moment,
    last: Moment,
    sessions: u64,
    active: u64,
    commands: u64,
    /// Number of active sessions that are in plaintext or pinned, by reason.
    stays: BTreeMap<(StayState, String), u64>,
}

/// A client over all its sessions, for `/clients`, `pontoon status`, the page and the state file. Fields that older state files lack have a
/// default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRecord {
    /// The client's route.
    pub route: Box<str>,
    /// The name of its command; `None` if it is not known.
    pub process: Option<Box<str>>,
    /// The user that its process runs as.
    pub uid: Option<u32>,
    /// The ID of its container.
    pub container: Option<Box<str>>,
    /// Its library; `None` if it is not known.
    pub library: Option<Library>,
    /// The name that it gives its connections.
    pub client_name: Option<Box<str>>,
    /// Whether it uses TLS of its own, which is passed through.
    pub own_tls: bool,
    /// When its first session started.
    pub first_seen: Moment,
    /// When its last session ended; if one is active, when bytes last passed.
    pub last_seen: Moment,
    /// Number of its sessions, including active ones.
    pub sessions: u64,
    /// Number of active sessions.
    #[serde(default)]
    pub active: u64,
    /// Number of commands over all sessions.
    pub commands: u64,
    /// Why active sessions are in plaintext or pinned to a dedicated connection, and how many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stays: Vec<StayReason>,
}

/// All remembered clients, as stored in the state file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientHistory {
    /// When the history starts.
    pub since: Moment,
    /// Since when each route is watched.
    #[serde(default)]
    pub watched_since: BTreeMap<Box<str>, Moment>,
    /// The clients, latest seen first.
    pub clients: Vec<ClientRecord>,
    /// Number of clients that were forgotten because there was no room for more.
    pub forgotten: u64,
    /// For each route: when the last session in plaintext ended or, if one was active, when this was written.
    pub last_in_plaintext: BTreeMap<Box<str>, Moment>,
    /// For each route: when a client last used it, including forgotten clients.
    #[serde(default)]
    pub last_used: BTreeMap<Box<str>, Moment>,
}

/// Clients of ended sessions.
#[derive(Debug, Clone, Default)]
pub(super) struct PastClients {
    clients: HashMap<Who, ClientActivity>,
    forgotten: u64,
}

impl PastClients {
    /// Adds a session that ended.
    pub(super) fn ended(&mut self, session: &SessionRecord, now: Moment) {
        let over =
            ClientActivity { last: now, active: 0, stays: BTreeMap::new(), ..ClientActivity::of(session) };
        self.add(session.who(), over);
        self.shrink();
    }

    /// Adds live sessions, beyond the maximum if necessary.
    pub(super) fn with_live(mut self, live: &[Arc<SessionRecord>]) -> Self {
        for session in live {
            self.add(session.who(), ClientActivity::of(session));
        }
        self
    }

    /// Adds the clients that an earlier run remembered.
    pub(super) fn restore(&mut self, clients: Vec<ClientRecord>, forgotten: u64) {
        self.forgotten = self.forgotten.saturating_add(forgotten);
        for client in clients {
            let (who, seen) = client.into_parts();
            self.add(who, seen);
        }
        self.shrink();
    }

    /// Adds a client of which less is known to the only other client that it can be. Sessions that end before they name their library cause
    /// such entries.
    pub(super) fn merged(mut self) -> Self {
        let known: Vec<Who> = self.clients.keys().cloned().collect();
        // A client with a name can only match clients of that name. This avoids comparing thousands of clients.
        let mut by_name: HashMap<&str, Vec<&Who>> = HashMap::new();
        for who in &known {
            by_name.entry(who.client_name.as_deref().unwrap_or_default()).or_default().push(who);
        }
        let all: Vec<&Who> = known.iter().collect();
        for vague in &known {
            let candidates = vague.client_name.as_deref().and_then(|name| by_name.get(name)).unwrap_or(&all);
            let mut same = candidates.iter().copied().filter(|other| other.says_more_than(vague));
            let mut whose = same.next();
            for other in same {
                match whose {
                    Some(before) if other.says_more_than(before) => whose = Some(other),
                    Some(before) if before.says_more_than(other) => {}
                    // The sessions may belong to either client.
                    _ => {
                        whose = None;
                        break;
                    }
                }
            }
            if let Some(whose) = whose.cloned()
                && let Some(seen) = self.clients.remove(vague)
            {
                self.add(whose, seen);
            }
        }
        self
    }

    /// Returns at most `most` clients, latest seen first, and how many were forgotten.
    pub(super) fn into_clients(self, most: usize) -> (Vec<ClientRecord>, u64) {
        let mut clients: Vec<ClientRecord> =
            self.clients.into_iter().map(|(who, seen)| ClientRecord::new(who, seen)).collect();
        // Compare all names, so that the order of otherwise equal clients is stable.
        clients.sort_by(|a, b| {
            let key = |client: &ClientRecord| (client.active > 0, client.last_seen, client.sessions);
            key(b).cmp(&key(a)).then_with(|| names(a).cmp(&names(b)))
        });
        clients.truncate(most);
        (clients, self.forgotten)
    }

    /// Renames the clients' routes.
    pub(super) fn rename(&mut self, new: impl Fn(&Arc<str>) -> Arc<str>) {
        for (who, seen) in std::mem::take(&mut self.clients) {
            self.add(Who { route: new(&who.route), ..who }, seen);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    fn add(&mut self, who: Who, seen: ClientActivity) {
        match self.clients.entry(who) {
            Entry::Occupied(known) => known.into_mut().add(seen),
            Entry::Vacant(new) => {
                new.insert(seen);
            }
        }
    }

    /// Forgets the clients that were seen longest ago.
    fn shrink(&mut self) {
        while self.clients.len() > MAX_REMEMBERED_CLIENTS {
            let oldest = self.clients.iter().min_by_key(|(_, seen)| seen.last).map(|(who, _)| who.clone());
            let Some(oldest) = oldest else { break };
            self.clients.remove(&oldest);
            self.forgotten = self.forgotten.saturating_add(1);
        }
    }
}

impl Who {
    /// Whether this contains all that `other` does, and more.
    fn says_more_than(&self, other: &Self) -> bool {
        fn agrees<T: PartialEq>(own: Option<&T>, other: Option<&T>) -> bool {
            other.is_none() || own == other
        }
        let library = match (&self.library, &other.library) {
            (_, None) => true,
            (Some(own), Some(other)) => {
                own.name == other.name
                    && agrees(own.version.as_ref(), other.version.as_ref())
                    && (other.guessed || !own.guessed)
            }
            (None, Some(_)) => false,
        };
        self != other
            && self.route == other.route
            && self.own_tls == other.own_tls
            && library
            && agrees(self.process.as_ref(), other.process.as_ref())
            && agrees(self.uid.as_ref(), other.uid.as_ref())
            && agrees(self.container.as_ref(), other.container.as_ref())
            && agrees(self.client_name.as_ref(), other.client_name.as_ref())
    }
}

impl ClientActivity {
    fn of(session: &SessionRecord) -> Self {
        let commands = session.counts().commands;
        let stays = session.stay().map(|stay| (stay, 1)).into_iter().collect();
        Self { first: session.since, last: session.last(), sessions: 1, active: 1, commands, stays }
    }

    fn add(&mut self, other: Self) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        // Do not overflow, because a file may contain any number.
        self.sessions = self.sessions.saturating_add(other.sessions);
        self.active += other.active;
        self.commands = self.commands.saturating_add(other.commands);
        for (stay, sessions) in other.stays {
            *self.stays.entry(stay).or_default() += sessions;
        }
    }
}

/// The key that orders otherwise equal clients.
fn names(client: &ClientRecord) -> impl Ord + '_ {
    let library = client.library.as_ref().map(|library| (&library.name, &library.version, library.guessed));
    let ClientRecord { route, process, uid, container, client_name, own_tls, .. } = client;
    (route, process, uid, container, library, client_name, own_tls)
}

impl ClientRecord {
    fn new(who: Who, seen: ClientActivity) -> Self {
        Self {
            route: who.route.as_ref().into(),
            process: who.process,
            uid: who.uid,
            container: who.container,
            library: who.library,
            client_name: who.client_name,
            own_tls: who.own_tls,
            first_seen: seen.first,
            last_seen: seen.last,
            sessions: seen.sessions,
            active: seen.active,
            commands: seen.commands,
            stays: seen
                .stays
                .into_iter()
                .map(|((state, why), sessions)| StayReason { state, sessions, why })
                .collect(),
        }
    }

    /// Cleans the names, because the file may have been edited, and marks every client as not active.
    fn into_parts(self) -> (Who, ClientActivity) {
        let text = |text: Option<Box<str>>| text.and_then(|text| clean(text.as_bytes()));
        let library = self.library.and_then(|library| {
            let name = text(Some(library.name))?;
            Some(Library { name, version: text(library.version), guessed: library.guessed })
        });
        let who = Who {
            route: self.route.into(),
            process: text(self.process),
            uid: self.uid,
            container: text(self.container),
            library,
            client_name: text(self.client_name),
            own_tls: self.own_tls,
        };
        let seen = ClientActivity {
            first: self.first_seen,
            last: self.last_seen,
            sessions: self.sessions,
            active: 0,
            commands: self.commands,
            stays: BTreeMap::new(),
        };
        (who, seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::session::Peer;

    fn session(number: u64, name: &str, since: u64) -> SessionRecord {
        let peer = Peer::Unix { pid: None, uid: Some(33) };
        let session = SessionRecord::new(number, "r".into(), peer, Moment::at(since));
        session.named(name.as_bytes());
        session
    }

    #[test]
    fn sessions_of_one_client_add_up() {
        let mut memory = PastClients::default();
        for (number, since, end) in [(1, 10, 20), (2, 5, 12), (3, 30, 31)] {
            let session = session(number, "app", since);
            Moment::set(since);
            session.sent(10, 2);
            memory.ended(&session, Moment::at(end));
        }
        let live = session(4, "app", 40);
        Moment::set(50);
        live.sent(10, 1);
        let live = [live, session(5, "other", 1)].map(Arc::new);
        let (clients, _) = memory.with_live(&live).into_clients(10);
        assert_eq!(clients.len(), 2);
        let app = &clients[0];
        assert_eq!(app.client_name.as_deref(), Some("app"));
        assert_eq!((app.first_seen, app.last_seen), (Moment::at(5), Moment::at(50)));
        assert_eq!((app.sessions, app.active, app.commands), (4, 1, 7));
    }

    #[test]
    fn sessions_without_identity_are_added_to_the_only_matching_client() {
        let mut memory = PastClients::default();
        let mut saw = |uid, name: Option<&str>, library: Option<&'static str>| {
            let session =
                SessionRecord::new(1, "r".into(), Peer::Unix { pid: None, uid: Some(uid) }, Moment::at(1));
            if let Some(name) = name {
                session.named(name.as_bytes());
            }
            if let Some(library) = library {
                session.looks_like(library);
            }
            memory.ended(&session, Moment::at(2));
        };
        // During an outage, sessions end before the client says more.
        saw(33, None, None);
        saw(33, Some("shop"), None);
        saw(33, Some("shop"), Some("redis-cli"));
        // The third client may be either of the others.
        saw(44, Some("a"), None);
        saw(44, Some("b"), None);
        saw(44, None, None);
        let (clients, _) = memory.merged().into_clients(10);
        let mut rows: Vec<_> = clients
            .iter()
            .map(|client| (client.uid, client.client_name.as_deref().unwrap_or("?"), client.sessions))
            .collect();
        rows.sort_unstable();
        assert_eq!(rows, [(Some(33), "shop", 3), (Some(44), "?", 1), (Some(44), "a", 1), (Some(44), "b", 1)]);
    }

    #[test]
    fn the_client_seen_longest_ago_is_forgotten_and_counted() {
        let mut memory = PastClients::default();
        for n in 0..MAX_REMEMBERED_CLIENTS as u64 + 10 {
            memory.ended(&session(n, &format!("c{n}"), n), Moment::at(n));
        }
        let (clients, forgotten) = memory.into_clients(usize::MAX);
        assert_eq!((clients.len(), forgotten), (MAX_REMEMBERED_CLIENTS, 10));
        assert!(clients.iter().all(|client| client.last_seen >= Moment::at(10)));
    }

    #[test]
    fn a_history_continues_after_a_restart() {
        let mut memory = PastClients::default();
        let first = session(1, "app", 10);
        first.looks_like("redis-cli");
        memory.ended(&first, Moment::at(20));
        let saved = serde_json::to_string(&memory.clone().into_clients(MAX_REMEMBERED_CLIENTS)).unwrap();
        let mut next = PastClients::default();
        let (clients, forgotten) = serde_json::from_str(&saved).unwrap();
        next.restore(clients, forgotten);
        let again = session(1, "app", 100);
        again.looks_like("redis-cli");
        next.ended(&again, Moment::at(110));
        let (clients, _) = next.into_clients(MAX_REMEMBERED_CLIENTS);
        assert_eq!(clients.len(), 1);
        let app = &clients[0];
        assert_eq!((app.first_seen, app.last_seen, app.sessions), (Moment::at(10), Moment::at(110), 2));
    }

    #[test]
    fn a_damaged_or_foreign_file_is_an_error_and_a_forged_one_is_harmless() {
        for text in ["", "{", "[]", "{}", "null", "{\"clients\":[{}],\"forgotten\":0}", "{\"version\":1}"] {
            assert!(serde_json::from_str::<ClientHistory>(text).is_err(), "{text}");
        }
        let forged = r#"{"since":"2030-01-01T00:00:00Z","last_in_plaintext":{},"forgotten":18446744073709551615,"clients":[{"route":"r","process":"a\u001b[2J","uid":null,
            "container":null,"library":{"name":"\u0007","version":null,"guessed":true},"client_name":null,"own_tls":false,
            "first_seen":"2030-01-01T00:00:00Z","last_seen":"1999-01-01T00:00:00Z","sessions":18446744073709551615,
            "active":9,"commands":18446744073709551615}]}"#;
        let mut memory = PastClients::default();
        for _ in 0..2 {
            let ClientHistory { clients, forgotten, .. } = serde_json::from_str(forged).unwrap();
            memory.restore(clients, forgotten);
        }
        let (clients, forgotten) = memory.into_clients(10);
        assert_eq!(forgotten, u64::MAX);
        let client = &clients[0];
        assert_eq!(client.process.as_deref(), Some("a?[2J"));
        assert_eq!((client.active, client.sessions), (0, u64::MAX));
    }
}
