//! One attempt to reach one endpoint: credentials, resolve, TCP, TLS, greeting. Each is a stage that is measured, and one deadline covers
//! all. `dial` decides whether to make an attempt, and acts on its result.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::auth::AuthOutcome;
use super::connection::Connection;
use super::dial::Remote;
use super::error::{Cause, ConnectError, Stage};
use super::generation::Generation;
use super::race::Race;
use super::share::share;
use crate::credentials::Credentials;
use crate::resolve::resolve;
use crate::tls::Tls;
use crate::tls::channel::Channel;

/// What pontoon sends on a new connection before a client gets it.
#[derive(Clone, Copy)]
pub(super) enum Speaks<'a> {
    /// A TLS handshake, then a greeting.
    Tls(&'a Tls),
    /// A greeting in plaintext.
    Plaintext,
    /// Nothing, because the client brings its own TLS.
    Nothing,
}

impl<'a> From<Option<&'a Tls>> for Speaks<'a> {
    fn from(tls: Option<&'a Tls>) -> Self {
        tls.map_or(Self::Plaintext, Self::Tls)
    }
}

/// One attempt to reach an endpoint.
pub(super) struct Dial<'a> {
    pub(super) remote: &'a Remote,
    pub(super) speaks: Speaks<'a>,
    /// The attempt presents no credentials.
    pub(super) anonymous: bool,
    /// The address that is dialled before the endpoint's other addresses.
    pub(super) first: Option<SocketAddr>,
    /// The only address to dial; nothing is resolved.
    pub(super) only: Option<SocketAddr>,
    pub(super) began: Instant,
    pub(super) deadline: Instant,
    pub(super) generation: Generation,
    pub(super) timings: Vec<(Stage, Duration)>,
}

impl<'a> Dial<'a> {
    /// Runs all stages, from the credentials to a greeted connection.
    pub(super) async fn run(&mut self) -> Result<Connection, ConnectError> {
        let remote = self.remote;
        // Credentials come first: without them there is no reason to dial the server.
        if let (Some(credentials), _) = self.credentials() {
            let ready = Box::pin(credentials.ready());
            self.stage(Stage::Auth, self.deadline, async { Ok(ready.await?) }).await?;
        }
        let addresses = if let Some(address) = self.only {
            vec![address]
        } else {
            let found = async { Ok(resolve(&remote.endpoint).await?) };
            self.stage(Stage::Resolve, self.deadline, found).await?
        };
        let mut race = Race::new(remote.spread.order(addresses.clone(), self.first));
        let mut worst: Option<ConnectError> = None;
        loop {
            let next = async { Ok(race.next().await.transpose()?) };
            let error = match self.stage(Stage::Tcp, self.deadline, next).await {
                Ok(None) => break,
                Ok(Some((stream, peer))) => {
                    remote.dialled.fetch_add(1, Ordering::Relaxed);
                    let deadline = share(self.deadline, 1 + race.remaining() as usize);
                    match self.establish(stream, peer, deadline).await {
                        Ok(connection) => {
                            remote.spread.connected(&addresses, peer);
                            return Ok(connection);
                        }
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            // Another address would lack a file descriptor, too.
            if error.source.is_lack_of_descriptors() {
                return Err(error);
            }
            // The attempt that reached the latest stage has the most useful error.
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
        if let Speaks::Tls(tls) = self.speaks {
            let handshake = async {
                let name =
                    tls.server_name(&remote.endpoint).map_err(|error| Cause::Tls(error.to_string()))?;
                Ok(Channel::handshake(tls.config(), name, &mut stream).await?)
            };
            let (established, early) = self.stage(Stage::Tls, deadline, handshake).await?;
            let resumed = established.state().handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            remote.metrics.handshake(resumed);
            if !resumed {
                remote.note_certificate(&established);
            }
            channel = Some(established);
            unread = early;
        }
        let mut connection = Connection {
            expires: Instant::now() + remote.lifetime(),
            generation: self.generation.clone(),
            ..Connection::new(stream, channel, unread, Arc::clone(&remote.endpoint), peer)
        };
        if !matches!(self.speaks, Speaks::Nothing) && !self.is_over() {
            let (credentials, withheld) = self.credentials();
            let greeted = remote.greeting.exchange(&mut connection, credentials);
            let auth = self.stage(Stage::Greeting, deadline, greeted).await?;
            connection.auth = if withheld { AuthOutcome::Withheld } else { auth };
            connection.authenticated = (connection.auth == AuthOutcome::Accepted).then(Instant::now);
            if !self.anonymous {
                remote.note_greeted(&connection);
            }
        }
        connection.timings = std::mem::take(&mut self.timings);
        Ok(connection)
    }

    /// Whether the latch was set since this plaintext attempt began. Then nothing is sent on the connection, and no client gets it.
    fn is_over(&self) -> bool {
        let transit = self.remote.transit.as_ref().filter(|_| matches!(self.speaks, Speaks::Plaintext));
        transit.is_some_and(|transit| transit.latch().is_set())
    }

    fn credentials(&self) -> (Option<&'a Credentials>, bool) {
        match self.speaks {
            _ if self.anonymous => (None, false),
            // The client sends its own credentials within its own TLS.
            Speaks::Nothing => (None, false),
            Speaks::Tls(_) => self.remote.credentials_for(true),
            Speaks::Plaintext => self.remote.credentials_for(false),
        }
    }

    /// Runs a stage until the deadline and measures it.
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
            // AUTH is sent together with the greeting.
            Ok(Err(source @ (Cause::AuthRefused { .. } | Cause::NoSecret(_)))) => {
                Err(self.remote.error(Stage::Auth, source))
            }
            Ok(Err(source)) => Err(self.remote.error(stage, source)),
            Err(_) => {
                let after = whole_ms(self.began.elapsed());
                Err(self.remote.error(stage, Cause::TimedOut { after, stage }))
            }
        }
    }
}

/// Cuts a duration to whole milliseconds, for messages.
pub(super) fn whole_ms(duration: Duration) -> Duration {
    Duration::from_millis(duration.as_millis() as u64)
}
