//! Connections to one endpoint that are ready before a client comes: dialled ahead, or left clean by a client.
//!
//! A connection is kept only if the next client cannot distinguish it from a new one: of the present generation, not expired, silent.
//! `dial` dials, `greeting` cleans, and `demand` computes how many to keep.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::connection::Connection;
use super::demand::{DEMAND_WINDOW, Demand, Trend};
use super::generation::Generation;
use crate::metrics::{GaugeGuard, RouteMetrics};
use crate::workers;

/// Which connections are kept ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Dial before clients come.
    pub warm: bool,
    /// The number of connections kept ready when no client comes.
    pub warm_min: usize,
    /// The limit on connections kept, whether dialled ahead or left by clients.
    pub warm_max: usize,
    /// Clean and keep the connections that clients leave.
    pub reuse: bool,
    /// A connection older than this serves no further client.
    pub max_age: Duration,
}

impl Settings {
    /// `pool.warm_min` where it is not configured.
    pub const WARM_MIN: usize = 1;
    /// `pool.warm_max` where it is not configured.
    pub const WARM_MAX: usize = 64;
    /// `pool.max_age` where it is not configured.
    pub const MAX_AGE: Duration = Duration::from_secs(600);
}

/// A connection that was silent for longer must answer before a client gets it, because a firewall may have dropped it.
const FRESH: Duration = Duration::from_secs(1);

/// Why a connection is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Discard {
    /// Older than `pool.max_age`.
    Age,
    /// The server closed it, or sent something without a request.
    Closed,
    /// It did not answer in time.
    Unanswered,
    /// The endpoint's address or the TLS files have changed, or may have.
    Retired,
    /// More than enough connections are ready.
    Surplus,
    /// It could not be made clean.
    Unclean,
}

impl Discard {
    const fn label(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Closed => "closed",
            Self::Unanswered => "unanswered",
            Self::Retired => "retired",
            Self::Surplus => "surplus",
            Self::Unclean => "unclean",
        }
    }
}

pub(super) struct Pool {
    pub(super) settings: Settings,
    /// Whether connections are dialled before clients come: always, or since clients turned out to need them.
    dials_ahead: AtomicBool,
    metrics: Arc<RouteMetrics>,
    /// Wakes the task that calls [`sweep`](Self::sweep).
    heard: Waker,
    /// Wakes the task that tends the pool: connections are missing, or a client came or left after a rest.
    stirred: Arc<Notify>,
    state: Mutex<PoolState>,
}

struct PoolState {
    idle: VecDeque<IdleConnection>,
    /// Clients that wait for their turn to dial, and would take a returned connection instead.
    waiting: VecDeque<oneshot::Sender<Connection>>,
    /// Whether any client has had a connection.
    has_leased: bool,
    /// Clients for which a connection is being dialled. They come after those in `waiting`.
    dialling: VecDeque<oneshot::Sender<Connection>>,
    /// Only connections of this generation are kept.
    generation: Generation,
    closed: bool,
    demand: Demand,
}

impl PoolState {
    fn trend(&self) -> Trend {
        self.demand.trend(self.idle.len())
    }
}

struct IdleConnection {
    connection: Connection,
    /// When it was last known to work; `None` if it must answer first.
    since: Option<Instant>,
    _counted: GaugeGuard,
}

/// A connection taken from the pool.
pub(super) struct PooledConnection {
    pub(super) connection: Connection,
    /// The connection was heard from recently.
    pub(super) fresh: bool,
}

impl Pool {
    pub(super) fn new(
        settings: Settings,
        heard: Waker,
        stirred: Arc<Notify>,
        metrics: Arc<RouteMetrics>,
    ) -> Self {
        let min = if settings.warm { settings.warm_min } else { 0 };
        let demand = Demand::new(min, settings.warm_max);
        let state = PoolState {
            idle: VecDeque::new(),
            waiting: VecDeque::new(),
            dialling: VecDeque::new(),
            has_leased: false,
            generation: Generation::default(),
            closed: false,
            demand,
        };
        let dials_ahead = settings.warm.into();
        Self { settings, dials_ahead, metrics, heard, stirred, state: Mutex::new(state) }
    }

    /// The generation of a connection that is dialled now.
    pub(super) fn generation(&self) -> Generation {
        self.state.lock().generation.clone()
    }

