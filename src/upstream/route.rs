//! A route's upstream: its endpoints, and the state that all sessions of the route share.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::{Wake, Waker};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::TaskTracker;
use tracing::{field, info, warn};

use super::ask::hello_field;
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

/// A route's upstream: its endpoints, and the state that all sessions of the route share.
pub struct Upstream {
    remotes: Vec<Remote>,
    connect_timeout: Duration,
    credentials: Option<Arc<Credentials>>,
    client_name: Option<String>,
    /// Set where `tls.mode` is `preferred`.
    latch: Option<Latch>,
    /// Whether certificates are verified.
    verifies: bool,
    last_reached: Mutex<Option<Instant>>,
    server_mode: OnceLock<Option<String>>,
    heard: Arc<Heard>,
    stirred: Arc<Notify>,
    ids: Arc<Ids>,
    /// Tasks that clean returned connections and ask servers for their role.
    pub(super) background: TaskTracker,
    pub(super) failover: FailoverWatch,
}

/// What is known of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EndpointFacts {
    /// As configured or announced.
    pub endpoint: String,
    /// What the endpoint was seen to accept, where `tls.mode` is `preferred`.
    pub seen: Option<ObservedTransit>,
    /// When the certificate that it last presented expires.
    pub certificate_expires: Option<Moment>,
    /// The local port that leads to this node of a cluster.
    #[serde(default)]
    pub local_port: Option<u16>,
    /// The role of this node of a cluster: `primary` or `replica`.
    #[serde(default)]
    pub role: Option<Box<str>>,
    /// Since when it can be reached; `None` if it cannot, or was not tried.
    #[serde(default)]
    pub reached_since: Option<Moment>,
    /// Since when it cannot be reached.
    #[serde(default)]
    pub unreached_since: Option<Moment>,
    /// Why it cannot be reached: the last error, or what its cluster reports.
    #[serde(default)]
    pub problem: Option<String>,
    /// Number of sessions that use it now.
    #[serde(default)]
    pub sessions_active: u64,
}

/// A pending attempt to get a connection.
type ConnectAttempt<'a> = Pin<Box<dyn Future<Output = Result<Connection, Arc<ConnectError>>> + Send + 'a>>;

/// Notifies that something arrived on a ready connection.
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

/// The demand for ready connections is counted for each second.
const SECOND: Duration = Duration::from_secs(1);

/// After this number of seconds without a client, no demand is left.
const LONGEST_PASS: u64 = 3600;

/// Time, in seconds, for which a client's connection proves that the upstream is reachable, so that no probe is dialled.
const RECENT_LEASE_LIMIT: Duration = Duration::from_secs(30);

impl Upstream {
    /// Prepares the upstream; nothing is dialled yet. `tls`: `None` for plaintext.
    pub fn new(
        route: &str,
        settings: &Settings,
        tls: Option<&Arc<Tls>>,
        metrics: &Arc<RouteMetrics>,
    ) -> Self {
        Self::with(route, settings, tls, latch_after(None, settings), new_credentials(settings), metrics)
    }

    /// Prepares an upstream that replaces this one. If both lead to the same servers, they share the latch.
    #[must_use]
    pub fn succeeded_by(
        &self,
        route: &str,
        settings: &Settings,
        tls: Option<&Arc<Tls>>,
        metrics: &Arc<RouteMetrics>,
    ) -> Self {
        let same = Some(self).filter(|before| before.leads_to_any(&settings.endpoints));
        Self::with(route, settings, tls, latch_after(same, settings), new_credentials(settings), metrics)
    }

    /// Prepares another upstream with the same credentials, which are read once for all. `before`: the upstream that it replaces, whose
    /// latch it shares, because sessions go on there.
    #[must_use]
    pub fn another(
        &self,
        route: &str,
        settings: &Settings,
        tls: Option<&Arc<Tls>>,
        metrics: &Arc<RouteMetrics>,
        before: Option<&Self>,
    ) -> Self {
        Self::with(route, settings, tls, latch_after(before, settings), self.credentials.clone(), metrics)
    }

