//! One endpoint, shared by all sessions of a route. A lease is a ready connection, a new one, or one that a client left and that RESET made
//! clean (`recycle`). `attempt` makes a connection; `gate` limits attempts; `pool` keeps what is ready.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, field, info, warn};

use super::attempt::{Dial, Speaks, whole_ms};
use super::auth::AuthOutcome;
use super::connection::Connection;
use super::error::{Cause, ConnectError, Stage};
use super::gate::{Gate, NoTurn, Turn};
use super::greeting::{Greeting, Unclean, next_answer};
use super::ids::{Ids, SeenId};
use super::lease::Released;
use super::pool::{Discard, Pool, PooledConnection};
use super::settings::Settings;
use super::share::part_of;
use super::spread::Spread;
use super::transit::{Latch, ObservedTransit, Transit};
use crate::credentials::Credentials;
use crate::endpoint::Endpoint;
use crate::metrics::{GaugeGuard, RouteMetrics, UpstreamMetrics};
use crate::moment::Moment;
use crate::resp::replies;
use crate::telemetry::Throttle;
use crate::tls::channel::Channel;
use crate::tls::{self, Tls};

/// Time within which a connection that was silent for a while must answer a PING. If it does not, all connections of its generation are
/// discarded.
const PROOF: Duration = Duration::from_secs(1);

/// Pause between a look that found no TLS and the next look.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Time, in milliseconds, that TLS has to be found after the endpoint answered in plaintext. Then clients use plaintext.
const TLS_HEAD_START: Duration = Duration::from_millis(250);

/// Time that a client waits for another client's connection before it dials: less than a handshake takes.
const ABOUT_TO_RETURN: Duration = Duration::from_millis(3);

/// Time, in milliseconds, until the next attempt after one for which there was no file descriptor.
const DESCRIPTOR_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// A connection that cannot be made clean in this time is closed.
const RENEWAL: Duration = Duration::from_secs(2);

/// One endpoint, shared by all sessions of a route.
pub(super) struct Remote {
    pub(super) route: String,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) pool: Pool,
    pub(super) spread: Spread,
    /// Set where `tls.mode` is `preferred`.
    pub(super) transit: Option<Transit>,
    /// Number of TCP connections opened.
    pub(super) dialled: AtomicU64,
    gate: Gate,
    /// The share of `limits.connect_timeout` that a client has for this endpoint, at least.
    patience: Duration,
    tls: Option<Arc<Tls>>,
    pub(super) greeting: Greeting,
    credentials: Option<Arc<Credentials>>,
    /// Whether the log already says that the credentials are withheld.
    withheld: AtomicBool,
    /// Whether the server requires AUTH, by its last reply. True until its first reply.
    wants_auth: AtomicBool,
    /// When the certificate that was last presented expires, in Unix time; 0 if none was presented.
    certificate_expiry: AtomicU64,
    ids: Arc<Ids>,
    pub(super) metrics: Arc<RouteMetrics>,
    /// The endpoint's own metrics.
    pub(super) shown: UpstreamMetrics,
    throttle: Throttle,
}

/// What the endpoints of a route share.
pub(super) struct RemoteContext<'a> {
    pub(super) route: &'a str,
    pub(super) settings: &'a Settings,
    pub(super) tls: Option<&'a Arc<Tls>>,
    pub(super) credentials: Option<Arc<Credentials>>,
    pub(super) ids: &'a Arc<Ids>,
    pub(super) metrics: &'a Arc<RouteMetrics>,
}

impl Remote {
    pub(super) fn new(
        shared: &RemoteContext<'_>,
        endpoint: Endpoint,
        transit: Option<Transit>,
        pool: Pool,
    ) -> Self {
        let RemoteContext { route, settings, tls, credentials, ids, metrics } = shared;
        // The endpoints share the time, because all of them may be unreachable.
        let patience = part_of(settings.connect_timeout, settings.endpoints.len());
        Self {
            route: (*route).to_owned(),
            shown: metrics.of_upstream(&endpoint.to_string()),
            endpoint: Arc::new(endpoint),
            pool,
            spread: Spread::default(),
            dialled: AtomicU64::new(0),
            gate: Gate::new(settings.handshakes, patience),
            patience,
            tls: tls.cloned(),
            transit,
            greeting: Greeting::new(settings.client_name.as_deref(), settings.tls.client_auth.is_some()),
            wants_auth: AtomicBool::new(true),
            credentials: credentials.clone(),
            withheld: AtomicBool::new(false),
            certificate_expiry: AtomicU64::new(0),
            ids: Arc::clone(ids),
            metrics: Arc::clone(metrics),
            throttle: Throttle::default(),
        }
    }

