//! All lines of a route, by thread and by what a client can see of a connection; and how one is opened.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::Settings;
use super::driver::Driver;
use super::line::Line;
use crate::resp::command_table::{CommandInfo, may_be_shared};
use crate::resp::replies::encode_command;
use crate::session::context::Context as Route;
use crate::session::serve::connect;
use crate::session::setup::{Key, Setup};
use crate::session::user::User;
use crate::upstream::{self, Connection, Latch};
use crate::workers;

/// A connection that is not set up in this time is none.
pub(super) const SETUP: Duration = Duration::from_secs(2);

/// A client waits so long for a connection of its own.
const PATIENCE: Duration = Duration::from_secs(5);

/// Databases and protocols of one thread, at most; who wants another gets a connection of its own.
const MOST_KEYS: usize = 64;

/// Commands of which the server has said what they are, at most.
const MOST_LEARNED: usize = 1024;

/// A command that the server does not have is asked about again after so long: it may have loaded a module.
const ABSENT: Duration = Duration::from_secs(60);

/// A route's shared connections.
pub struct Hubs {
    pub(super) settings: Settings,
    tasks: TaskTracker,
    /// By thread.
    all: Mutex<HashMap<Option<usize>, HashMap<Key, Hub>>>,
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

#[derive(Default)]
struct Hub {
    slots: Vec<Slot>,
    /// Clients take turns.
    next: usize,
}

#[derive(Clone)]
enum Slot {
    Open(Arc<Line>),
    Opening(Opening),
}

type Opening = Shared<BoxFuture<'static, Result<Arc<Line>, NoLine>>>;

/// Why there is no line.
#[derive(Debug, Clone)]
pub(super) enum NoLine {
    /// The upstream cannot be reached; for the client.
    Unreachable(Arc<str>),
    /// The server does not accept what sets it up: its reply.
    Refused(Arc<[u8]>),
    /// The server does not believe who the client says that it is: its reply.
    Denied(Arc<[u8]>),
    /// There are too many of other kinds.
    TooMany,
    /// The client is gone.
    ClientGone,
}

impl Hubs {
    /// None is open. Their tasks are for `tasks` to wait for.
    pub fn new(settings: Settings, tasks: TaskTracker) -> Self {
        let pinned = Arc::new(Semaphore::new(settings.pinned));
        let transactions = Arc::new(AtomicBool::new(true));
        Self { settings, tasks, all: Mutex::default(), pinned, learned: Mutex::default(), transactions }
    }

    /// A line of this thread for one more client.
    pub(super) async fn line(&self, route: &Arc<Route>, key: Key) -> Result<Arc<Line>, NoLine> {
        let thread = workers::current();
        let (at, slot) = {
            let mut all = self.all.lock();
            let here = all.entry(thread).or_default();
            if !here.contains_key(&key) {
                forget(here);
                // There is always one for those who begin.
                if here.len() >= MOST_KEYS && key != Key::default() {
                    return Err(NoLine::TooMany);
                }
            }
            let hub = here.entry(key.clone()).or_default();
            hub.next = (hub.next + 1) % self.settings.connections;
            let at = hub.next.min(hub.slots.len());
            // Once an endpoint speaks TLS, no client begins in plaintext.
            let over = route.upstream.latch().is_some_and(Latch::is_set);
            let slot = hub.slots.get(at).filter(|slot| slot.is_alive()).cloned();
            let slot = slot.filter(|slot| !over || !slot.ends_plaintext());
            let slot = slot.unwrap_or_else(|| {
                let slot = Slot::Opening(self.open(Arc::clone(route), key.clone()).boxed().shared());
                if at == hub.slots.len() {
                    hub.slots.push(slot.clone());
                } else {
                    hub.slots[at] = slot.clone();
                }
                slot
            });
            (at, slot)
        };
        let opening = match slot {
            Slot::Open(line) => return Ok(line),
            Slot::Opening(opening) => opening,
        };
        let opened = opening.clone().await;
        let mut all = self.all.lock();
        let here = all.entry(thread).or_default();
        match &opened {
            Ok(line) => {
                let slot = here.get_mut(&key).and_then(|hub| hub.slots.get_mut(at));
                if let Some(slot) = slot
                    && matches!(slot, Slot::Opening(other) if other.ptr_eq(&opening))
                {
                    *slot = Slot::Open(Arc::clone(line));
                }
            }
            Err(_) => forget(here),
        }
        opened
    }