    fn with(
        route: &str,
        settings: &Settings,
        tls: Option<&Arc<Tls>>,
        latch: Option<Latch>,
        credentials: Option<Arc<Credentials>>,
        metrics: &Arc<RouteMetrics>,
    ) -> Self {
        let (heard, stirred) = (Arc::new(Heard::default()), Arc::new(Notify::new()));
        let ids = Arc::new(Ids::default());
        let shared =
            RemoteContext { route, settings, tls, credentials: credentials.clone(), ids: &ids, metrics };
        let remote = |endpoint: &Endpoint| {
            let heard = Waker::from(Arc::clone(&heard));
            let pool = Pool::new(settings.pool.clone(), heard, Arc::clone(&stirred), Arc::clone(metrics));
            let transit = latch.clone().map(Transit::new);
            Remote::new(&shared, endpoint.clone(), transit, pool)
        };
        Self {
            remotes: settings.endpoints.iter().map(remote).collect(),
            connect_timeout: settings.connect_timeout,
            credentials,
            client_name: settings.client_name.clone(),
            latch,
            verifies: !settings.tls.insecure_skip_verify,
            last_reached: Mutex::default(),
            server_mode: OnceLock::new(),
            heard,
            stirred,
            ids,
            background: TaskTracker::new(),
            failover: FailoverWatch::default(),
        }
    }

    /// Returns a greeted connection to one endpoint, ready or new.
    pub async fn connect_at(self: &Arc<Self>, endpoint: &Endpoint) -> Result<Lease, Unreachable> {
        let Some(remote) = self.remotes.iter().find(|remote| *remote.endpoint == *endpoint) else {
            return Err(Unreachable { attempts: Vec::new() });
        };
        match remote.lease(Instant::now() + self.connect_timeout, None).await {
            Ok(connection) => {
                self.note_reached();
                Ok(Lease::new(connection, self))
            }
            Err(error) => Err(Unreachable { attempts: vec![error] }),
        }
    }

