//! All shared connections of a route, by thread and by sharing key, and how one is opened.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::connection::SharedConnection;
use super::driver::Driver;
use super::settings::Settings;
use super::slots::{ConnectionSlots, Slot};
use crate::resp::command_table::{CommandInfo, may_be_shared};
use crate::resp::replies::encode_command;
use crate::session::context::RouteContext;
use crate::session::outage::NoUpstream;
use crate::session::output::RouteOutput;
use crate::session::serve::connect_to;
use crate::session::setup::{ClientSetup, SETUP_TIMEOUT, SetupStep, SharingKey};
use crate::session::user::ClientUser;
use crate::upstream::{self, Connection, Latch};
use crate::workers;

/// How long a client waits for a dedicated connection.
const PIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest number of sharing keys of one thread. A client with a further key gets a dedicated connection.
const MAX_SHARING_KEYS: usize = 64;

/// The largest number of commands about which the server's report is kept.
const MAX_LEARNED_COMMANDS: usize = 1024;

/// How long to wait before asking again about a command that the server lacks, because it may load a module.
const ABSENT_RETRY: Duration = Duration::from_secs(60);

/// A route's shared connections.
pub struct Multiplexer {
    pub(super) settings: Settings,
    /// Counts the output that waits for the clients of the route.
    pub(super) output: Arc<RouteOutput>,
    tasks: TaskTracker,
    /// The connections by thread.
    all: Mutex<HashMap<Option<usize>, HashMap<SharingKey, ConnectionSlots>>>,
    pinned: Arc<Semaphore>,
    /// Whether commands that the table lacks may be sent over shared connections.
    learned: Mutex<HashMap<Box<[u8]>, Lesson>>,
    /// Whether whole transactions are sent over shared connections. Cleared when a server refuses EXEC and keeps the transaction open.
    pub(super) transactions: Arc<AtomicBool>,
}

/// What the server reported about a command.
struct Lesson {
    safe: bool,
    /// When to ask again, because the server lacks the command.
    until: Option<Instant>,
}

/// Why a client gets no shared connection.
#[derive(Debug, Clone)]
pub(super) enum NoSharedConnection {
    /// The upstream is unreachable.
    Unreachable(NoUpstream),
    /// The server refused to set up the connection, with this reply.
    Refused(Arc<[u8]>),
    /// The server refused the client's user, with this reply.
    Denied(Arc<[u8]>),
    /// The thread has too many other keys.
    TooMany,
    /// The client is gone.
    ClientGone,
    /// Pontoon drains, and the deadline has passed.
    Drained,
}

impl Multiplexer {
    /// No connection is open yet. `tasks` waits for the tasks of the connections.
    pub fn new(settings: Settings, tasks: TaskTracker) -> Self {
        Self::counting_in(RouteOutput::new(settings.route_output), settings, tasks)
    }

    /// The multiplexer for another node of the same route. Both count the output of their clients together.
    #[must_use]
    pub fn for_another_node(&self) -> Self {
        Self::counting_in(Arc::clone(&self.output), self.settings, self.tasks.clone())
    }

    fn counting_in(output: Arc<RouteOutput>, settings: Settings, tasks: TaskTracker) -> Self {
        let pinned = Arc::new(Semaphore::new(settings.pinned));
        let transactions = Arc::new(AtomicBool::new(true));
        Self {
            settings,
            output,
            tasks,
            all: Mutex::default(),
            pinned,
            learned: Mutex::default(),
            transactions,
        }
    }

