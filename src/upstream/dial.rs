//! One endpoint, as all sessions of a route see it: a connection that is ready, an attempt at a new one, or one that a client left, made clean
//! by RESET (`recycle`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

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

/// A connection that was silent for a while and does not answer in this time is taken for dead, and with it all that
/// were silent for as long.
const PROOF: Duration = Duration::from_secs(1);

/// After a look that found no TLS, until the next.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Time, in milliseconds, in which an endpoint that answers in plaintext may still turn out to speak TLS, before clients
/// use it as it is.
const TLS_HEAD_START: Duration = Duration::from_millis(250);

/// So long a client waits for a connection that another one leaves, before one is dialled: less than a handshake takes.
const ABOUT_TO_RETURN: Duration = Duration::from_millis(3);

/// Time, in milliseconds, until the next attempt after one for which there was no file descriptor.
const DESCRIPTOR_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// A connection that is not made clean in this time is closed.
const RENEWAL: Duration = Duration::from_secs(2);

/// An endpoint as all sessions of a route see it.
pub(super) struct Remote {
    route: String,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) pool: Pool,
    pub(super) spread: Spread,
    /// Where `tls.mode` is `preferred`.
    pub(super) transit: Option<Transit>,
    /// TCP connections that were opened.
    pub(super) dialled: AtomicU64,
    gate: Gate,
    /// A client has at least so long for this endpoint.
    patience: Duration,
    tls: Option<Arc<Tls>>,
    pub(super) greeting: Greeting,
    credentials: Option<Arc<Credentials>>,
    /// It has been said that they are not sent.
    withheld: AtomicBool,
    /// By its last reply, the server requires AUTH; or it has not replied yet.
    wants_auth: AtomicBool,
    /// When the certificate that was presented last expires, in Unix time; 0: none was.
    certificate_expiry: AtomicU64,
    ids: Arc<Ids>,
    pub(super) metrics: Arc<RouteMetrics>,
    /// What the metrics show of the endpoint.
    pub(super) shown: UpstreamMetrics,
    throttle: Throttle,
}