    /// Takes a ready connection and binds it to this thread. Prefers one that this thread used last. `to`: the only address to accept.
    pub(super) fn take(&self, to: Option<SocketAddr>) -> Option<PooledConnection> {
        {
            let mut state = self.state.lock();
            self.stir(&state);
            state.demand.leased();
        }
        while let Some(IdleConnection { mut connection, since, .. }) = self.pop(to) {
            // These are system calls, made without the lock.
            let now = Instant::now();
            if now >= connection.expires {
                self.discard(connection, Discard::Age);
            } else if !connection.is_silent() {
                self.discard(connection, Discard::Closed);
            } else if let Some(connection) = self.bound_here(connection) {
                return Some(PooledConnection {
                    connection,
                    fresh: since.is_some_and(|since| now - since < FRESH),
                });
            }
        }
        None
    }

    fn pop(&self, to: Option<SocketAddr>) -> Option<IdleConnection> {
        let here = workers::current();
        let mut state = self.state.lock();
        let leads_there = |idle: &IdleConnection| to.is_none_or(|to| idle.connection.peer == to);
        let own = |idle: &IdleConnection| idle.connection.worker == here && leads_there(idle);
        let at = state.idle.iter().rposition(own).or_else(|| state.idle.iter().rposition(leads_there));
        let idle = at.and_then(|at| state.idle.remove(at));
        let left = state.idle.len();
        state.demand.left(left);
        if self.dials_ahead() && left < state.demand.wanted() {
            self.stirred.notify_one();
        }
        idle
    }

    /// Whether [`put`](Self::put) would keep the connection now, and if not, why.
    pub(super) fn keeps(&self, connection: &Connection) -> Result<(), Discard> {
        let state = self.state.lock();
        Self::judge(&state, connection)?;
        let awaited = !state.waiting.is_empty() || !state.dialling.is_empty();
        let room = state.idle.len() < self.settings.warm_max || awaited;
        if room { Ok(()) } else { Err(Discard::Surplus) }
    }

    /// Keeps a clean connection that a client left, or gives it to the client that has waited longest.
    pub(super) fn put_back(&self, connection: Connection) {
        {
            let mut state = self.state.lock();
            self.stir(&state);
            state.demand.returned();
        }
        self.put(connection);
    }

    /// Keeps a clean connection, or gives it to the client that has waited longest.
    pub(super) fn put(&self, mut connection: Connection) {
        let mut state = self.state.lock();
        if let Err(reason) = Self::judge(&state, &connection) {
            return self.discard(connection, reason);
        }
        while let Some(waiting) = state.waiting.pop_front().or_else(|| state.dialling.pop_front()) {
            match waiting.send(connection) {
                Ok(()) => return,
                Err(returned) => connection = returned,
            }
        }
        if state.idle.len() >= self.settings.warm_max {
            return self.discard(connection, Discard::Surplus);
        }
        connection.timings = Vec::new();
        self.watch(&connection);
        let counted = GaugeGuard::new(&self.metrics.upstream_idle);
        state.idle.push_back(IdleConnection { connection, since: Some(Instant::now()), _counted: counted });
    }

    /// Counts the reason and closes the connection.
    pub(super) fn discard(&self, connection: Connection, reason: Discard) {
        self.metrics.pool_discarded(reason.label());
        drop(connection);
    }

    /// Whether a client has had a connection before this one.
    pub(super) fn has_leased(&self) -> bool {
        std::mem::replace(&mut self.state.lock().has_leased, true)
    }

    /// Waits for a connection that another client returns. `dialling`: one is also being dialled for this client.
    pub(super) async fn returned(&self, dialling: bool) -> Connection {
        loop {
            let (sender, receiver) = oneshot::channel();
            {
                let mut state = self.state.lock();
                if dialling { &mut state.dialling } else { &mut state.waiting }.push_back(sender);
            }
            let mut waiting = Waiting { pool: self, receiver };
            let mut connection =
                (&mut waiting.receiver).await.expect("a sender is dropped only after it sent");
            if !connection.is_silent() {
                self.discard(connection, Discard::Closed);
            } else if let Some(connection) = self.bound_here(connection) {
                return connection;
            }
        }
    }

    fn bound_here(&self, connection: Connection) -> Option<Connection> {
        connection.bound_here().inspect_err(|_| self.metrics.pool_discarded(Discard::Closed.label())).ok()
    }

    /// Retires all connections if this news is about one of the present generation. Returns `false` for news about an older one, because
    /// newer connections may be good.
    pub(super) fn retire_with(&self, generation: &Generation, reason: Discard) -> bool {
        let mut state = self.state.lock();
        // Of distrusted connections, users' shared ones are still in use.
        let is_news = !generation.is_retired(true);
        if is_news {
            state.generation.retire();
            self.discard_all(&mut state, reason);
        }
        is_news
    }

