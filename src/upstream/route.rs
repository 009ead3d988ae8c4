//! A route's upstream: its endpoints, and what all of its sessions know of them.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Wake, Waker};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::task::TaskTracker;

use super::auth::AuthOutcome;
use super::connection::Connection;
use super::dial::{Remote, RemoteContext};
use super::error::{ConnectError, Outage, Unreachable};
use super::failover::FailoverWatch;
use super::ids::{Ids, PassedOnId};
use super::lease::{Lease, Released};
use super::pool::{Discard, Pool};
use super::settings::Settings;
use super::share::share;
use super::transit::{Latch, ObservedTransit, Transit};
use crate::credentials::Credentials;
use crate::drain::Drain;
use crate::endpoint::Endpoint;
use crate::metrics::RouteMetrics;
use crate::moment::Moment;
use crate::resp::client_ids;
use crate::resp::replies::encode_secret;
use crate::tls::{self, Tls};

/// A route's upstream: its endpoints, and what all of its sessions know of them.
pub struct Upstream {
    remotes: Vec<Remote>,
    connect_timeout: Duration,
    credentials: Option<Arc<Credentials>>,
    client_name: Option<String>,
    /// Where `tls.mode` is `preferred`.
    latch: Option<Latch>,
    last_reached: Mutex<Option<Instant>>,
    heard: Arc<Heard>,
    lacking: Arc<Notify>,
    ids: Arc<Ids>,
    /// Connections that are made clean, and servers that are asked for their role.
    pub(super) background: TaskTracker,
    pub(super) failover: FailoverWatch,
}

/// What is known of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointFacts {
    /// As configured or announced.
    pub endpoint: String,
    /// What it was seen to accept, where `tls.mode` is `preferred`.
    pub seen: Option<ObservedTransit>,
    /// When the certificate expires that it presented last.
    pub certificate_expires: Option<Moment>,
    /// Of a cluster's node: the local port that leads to it.
    #[serde(default)]
    pub local_port: Option<u16>,
}

/// On its way to a connection.
type ConnectAttempt<'a> = Pin<Box<dyn Future<Output = Result<Connection, Arc<ConnectError>>> + Send + 'a>>;

/// Something arrived on a connection that is kept ready.
#[derive(Default)]
struct Heard(Notify);

impl Wake for Heard {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}

/// Time, in seconds, in which an upstream that clients have reached needs no dial of our own.
const RECENT_LEASE_LIMIT: Duration = Duration::from_secs(30);

impl Upstream {
    /// Prepares the way; nothing is dialled yet. `tls`: `None` for plaintext.
    pub fn new(
        route: &str,
        settings: &Settings,
        tls: Option<&Arc<Tls>>,
        metrics: &Arc<RouteMetrics>,
    ) -> Self {
        Self::with(route, settings, tls, new_latch(settings), new_credentials(settings), metrics)
    }

    /// One that takes this one's place. Where both lead to the same servers, plaintext is over for both at once.
    #[must_use]
    pub fn succeeded_by(
        &self,
        route: &str,
        settings: &Settings,
        tls: Option<&Arc<Tls>>,
        metrics: &Arc<RouteMetrics>,
    ) -> Self {
        let same = self.leads_to_any(&settings.endpoints);
        let ours = || self.latch.clone().filter(|_| same);
        let latch = new_latch(settings).map(|latch| ours().unwrap_or(latch));
        Self::with(route, settings, tls, latch, new_credentials(settings), metrics)
    }

    /// Another one with the same credentials, which are read once for all.
    #[must_use]
    pub fn another(
        &self,
        route: &str,
        settings: &Settings,
        tls: Option<&Arc<Tls>>,
        metrics: &Arc<RouteMetrics>,
    ) -> Self {
        Self::with(route, settings, tls, new_latch(settings), self.credentials.clone(), metrics)
    }