    /// A shared connection of this thread for one more client.
    pub(super) async fn connection(
        &self,
        route: &Arc<RouteContext>,
        key: SharingKey,
    ) -> Result<Arc<SharedConnection>, NoSharedConnection> {
        let thread = workers::current();
        loop {
            let addresses = route.upstream.addresses();
            let (at, opening, is_ours) = {
                let mut all = self.all.lock();
                let here = all.entry(thread).or_default();
                if !here.contains_key(&key) {
                    forget(here);
                    // A new client can always begin.
                    if here.len() >= MAX_SHARING_KEYS && key != SharingKey::default() {
                        return Err(NoSharedConnection::TooMany);
                    }
                }
                let slots = here.entry(key.clone()).or_default();
                let at = slots.turn(self.settings.connections.map(NonZeroUsize::get), &addresses);
                if let Some((double, address)) = slots.misplaced(&addresses) {
                    self.spread(route, &key, double, address);
                }
                // Once an endpoint accepts TLS, no client begins in plaintext.
                let over = route.upstream.latch().is_some_and(Latch::is_set);
                let slot = slots.get(at).filter(|slot| slot.is_alive());
                let slot = slot.filter(|slot| !over || !slot.ends_plaintext());
                // After a failover, no client begins on a connection to the old primary.
                let slot = slot.filter(|slot| slot.is_latest(key.user.is_some()));
                let opening = match slot {
                    Some(Slot::Open(shared)) => return Ok(Arc::clone(shared)),
                    Some(Slot::Opening(opening, _)) => opening.upgrade(),
                    None => None,
                };
                let is_ours = opening.is_none();
                let opening = opening.unwrap_or_else(|| {
                    let to = slots.address_for(at, &addresses);
                    let opening = self.open(Arc::clone(route), key.clone(), false, to).boxed().shared();
                    let waited_for = opening.downgrade().expect("it was not polled yet");
                    slots.set(at, Slot::Opening(waited_for, to));
                    opening
                });
                (at, opening, is_ours)
            };
            let opened = opening.clone().await;
            let mut all = self.all.lock();
            let here = all.entry(thread).or_default();
            match &opened {
                Ok(shared) => {
                    let slot = here.get_mut(&key).and_then(|slots| slots.get_mut(at));
                    if let Some(slot) = slot
                        && slot.waits_for(&opening)
                    {
                        *slot = Slot::Open(Arc::clone(shared));
                    }
                }
                Err(_) => forget(here),
            }
            // The clients that waited for the first connection are spread over several.
            if opened.is_err() || is_ours || !addresses.is_empty() {
                return opened;
            }
        }
    }

    /// Replaces a connection for new clients by one to `address`, if that is reachable, because another connection leads to the same
    /// address. Clients of the old connection keep it.
    fn spread(
        &self,
        route: &Arc<RouteContext>,
        key: &SharingKey,
        double: Arc<SharedConnection>,
        address: SocketAddr,
    ) {
        let opening = self.open(Arc::clone(route), key.clone(), false, Some(address));
        let (thread, key, route) = (workers::current(), key.clone(), Arc::clone(route));
        self.tasks.spawn(async move {
            let (Ok(opened), Some(multiplexer)) = (opening.await, &route.multiplexer) else { return };
            let is_there = opened.upstream.peer == address;
            if !is_there || !multiplexer.replace(thread, &key, &double, &opened) {
                opened.close();
            }
        });
    }

    /// Opens another connection for new clients, because replies are outstanding on this one and no bytes come. The server may be busy, or
    /// the connection dead. Clients keep waiting for their replies, and use the new connection for their next requests.
    pub(super) fn relieve(
        &self,
        route: &Arc<RouteContext>,
        key: &SharingKey,
        silent: &Arc<SharedConnection>,
    ) {
        let opening = self.open(Arc::clone(route), key.clone(), true, None);
        let (thread, key) = (workers::current(), key.clone());
        let (route, silent) = (Arc::clone(route), Arc::clone(silent));
        self.tasks.spawn(async move {
            let opened = opening.await;
            silent.state.lock().is_relieved = opened.is_ok();
            if let (Ok(opened), Some(multiplexer)) = (opened, &route.multiplexer) {
                let replaced = multiplexer.replace(thread, &key, &silent, &opened);
                // Otherwise new clients have another connection already.
                if replaced { &silent } else { &opened }.close();
            }
        });
    }

    /// Opens a connection with TLS, because the endpoint accepts it, and then closes the one in plaintext. Its clients continue over the new
    /// one.
    pub(super) fn upgrade(
        &self,
        route: &Arc<RouteContext>,
        key: &SharingKey,
        plaintext: &Arc<SharedConnection>,
    ) {
        let opening = self.open(Arc::clone(route), key.clone(), true, None);
        let (thread, key) = (workers::current(), key.clone());
        let (route, plaintext) = (Arc::clone(route), Arc::clone(plaintext));
        self.tasks.spawn(async move {
            if let (Ok(opened), Some(multiplexer)) = (opening.await, &route.multiplexer) {
                if !multiplexer.replace(thread, &key, &plaintext, &opened) {
                    opened.close();
                }
                plaintext.close();
            }
        });
    }

    /// Gives new clients the connection `new` in place of `old`. `false`: they no longer got `old`.
    fn replace(
        &self,
        thread: Option<usize>,
        key: &SharingKey,
        old: &Arc<SharedConnection>,
        new: &Arc<SharedConnection>,
    ) -> bool {
        let mut all = self.all.lock();
        let slots = all.get_mut(&thread).and_then(|here| here.get_mut(key));
        let slot = slots.and_then(|slots| slots.iter_mut().find(|slot| slot.is(old)));
        slot.map(|slot| *slot = Slot::Open(Arc::clone(new))).is_some()
    }