    /// Whether the last attempt failed.
    pub(super) fn is_failing(&self) -> bool {
        self.retry_at().is_some()
    }

    /// The end of the pause after a failure. `None` if the endpoint works or was never tried.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.gate.retry_at()
    }

    /// Since when the endpoint has been failing, with its last error. `None` if it works or was never tried.
    pub(super) fn failure(&self) -> Option<(Moment, Arc<ConnectError>)> {
        self.gate.failure()
    }

    /// Since when the endpoint can be reached. `None` if it is failing or was never tried.
    pub(super) fn reached_since(&self) -> Option<Moment> {
        self.gate.reached_since()
    }

    /// Returns a ready connection, or dials a new one. `to`: the address to prefer, if it can be reached.
    pub(super) async fn lease(
        &self,
        deadline: Instant,
        to: Option<SocketAddr>,
    ) -> Result<Connection, Arc<ConnectError>> {
        loop {
            let connection = self.ready_or_new(deadline, to).await?;
            if self.is_allowed(&connection) {
                self.metrics.leased(connection.origin(), connection.channel.is_some());
                return Ok(connection);
            }
        }
    }

    /// Whether the connection may be used: plaintext is refused if the latch was set meanwhile.
    fn is_allowed(&self, connection: &Connection) -> bool {
        connection.channel.is_some() || self.transit.as_ref().is_none_or(|transit| !transit.latch().is_set())
    }

    async fn ready_or_new(
        &self,
        deadline: Instant,
        to: Option<SocketAddr>,
    ) -> Result<Connection, Arc<ConnectError>> {
        let _connecting = GaugeGuard::new(&self.metrics.upstream_connecting);
        while let Some(PooledConnection { mut connection, fresh }) = self.pool.take(to) {
            if fresh || proves(&mut connection, deadline).await {
                return Ok(connection);
            }
            let generation = connection.generation.clone();
            self.pool.discard(connection, Discard::Unanswered);
            // Connections of the same generation most likely went dead with this one: discard them at once, so that no client has to wait
            // for each.
            self.pool.retire_with(&generation, Discard::Unanswered);
        }
        let began = Instant::now();
        if to.is_some() {
            // A returned connection may lead to another address.
            let turn = self.turn(began, deadline).await?;
            return self.dial(turn, to, began, deadline).await;
        }
        if let Some(connection) = self.about_to_return().await {
            return Ok(connection);
        }
        let turn = tokio::select! {
            biased;
            turn = self.turn(began, deadline) => turn?,
            connection = self.pool.returned(false) => return Ok(connection),
        };
        // RESET takes one round trip, a new connection several.
        tokio::select! {
            biased;
            connection = self.dial(turn, None, began, deadline) => connection,
            connection = self.pool.returned(true) => Ok(connection),
        }
    }

    /// Waits briefly for the connection of a client that has just left. If a program connects for each task, pontoon may see its next
    /// client before it sees the end of the previous one.
    async fn about_to_return(&self) -> Option<Connection> {
        if !self.recycles() || !self.pool.has_leased() {
            return None;
        }
        timeout(ABOUT_TO_RETURN, self.pool.returned(false)).await.ok()
    }

    /// Waits for a turn, then dials a new connection.
    pub(super) async fn connect(&self, deadline: Instant) -> Result<Connection, Arc<ConnectError>> {
        let began = Instant::now();
        let turn = self.turn(began, deadline).await?;
        self.dial(turn, None, began, deadline).await
    }

    /// Waits for a turn, then opens a connection and sends nothing on it.
    pub(super) async fn open(&self, deadline: Instant) -> Result<Connection, Arc<ConnectError>> {
        let began = Instant::now();
        let turn = self.turn(began, deadline).await?;
        self.dial_as(Speaks::Nothing, turn, None, began, deadline).await
    }

    /// Calls [`look`](Self::look) every few seconds, without end.
    pub(super) async fn look_often(&self, timeout: Duration) {
        loop {
            self.look(timeout).await;
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Finds out whether the endpoint accepts TLS, plaintext or both, and remembers it.
    ///
    /// A plaintext Redis takes a `ClientHello` for an inline command and may never answer. An answer in plaintext is therefore remembered
    /// while the TLS attempt still waits, so that clients do not wait for its timeout.
    pub(super) async fn look(&self, timeout: Duration) {
        self.look_at(None, Instant::now() + timeout).await;
    }

    /// Does what [`look`](Self::look) does. `only`: the only address of the endpoint to look at.
    async fn look_at(&self, only: Option<SocketAddr>, deadline: Instant) {
        let Some(transit) = &self.transit else { return };
        let began = Instant::now();
        // The attempts are anonymous: whether the endpoint accepts TLS does not depend on the user.
        let look = |speaks| Dial { anonymous: true, only, ..self.attempt(speaks, began, deadline) };
        let (mut over_tls, mut in_plaintext) = (look(self.tls.as_deref().into()), look(Speaks::Plaintext));
        let over_tls = over_tls.run();
        let in_plaintext = async {
            let answers = match in_plaintext.run().await {
                Ok(mut connection) => proves(&mut connection, deadline).await,
                Err(_) => false,
            };
            if answers {
                sleep_until(began + TLS_HEAD_START).await;
                transit.presume_plaintext();
            }
            answers
        };
        tokio::pin!(over_tls, in_plaintext);
        let (over_tls, answers) = tokio::select! {
            answers = &mut in_plaintext => (over_tls.await, answers),
            over_tls = &mut over_tls => match over_tls {
                Ok(_) => (over_tls, false),
                Err(_) => (over_tls, in_plaintext.await),
            },
        };
        match over_tls {
            Ok(_) => self.note(transit, ObservedTransit::Tls, None),
            Err(error) => self.note(transit, mode(&error, answers), Some(&error)),
        }
    }

    fn note(&self, transit: &Transit, mode: ObservedTransit, error: Option<&ConnectError>) {
        if transit.note(mode).is_none() {
            return;
        }
        let (route, upstream) = (&self.route, &self.endpoint);
        let error = error.map(field::display);
        let accepts = field::display(mode.describe());
        self.shown.transit(mode.label());
        // Throttled, because an endpoint may change back and forth.
        let Some(suppressed) = self.throttle.allow(&format!("accepts {}", mode.label())) else { return };
        match mode {
            ObservedTransit::Tls => {
                info!(route, %upstream, suppressed, "upstream accepts TLS, new plaintext connections refused from now on");
            }
            // The usual state before a migration.
            ObservedTransit::Disabled => {
                info!(route, %upstream, suppressed, accepts, "upstream transit encryption observed");
            }
            ObservedTransit::Unknown | ObservedTransit::Unreachable => {
                info!(route, %upstream, suppressed, accepts, error, "upstream transit encryption observed");
            }
            _ => warn!(route, %upstream, suppressed, accepts, error, "upstream transit encryption observed"),
        }
    }

    /// Returns a turn to dial ahead of clients, unless clients would have to wait for it.
    pub(super) fn spare_turn(&self) -> Option<Turn<'_>> {
        self.gate.spare_turn()
    }

    /// Dials a connection for the pool.
    pub(super) async fn fill(&self, turn: Turn<'_>, deadline: Instant) {
        let _connecting = GaugeGuard::new(&self.metrics.upstream_connecting);
        if let Ok(mut connection) = self.dial(turn, None, Instant::now(), deadline).await {
            connection.warm = true;
            self.pool.put(connection);
        }
    }

    /// Makes a connection that a client left clean and keeps it for the next client. Closes it if it cannot be made clean.
    pub(super) async fn recycle(&self, mut connection: Connection, released: Released) {
        if let Err(reason) = self.pool.keeps(&connection) {
            return self.pool.discard(connection, reason);
        }
        match connection.seen_id {
            SeenId::Unseen => {}
            SeenId::Seen(id) if !self.ids.are_used() => connection.passed_on = Some(self.ids.pass_on(id)),
            SeenId::Seen(_) | SeenId::Unread => return self.pool.discard(connection, Discard::Unclean),
        }
        if released.needs_reset && !self.renew(&mut connection).await {
            return self.pool.discard(connection, Discard::Unclean);
        }
        connection.seen_id = SeenId::Unseen;
        connection.used = true;
        self.pool.put_back(connection);
    }

    async fn renew(&self, connection: &mut Connection) -> bool {
        let (credentials, withheld) = self.credentials_for(connection.channel.is_some());
        match timeout(RENEWAL, self.greeting.renew(connection, credentials)).await {
            Ok(Ok(auth)) => {
                connection.auth = if withheld { AuthOutcome::Withheld } else { auth };
                connection.authenticated = (connection.auth == AuthOutcome::Accepted).then(Instant::now);
                self.note_greeted(connection);
                connection.is_at_boundary()
            }
            Ok(Err(unclean)) => {
                if matches!(unclean, Unclean::NoReset | Unclean::OtherUser) {
                    debug!(route = self.route, upstream = %self.endpoint, reason = %unclean, "connections not reused");
                }
                false
            }
            Err(_) => false,
        }
    }

    /// Records whether the server's replies to a greeting ask for AUTH.
    pub(super) fn note_greeted(&self, connection: &Connection) {
        match connection.greeted.wants_auth {
            Some(true) => self.note_wants_auth(),
            Some(false) => self.wants_auth.store(false, Ordering::Relaxed),
            None => {}
        }
    }

    /// Records that the server requires AUTH. If it did not before, ready connections are not authenticated, and are closed.
    pub(super) fn note_wants_auth(&self) {
        if self.wants_auth.swap(true, Ordering::Relaxed) {
            return;
        }
        self.pool.distrust();
        if let Some(suppressed) = self.throttle.allow("auth required") {
            info!(
                route = self.route,
                upstream = %self.endpoint,
                suppressed,
                "server requires authentication, ready connections closed"
            );
        }
    }

    /// Logs that connections whose number a client has seen are no longer reused.
    pub(super) fn tell_ids_are_used(&self) {
        info!(
            route = self.route,
            upstream = %self.endpoint,
            "a client named a connection by its number, connections whose number was seen are no longer reused"
        );
    }

    /// The credentials to present. The flag is true if they are withheld because the connection is in plaintext.
    pub(super) fn credentials_for(&self, over_tls: bool) -> (Option<&Credentials>, bool) {
        match self.credentials.as_deref() {
            Some(credentials) if !over_tls && !credentials.allow_plaintext() => (None, true),
            credentials => (credentials, false),
        }
    }

    /// Logs that connections are not authenticated though credentials are configured.
    fn note_auth(&self, auth: AuthOutcome) {
        let (route, upstream) = (&self.route, &self.endpoint);
        match auth {
            AuthOutcome::None | AuthOutcome::Accepted => {}
            AuthOutcome::Withheld if self.withheld.swap(true, Ordering::Relaxed) => {}
            AuthOutcome::Withheld => warn!(
                route,
                %upstream,
                "credentials not sent in plaintext, clients are not authenticated (see auth.allow_plaintext)"
            ),
            AuthOutcome::Unwanted => {
                if let Some(suppressed) = self.throttle.allow("auth unwanted") {
                    warn!(
                        route,
                        %upstream,
                        suppressed,
                        "server has no password, configured credentials not used"
                    );
                }
            }
        }
    }

    /// Whether connections are reused, so that [`recycle`](Self::recycle) is worth calling.
    pub(super) fn recycles(&self) -> bool {
        self.pool.settings.reuse
    }

    async fn turn(&self, began: Instant, deadline: Instant) -> Result<Turn<'_>, Arc<ConnectError>> {
        match self.gate.turn(deadline).await {
            Ok(turn) => Ok(turn),
            // The client that made the attempt has counted and logged its failure.
            Err(NoTurn::Failed(error) | NoTurn::TimedOut(Some(error))) => Err(error),
            Err(NoTurn::TimedOut(None)) => {
                let error = self.timed_out(began, Stage::Queue);
                self.report(&error);
                Err(error)
            }
        }
    }

    async fn dial(
        &self,
        turn: Turn<'_>,
        first: Option<SocketAddr>,
        began: Instant,
        deadline: Instant,
    ) -> Result<Connection, Arc<ConnectError>> {
        let speaks = match &self.transit {
            Some(transit) if !transit.speaks_tls(deadline).await => Speaks::Plaintext,
            _ => self.tls.as_deref().into(),
        };
        self.dial_as(speaks, turn, first, began, deadline).await
    }

    async fn dial_as(
        &self,
        speaks: Speaks<'_>,
        turn: Turn<'_>,
        first: Option<SocketAddr>,
        began: Instant,
        deadline: Instant,
    ) -> Result<Connection, Arc<ConnectError>> {
        let in_haste = deadline - Instant::now() < self.patience / 2;
        match self.attempt_with_descriptor(speaks, first, began, deadline).await {
            Ok(connection) => {
                if let Some(transit) = self.transit.as_ref().filter(|_| connection.channel.is_some()) {
                    self.note(transit, ObservedTransit::Tls, None);
                }
                let failures = turn.succeeded();
                // Throttled: where every second attempt fails, recovery is no news.
                if failures > 0
                    && let Some(suppressed) = self.throttle.allow("reached again")
                {
                    let (route, upstream) = (&self.route, &self.endpoint);
                    info!(route, %upstream, failures, suppressed, "upstream reached again");
                }
                self.note_auth(connection.auth);
                debug!(route = self.route, upstream = %self.endpoint, peer = %connection.peer, "upstream connected");
                Ok(connection)
            }
            Err(error) => {
                let error = Arc::new(error);
                self.report(&error);
                // A lack of time or of descriptors is not the endpoint's fault.
                let is_innocent = match &error.source {
                    Cause::TimedOut { .. } => in_haste,
                    cause => cause.is_lack_of_descriptors(),
                };
                if !is_innocent {
                    turn.failed(&error);
                }
                Err(error)
            }
        }
    }

    /// Makes an attempt. If no file descriptor is free, tries again after a short pause, until `deadline`.
    async fn attempt_with_descriptor(
        &self,
        speaks: Speaks<'_>,
        first: Option<SocketAddr>,
        began: Instant,
        deadline: Instant,
    ) -> Result<Connection, ConnectError> {
        loop {
            let mut attempt = Dial { first, ..self.attempt(speaks, began, deadline) };
            let error = match attempt.run().await {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            let next = Instant::now() + DESCRIPTOR_RETRY_INTERVAL;
            if !error.source.is_lack_of_descriptors() || next >= deadline {
                return Err(error);
            }
            if let Some(suppressed) = self.throttle.allow("descriptors") {
                warn!(
                    route = self.route,
                    upstream = %self.endpoint,
                    suppressed,
                    %error,
                    "no file descriptor for an upstream connection, client waits"
                );
            }
            sleep_until(next).await;
        }
    }

    fn attempt<'a>(&'a self, speaks: Speaks<'a>, began: Instant, deadline: Instant) -> Dial<'a> {
        Dial {
            remote: self,
            speaks,
            anonymous: false,
            first: None,
            only: None,
            began,
            deadline,
            generation: self.pool.generation(),
            timings: Vec::new(),
        }
    }

    /// The pool's `max_age`, shortened at random by up to a quarter, so that connections that were dialled together do not all expire
    /// together.
    pub(super) fn lifetime(&self) -> Duration {
        // An idle connection must also be replaced before its credentials expire.
        let renewal = self.credentials.as_ref().and_then(|credentials| credentials.renewal());
        let max_age = self.pool.settings.max_age.min(renewal.unwrap_or(Duration::MAX));
        max_age.mul_f64(1.0 - fastrand::f64() / 4.0)
    }

    /// Whether the error is usual: in a list of names, the new ones do not exist yet and the old ones no longer do.
    pub(super) fn may_be_missing(&self, error: &ConnectError) -> bool {
        self.transit.is_some() && error.stage == Stage::Resolve
    }

    fn report(&self, error: &ConnectError) {
        self.metrics.connect_error(error.stage.label());
        if self.may_be_missing(error) {
            return debug!(route = self.route, upstream = %self.endpoint, %error, "upstream connection failed");
        }
        if error.is_downgrade {
            self.metrics.downgrades_refused.increment(1);
        }
        // One record for each cause, not one for each client.
        if let Some(suppressed) = self.throttle.allow(error.stage.label()) {
            warn!(
                route = self.route,
                upstream = %self.endpoint,
                stage = error.stage.label(),
                suppressed,
                %error,
                "upstream connection failed"
            );
        }
    }

    pub(super) fn note_certificate(&self, channel: &Channel) {
        let leaf = channel.state().peer_certificates().and_then(|chain| chain.first());
        if let Some(expiry) = leaf.and_then(tls::expiry)
            && self.certificate_expiry.swap(expiry, Ordering::Relaxed) != expiry
        {
            self.shown.certificate_expiry(expiry);
        }
    }

    /// When the certificate that was last presented expires; `None` if none was presented.
    pub(super) fn certificate_expiry(&self) -> Option<Moment> {
        Some(self.certificate_expiry.load(Ordering::Relaxed)).filter(|expiry| *expiry > 0).map(Moment::at)
    }

    fn timed_out(&self, began: Instant, stage: Stage) -> Arc<ConnectError> {
        Arc::new(self.error(stage, Cause::TimedOut { after: whole_ms(began.elapsed()), stage }))
    }

    pub(super) fn error(&self, stage: Stage, source: Cause) -> ConnectError {
        // A certificate that does not verify is no downgrade: the endpoint still uses TLS.
        let is_downgrade = stage == Stage::Tls
            && !matches!(source, Cause::Tls(_))
            && self.transit.as_ref().is_some_and(|transit| transit.latch().is_set());
        ConnectError { endpoint: Endpoint::clone(&self.endpoint), stage, source, is_downgrade }
    }
}

