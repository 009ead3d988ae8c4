//! A greeted connection, TLS or plaintext, with the simple way to talk over it. The relay has its own.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::error::Stage;
use crate::endpoint::Endpoint;
use crate::tls;
use crate::tls::channel::{Channel, sealed_len};

/// A connection to an upstream.
pub struct Connection {
    /// The transport.
    pub stream: TcpStream,
    /// TLS over it; `None` in plaintext.
    pub channel: Option<Channel>,
    /// What the upstream said that nobody has read, in plaintext.
    pub unread: Vec<u8>,
    /// The endpoint that was asked for.
    pub endpoint: Endpoint,
    /// The address that answered.
    pub peer: SocketAddr,
    /// What each stage took.
    pub timings: Vec<(Stage, Duration)>,
}

/// Large enough for what a greeting or a check is answered.
const BUFFER: usize = 16 * 1024;

impl Connection {
    /// Version, cipher suite, and whose certificate until when, in a line; `None` in plaintext.
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

    /// Sends `bytes`.
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

    /// Waits for more bytes, and appends them to [`unread`](Self::unread). `false`: the upstream sends no more.
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
            // A record of TLS' own, a ticket say, carries no bytes of the upstream's.
            if self.unread.len() > before || decrypted.closed {
                return Ok(self.unread.len() > before);
            }
        }
    }
}

fn tls_error(error: &rustls::Error) -> io::Error {
    io::Error::other(tls::explain(error))
}
