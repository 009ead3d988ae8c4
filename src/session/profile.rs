//! What a session reports to the inventory about its client: what the client's commands say, once the server has accepted them, and the
//! library that its first commands suggest.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::context::RouteContext;
use super::setup::ClientSetup;
use super::user::ClientUser;
use crate::clients::{self, Guess, InventoryEntry, SessionRecord};
use crate::endpoint::Endpoint;
use crate::moment::Moment;
use crate::resp::arguments::ClientInfo;
use crate::resp::scanner::RequestScanner;
use crate::upstream::Connection;

pub(super) struct ClientProfile {
    entry: InventoryEntry,
    guess: Guess,
    /// Kept if the client may have to be set up on another connection.
    setup: Option<Box<ClientSetup>>,
    /// The hold that the inventory has. Comparing with it saves a lock while the hold does not change.
    hold: Option<&'static str>,
}

impl ClientProfile {
    pub(super) fn new(entry: InventoryEntry) -> Self {
        Self { entry, guess: Guess::default(), setup: None, hold: None }
    }

    /// Keeps what the client sets up from now on, because it may have to be set up on another connection.
    pub(super) fn keep_setup(&mut self) {
        self.setup.get_or_insert_default();
    }

    /// The client's entry in the inventory.
    pub(super) fn entry(&self) -> &InventoryEntry {
        &self.entry
    }

    /// What the client has set up.
    pub(super) fn setup(&self) -> Option<&ClientSetup> {
        self.setup.as_deref()
    }

    fn set_up(&mut self, change: impl FnOnce(&mut ClientSetup)) {
        if let Some(setup) = &mut self.setup {
            change(setup);
        }
    }

    /// The session's number, as in the log.
    pub(super) fn number(&self) -> u64 {
        self.entry.number()
    }

    /// Reports the client's upstream connection. `passthrough`: it carries the client's own TLS.
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

    /// Reports the shared connection that the client uses.
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

    /// Reports why the client cannot leave its connection.
    #[inline]
    pub(super) fn held_by(&mut self, hold: &'static str) {
        if self.hold != Some(hold) {
            self.hold = Some(hold);
            self.entry.held_by(hold);
        }
    }

    /// Reports when pontoon authenticates again. `None`: never.
    pub(super) fn reauthenticates(&self, at: Option<Instant>) {
        let in_seconds = |at: Instant| at.saturating_duration_since(Instant::now()).as_secs();
        self.entry.reauthenticates(at.map(|at| Moment::at(Moment::now().unix() + in_seconds(at))));
    }

    /// Counts bytes and commands that go upstream.
    #[inline]
    pub(super) fn sent(&self, bytes: usize, commands: u64) {
        self.entry.sent(bytes, commands);
    }

    /// Counts bytes that go to the client.
    #[inline]
    pub(super) fn received(&self, bytes: usize) {
        self.entry.received(bytes);
    }

    /// Reads a request that is about to be sent. Returns what it says about the client, if that holds only once the server accepts it.
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
            // It holds whether or not the server supports CLIENT SETINFO.
            info @ (ClientInfo::Library(_) | ClientInfo::Version(_)) => {
                self.accepted(info);
                None
            }
            info => Some(info),
        }
    }

    /// Reports what the client said and the server has accepted.
    pub(super) fn accepted(&mut self, info: ClientInfo) {
        match info {
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

    /// Notes that the server has authenticated the client as this user.
    pub(super) fn is_user(&mut self, user: &Arc<ClientUser>) {
        self.set_up(|setup| setup.key.user = Some(Arc::clone(user)));
    }

    /// Notes whether the client reads from replicas.
    pub(super) fn reads_replicas(&mut self, replica: bool) {
        self.set_up(|setup| setup.key.replica = replica);
    }

    /// Reports why the client has a dedicated connection. `None`: it uses a shared one.
    pub(super) fn pinned(&self, reason: Option<&'static str>) {
        self.entry.pinned(reason);
    }

    /// The session's record, for other tasks of its thread that send to the client.
    pub(super) fn record(&self) -> Arc<SessionRecord> {
        self.entry.record()
    }

    /// Whether the client's first commands may still show which library it uses.
    #[inline]
    pub(super) fn looks(&self) -> bool {
        self.guess.goes_on()
    }

    /// Reads the client's next request for signs of its library.
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