/// How a single attempt outside any route is protected.
#[derive(Clone, Copy)]
pub(crate) enum Protection<'a> {
    /// TLS is required.
    Tls(&'a Arc<Tls>),
    /// TLS if the endpoint accepts it; once it did, TLS is required.
    TlsWhereSpoken(&'a Arc<Tls>, &'a Latch),
    /// Plaintext.
    Plaintext,
}

/// One attempt to reach an endpoint, outside any route. It is not counted, and its connection serves no client. `only`: the only address of
/// the endpoint to dial.
pub(crate) async fn once(
    endpoint: &Endpoint,
    only: Option<SocketAddr>,
    settings: &Settings,
    protection: Protection<'_>,
    credentials: Option<Arc<Credentials>>,
    deadline: Instant,
) -> Result<Connection, ConnectError> {
    let metrics = Arc::new(RouteMetrics::unrecorded());
    let pool = Pool::new(settings.pool.clone(), Waker::noop().clone(), Arc::default(), Arc::clone(&metrics));
    let ids = Arc::default();
    let (tls, latch) = match protection {
        Protection::Tls(tls) => (Some(tls), None),
        Protection::TlsWhereSpoken(tls, latch) => (Some(tls), Some(latch)),
        Protection::Plaintext => (None, None),
    };
    let shared = RemoteContext { route: "", settings, tls, credentials, ids: &ids, metrics: &metrics };
    let transit = latch.cloned().map(Transit::new);
    let remote = Remote::new(&shared, endpoint.clone(), transit, pool);
    let began = Instant::now();
    let speaks = match &remote.transit {
        Some(transit) => {
            let looked = async {
                if !transit.latch().is_set() {
                    // The look takes half of the time at most, so that some is left for the attempt itself.
                    remote.look_at(only, began + (deadline - began) / 2).await;
                }
            };
            tokio::select! {
                biased;
                speaks_tls = transit.speaks_tls(deadline) => speaks(speaks_tls, &remote),
                () = looked => speaks(transit.speaks_tls(deadline).await, &remote),
            }
        }
        None => tls.map(|tls| &**tls).into(),
    };
    Dial { only, ..remote.attempt(speaks, began, deadline) }.run().await
}