    fn with(
        route: &str,
        settings: &Settings,
        tls: Option<&Arc<Tls>>,
        latch: Option<Latch>,
        credentials: Option<Arc<Credentials>>,
        metrics: &Arc<RouteMetrics>,
    ) -> Self {
        let (heard, lacking) = (Arc::new(Heard::default()), Arc::new(Notify::new()));
        let ids = Arc::new(Ids::default());
        let shared =
            RemoteContext { route, settings, tls, credentials: credentials.clone(), ids: &ids, metrics };
        let remote = |endpoint: &Endpoint| {
            let heard = Waker::from(Arc::clone(&heard));
            let pool = Pool::new(settings.pool.clone(), heard, Arc::clone(&lacking), Arc::clone(metrics));
            let transit = latch.clone().map(Transit::new);
            Remote::new(&shared, endpoint.clone(), transit, pool)
        };
        Self {
            remotes: settings.endpoints.iter().map(remote).collect(),
            connect_timeout: settings.connect_timeout,
            credentials,
            client_name: settings.client_name.clone(),
            latch,
            last_reached: Mutex::default(),
            heard,
            lacking,
            ids,
            background: TaskTracker::new(),
            failover: FailoverWatch::default(),
        }
    }

    /// A greeted connection to the first endpoint that can be reached before the deadline: one that is ready, or a new
    /// one.
    pub async fn connect(self: &Arc<Self>) -> Result<Lease, Unreachable> {
        self.connect_to(None).await
    }

    /// The same. `address`: of an endpoint that has this address, a connection to it, if it can be reached.
    pub async fn connect_to(self: &Arc<Self>, address: Option<SocketAddr>) -> Result<Lease, Unreachable> {
        let connected = self.first(|remote, deadline| Box::pin(remote.lease(deadline, address))).await;
        connected.map(|connection| Lease::new(connection, self))
    }

    /// A connection to the first endpoint that can be reached before the deadline, on which nothing has been said: for a
    /// client that brings its own TLS.
    pub async fn open(self: &Arc<Self>) -> Result<Lease, Unreachable> {
        let opened = self.first(|remote, deadline| Box::pin(remote.open(deadline))).await;
        opened.map(|connection| Lease::new(connection, self))
    }

    /// Clients that share connections need dedicated ones, too: from now on some are kept ready, as many as were needed of late.
    pub fn dial_ahead(&self) {
        self.remotes.iter().for_each(|remote| remote.pool.dial_ahead());
    }

    /// TCP connections that were opened so far.
    pub fn dialled(&self) -> u64 {
        self.remotes.iter().map(|remote| remote.dialled.load(Ordering::Relaxed)).sum()
    }

