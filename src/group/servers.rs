//! How a survey reaches the servers of a group: over the network, or simulated by a test.

use std::collections::BTreeMap;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::probe::accepts_plaintext;
use crate::credentials::Credentials;
use crate::endpoint::Endpoint;
use crate::resolve::{ResolveError, resolve};
use crate::resp::replies::{self, Answer};
use crate::tls::{Tls, TlsError, TlsMode};
use crate::upstream::{
    self, AuthOutcome, Cause, Connection, Latch, NodeTls, Protection, next_answer_within, once,
};

/// Limit in bytes for a reply to `CLIENT LIST`: a line has some 350 bytes, and a node at most 65,000 clients.
const MAX_CLIENT_LIST: usize = 64 * 1024 * 1024;

/// How a survey reaches servers.
pub(super) trait Servers: Send + Sync {
    /// A connection to one server.
    type Connection: Send;

    /// Resolves an endpoint; `None` if the name does not exist.
    fn addresses(
        &self,
        endpoint: &Endpoint,
    ) -> impl Future<Output = Result<Option<Vec<SocketAddr>>, String>> + Send;

    /// Connects. `is_announced` means that a server named this endpoint and pontoon's configuration did not.
    fn connect(
        &self,
        endpoint: &Endpoint,
        address: SocketAddr,
        is_announced: bool,
    ) -> impl Future<Output = Result<Self::Connection, String>> + Send;

    /// Tries plaintext at the server behind a connection. Returns the address that was tried, and whether it accepts plaintext or why that
    /// is not known. `None` means that nothing was tried.
    fn accepts_plaintext(
        &self,
        _connection: &Self::Connection,
    ) -> impl Future<Output = Option<(SocketAddr, Result<bool, String>)>> + Send {
        ready(None)
    }

    /// Whether the server required the credentials that were presented.
    fn wants_auth(&self, connection: &Self::Connection) -> bool;

    /// Whether the connection is in plaintext.
    fn is_in_plaintext(&self, _connection: &Self::Connection) -> bool {
        false
    }

    /// Sends a command and returns its reply.
    fn ask(
        &self,
        connection: &mut Self::Connection,
        command: &[&str],
    ) -> impl Future<Output = Result<Answer, String>> + Send;

    /// How long a server may take to connect, and to answer a question.
    fn timeout(&self) -> Duration;
}

/// Servers on the network.
pub(super) struct NetworkServers<'a> {
    settings: &'a upstream::Settings,
    credentials: Option<&'a Arc<Credentials>>,
    /// `None` means that servers are asked in plaintext.
    tls: Option<NodeTls>,
    /// Whether a server without TLS is asked in plaintext.
    prefers_tls: bool,
    /// One latch for each address: set once TLS was seen there.
    latches: Mutex<BTreeMap<SocketAddr, Latch>>,
}

impl<'a> NetworkServers<'a> {
    /// Uses TLS, whatever `tls.mode` says. Reads the CA files.
    pub(super) fn load(
        settings: &'a upstream::Settings,
        credentials: Option<&'a Arc<Credentials>>,
    ) -> Result<Self, TlsError> {
        let tls = Some(NodeTls::load(settings)?);
        Ok(Self { settings, credentials, tls, prefers_tls: false, latches: Mutex::default() })
    }

    /// Uses TLS as `tls.mode` says. Reads the CA files.
    pub(super) fn by_mode(
        settings: &'a upstream::Settings,
        credentials: Option<&'a Arc<Credentials>>,
    ) -> Result<Self, TlsError> {
        let (tls, prefers_tls) = (NodeTls::wanted(settings)?, settings.tls.mode == TlsMode::Preferred);
        Ok(Self { settings, credentials, tls, prefers_tls, latches: Mutex::default() })
    }
}

fn tls_of<'t>(tls: &'t NodeTls, endpoint: &Endpoint, is_announced: bool) -> &'t Arc<Tls> {
    if is_announced { tls.of(endpoint) } else { &tls.by_name }
}

impl Servers for NetworkServers<'_> {
    type Connection = Connection;

    async fn addresses(&self, endpoint: &Endpoint) -> Result<Option<Vec<SocketAddr>>, String> {
        match resolve(endpoint).await {
            Ok(addresses) => Ok(Some(addresses)),
            Err(ResolveError::NoSuchHost(_)) => Ok(None),
            Err(error @ ResolveError::Unavailable(_)) => Err(error.to_string()),
        }
    }

    async fn connect(
        &self,
        endpoint: &Endpoint,
        address: SocketAddr,
        is_announced: bool,
    ) -> Result<Connection, String> {
        let deadline = Instant::now() + self.settings.connect_timeout;
        let latch = self.latches.lock().entry(address).or_default().clone();
        let protection = match &self.tls {
            None => Protection::Plaintext,
            Some(tls) if self.prefers_tls => {
                Protection::TlsWhereSpoken(tls_of(tls, endpoint, is_announced), &latch)
            }
            Some(tls) => Protection::Tls(tls_of(tls, endpoint, is_announced)),
        };
        let connected =
            once(endpoint, Some(address), self.settings, protection, self.credentials.cloned(), deadline);
        let connection = connected.await.map_err(|error| error.to_string())?;
        if connection.peer == address { Ok(connection) } else { Err(format!("{address} cannot be reached")) }
    }

    fn accepts_plaintext(
        &self,
        connection: &Connection,
    ) -> impl Future<Output = Option<(SocketAddr, Result<bool, String>)>> + Send {
        let (endpoint, address) = (Arc::clone(&connection.endpoint), connection.peer);
        let timeout = self.settings.connect_timeout;
        async move { Some((address, accepts_plaintext(endpoint, address, timeout).await)) }
    }

    fn wants_auth(&self, connection: &Connection) -> bool {
        connection.auth == AuthOutcome::Accepted
    }

    fn is_in_plaintext(&self, connection: &Connection) -> bool {
        connection.channel.is_none()
    }

    async fn ask(&self, connection: &mut Connection, command: &[&str]) -> Result<Answer, String> {
        let answer = async {
            connection.send(&replies::encode_command(command)).await?;
            next_answer_within(connection, MAX_CLIENT_LIST).await?.ok_or(Cause::Closed)
        };
        match answer.await.map_err(|cause| cause.to_string())? {
            Answer::Error(words)
                if words.starts_with("NOAUTH") && connection.auth == AuthOutcome::Withheld =>
            {
                Err(format!("{words} (the password is not sent in plaintext without auth.allow_plaintext)"))
            }
            answer => Ok(answer),
        }
    }

    fn timeout(&self) -> Duration {
        self.settings.connect_timeout
    }
}
