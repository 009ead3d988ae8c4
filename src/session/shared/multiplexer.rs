//! All shared connections of a route, by thread and by what a client can see of a connection; and how one is opened.

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

/// A client waits so long for a connection of its own.
const PIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Databases and protocols of one thread, at most; who wants another gets a connection of its own.
const MAX_SHARING_KEYS: usize = 64;

/// Commands of which the server has said what they are, at most.
const MAX_LEARNED_COMMANDS: usize = 1024;

/// A command that the server does not have is asked about again after so long: it may have loaded a module.
const ABSENT_RETRY: Duration = Duration::from_secs(60);

/// A route's shared connections.
pub struct Multiplexer {
    pub(super) settings: Settings,
    /// What waits for the clients of the route.
    pub(super) output: Arc<RouteOutput>,
    tasks: TaskTracker,
    /// By thread.
    all: Mutex<HashMap<Option<usize>, HashMap<SharingKey, ConnectionSlots>>>,
    pinned: Arc<Semaphore>,
    /// Whether commands that nobody knows here may be sent over them.
    learned: Mutex<HashMap<Box<[u8]>, Lesson>>,
    /// Transactions need no connection of their own where they are whole: until a server refuses EXEC, and stays in one.
    pub(super) transactions: Arc<AtomicBool>,
}

/// What the server said of a command.
struct Lesson {
    safe: bool,
    /// It does not know it yet, and is asked again then.
    until: Option<Instant>,
}

/// Why there is no shared connection.
#[derive(Debug, Clone)]
pub(super) enum NoSharedConnection {
    /// The upstream cannot be reached.
    Unreachable(NoUpstream),
    /// The server does not accept what sets it up: its reply.
    Refused(Arc<[u8]>),
    /// The server does not believe who the client says that it is: its reply.
    Denied(Arc<[u8]>),
    /// There are too many of other kinds.
    TooMany,
    /// The client is gone.
    ClientGone,
}

impl Multiplexer {
    /// None is open. Their tasks are for `tasks` to wait for.
    pub fn new(settings: Settings, tasks: TaskTracker) -> Self {
        Self::counting_in(RouteOutput::new(settings.route_output), settings, tasks)
    }

    /// For another node of the same route: what waits for the clients of both counts together.
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
            let (at, slot, is_ours) = {
                let mut all = self.all.lock();
                let here = all.entry(thread).or_default();
                if !here.contains_key(&key) {
                    forget(here);
                    // There is always one for those who begin.
                    if here.len() >= MAX_SHARING_KEYS && key != SharingKey::default() {
                        return Err(NoSharedConnection::TooMany);
                    }
                }
                let slots = here.entry(key.clone()).or_default();
                let at = slots.turn(self.settings.connections.map(NonZeroUsize::get), &addresses);
                if let Some((double, address)) = slots.misplaced(&addresses) {
                    self.spread(route, &key, double, address);
                }
                // Once an endpoint speaks TLS, no client begins in plaintext.
                let over = route.upstream.latch().is_some_and(Latch::is_set);
                let slot = slots.get(at).filter(|slot| slot.is_alive()).cloned();
                let slot = slot.filter(|slot| !over || !slot.ends_plaintext());
                // After a failover, nor does one with the server that was the primary.
                let slot = slot.filter(|slot| slot.is_latest(&route.upstream));
                let is_ours = slot.is_none();
                let slot = slot.unwrap_or_else(|| {
                    let to = slots.address_for(at, &addresses);
                    let opening = self.open(Arc::clone(route), key.clone(), false, to);
                    let slot = Slot::Opening(opening.boxed().shared(), to);
                    slots.set(at, slot.clone());
                    slot
                });
                (at, slot, is_ours)
            };
            let opening = match slot {
                Slot::Open(shared) => return Ok(shared),
                Slot::Opening(opening, _) => opening,
            };
            let opened = opening.clone().await;
            let mut all = self.all.lock();
            let here = all.entry(thread).or_default();
            match &opened {
                Ok(shared) => {
                    let slot = here.get_mut(&key).and_then(|slots| slots.get_mut(at));
                    if let Some(slot) = slot
                        && matches!(slot, Slot::Opening(other, _) if other.ptr_eq(&opening))
                    {
                        *slot = Slot::Open(Arc::clone(shared));
                    }
                }
                Err(_) => forget(here),
            }
            // Of the clients that waited for the first connection, not all are to have it.
            if opened.is_err() || is_ours || !addresses.is_empty() {
                return opened;
            }
        }
    }

    /// Of two connections that lead to one address, replaces this one by one to `address` for new clients, if that can be reached. Clients
    /// that have the other one keep it.
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

    /// Replies are outstanding on this connection, and nothing comes: opens another one for new clients. Whether the server is busy or the
    /// connection is dead cannot be told: its clients go on waiting for their replies, and come to the new one with their next requests.
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
                // If not, clients have another one by now.
                if replaced { &silent } else { &opened }.close();
            }
        });
    }

    /// New clients get this connection instead of that one. `false`: they did not get that one any more.
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

    /// Opens a shared connection. `proves`: the server must answer PING over it. `to`: this address, if it can be reached.
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
                            "setting up a connection took more than {SETUP_TIMEOUT:?}"
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

    /// Leave for a connection of a client's own; `None`: there are too many. `must`: it is worth waiting for.
    pub(super) async fn pin(&self, must: bool) -> Option<OwnedSemaphorePermit> {
        if !must {
            return self.try_pin();
        }
        let permit = timeout(PIN_TIMEOUT, Arc::clone(&self.pinned).acquire_owned()).await.ok()?;
        Some(permit.expect("the semaphore is never closed"))
    }

    /// The same, at once.
    pub(super) fn try_pin(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.pinned).try_acquire_owned().ok()
    }

    /// Whether a command that nobody knows here may be sent over a shared connection; `None`: the server was not asked.
    pub(in crate::session) fn learned(&self, name: &[u8]) -> Option<bool> {
        let learned = self.learned.lock();
        let lesson = learned.get(&name.to_ascii_uppercase()[..])?;
        lesson.until.is_none_or(|until| Instant::now() < until).then_some(lesson.safe)
    }

    /// Asks the server what a command is, as this user; whether it is safe. `None`: an answer is still to come.
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
            // Who may not ask learns nothing, and the others still may.
            return Some(false);
        }
        let (safe, until) = match may_be_shared(&reply) {
            CommandInfo::Absent => (true, Some(Instant::now() + ABSENT_RETRY)),
            info => (info == CommandInfo::Shareable, None),
        };
        let mut learned = self.learned.lock();
        if learned.len() >= MAX_LEARNED_COMMANDS {
            // Names that nobody has a command for are as many as somebody likes.
            learned.retain(|_, lesson| lesson.until.is_none());
        }
        if learned.len() >= MAX_LEARNED_COMMANDS {
            return Some(false);
        }
        learned.insert(name.to_ascii_uppercase().into(), Lesson { safe, until });
        Some(safe)
    }
}

/// Of what nobody can use any more nothing is kept, passwords above all.
fn forget(here: &mut HashMap<SharingKey, ConnectionSlots>) {
    here.retain(|_, slots| slots.is_alive());
}
