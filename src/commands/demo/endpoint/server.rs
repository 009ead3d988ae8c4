//! Listens, and answers each client until it leaves.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::BytesMut;
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::encode::extend_encode;
use redis_protocol::resp2::types::{BytesFrame, OwnedFrame};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::store::Store;
use crate::commands::demo::tap::{Tap, Tapped};

/// Maximum size of an incomplete request in bytes.
const LONGEST_REQUEST: usize = 1024 * 1024;

/// A server's certificate chain and its key.
pub(in crate::commands::demo) struct Identity {
    pub(in crate::commands::demo) chain: Vec<CertificateDer<'static>>,
    pub(in crate::commands::demo) key: PrivateKeyDer<'static>,
}

/// A running endpoint, which stops when dropped.
pub(in crate::commands::demo) struct DemoEndpoint {
    address: SocketAddr,
    tap: Tap,
    _stop: DropGuard,
}

impl DemoEndpoint {
    /// Listens on a port that the system chooses.
    pub(in crate::commands::demo) async fn start(identity: Identity) -> anyhow::Result<Self> {
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(identity.chain, identity.key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on loopback")?;
        let address = listener.local_addr()?;
        let tap = Tap::default();
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (taps, token) = (tap.clone(), stop.clone());
        tasks.clone().spawn(async move {
            let store = Store::default();
            while let Some(Ok((stream, _))) = token.run_until_cancelled(listener.accept()).await {
                let (acceptor, store) = (acceptor.clone(), store.clone());
                let stream = Tapped { stream, tap: taps.clone() };
                let token = token.clone();
                tasks.spawn(async move {
                    // A bridge that refuses the certificate is part of the demonstration, so ignore the error.
                    token
                        .run_until_cancelled(async { serve(acceptor.accept(stream).await?, &store).await })
                        .await
                });
            }
        });
        Ok(Self { address, tap, _stop: stop.drop_guard() })
    }

    pub(in crate::commands::demo) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the recorder of the bytes on the wire.
    pub(in crate::commands::demo) fn tap(&self) -> &Tap {
        &self.tap
    }
}

/// Answers one client until it leaves.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, store: &Store) -> io::Result<()> {
    let mut received = BytesMut::new();
    loop {
        let mut replies = BytesMut::new();
        let mut quit = false;
        while !quit {
            let (frame, length) = match decode(&received) {
                Ok(Some(decoded)) => decoded,
                Ok(None) => break,
                Err(_) => {
                    stream.write_all(b"-ERR Protocol error\r\n").await?;
                    return stream.shutdown().await;
                }
            };
            let _ = received.split_to(length);
            let words = words(frame);
            quit = words.first().is_some_and(|name| name.eq_ignore_ascii_case(b"QUIT"));
            push(&mut replies, &store.execute(&words));
        }
        stream.write_all(&replies).await?;
        stream.flush().await?;
        if quit || received.len() > LONGEST_REQUEST || stream.read_buf(&mut received).await? == 0 {
            return stream.shutdown().await;
        }
    }
}

fn push(replies: &mut BytesMut, reply: &BytesFrame) {
    extend_encode(replies, reply, false).expect("a growing buffer holds any reply");
}

/// Returns the words of a request; none if it is not an array of strings.
fn words(frame: OwnedFrame) -> Vec<Vec<u8>> {
    let OwnedFrame::Array(items) = frame else { return Vec::new() };
    items
        .into_iter()
        .map(|item| match item {
            OwnedFrame::BulkString(bytes) => bytes,
            _ => Vec::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::replies::encode_command;

    #[tokio::test]
    async fn commands_are_answered_as_redis_answers_them() {
        let (mut client, server) = tokio::io::duplex(4096);
        let server = async { serve(server, &Store::default()).await };
        let talk = async {
            for (command, reply) in [
                (&["PING"][..], "+PONG\r\n"),
                (&["SET", "k", "v"], "+OK\r\n"),
                (&["GET", "k"], "$1\r\nv\r\n"),
                (&["GET", "none"], "$-1\r\n"),
                (&["INCR", "n"], ":1\r\n"),
                (&["INCR", "k"], "-ERR value is not an integer or out of range\r\n"),
                (&["DEL", "k", "none"], ":1\r\n"),
                (&["HELLO", "3"], "-NOPROTO unsupported protocol version\r\n"),
                (&["NOPE"], "-ERR unknown command 'NOPE' in this demonstration\r\n"),
                (&["QUIT"], "+OK\r\n"),
            ] {
                client.write_all(&encode_command(command)).await.unwrap();
                let mut got = vec![0; reply.len()];
                client.read_exact(&mut got).await.unwrap();
                assert_eq!(String::from_utf8_lossy(&got), reply);
            }
        };
        let ((), served) = tokio::join!(talk, server);
        served.unwrap();
    }
}
