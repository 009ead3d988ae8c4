//! One endpoint: resolve, TCP, TLS, greeting, under one deadline.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use super::connection::Connection;
use super::error::{Cause, ConnectError, Stage};
use super::gate::{Gate, NoTurn};
use super::greeting::Greeting;
use super::race::Race;
use super::{Settings, share};
use crate::endpoint::Endpoint;
use crate::metrics::{Held, RouteMetrics};
use crate::resolve::resolve;
use crate::telemetry::Throttle;
use crate::tls::channel::{Channel, HandshakeError};
use crate::tls::{Tls, explain};

/// An endpoint as all sessions of a route see it.
pub(super) struct Remote {
    route: String,
    endpoint: Endpoint,
    gate: Gate,
    tls: Option<Arc<Tls>>,
    greeting: Greeting,
    metrics: Arc<RouteMetrics>,
    throttle: Throttle,
}

impl Remote {
    pub(super) fn new(
        route: &str,
        endpoint: Endpoint,
        settings: &Settings,
        tls: Option<Arc<Tls>>,
        metrics: Arc<RouteMetrics>,
    ) -> Self {
        Self {
            route: route.to_owned(),
            endpoint,
            gate: Gate::new(settings.handshakes),
            tls,
            greeting: Greeting::new(settings.client_name.clone()),
            metrics,
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

    /// Waits for a turn, then dials.
    pub(super) async fn connect(&self, deadline: Instant) -> Result<Connection, Arc<ConnectError>> {
        let began = Instant::now();
        let _connecting = Held::new(&self.metrics.upstream_connecting);
        let turn = match self.gate.turn(deadline).await {
            Ok(turn) => turn,
            // A failure that others have counted and logged.
            Err(NoTurn::Failed(error) | NoTurn::TimedOut(Some(error))) => return Err(error),
            Err(NoTurn::TimedOut(None)) => {
                let error = self.timed_out(began, Stage::Queue);
                self.report(&error);
                return Err(error);
            }
        };
        let mut dial = Dial { remote: self, began, deadline, timings: Vec::new() };
        match dial.run().await {
            Ok(connection) => {
                let failures = turn.succeeded();
                if failures > 0 {
                    info!(route = self.route, upstream = %self.endpoint, failures, "upstream reached again");
                }
                debug!(route = self.route, upstream = %self.endpoint, peer = %connection.peer, "upstream connected");
                Ok(connection)
            }
            Err(error) => {
                let error = Arc::new(error);
                self.report(&error);
                turn.failed(&error);
                Err(error)
            }
        }
    }

    fn report(&self, error: &ConnectError) {
        self.metrics.connect_error(error.stage.label());
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

    fn timed_out(&self, began: Instant, stage: Stage) -> Arc<ConnectError> {
        Arc::new(self.error(stage, Cause::TimedOut { after: whole_ms(began.elapsed()), stage }))
    }

    fn error(&self, stage: Stage, source: Cause) -> ConnectError {
        ConnectError { endpoint: self.endpoint.clone(), stage, source }
    }
}

/// One attempt.
struct Dial<'a> {
    remote: &'a Remote,
    began: Instant,
    deadline: Instant,
    timings: Vec<(Stage, Duration)>,
}

impl Dial<'_> {
    async fn run(&mut self) -> Result<Connection, ConnectError> {
        let remote = self.remote;
        let addresses =
            self.stage(Stage::Resolve, self.deadline, async { Ok(resolve(&remote.endpoint).await?) }).await?;
        let mut race = Race::new(addresses);
        let mut worst: Option<ConnectError> = None;
        loop {
            let next = async { Ok(race.next().await.transpose()?) };
            let error = match self.stage(Stage::Tcp, self.deadline, next).await {
                Ok(None) => break,
                Ok(Some((stream, peer))) => {
                    let deadline = share(self.deadline, 1 + race.remaining() as usize);
                    match self.establish(stream, peer, deadline).await {
                        Ok(connection) => return Ok(connection),
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            // What went furthest tells most.
            if worst.as_ref().is_none_or(|worst| error.stage >= worst.stage) {
                worst = Some(error);
            }
            if Instant::now() >= self.deadline {
                break;
            }
        }
        Err(worst.expect("`resolve` gives an address or an error, and each address a connection or an error"))
    }

    async fn establish(
        &mut self,
        mut stream: TcpStream,
        peer: SocketAddr,
        deadline: Instant,
    ) -> Result<Connection, ConnectError> {
        let remote = self.remote;
        let mut channel = None;
        let mut unread = Vec::new();
        if let Some(tls) = &remote.tls {
            let handshake = async {
                let name =
                    tls.server_name(&remote.endpoint).map_err(|error| Cause::Tls(error.to_string()))?;
                Channel::handshake(tls.config(), name, &mut stream).await.map_err(|error| match error {
                    HandshakeError::Tls(error) => Cause::Tls(explain(&error)),
                    HandshakeError::Io(error) => Cause::Io(error),
                    HandshakeError::Closed => Cause::Closed,
                })
            };
            let (established, early) = self.stage(Stage::Tls, deadline, handshake).await?;
            let resumed = established.state().handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            remote.metrics.handshake(resumed);
            channel = Some(established);
            unread = early;
        }
        let mut connection = Connection {
            stream,
            channel,
            unread,
            endpoint: remote.endpoint.clone(),
            peer,
            timings: Vec::new(),
        };
        self.stage(Stage::Greeting, deadline, remote.greeting.exchange(&mut connection)).await?;
        connection.timings = std::mem::take(&mut self.timings);
        Ok(connection)
    }

    /// Runs a stage until the deadline, and measures it.
    async fn stage<T>(
        &mut self,
        stage: Stage,
        deadline: Instant,
        work: impl Future<Output = Result<T, Cause>>,
    ) -> Result<T, ConnectError> {
        let started = Instant::now();
        match timeout_at(deadline, work).await {
            Ok(Ok(value)) => {
                let took = started.elapsed();
                self.timings.push((stage, took));
                self.remote.metrics.connect_seconds(stage.label(), took);
                Ok(value)
            }
            Ok(Err(source)) => Err(self.remote.error(stage, source)),
            Err(_) => {
                let after = whole_ms(self.began.elapsed());
                Err(self.remote.error(stage, Cause::TimedOut { after, stage }))
            }
        }
    }
}

/// Nobody acts on microseconds.
fn whole_ms(duration: Duration) -> Duration {
    Duration::from_millis(duration.as_millis() as u64)
}