fn speaks(tls: bool, remote: &Remote) -> Speaks<'_> {
    if tls { remote.tls.as_deref().into() } else { Speaks::Plaintext }
}

/// Whether a connection still answers. An error is an answer, too, for example from a server that requires AUTH first.
async fn proves(connection: &mut Connection, deadline: Instant) -> bool {
    let ping = async {
        connection.send(&replies::encode_command(&["PING"])).await?;
        next_answer(connection).await
    };
    // Leaves half of the time to dial another connection.
    let answered = timeout(PROOF.min((deadline - Instant::now()) / 2), ping).await;
    matches!(answered, Ok(Ok(Some(_)))) && connection.is_at_boundary()
}

/// What an endpoint accepts, if TLS failed with this error.
fn mode(error: &ConnectError, answers_in_plaintext: bool) -> ObservedTransit {
    match (&error.source, answers_in_plaintext) {
        // The certificate was verified. The later failure has nothing to do with TLS.
        _ if error.stage == Stage::Greeting => ObservedTransit::Tls,
        (Cause::Tls(_), true) => ObservedTransit::Untrusted,
        (Cause::Tls(_), false) => ObservedTransit::UntrustedOnly,
        (_, true) => ObservedTransit::Disabled,
        (_, false) => ObservedTransit::Unreachable,
    }
}