    /// Opens a line.
    fn open(&self, route: Arc<Route>, key: Key) -> impl Future<Output = Result<Arc<Line>, NoLine>> + use<> {
        let (settings, tasks, transactions) =
            (self.settings, self.tasks.clone(), Arc::clone(&self.transactions));
        async move {
            let unreachable = |why: String| NoLine::Unreachable(why.into());
            let connected = connect(&route, false).await;
            let mut connection = connected.map_err(|error| unreachable(error.to_string()))?;
            let setup = Setup { key, ..Setup::default() };
            // AUTH comes first.
            for (n, step) in setup.steps().unwrap_or_default().iter().enumerate() {
                match timeout(SETUP, upstream::ask_frame(&mut connection, &step.bytes)).await {
                    Ok(Ok(reply)) if reply.starts_with(b"-") && n == 0 && setup.key.user.is_some() => {
                        return Err(NoLine::Denied(reply.into()));
                    }
                    Ok(Ok(reply)) if reply.starts_with(b"-") => return Err(NoLine::Refused(reply.into())),
                    Ok(Ok(_)) => {}
                    Ok(Err(cause)) => {
                        return Err(unreachable(format!("setting up a connection failed: {cause}")));
                    }
                    Err(_) => {
                        return Err(unreachable(format!("setting up a connection took more than {SETUP:?}")));
                    }
                }
            }
            let line = Arc::new(Line::over(&connection, route.settings.slow));
            let driver = Driver::new(&line, connection, &route, settings, setup.key, transactions);
            tasks.spawn(driver.run());
            Ok(line)
        }
    }

    /// Leave for a connection of a client's own; `None`: there are too many. `must`: it is worth waiting for.
    pub(super) async fn pin(&self, must: bool) -> Option<OwnedSemaphorePermit> {
        if !must {
            return self.try_pin();
        }
        let permit = timeout(PATIENCE, Arc::clone(&self.pinned).acquire_owned()).await.ok()?;
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
        user: Option<&User>,
        connection: &mut Connection,
    ) -> Option<bool> {
        let Ok(text) = std::str::from_utf8(name) else { return Some(false) };
        if let Some(user) = user {
            let asked = timeout(SETUP, upstream::ask_encoded(connection, user.auth())).await;
            if !asked.ok()?.ok()? {
                return Some(false);
            }
        }
        let command = encode_command(&["COMMAND", "INFO", text]);
        let asked = timeout(SETUP, upstream::ask_frame(connection, &command)).await;
        let reply = asked.ok()?.ok()?;
        if reply.starts_with(b"-") {
            // Who may not ask learns nothing, and the others still may.
            return Some(false);
        }
        let (safe, until) = match may_be_shared(&reply) {
            CommandInfo::Absent => (true, Some(Instant::now() + ABSENT)),
            info => (info == CommandInfo::Shareable, None),
        };
        let mut learned = self.learned.lock();
        if learned.len() >= MOST_LEARNED {
            // Names that nobody has a command for are as many as somebody likes.
            learned.retain(|_, lesson| lesson.until.is_none());
        }
        if learned.len() >= MOST_LEARNED {
            return Some(false);
        }
        learned.insert(name.to_ascii_uppercase().into(), Lesson { safe, until });
        Some(safe)
    }
}

impl Slot {
    /// Closes a line in plaintext: its clients go on over another. Whether it was one.
    fn ends_plaintext(&self) -> bool {
        let line = match self {
            Self::Open(line) => Some(line),
            Self::Opening(opening) => opening.peek().and_then(|opened| opened.as_ref().ok()),
        };
        let in_plaintext = line.filter(|line| !line.upstream.tls);
        if let Some(line) = in_plaintext {
            line.close();
        }
        in_plaintext.is_some()
    }

    /// One that failed is opened anew.
    fn is_alive(&self) -> bool {
        match self {
            Self::Open(line) => line.is_open(),
            Self::Opening(opening) => match opening.peek() {
                None => true,
                Some(Ok(line)) => line.is_open(),
                Some(Err(_)) => false,
            },
        }
    }
}

/// Of what nobody can use any more nothing is kept, passwords above all.
fn forget(here: &mut HashMap<Key, Hub>) {
    here.retain(|_, hub| hub.slots.iter().any(Slot::is_alive));
}