/// What the endpoints of a route have in common.
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
        // Where none can be reached, each has its share of the time.
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

    /// The end of the pause after a failure; `None`: the endpoint works, or was never tried.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.gate.retry_at()
    }

    /// Since when the endpoint is failing, and the last failure; `None`: it works, or was never tried.
    pub(super) fn failure(&self) -> Option<(Moment, Arc<ConnectError>)> {
        self.gate.failure()
    }

    /// A connection that is ready, or a new one. `to`: one to this address, if it can be reached.
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

    /// Not where plaintext was over by the time that it was there.
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
            let generation = connection.generation;
            self.pool.discard(connection, Discard::Unanswered);
            // What was silent as long went the same way, most likely: no client need find out one by one.
            self.pool.retire_with(generation, Discard::Unanswered);
        }
        let began = Instant::now();
        if to.is_some() {
            // What comes back may lead elsewhere.
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
        // RESET is one round trip, a new connection several.
        tokio::select! {
            biased;
            connection = self.dial(turn, None, began, deadline) => connection,
            connection = self.pool.returned(true) => Ok(connection),
        }
    }

    /// Waits a moment for the connection of a client that has just left. Of a program that connects for each task, its next client may
    /// be seen before the end of the one before.
    async fn about_to_return(&self) -> Option<Connection> {
        if !self.recycles() || !self.pool.has_leased() {
            return None;
        }
        timeout(ABOUT_TO_RETURN, self.pool.returned(false)).await.ok()
    }

    /// Waits for a turn, then dials.
    pub(super) async fn connect(&self, deadline: Instant) -> Result<Connection, Arc<ConnectError>> {
        let began = Instant::now();
        let turn = self.turn(began, deadline).await?;
        self.dial(turn, None, began, deadline).await
    }

    /// Waits for a turn, then opens a connection on which nothing has been said.
    pub(super) async fn open(&self, deadline: Instant) -> Result<Connection, Arc<ConnectError>> {
        let began = Instant::now();
        let turn = self.turn(began, deadline).await?;
        self.dial_as(Speaks::Nothing, turn, None, began, deadline).await
    }

    /// [Looks](Self::look) every few seconds.
    pub(super) async fn look_often(&self, timeout: Duration) {
        loop {
            self.look(timeout).await;
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Finds out what the endpoint accepts, and remembers it.
    ///
    /// A plaintext Redis takes a `ClientHello` for an inline command and may never answer: while TLS is waited for, an
    /// answer in plaintext is remembered, so that clients wait for no timeout.
    pub(super) async fn look(&self, timeout: Duration) {
        self.look_at(None, Instant::now() + timeout).await;
    }

    /// [Looks](Self::look) at this address of the endpoint's alone, where one is given.
    async fn look_at(&self, only: Option<SocketAddr>, deadline: Instant) {
        let Some(transit) = &self.transit else { return };
        let began = Instant::now();
        // Nobody's: whether there is TLS is no matter of who asks.
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
        let error = error.map(|error| format!(": {error}")).unwrap_or_default();
        self.shown.transit(mode.label());
        // An endpoint that cannot make up its mind.
        let Some(suppressed) = self.throttle.allow(&format!("speaks {}", mode.label())) else { return };
        match mode {
            ObservedTransit::Tls => {
                info!(route, %upstream, suppressed, "TLS is spoken here: no new connection of the route uses plaintext");
            }
            ObservedTransit::Unknown | ObservedTransit::Unreachable => {
                info!(route, %upstream, suppressed, "nothing is spoken here for now{error}");
            }
            _ => warn!(route, %upstream, suppressed, "{} is spoken here{error}", mode.describe()),
        }
    }

    /// A turn to dial ahead of clients, if that keeps none of them waiting.
    pub(super) fn spare_turn(&self) -> Option<Turn<'_>> {
        self.gate.spare_turn()
    }

    /// Dials, for the pool.
    pub(super) async fn fill(&self, turn: Turn<'_>, deadline: Instant) {
        let _connecting = GaugeGuard::new(&self.metrics.upstream_connecting);
        if let Ok(mut connection) = self.dial(turn, None, Instant::now(), deadline).await {
            connection.warm = true;
            self.pool.put(connection);
        }
    }

    /// Makes clean what a client left, and keeps it for the next; closes it where that can't be.
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
        self.pool.put(connection);
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
                    debug!(route = self.route, upstream = %self.endpoint, "{unclean}: connections are not reused");
                }
                false
            }
            Err(_) => false,
        }
    }

    /// Takes note of what the server said to a greeting.
    pub(super) fn note_greeted(&self, connection: &Connection) {
        match connection.greeted.wants_auth {
            Some(true) => self.note_wants_auth(),
            Some(false) => self.wants_auth.store(false, Ordering::Relaxed),
            None => {}
        }
    }

    /// The server requires AUTH. If it did not before, connections from then need none: no further client gets one.
    pub(super) fn note_wants_auth(&self) {
        if self.wants_auth.swap(true, Ordering::Relaxed) {
            return;
        }
        self.pool.retire(Discard::Retired);
        if let Some(suppressed) = self.throttle.allow("wants auth") {
            info!(
                route = self.route,
                upstream = %self.endpoint,
                suppressed,
                "server requires authentication, ready connections closed"
            );
        }
    }

    /// Logs that connections whose number was seen are not reused from now on.
    pub(super) fn tell_ids_are_used(&self) {
        info!(
            route = self.route,
            upstream = %self.endpoint,
            "client named a connection by its number, connections whose number was seen are no longer reused"
        );
    }

    /// What to present, and whether that is nothing because the connection is in plaintext.
    pub(super) fn credentials_for(&self, over_tls: bool) -> (Option<&Credentials>, bool) {
        match self.credentials.as_deref() {
            Some(credentials) if !over_tls && !credentials.allow_plaintext() => (None, true),
            credentials => (credentials, false),
        }
    }

    /// Says so where connections are nobody's though credentials are configured.
    fn note_auth(&self, auth: AuthOutcome) {
        let (route, upstream) = (&self.route, &self.endpoint);
        match auth {
            AuthOutcome::None | AuthOutcome::Accepted => {}
            AuthOutcome::Withheld if self.withheld.swap(true, Ordering::Relaxed) => {}
            AuthOutcome::Withheld => warn!(
                route,
                %upstream,
                "the connection is in plaintext: the credentials stay at home, and sessions go on without them (see \
                 auth.allow_plaintext)"
            ),
            AuthOutcome::Unwanted => {
                if let Some(suppressed) = self.throttle.allow("auth unwanted") {
                    warn!(
                        route,
                        %upstream,
                        suppressed,
                        "the server has no password: sessions go on without the credentials that are configured"
                    );
                }
            }
        }
    }

    /// Whether [`recycle`](Self::recycle) is of any use.
    pub(super) fn recycles(&self) -> bool {
        self.pool.settings.reuse
    }

    async fn turn(&self, began: Instant, deadline: Instant) -> Result<Turn<'_>, Arc<ConnectError>> {
        match self.gate.turn(deadline).await {
            Ok(turn) => Ok(turn),
            // A failure that others have counted and logged.
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
                // Where every second attempt fails, this is no news.
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
                // That there was no time left, or no descriptor, is not the endpoint's fault.
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

    /// An attempt; where no file descriptor is free for it, another one a moment later, until `deadline`.
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
                    "no file descriptor is free for an upstream connection, its client waits: {error}"
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

    /// Shortened at random by up to a quarter: connections that were dialled together do not all go together.
    pub(super) fn lifetime(&self) -> Duration {
        // A connection that nobody has must not have been cut, either.
        let renewal = self.credentials.as_ref().and_then(|credentials| credentials.renewal());
        let max_age = self.pool.settings.max_age.min(renewal.unwrap_or(Duration::MAX));
        max_age.mul_f64(1.0 - fastrand::f64() / 4.0)
    }

    fn report(&self, error: &ConnectError) {
        self.metrics.connect_error(error.stage.label());
        // In a list of names, those of tomorrow do not exist yet, and those of yesterday no more.
        if self.transit.is_some() && error.stage == Stage::Resolve {
            return debug!(route = self.route, upstream = %self.endpoint, "{error}");
        }
        // One line a cause, not one a client.
        if let Some(suppressed) = self.throttle.allow(error.stage.label()) {
            warn!(
                route = self.route,
                upstream = %self.endpoint,
                stage = error.stage.label(),
                suppressed,
                "{error}"
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

    /// When the certificate that was presented last expires; `None`: none was.
    pub(super) fn certificate_expiry(&self) -> Option<Moment> {
        Some(self.certificate_expiry.load(Ordering::Relaxed)).filter(|expiry| *expiry > 0).map(Moment::at)
    }

    fn timed_out(&self, began: Instant, stage: Stage) -> Arc<ConnectError> {
        Arc::new(self.error(stage, Cause::TimedOut { after: whole_ms(began.elapsed()), stage }))
    }

    pub(super) fn error(&self, stage: Stage, source: Cause) -> ConnectError {
        ConnectError { endpoint: Endpoint::clone(&self.endpoint), stage, source }
    }
}

/// How one attempt of no route is protected.
#[derive(Clone, Copy)]
pub(crate) enum Protection<'a> {
    /// By TLS, or there is no connection.
    Tls(&'a Arc<Tls>),
    /// By TLS where the endpoint speaks it, and from then on nothing else.
    TlsWhereSpoken(&'a Arc<Tls>, &'a Latch),
    /// Not at all.
    Plaintext,
}

/// One attempt to reach an endpoint, of no route: nobody counts it, and what it leads to serves no client.
/// `only`: to this address of its.
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
                    // Time is left for the attempt itself.
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

/// Whether a connection still answers. Any answer will do: a server that wants AUTH first is there, too.
async fn proves(connection: &mut Connection, deadline: Instant) -> bool {
    let ping = async {
        connection.send(&replies::encode_command(&["PING"])).await?;
        next_answer(connection).await
    };
    // Another one has to be dialled in what is left.
    let answered = timeout(PROOF.min((deadline - Instant::now()) / 2), ping).await;
    matches!(answered, Ok(Ok(Some(_)))) && connection.is_at_boundary()
}

/// What an endpoint is that was not reached over TLS for this reason.
fn mode(error: &ConnectError, answers_in_plaintext: bool) -> ObservedTransit {
    match (&error.source, answers_in_plaintext) {
        // Verified; the rest is no matter of TLS.
        _ if error.stage == Stage::Greeting => ObservedTransit::Tls,
        (Cause::Tls(_), true) => ObservedTransit::Untrusted,
        (Cause::Tls(_), false) => ObservedTransit::UntrustedOnly,
        (_, true) => ObservedTransit::Disabled,
        (_, false) => ObservedTransit::Unreachable,
    }
}
