//! What a session tells the inventory of its client: what the client's own commands say, once the server has accepted
//! them, and which library it looks like.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::context::RouteContext;
use super::setup::ClientSetup;
use super::user::ClientUser;
use crate::clients::{self, Counter, Guess, InventoryEntry};
use crate::endpoint::Endpoint;
use crate::moment::Moment;
use crate::resp::arguments::ClientInfo;
use crate::resp::scanner::RequestScanner;
use crate::upstream::Connection;

pub(super) struct ClientProfile {
    entry: InventoryEntry,
    guess: Guess,
    /// Kept where the session may be moved.
    setup: Option<Box<ClientSetup>>,
    /// As the inventory has it: no lock is needed to see that it is the same.
    hold: Option<&'static str>,
}

impl ClientProfile {
    pub(super) fn new(entry: InventoryEntry) -> Self {
        Self { entry, guess: Guess::default(), setup: None, hold: None }
    }

    /// What the client sets up from now on is kept: it may have to be set up on another connection.
    pub(super) fn keep_setup(&mut self) {
        self.setup.get_or_insert_default();
    }

    /// The client.
    pub(super) fn entry(&self) -> &InventoryEntry {
        &self.entry
    }

    /// What the client set up.
    pub(super) fn setup(&self) -> Option<&ClientSetup> {
        self.setup.as_deref()
    }

    fn set_up(&mut self, change: impl FnOnce(&mut ClientSetup)) {
        if let Some(setup) = &mut self.setup {
            change(setup);
        }
    }

    /// Its number, as in the log.
    pub(super) fn number(&self) -> u64 {
        self.entry.number()
    }

    /// It has this upstream connection; `passthrough`: for the client's own TLS.
    pub(super) fn connected(&mut self, route: &RouteContext, upstream: &Connection, passthrough: bool) {
        let is_plaintext = !passthrough && upstream.channel.is_none();
        self.hold = None;
        self.entry.connected(clients::SessionUpstream {
            endpoint: upstream.endpoint.clone(),
            address: upstream.peer,
            plaintext: is_plaintext.then(|| route.plaintext_cause(false)),
            passthrough,
            origin: upstream.origin(),
        });
    }

    /// It shares this connection.
    pub(super) fn shares(
        &mut self,
        route: &RouteContext,
        endpoint: &Arc<Endpoint>,
        address: SocketAddr,
        tls: bool,
    ) {
        let endpoint = endpoint.clone();
        self.hold = None;
        self.entry.connected(clients::SessionUpstream {
            endpoint,
            address,
            plaintext: (!tls).then(|| route.plaintext_cause(true)),
            passthrough: false,
            origin: "shared",
        });
    }

    /// This binds it to its connection, which it would leave otherwise.
    #[inline]
    pub(super) fn held_by(&mut self, hold: &'static str) {
        if self.hold != Some(hold) {
            self.hold = Some(hold);
            self.entry.held_by(hold);
        }
    }

    /// Pontoon authenticates again then, if ever.
    pub(super) fn reauthenticates(&self, at: Option<Instant>) {
        let in_seconds = |at: Instant| at.saturating_duration_since(Instant::now()).as_secs();
        self.entry.reauthenticates(at.map(|at| Moment::at(Moment::now().unix() + in_seconds(at))));
    }

    /// Bytes and commands go upstream.
    #[inline]
    pub(super) fn sent(&self, bytes: usize, commands: u64) {
        self.entry.sent(bytes, commands);
    }

    /// Bytes go to the client.
    #[inline]
    pub(super) fn received(&self, bytes: usize) {
        self.entry.received(bytes);
    }

    /// A request is about to be sent. What it says of the client, if that is true only once the server accepts it.
    #[inline]
    pub(super) fn request(&mut self, requests: &mut RequestScanner) -> Option<ClientInfo> {
        if self.guess.goes_on()
            && let Some((words, count)) = requests.beginning()
            && let Some(library) = self.guess.look(words, count)
        {
            self.entry.looks_like(library);
        }
        if !requests.reads_arguments() {
            return None;
        }
        match requests.client_info()? {
            // True whether the server knows CLIENT SETINFO or not.
            info @ (ClientInfo::Library(_) | ClientInfo::Version(_)) => {
                self.accepted(info);
                None
            }
            info => Some(info),
        }
    }

    /// What a client said is true: the server has accepted it.
    pub(super) fn accepted(&mut self, told: ClientInfo) {
        match told {
            ClientInfo::Hello { resp3, name } => {
                if let Some(resp3) = resp3 {
                    self.entry.speaks(resp3);
                    self.set_up(|setup| setup.key.resp3 = resp3);
                }
                if let Some(name) = name {
                    self.accepted(ClientInfo::Name(name));
                }
            }
            ClientInfo::Reset => {
                self.entry.reset();
                self.set_up(ClientSetup::reset);
            }
            ClientInfo::Database(database) => {
                self.entry.selected(database);
                self.set_up(|setup| setup.key.database = database);
            }
            ClientInfo::Name(name) => {
                self.entry.named(&name);
                self.set_up(|setup| setup.name = name);
            }
            ClientInfo::Library(name) => {
                self.entry.uses_library(&name);
                self.set_up(|setup| setup.library = name);
            }
            ClientInfo::Version(version) => {
                self.entry.uses_version(&version);
                self.set_up(|setup| setup.version = version);
            }
        }
    }

    /// The client is this user to the server.
    pub(super) fn is_user(&mut self, user: &Arc<ClientUser>) {
        self.set_up(|setup| setup.key.user = Some(Arc::clone(user)));
    }

    /// The client reads from replicas, or does not.
    pub(super) fn reads_replicas(&mut self, replica: bool) {
        self.set_up(|setup| setup.key.replica = replica);
    }

    /// Its commands go over a connection of its own, for this reason; `None`: over a shared one.
    pub(super) fn pinned(&self, reason: Option<&'static str>) {
        self.entry.pinned(reason);
    }

    /// For those who count what it gets.
    pub(super) fn counter(&self) -> Counter {
        self.entry.counter()
    }

    /// Whether how it begins may still tell which library it is.
    #[inline]
    pub(super) fn looks(&self) -> bool {
        self.guess.goes_on()
    }

    /// The client's next request is this one.
    #[cold]
    pub(super) fn look(&mut self, request: &[u8]) {
        let mut requests = RequestScanner::default();
        requests.next(request);
        if let Some((words, count)) = requests.beginning()
            && let Some(library) = self.guess.look(words, count)
        {
            self.entry.looks_like(library);
        }
    }
}