    /// The addresses of the endpoint that clients would use, as they were found last; none before the first connection.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.order().first().map(|remote| remote.spread.known()).unwrap_or_default()
    }

    async fn first<'a>(
        &'a self,
        attempt: impl Fn(&'a Remote, Instant) -> ConnectAttempt<'a>,
    ) -> Result<Connection, Unreachable> {
        let deadline = Instant::now() + self.connect_timeout;
        let mut attempts = Vec::new();
        let order = self.order();
        for (i, remote) in order.iter().enumerate() {
            match attempt(remote, share(deadline, order.len() - i)).await {
                Ok(connection) => {
                    self.note_reached();
                    return Ok(connection);
                }
                Err(error) => attempts.push(error),
            }
        }
        Err(Unreachable { attempts })
    }

    /// Takes back a connection whose client has left, off the client's path: it is made clean and kept, or closed.
    pub(super) fn take_back(self: &Arc<Self>, connection: Connection, released: Released) {
        // Without an event loop the process is at its end.
        if Handle::try_current().is_err() {
            return;
        }
        let upstream = Arc::clone(self);
        self.background.spawn(async move {
            if let Some(remote) = upstream.origin(&connection) {
                remote.recycle(connection, released).await;
            }
        });
    }

    /// Whether connections like this one serve a second client.
    pub(super) fn reuses(&self, connection: &Connection) -> bool {
        self.origin(connection).is_some_and(Remote::recycles)
    }

    /// Remembers that the connection with this number serves other clients than the one that learned it.
    pub fn pass_on(&self, id: u64) -> PassedOnId {
        self.ids.pass_on(id)
    }

    /// The request to send in place of one with these words. `None`: it names no connection that has changed clients since its
    /// number could be learned. Otherwise it names, in its place, one that the server does not have.
    ///
    /// From the first request on that names a connection by its number, connections whose number was seen are not reused.
    pub fn without_passed_on_ids(&self, words: &[&[u8]]) -> Option<Vec<u8>> {
        let named = client_ids::named_in(words);
        if !named.is_empty() && !self.ids.note_use() {
            self.retire_all();
            self.remotes.iter().take(1).for_each(Remote::tell_ids_are_used);
        }
        let mut other = words.to_vec();
        for (at, _) in named.iter().filter(|(_, id)| self.ids.is_passed_on(*id)) {
            other[*at] = client_ids::NO_ID;
        }
        (other != words).then(|| encode_secret(&other).to_vec())
    }

    /// Whether a connection would still be given to a client: it is not too old, and nothing has changed since it was made.
    pub fn is_current(&self, connection: &Connection) -> bool {
        self.origin(connection).is_some_and(|remote| remote.pool.is_current(connection))
    }

    /// The server refused a client on this connection for want of AUTH. If it asked for none before, connections that are
    /// ready are closed: they need none.
    pub fn wants_auth(&self, connection: &Connection) {
        let ours = connection.auth == AuthOutcome::Accepted;
        if let Some(remote) = self.origin(connection).filter(|_| !ours) {
            remote.note_wants_auth();
        }
    }

    /// What CLIENT SETNAME says in a greeting.
    pub fn client_name(&self) -> Option<&str> {
        self.client_name.as_deref()
    }

    /// Who we are, where that is configured.
    pub fn credentials(&self) -> Option<&Arc<Credentials>> {
        self.credentials.as_ref()
    }

    /// Since when no endpoint can be reached, and why; `None`: one works, or was never tried.
    pub fn outage(&self) -> Option<Outage> {
        let failures: Option<Vec<_>> = self.remotes.iter().map(Remote::failure).collect();
        let (since, attempts): (Vec<_>, Vec<_>) = failures?.into_iter().unzip();
        Some(Outage { since: since.into_iter().max()?, why: Unreachable { attempts } })
    }

    /// TLS files or secrets have changed: connections made with the old ones serve no further client,
    /// and what users may do is found out anew.
    pub fn retire_all(&self) {
        for remote in &self.remotes {
            remote.pool.retire(Discard::Retired);
            remote.greeting.forget_refusals();
        }
    }

    /// Keeps connections ready until draining starts.
    pub async fn tend(&self, drain: &Drain) {
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut dials = FuturesUnordered::new();
        let draining = drain.started();
        tokio::pin!(draining);
        loop {
            tokio::select! {
                _ = seconds.tick() => self.remotes.iter().for_each(|remote| remote.pool.second()),
                () = self.lacking.notified() => {}
                () = self.heard.0.notified() => self.remotes.iter().for_each(|remote| remote.pool.sweep()),
                Some(()) = dials.next() => {}
                () = &mut draining => break,
            }
            // Clients would use this one.
            let Some(remote) = self.order().first().copied() else { break };
            for _ in 0..remote.pool.lacks(dials.len()) {
                let Some(turn) = remote.spare_turn() else { break };
                dials.push(remote.fill(turn, Instant::now() + self.connect_timeout));
            }
        }
        for remote in &self.remotes {
            remote.pool.close();
        }
    }

    /// Where `tls.mode` is `preferred`: what tells that plaintext is over.
    pub fn latch(&self) -> Option<&Latch> {
        self.latch.as_ref()
    }

    /// What is known of each endpoint.
    pub fn facts(&self) -> Vec<EndpointFacts> {
        let facts = |remote: &Remote| EndpointFacts {
            endpoint: remote.endpoint.to_string(),
            seen: remote.transit.as_ref().map(Transit::seen),
            certificate_expires: remote.certificate_expiry(),
            local_port: None,
        };
        self.remotes.iter().map(facts).collect()
    }

    /// Those of the endpoints that have spoken TLS.
    pub fn spoke_tls(&self) -> impl Iterator<Item = &Endpoint> {
        let seen = |remote: &&Remote| {
            remote.transit.as_ref().is_some_and(|transit| transit.seen() == ObservedTransit::Tls)
        };
        let spoke = move |remote: &&Remote| seen(remote) || remote.certificate_expiry().is_some();
        self.remotes.iter().filter(spoke).map(|remote| &*remote.endpoint)
    }

    /// Whether one of these is among the endpoints.
    pub fn leads_to_any(&self, endpoints: &[Endpoint]) -> bool {
        let names = |endpoint: &Endpoint| endpoint.to_string().to_ascii_lowercase();
        self.remotes
            .iter()
            .any(|remote| endpoints.iter().any(|other| names(other) == names(&remote.endpoint)))
    }

    /// Nothing uses it any more: the metrics show nothing of its endpoints.
    pub fn forget(&self) {
        self.remotes.iter().for_each(|remote| remote.shown.retire());
    }

    /// What each endpoint was seen to accept, where `tls.mode` is `preferred`.
    pub fn transit(&self) -> impl Iterator<Item = (&Endpoint, ObservedTransit)> {
        self.remotes.iter().filter_map(|remote| Some((&*remote.endpoint, remote.transit.as_ref()?.seen())))
    }

    /// Looks once at what each endpoint accepts, where `tls.mode` is `preferred`.
    pub async fn look(&self) {
        let looks: FuturesUnordered<_> =
            self.remotes.iter().map(|remote| remote.look(self.connect_timeout)).collect();
        looks.for_each(|()| async {}).await;
    }

    /// Looks at the endpoints, where `tls.mode` is `preferred`, until one of them speaks TLS, or draining starts. Then
    /// plaintext is over for all of them.
    pub async fn find_tls(&self, drain: &Drain) {
        let Some(latch) = &self.latch else { return };
        let looks: FuturesUnordered<_> =
            self.remotes.iter().map(|remote| remote.look_often(self.connect_timeout)).collect();
        tokio::select! {
            () = looks.for_each(|()| async {}) => {}
            () = latch.wait() => {
                self.retire_all();
                self.look_no_more();
            }
            () = drain.started() => {}
        }
    }

    /// The metrics show only what still holds: an old name that was seen to accept plaintext is not looked at again.
    fn look_no_more(&self) {
        let speaks_tls = |remote: &&Remote| {
            remote.transit.as_ref().is_some_and(|transit| transit.seen() == ObservedTransit::Tls)
        };
        self.remotes
            .iter()
            .filter(|remote| !speaks_tls(remote))
            .for_each(|remote| remote.shown.transit_unknown());
    }

    fn origin(&self, connection: &Connection) -> Option<&Remote> {
        self.remote(&connection.endpoint)
    }

    pub(super) fn remote(&self, endpoint: &Arc<Endpoint>) -> Option<&Remote> {
        self.remotes.iter().find(|remote| Arc::ptr_eq(&remote.endpoint, endpoint))
    }

    /// Finds out off the clients' path whether the upstream can be reached: dials the endpoints that failed last,
    /// and where no client has shown it lately, the first that did not.
    pub async fn look_after(&self) -> bool {
        let mut reached = self.reached_recently();
        for remote in &self.remotes {
            let dial = remote.is_failing() || !reached;
            if dial && remote.connect(Instant::now() + self.connect_timeout).await.is_ok() {
                self.note_reached();
                reached = true;
            }
        }
        reached
    }

    fn note_reached(&self) {
        *self.last_reached.lock() = Some(Instant::now());
    }

    fn reached_recently(&self) -> bool {
        let last = *self.last_reached.lock();
        last.is_some_and(|at| at.elapsed() < RECENT_LEASE_LIMIT)
            && !self.remotes.iter().all(Remote::is_failing)
    }

    /// Endpoints as configured, but those that speak TLS come first, where it is preferred, and those that failed last
    /// come last: a client does not wait for what [`look_after`](Self::look_after) finds out, unless nothing else is left.
    fn order(&self) -> Vec<&Remote> {
        let mut order: Vec<&Remote> = self.remotes.iter().collect();
        order.sort_by_key(|remote| {
            let seen = remote.transit.as_ref().map(Transit::seen);
            (remote.retry_at(), seen != Some(ObservedTransit::Tls))
        });
        order
    }
}

fn new_latch(settings: &Settings) -> Option<Latch> {
    (settings.tls.mode == tls::TlsMode::Preferred).then(Latch::default)
}

fn new_credentials(settings: &Settings) -> Option<Arc<Credentials>> {
    settings.auth.as_ref().map(|auth| Arc::new(Credentials::new(auth)))
}
