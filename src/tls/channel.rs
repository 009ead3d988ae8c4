//! One TLS connection without buffers of its own: it decrypts and encrypts in the caller's buffers.
//!
//! Built on rustls' unbuffered interface. The relay shares its buffers among all sessions of a thread, and an idle connection holds none.

use std::io;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{ClientConfig, CommonState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The most that [`Channel::encrypt`] writes for `plain` bytes. Each record of 16 KiB adds a header, an explicit nonce, a content type and
/// a tag; a post-handshake message may go first.
pub const fn sealed_len(plain: usize) -> usize {
    plain + (plain / 16384 + 1) * 64 + POST_HANDSHAKE
}

/// Room for key updates and alerts that are sent together with application data.
const POST_HANDSHAKE: usize = 512;

/// Size limit of one handshake flight. No real certificate chain is longer.
const MAX_FLIGHT: usize = 256 * 1024;

/// An established TLS connection.
pub struct Channel {
    /// Boxed because this is most of a connection, which moves from dial to pool to relay.
    tls: Box<UnbufferedClientConnection>,
    /// The start of a record whose end has not arrived.
    incoming: Vec<u8>,
    /// Set when rustls has returned an error. It must not be called again, because what it keeps of a message refers to bytes that are
    /// gone.
    failed: bool,
}

/// Why a handshake did not complete.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// rustls refused what the peer sent, or the peer sent an alert.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The transport failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer closed the connection before the handshake was complete.
    #[error("the peer closed the connection during the handshake")]
    Closed,
}

/// The result of decrypting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decrypted {
    /// The peer announced that it sends no more.
    pub closed: bool,
}

impl Channel {
    /// Performs a handshake over `stream`. Returns the channel and the bytes that the peer has already sent through it. The caller sets the
    /// deadline.
    pub async fn handshake(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        stream: &mut TcpStream,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let tls = Box::new(UnbufferedClientConnection::new(config, name)?);
        let mut channel = Self { tls, incoming: Vec::new(), failed: false };
        let mut outgoing = Vec::new();
        let mut buffer = vec![0; 8192];
        loop {
            match channel.advance(&mut outgoing) {
                Ok(HandshakeStep::Send) => {
                    stream.write_all(&outgoing).await?;
                    outgoing.clear();
                }
                Ok(HandshakeStep::Receive) => {
                    let n = stream.read(&mut buffer).await?;
                    if n == 0 || channel.incoming.len() > MAX_FLIGHT {
                        return Err(HandshakeError::Closed);
                    }
                    channel.incoming.extend_from_slice(&buffer[..n]);
                }
                Ok(HandshakeStep::Done) => {
                    let mut received = std::mem::take(&mut channel.incoming);
                    let mut early = Vec::new();
                    channel.decrypt(&mut received, &mut early, &mut outgoing)?;
                    stream.write_all(&outgoing).await?;
                    return Ok((channel, early));
                }
                Err(error) => {
                    channel.failed = true;
                    channel.alert(&mut outgoing);
                    // The error is the same whether the peer receives the alert or not.
                    let _ = stream.try_write(&outgoing);
                    return Err(error.into());
                }
            }
        }
    }

    /// What was negotiated: version, cipher suite, certificates, whether a ticket was used.
    pub fn state(&self) -> &CommonState {
        &self.tls
    }

    /// Number of bytes kept of an incomplete record.
    pub fn kept(&self) -> usize {
        self.incoming.len()
    }

