//! A greeted connection, over TLS or in plaintext, with simple send and receive operations. The relay has its own.

use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::auth::AuthOutcome;
use super::error::Stage;
use super::generation::Generation;
use super::greeting::Greeted;
use super::ids::{PassedOnId, SeenId};
use crate::credentials::Expiry;
use crate::endpoint::Endpoint;
use crate::tls;
use crate::tls::channel::{Channel, sealed_len};
use crate::workers;

/// A connection to an upstream.
pub struct Connection {
    /// The transport.
    pub stream: TcpStream,
    /// TLS over it; `None` in plaintext.
    pub channel: Option<Channel>,
    /// Bytes from the upstream that are decrypted and not read yet.
    pub unread: Vec<u8>,
    /// The endpoint as configured or announced.
    pub endpoint: Arc<Endpoint>,
    /// The address that the connection leads to.
    pub peer: SocketAddr,
    /// The user that the server takes this connection for.
    pub auth: AuthOutcome,
    /// When the server last accepted that user.
    pub authenticated: Option<Instant>,
    /// When the server stops accepting the login that it last accepted, if the source of the credentials says so.
    pub login_expiry: Option<Expiry>,
    /// The parts of the server's replies to the greeting that are used later.
    pub(super) greeted: Greeted,
    /// What its client has learned of the connection's number at the server.
    pub seen_id: SeenId,
    /// Set if an earlier client has learned the connection's number.
    pub passed_on: Option<PassedOnId>,
    /// The duration of each stage.
    pub timings: Vec<(Stage, Duration)>,
    /// The connection was dialled before a client needed it.
    pub(super) warm: bool,
    /// The connection has served a client before.
    pub(super) used: bool,
    /// The connection serves no further client after this time.
    pub expires: Instant,
    /// The pool's generation when the connection was dialled.
    pub generation: Generation,
    /// The thread whose event loop it is bound to.
    pub(super) worker: Option<usize>,
}

/// Where a connection leads, and the pool's generation when it was dialled.
#[derive(Debug, Clone)]
pub struct Dialled {
    /// The endpoint as configured or announced.
    pub endpoint: Arc<Endpoint>,
    /// The pool's generation when the connection was dialled.
    pub generation: Generation,
}

#[cfg(test)]
impl Dialled {
    /// A connection to this endpoint that is not retired.
    pub fn first(endpoint: &Endpoint) -> Self {
        Self { endpoint: Arc::new(endpoint.clone()), generation: Generation::default() }
    }
}

/// Large enough for the replies to a greeting.
const BUFFER: usize = 4 * 1024;

impl Connection {
    /// A connection that serves no second client, unless the caller changes `expires` and `generation`.
    pub(crate) fn new(
        stream: TcpStream,
        channel: Option<Channel>,
        unread: Vec<u8>,
        endpoint: Arc<Endpoint>,
        peer: SocketAddr,
    ) -> Self {
        Self {
            stream,
            channel,
            unread,
            endpoint,
            peer,
            auth: AuthOutcome::None,
            authenticated: None,
            login_expiry: None,
            greeted: Greeted::default(),
            seen_id: SeenId::Unseen,
            passed_on: None,
            timings: Vec::new(),
            warm: false,
            used: false,
            expires: Instant::now(),
            generation: Generation::default(),
            worker: workers::current(),
        }
    }

    /// TLS version, cipher suite and certificate in one line; `None` in plaintext.
    pub fn tls_details(&self) -> Option<String> {
        let state = self.channel.as_ref()?.state();
        let version = state
            .protocol_version()
            .and_then(|version| version.as_str().map(|text| text.replace("TLSv", "TLS ").replace('_', ".")));
        let suite = state.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let leaf =
            state.peer_certificates().and_then(|chain| chain.first()).map(|leaf| tls::describe_leaf(leaf));
        let parts = [version, suite.map(str::to_owned), leaf];
        Some(parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }

    /// Identifies the connection in reports of its loss or of a failover.
    pub fn dialled(&self) -> Dialled {
        Dialled { endpoint: Arc::clone(&self.endpoint), generation: self.generation.clone() }
    }

    /// Where it comes from, as a metric label.
    pub fn origin(&self) -> &'static str {
        match self {
            Self { used: true, .. } => "reused",
            Self { warm: true, .. } => "warm",
            _ => "dialled",
        }
    }

    /// Moves the connection to the event loop of this thread.
    pub(super) fn bound_here(self) -> io::Result<Self> {
        let here = workers::current();
        if self.worker == here {
            return Ok(self);
        }
        let stream = TcpStream::from_std(self.stream.into_std()?)?;
        Ok(Self { stream, worker: here, ..self })
    }

    /// Whether the upstream has neither closed the connection nor sent application data. Records of TLS itself, such as tickets, do not
    /// count.
    pub(super) fn is_silent(&mut self) -> bool {
        let would_block = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        loop {
            // The kernel may know of bytes that the event loop has not seen yet.
            match SockRef::from(&self.stream).peek(&mut [MaybeUninit::uninit()]) {
                // This read makes the event loop forget its stale readiness.
                Err(error) if would_block(&error) => {
                    return self.stream.try_read(&mut [0]).is_err_and(|error| would_block(&error));
                }
                Err(_) | Ok(0) => return false,
                Ok(_) => {}
            }
            let Some(channel) = &mut self.channel else { return false };
            let kept = channel.kept();
            let mut buffer = vec![0; kept + BUFFER];
            let Ok(n @ 1..) = (&*SockRef::from(&self.stream)).read(&mut buffer[kept..]) else { return false };
            let mut answer = Vec::new();
            let decrypted = channel.decrypt(&mut buffer[..kept + n], &mut self.unread, &mut answer);
            if !matches!(decrypted, Ok(decrypted) if !decrypted.closed)
                || !self.unread.is_empty()
                || !answer.is_empty()
            {
                return false;
            }
        }
    }

    /// Whether there are neither unread bytes nor a part of a TLS record.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.unread.is_empty() && self.channel.as_ref().is_none_or(|channel| channel.kept() == 0)
    }

    /// Sends `bytes` and waits until the kernel has taken them all.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.channel {
            None => self.stream.write_all(bytes).await,
            Some(channel) => {
                let mut sealed = vec![0; sealed_len(bytes.len())];
                let n = channel.encrypt(bytes, &mut sealed).map_err(|error| tls_error(&error))?;
                self.stream.write_all(&sealed[..n]).await
            }
        }
    }

    /// Waits for more bytes and appends them to [`unread`](Self::unread). Returns `false` if the upstream sends no more.
    pub async fn receive(&mut self) -> io::Result<bool> {
        let before = self.unread.len();
        loop {
            let Some(channel) = &mut self.channel else {
                return Ok(self.stream.read_buf(&mut self.unread).await? > 0);
            };
            let kept = channel.kept();
            let mut buffer = vec![0; kept + BUFFER];
            let n = self.stream.read(&mut buffer[kept..]).await?;
            if n == 0 {
                return Ok(false);
            }
            let mut answer = Vec::new();
            let decrypted = channel
                .decrypt(&mut buffer[..kept + n], &mut self.unread, &mut answer)
                .map_err(|error| tls_error(&error))?;
            self.stream.write_all(&answer).await?;
            // A record of TLS itself, such as a ticket, carries no application data.
            if self.unread.len() > before || decrypted.closed {
                return Ok(self.unread.len() > before);
            }
        }
    }
}

fn tls_error(error: &rustls::Error) -> io::Error {
    io::Error::other(tls::explain(error))
}