    /// Requires ready connections to answer before a client gets them.
    pub(super) fn suspect(&self) {
        self.state.lock().idle.iter_mut().for_each(|idle| idle.since = None);
    }

    /// Closes ready connections, and keeps none of those that clients hold now.
    pub(super) fn retire(&self, reason: Discard) {
        let mut state = self.state.lock();
        state.generation.retire();
        self.discard_all(&mut state, reason);
    }

    /// Does what [`retire`](Self::retire) does, except for shared connections on which clients have authenticated themselves.
    pub(super) fn distrust(&self) {
        let mut state = self.state.lock();
        state.generation.distrust();
        self.discard_all(&mut state, Discard::Retired);
    }

    /// Whether it was [closed](Self::close).
    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Closes all ready connections, and keeps none from now on.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.idle.clear();
    }

    /// Starts to keep connections ready. Called when clients that share connections turn out to need dedicated ones, too.
    pub(super) fn dial_ahead(&self) {
        // Without reuse, connections are dialled ahead only if `pool.warm` asks for it.
        if self.settings.reuse {
            self.dials_ahead.store(true, Ordering::Relaxed);
            self.stirred.notify_one();
        }
    }

    /// When [`pass`](Self::pass) has something to do: at the end of this second, or later if no client came or left for a while. `None`: not
    /// before a client comes.
    pub(super) fn due(&self, end_of_second: Instant) -> Option<Instant> {
        let state = self.state.lock();
        match state.trend() {
            Trend::Moving => Some(end_of_second),
            Trend::Fading => Some(end_of_second + Duration::from_secs(DEMAND_WINDOW - 1)),
            Trend::Settled => state.idle.iter().map(|idle| idle.connection.expires).min(),
        }
    }

    /// Wakes the task that calls [`pass`](Self::pass) if it rests.
    fn stir(&self, state: &PoolState) {
        if state.trend() != Trend::Moving {
            self.stirred.notify_one();
        }
    }

    fn dials_ahead(&self) -> bool {
        self.dials_ahead.load(Ordering::Relaxed)
    }

    /// The number of connections to dial, if `on_the_way` are being dialled.
    pub(super) fn lacks(&self, on_the_way: usize) -> usize {
        let state = self.state.lock();
        if state.closed || !self.dials_ahead() {
            return 0;
        }
        state.demand.wanted().saturating_sub(state.idle.len() + on_the_way)
    }

    /// Closes ready connections on which the server sent something or that it closed.
    pub(super) fn sweep(&self) {
        let mut state = self.state.lock();
        let all = std::mem::take(&mut state.idle);
        for mut idle in all {
            let heard = self.watch(&idle.connection);
            if heard && !idle.connection.is_silent() {
                self.discard(idle.connection, Discard::Closed);
                continue;
            }
            if heard {
                self.watch(&idle.connection);
            }
            state.idle.push_back(idle);
        }
    }

    /// Ends a time of whole seconds: closes connections that have expired, and those that no client needs.
    pub(super) fn pass(&self, seconds: u64) {
        let now = Instant::now();
        let mut state = self.state.lock();
        let all = std::mem::take(&mut state.idle);
        for idle in all {
            if now >= idle.connection.expires {
                self.discard(idle.connection, Discard::Age);
            } else {
                state.idle.push_back(idle);
            }
        }
        let idle = state.idle.len();
        for _ in 0..state.demand.pass(seconds, idle) {
            // The front was used least recently.
            if let Some(idle) = state.idle.pop_front() {
                self.discard(idle.connection, Discard::Surplus);
            }
        }
    }

    /// Registers to be woken when something arrives. Returns whether something has arrived already.
    fn watch(&self, connection: &Connection) -> bool {
        let heard = connection.stream.poll_read_ready(&mut Context::from_waker(&self.heard)).is_ready();
        if heard {
            self.heard.wake_by_ref();
        }
        heard
    }

    fn judge(state: &PoolState, connection: &Connection) -> Result<(), Discard> {
        if state.closed || connection.generation.is_retired(false) {
            Err(Discard::Retired)
        } else if Instant::now() >= connection.expires {
            Err(Discard::Age)
        } else {
            Ok(())
        }
    }

    fn discard_all(&self, state: &mut PoolState, reason: Discard) {
        self.stirred.notify_one();
        for idle in state.idle.drain(..) {
            self.discard(idle.connection, reason);
        }
    }

    /// Drops the entries at the front of the queues whose clients no longer wait. [`put`](Self::put) does so, too, but it is never called
    /// without reuse and dialling ahead. An entry behind a client that still waits goes when that client does.
    fn forget_who_left(&self) {
        let mut state = self.state.lock();
        let PoolState { waiting, dialling, .. } = &mut *state;
        for queue in [waiting, dialling] {
            while queue.front().is_some_and(oneshot::Sender::is_closed) {
                queue.pop_front();
            }
        }
    }
}