    /// Opens a shared connection. `proves`: the server must answer PING over it. `to`: the address to connect to, if it is reachable.
    fn open(
        &self,
        route: Arc<RouteContext>,
        key: SharingKey,
        proves: bool,
        to: Option<SocketAddr>,
    ) -> impl Future<Output = Result<Arc<SharedConnection>, NoSharedConnection>> + use<> {
        let (settings, output) = (self.settings, Arc::clone(&self.output));
        let (tasks, transactions) = (self.tasks.clone(), Arc::clone(&self.transactions));
        async move {
            let unreachable = |why: String| NoSharedConnection::Unreachable(NoUpstream::outage(why));
            let connected = connect_to(&route, to).await;
            let mut connection = connected.map_err(|error| NoSharedConnection::Unreachable(error.into()))?;
            let setup = ClientSetup { key, ..ClientSetup::default() };
            let mut steps = setup.steps().unwrap_or_default();
            if proves {
                steps.push(SetupStep { bytes: encode_command(&["PING"]).into(), may_fail: true });
            }
            // AUTH comes first.
            for (n, step) in steps.iter().enumerate() {
                match timeout(SETUP_TIMEOUT, upstream::ask_frame(&mut connection, &step.bytes)).await {
                    Ok(Ok(reply)) if reply.starts_with(b"-") && n == 0 && setup.key.user.is_some() => {
                        return Err(NoSharedConnection::Denied(reply.into()));
                    }
                    Ok(Ok(reply)) if reply.starts_with(b"-") && !step.may_fail => {
                        return Err(NoSharedConnection::Refused(reply.into()));
                    }
                    Ok(Ok(_)) => {}
                    Ok(Err(cause)) => {
                        return Err(unreachable(format!("setting up a connection failed: {cause}")));
                    }
                    Err(_) => {
                        return Err(unreachable(format!(
                            "setting up a connection took more than {} s",
                            SETUP_TIMEOUT.as_secs()
                        )));
                    }
                }
            }
            let shared = Arc::new(SharedConnection::over(&connection, route.settings.slow));
            let driver = Driver::new(&shared, connection, &route, settings, output, setup.key, transactions);
            tasks.spawn(driver.run());
            Ok(shared)
        }
    }

    /// A permit for a dedicated connection. `None`: `limits.pinned` is reached. `must`: wait for a permit.
    pub(super) async fn pin(&self, must: bool) -> Option<OwnedSemaphorePermit> {
        if !must {
            return self.try_pin();
        }
        let permit = timeout(PIN_TIMEOUT, Arc::clone(&self.pinned).acquire_owned()).await.ok()?;
        Some(permit.expect("the semaphore is never closed"))
    }

    /// A permit for a dedicated connection, if there is one now.
    pub(super) fn try_pin(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.pinned).try_acquire_owned().ok()
    }

    /// Whether a command that the table lacks may be sent over a shared connection. `None`: the server was not asked yet.
    pub(in crate::session) fn learned(&self, name: &[u8]) -> Option<bool> {
        let learned = self.learned.lock();
        let lesson = learned.get(&name.to_ascii_uppercase()[..])?;
        lesson.until.is_none_or(|until| Instant::now() < until).then_some(lesson.safe)
    }

    /// Asks the server, as this user, what a command is. Returns whether it may be shared. `None`: an answer is still to come.
    pub(super) async fn learn(
        &self,
        name: &[u8],
        user: Option<&ClientUser>,
        connection: &mut Connection,
    ) -> Option<bool> {
        let Ok(text) = std::str::from_utf8(name) else { return Some(false) };
        if let Some(user) = user {
            let asked = timeout(SETUP_TIMEOUT, upstream::ask_encoded(connection, user.auth())).await;
            if !asked.ok()?.ok()? {
                return Some(false);
            }
        }
        let command = encode_command(&["COMMAND", "INFO", text]);
        let asked = timeout(SETUP_TIMEOUT, upstream::ask_frame(connection, &command)).await;
        let reply = asked.ok()?.ok()?;
        if reply.starts_with(b"-") {
            // This user may not ask. Others still may.
            return Some(false);
        }
        let (safe, until) = match may_be_shared(&reply) {
            CommandInfo::Absent => (true, Some(Instant::now() + ABSENT_RETRY)),
            info => (info == CommandInfo::Shareable, None),
        };
        let mut learned = self.learned.lock();
        if learned.len() >= MAX_LEARNED_COMMANDS {
            // The commands that the server lacks go first, because clients can invent any number of names.
            learned.retain(|_, lesson| lesson.until.is_none());
        }
        if learned.len() >= MAX_LEARNED_COMMANDS {
            return Some(false);
        }
        learned.insert(name.to_ascii_uppercase().into(), Lesson { safe, until });
        Some(safe)
    }
}

/// Drops connections that no client can use again, so that their keys, which hold passwords, leave memory.
fn forget(here: &mut HashMap<SharingKey, ConnectionSlots>) {
    here.retain(|_, slots| slots.is_alive());
}