    /// Decrypts `buffer[kept..filled]`, which was newly received. The caller leaves room for the [`kept`](Self::kept) bytes at the front.
    /// Appends plaintext to `plain`, and the bytes that TLS itself must send to `answer`.
    pub fn decrypt(
        &mut self,
        buffer: &mut [u8],
        plain: &mut Vec<u8>,
        answer: &mut Vec<u8>,
    ) -> Result<Decrypted, rustls::Error> {
        self.usable()?;
        buffer[..self.incoming.len()].copy_from_slice(&self.incoming);
        let mut start = 0;
        let mut closed = false;
        let mut more = true;
        while more {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(&mut buffer[start..]);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        plain.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, answer),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => closed = true,
                Ok(ConnectionState::Closed) => {
                    closed = true;
                    more = false;
                }
                Ok(_) => more = false,
                Err(error) => {
                    self.failed = true;
                    self.alert(answer);
                    return Err(error);
                }
            }
            start += discard;
        }
        self.keep(&buffer[start..]);
        Ok(Decrypted { closed })
    }

    /// Encrypts `plain` into `out`, which must have room for [`sealed_len`] bytes, and returns the length.
    pub fn encrypt(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, rustls::Error> {
        self.write(out, |traffic, out| traffic.encrypt(plain, out))
    }

    /// Encrypts the `close_notify` alert into `out`, which says that no more data follows.
    pub fn close_notify(&mut self, out: &mut [u8]) -> Result<usize, rustls::Error> {
        #[expect(
            clippy::redundant_closure_for_method_calls,
            reason = "the method's lifetimes are not general enough"
        )]
        self.write(out, |traffic, out| traffic.queue_close_notify(out))
    }

    fn write(
        &mut self,
        out: &mut [u8],
        seal: impl FnOnce(&mut WriteTraffic<'_, ClientConnectionData>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<usize, rustls::Error> {
        self.usable()?;
        let mut written = 0;
        let mut start = 0;
        let result = loop {
            let UnbufferedStatus { discard, state } =
                self.tls.process_tls_records(&mut self.incoming[start..]);
            start += discard;
            let state = match state {
                Ok(state) => state,
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
            };
            match state {
                ConnectionState::WriteTraffic(mut traffic) => {
                    break seal(&mut traffic, &mut out[written..]).map_err(|error| match error {
                        EncryptError::EncryptExhausted => rustls::Error::EncryptError,
                        EncryptError::InsufficientSize(_) => {
                            rustls::Error::General("buffer smaller than sealed_len".into())
                        }
                    });
                }
                ConnectionState::EncodeTlsData(mut data) => match data.encode(&mut out[written..]) {
                    Ok(n) => written += n,
                    Err(_) => break Err(rustls::Error::General("post-handshake message too large".into())),
                },
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => {}
                // `decrypt` takes out plaintext before anything is written; a closed side accepts no data.
                _ => break Err(rustls::Error::General("the TLS connection is closed for writing".into())),
            }
        };
        self.incoming.drain(..start);
        Ok(written + result?)
    }

    /// Appends the alert that an error left behind, if there is one. In this state rustls ignores input.
    fn alert(&mut self, out: &mut Vec<u8>) {
        if self.tls.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(mut data)) = self.tls.process_tls_records(&mut []).state
        {
            encode(&mut data, out);
        }
    }

    fn usable(&self) -> Result<(), rustls::Error> {
        if self.failed { Err(rustls::Error::General("the TLS connection has failed".into())) } else { Ok(()) }
    }

    fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.incoming = Vec::new();
        } else {
            self.incoming.clear();
            self.incoming.extend_from_slice(rest);
        }
    }

    /// Advances the handshake as far as possible without I/O.
    fn advance(&mut self, outgoing: &mut Vec<u8>) -> Result<HandshakeStep, rustls::Error> {
        let mut start = 0;
        let step = loop {
            let UnbufferedStatus { discard, state } =
                self.tls.process_tls_records(&mut self.incoming[start..]);
            let step = match state? {
                ConnectionState::EncodeTlsData(mut data) => {
                    encode(&mut data, outgoing);
                    None
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    Some(HandshakeStep::Send)
                }
                ConnectionState::BlockedHandshake => Some(HandshakeStep::Receive),
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    return Err(rustls::Error::General("the peer closed the TLS connection".into()));
                }
                // Early application data from the peer stays in rustls until `decrypt`.
                _ => Some(HandshakeStep::Done),
            };
            start += discard;
            if let Some(step) = step {
                break step;
            }
        };
        self.incoming.drain(..start);
        Ok(step)
    }
}

enum HandshakeStep {
    Send,
    Receive,
    Done,
}

/// Appends a message of TLS itself to `out`.
fn encode(data: &mut EncodeTlsData<'_, ClientConnectionData>, out: &mut Vec<u8>) {
    let filled = out.len();
    // The first attempt returns the size.
    let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) else { return };
    out.resize(filled + needed.required_size, 0);
    data.encode(&mut out[filled..]).expect("the room that rustls asked for");
}