/// Returns a connection that arrives for a client that no longer waits.
struct Waiting<'a> {
    pool: &'a Pool,
    receiver: oneshot::Receiver<Connection>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.receiver.close();
        match self.receiver.try_recv() {
            Ok(connection) => self.pool.put(connection),
            Err(_) => self.pool.forget_who_left(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::endpoint::Endpoint;

    fn pool(settings: Settings) -> Pool {
        let metrics = Arc::new(RouteMetrics::unrecorded());
        Pool::new(settings, Waker::noop().clone(), Arc::default(), metrics)
    }

    async fn connection(server: &TcpListener) -> Connection {
        let peer = server.local_addr().unwrap();
        let endpoint: Endpoint = peer.to_string().parse().unwrap();
        Connection {
            expires: Instant::now() + Settings::MAX_AGE,
            ..Connection::new(
                TcpStream::connect(peer).await.unwrap(),
                None,
                Vec::new(),
                Arc::new(endpoint),
                peer,
            )
        }
    }

    #[tokio::test]
    async fn only_connections_that_clients_leave_lower_the_demand() {
        let settings =
            Settings { warm: true, warm_min: 1, warm_max: 8, reuse: true, max_age: Settings::MAX_AGE };
        let pool = pool(settings);
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let clients = async |leave: bool| {
            for _ in 0..8 {
                assert!(pool.take(None).is_none());
                let waiting = pool.returned(false);
                tokio::pin!(waiting);
                assert!(waiting.as_mut().now_or_never().is_none());
                let connection = connection(&server).await;
                if leave {
                    pool.put_back(connection);
                } else {
                    pool.put(connection);
                }
                assert!(waiting.now_or_never().is_some());
            }
            pool.pass(1);
            pool.lacks(0)
        };
        assert_eq!(clients(true).await, 1);
        assert_eq!(clients(false).await, 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_without_clients_needs_attention_only_when_a_connection_expires() {
        let settings =
            Settings { warm: true, warm_min: 1, warm_max: 8, reuse: true, max_age: Settings::MAX_AGE };
        let pool = pool(settings);
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let end_of_second = Instant::now() + Duration::from_secs(1);
        let stirred = || pool.stirred.notified().now_or_never().is_some();
        assert_eq!(pool.due(end_of_second), None);
        let connection = connection(&server).await;
        let expires = connection.expires;
        pool.put(connection);
        assert_eq!(pool.due(end_of_second), Some(expires));
        assert!(!stirred());
        let taken = pool.take(None).unwrap().connection;
        assert!(stirred());
        assert_eq!(pool.due(end_of_second), Some(end_of_second));
        pool.pass(1);
        pool.put_back(taken);
        assert_eq!(pool.due(end_of_second), Some(end_of_second));
        pool.pass(1);
        let seconds = (1..600).find(|_| {
            pool.pass(1);
            pool.due(end_of_second) == Some(expires)
        });
        assert!(seconds.is_some());
        pool.retire(Discard::Retired);
        assert!(stirred(), "another connection must be dialled");
    }

    #[test]
    fn news_of_a_failover_on_a_distrusted_connection_counts_once() {
        let settings =
            Settings { warm: false, warm_min: 0, warm_max: 1, reuse: true, max_age: Settings::MAX_AGE };
        let pool = pool(settings);
        let distrusted = pool.generation();
        pool.distrust();
        assert!(pool.retire_with(&distrusted, Discard::Retired));
        assert!(!pool.retire_with(&distrusted, Discard::Retired));
    }

    #[test]
    fn clients_that_give_up_leave_no_entries_in_the_queues() {
        let settings =
            Settings { warm: false, warm_min: 0, warm_max: 1, reuse: false, max_age: Settings::MAX_AGE };
        let pool = pool(settings);
        let mut patient = Box::pin(pool.returned(false));
        assert!(patient.as_mut().now_or_never().is_none());
        for _ in 0..10 {
            assert!(pool.returned(false).now_or_never().is_none());
            assert!(pool.returned(true).now_or_never().is_none());
        }
        drop(patient);
        assert!(pool.state.lock().waiting.is_empty() && pool.state.lock().dialling.is_empty());
    }
}