    /// The endpoints, as configured.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.remotes.iter().map(|remote| &remote.endpoint)
    }

    /// Returns a greeted connection to the first endpoint that can be reached before the deadline, ready or new.
    pub async fn connect(self: &Arc<Self>) -> Result<Lease, Unreachable> {
        self.connect_to(None).await
    }

    /// Does what [`connect`](Self::connect) does. `address`: the address to prefer at an endpoint that has it.
    pub async fn connect_to(self: &Arc<Self>, address: Option<SocketAddr>) -> Result<Lease, Unreachable> {
        let connected = self.first(|remote, deadline| Box::pin(remote.lease(deadline, address))).await;
        connected.map(|connection| Lease::new(connection, self))
    }

    /// Returns a connection to the first endpoint that can be reached before the deadline. Nothing has been sent on it, because the client
    /// brings its own TLS.
    pub async fn open(self: &Arc<Self>) -> Result<Lease, Unreachable> {
        let opened = self.first(|remote, deadline| Box::pin(remote.open(deadline))).await;
        opened.map(|connection| Lease::new(connection, self))
    }

    /// Returns a new greeted connection to the first endpoint that can be reached before the deadline.
    pub(super) async fn connect_anew(self: &Arc<Self>) -> Result<Lease, Unreachable> {
        let connected = self.first(|remote, deadline| Box::pin(remote.connect(deadline))).await;
        connected.map(|connection| Lease::new(connection, self))
    }

    /// Starts to keep connections ready. Called when clients that share connections turn out to need dedicated ones, too.
    pub fn dial_ahead(&self) {
        self.remotes.iter().for_each(|remote| remote.pool.dial_ahead());
    }

    /// Number of TCP connections opened so far.
    pub fn dialled(&self) -> u64 {
        self.remotes.iter().map(|remote| remote.dialled.load(Ordering::Relaxed)).sum()
    }

    /// The addresses, as last resolved, of the endpoint that clients would use. Empty before the first connection.
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

    /// Takes back a connection whose client has left. A background task makes it clean and keeps it, or closes it.
    pub(super) fn take_back(self: &Arc<Self>, connection: Connection, released: Released) {
        // Without an event loop the process is about to end.
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

    /// Remembers that the connection with this number serves a client other than the one that learned it.
    pub fn pass_on(&self, id: u64) -> PassedOnId {
        self.ids.pass_on(id)
    }

    /// Rewrites a request that names connections which have changed clients since their number could be learned: it names connections that
    /// the server does not have. `None` if the request can be sent unchanged.
    ///
    /// Once a client has named a connection by its number, connections whose number was seen are no longer reused.
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

    /// Records that the server refused a client on this connection because it requires AUTH. If it did not before, ready connections are
    /// not authenticated, and are closed.
    pub fn wants_auth(&self, connection: &Connection) {
        let ours = connection.auth == AuthOutcome::Accepted;
        if let Some(remote) = self.origin(connection).filter(|_| !ours) {
            remote.note_wants_auth();
        }
    }

    /// The name that the greeting sets by CLIENT SETNAME.
    pub fn client_name(&self) -> Option<&str> {
        self.client_name.as_deref()
    }

    /// The configured credentials, if any.
    pub fn credentials(&self) -> Option<&Arc<Credentials>> {
        self.credentials.as_ref()
    }

    /// Since when no endpoint can be reached, and why. `None` if one works or was never tried.
    pub fn outage(&self) -> Option<Outage> {
        let failures: Option<Vec<_>> = self.remotes.iter().map(Remote::failure).collect();
        let (since, attempts): (Vec<_>, Vec<_>) = failures?.into_iter().unzip();
        Some(Outage { since: since.into_iter().max()?, why: Unreachable { attempts } })
    }

    /// Retires all connections and forgets refusals. Called when TLS files or secrets have changed.
    pub fn retire_all(&self) {
        for remote in &self.remotes {
            remote.pool.retire(Discard::Retired);
            remote.greeting.forget_refusals();
        }
    }

    /// Whether connections are kept no longer, because the route drains or has other settings.
    pub(super) fn is_closed(&self) -> bool {
        self.remotes.iter().all(|remote| remote.pool.is_closed())
    }

    /// Keeps connections ready until draining starts.
    pub async fn tend(&self, drain: &Drain) {
        let mut passed = Instant::now();
        let mut end_of_second = passed;
        let mut lacks = true;
        let mut dials = FuturesUnordered::new();
        let draining = drain.started();
        tokio::pin!(draining);
        loop {
            // A connection that is missing is dialled at the end of a second, if not before.
            let due = self.remotes.iter().filter_map(|remote| remote.pool.due(end_of_second)).min();
            let due = if lacks { Some(end_of_second) } else { due };
            tokio::select! {
                () = sleep_until(due.unwrap_or(end_of_second)), if due.is_some() => {
                    // Rounded, and at least 1: a timer may be late.
                    let seconds = (passed.elapsed() + SECOND / 2).as_secs().clamp(1, LONGEST_PASS);
                    self.remotes.iter().for_each(|remote| remote.pool.pass(seconds));
                    passed = Instant::now();
                    end_of_second = passed + SECOND;
                }
                () = self.stirred.notified() => {}
                () = self.heard.0.notified() => self.remotes.iter().for_each(|remote| remote.pool.sweep()),
                Some(()) = dials.next() => {}
                () = &mut draining => break,
            }
            if due != Some(end_of_second) {
                // The pools rested. A second begins.
                end_of_second = end_of_second.max(Instant::now() + SECOND);
            }
            // Clients would use this endpoint.
            let Some(remote) = self.order().first().copied() else { break };
            for _ in 0..remote.pool.lacks(dials.len()) {
                let Some(turn) = remote.spare_turn() else { break };
                dials.push(remote.fill(turn, Instant::now() + self.connect_timeout));
            }
            lacks = remote.pool.lacks(dials.len()) > 0;
        }
        for remote in &self.remotes {
            remote.pool.close();
        }
    }

    /// The latch, where `tls.mode` is `preferred`.
    pub fn latch(&self) -> Option<&Latch> {
        self.latch.as_ref()
    }

    /// What is known of each endpoint.
    pub fn facts(&self) -> Vec<EndpointFacts> {
        let facts = |remote: &Remote| {
            let (unreached_since, error) = remote.failure().unzip();
            EndpointFacts {
                endpoint: remote.endpoint.to_string(),
                seen: remote.transit.as_ref().map(Transit::seen),
                certificate_expires: remote.certificate_expiry(),
                reached_since: remote.reached_since(),
                unreached_since,
                problem: error.map(|error| error.to_string()),
                ..EndpointFacts::default()
            }
        };
        self.remotes.iter().map(facts).collect()
    }

    /// The endpoints that have accepted TLS. A certificate that was not verified does not count.
    pub fn spoke_tls(&self) -> impl Iterator<Item = &Endpoint> {
        let seen = |remote: &&Remote| {
            remote.transit.as_ref().is_some_and(|transit| transit.seen() == ObservedTransit::Tls)
        };
        let spoke =
            move |remote: &&Remote| seen(remote) || (self.verifies && remote.certificate_expiry().is_some());
        self.remotes.iter().filter(spoke).map(|remote| &*remote.endpoint)
    }

    /// Whether one of `endpoints` is an endpoint of this upstream.
    pub fn leads_to_any(&self, endpoints: &[Endpoint]) -> bool {
        let names = |endpoint: &Endpoint| endpoint.to_string().to_ascii_lowercase();
        self.remotes
            .iter()
            .any(|remote| endpoints.iter().any(|other| names(other) == names(&remote.endpoint)))
    }

    /// Removes its endpoints from the metrics. Called when nothing uses this upstream any longer.
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

    /// Looks at the endpoints, where `tls.mode` is `preferred`, until one of them accepts TLS or draining starts. Once one does, all of
    /// them require TLS.
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

    /// Removes outdated facts from the metrics: an old name that accepted plaintext is not looked at again.
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

    /// Finds out whether the upstream can be reached, without a client waiting. Dials the endpoints that failed last and, if no client
    /// connected recently, the first one that did not fail. `wants_mode`: asks the server once for its [`server_mode`](Self::server_mode).
    pub async fn look_after(&self, wants_mode: bool) -> bool {
        let mut reached = self.reached_recently();
        for remote in &self.remotes {
            let dial = remote.is_failing() || !reached;
            if dial && let Ok(mut connection) = remote.connect(Instant::now() + self.connect_timeout).await {
                self.note_reached();
                reached = true;
                if wants_mode && self.server_mode.get().is_none() {
                    let mode = timeout(self.connect_timeout, hello_field(&mut connection, "mode")).await;
                    let _ = self.server_mode.set(mode.ok().and_then(Result::ok).flatten());
                }
            }
        }
        reached
    }

    /// Logs whether the first look reached the upstream. Errors that were logged as they happened are not repeated.
    pub fn log_first_look(&self) {
        if let Some(remote) = self.remotes.iter().find(|remote| remote.reached_since().is_some()) {
            let expires = remote.certificate_expiry();
            info!(
                route = &*remote.route,
                upstream = %remote.endpoint,
                encryption = if expires.is_some() { "TLS" } else { "none, plaintext" },
                certificate_expires = expires.map(field::display),
                "upstream reachable"
            );
        } else if let Some(Outage { why, .. }) = self.outage()
            && self.remotes.iter().zip(&why.attempts).all(|(remote, error)| remote.may_be_missing(error))
        {
            let route = self.remotes.first().map(|remote| &*remote.route);
            warn!(route, error = %why, "upstream not reachable");
        }
    }

    /// What a server calls itself: `standalone`, `cluster` or `sentinel`. `None`: it was not asked yet, or did not say.
    pub fn server_mode(&self) -> Option<&str> {
        self.server_mode.get()?.as_deref()
    }

    fn note_reached(&self) {
        *self.last_reached.lock() = Some(Instant::now());
    }

    fn reached_recently(&self) -> bool {
        let last = *self.last_reached.lock();
        last.is_some_and(|at| at.elapsed() < RECENT_LEASE_LIMIT)
            && !self.remotes.iter().all(Remote::is_failing)
    }

    /// Endpoints in the configured order, with two exceptions. Those that accept TLS come first, where it is preferred. Those that failed
    /// last come last, so that clients do not wait for them; [`look_after`](Self::look_after) finds out when they are back.
    fn order(&self) -> Vec<&Remote> {
        let mut order: Vec<&Remote> = self.remotes.iter().collect();
        order.sort_by_key(|remote| {
            let seen = remote.transit.as_ref().map(Transit::seen);
            (remote.retry_at(), seen != Some(ObservedTransit::Tls))
        });
        order
    }
}

/// The latch of an upstream with these settings that replaces `before`.
fn latch_after(before: Option<&Upstream>, settings: &Settings) -> Option<Latch> {
    let shared = || before.and_then(|before| before.latch.clone()).unwrap_or_default();
    (settings.tls.mode == tls::TlsMode::Preferred).then(shared)
}

fn new_credentials(settings: &Settings) -> Option<Arc<Credentials>> {
    settings.auth.as_ref().map(|auth| Arc::new(Credentials::new(auth)))
}
