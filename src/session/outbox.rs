//! Bytes that a socket did not take yet. An outbox holds at most one read's worth, because the other side is not read until the outbox is
//! empty. An empty outbox holds no memory.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

use super::output::ClientOutput;

#[derive(Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    /// Counts the bytes that wait for clients of the route.
    counted: Option<Arc<ClientOutput>>,
}

impl From<Vec<u8>> for Outbox {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Number of bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Counts the waiting bytes in `output` from now on.
    pub(super) fn count_in(&mut self, output: Arc<ClientOutput>) {
        self.counted = Some(output);
        self.count();
    }

    /// The counter of the waiting bytes.
    pub(super) fn counted(&self) -> Option<&Arc<ClientOutput>> {
        self.counted.as_ref()
    }

    fn count(&self) {
        if let Some(counted) = &self.counted {
            counted.set(self.len());
        }
    }

    /// Drops the bytes that were not sent.
    pub(super) fn clear(&mut self) {
        (self.bytes, self.sent) = (Vec::new(), 0);
        self.count();
    }

    /// Adds `bytes` to those that wait.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        // Frees the sent part, which would otherwise stay in memory as long as the rest.
        if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        self.bytes.extend_from_slice(bytes);
        self.count();
    }

    /// Sends `bytes` after those that wait, and keeps what the socket does not take.
    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut (impl AsyncWrite + Unpin),
        mut bytes: &[u8],
    ) -> io::Result<()> {
        if self.is_empty() {
            while !bytes.is_empty() {
                match Pin::new(&mut *socket).poll_write(cx, bytes)? {
                    Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(n) => bytes = &bytes[n..],
                    Poll::Pending => break,
                }
            }
        }
        if !bytes.is_empty() {
            self.bytes.extend_from_slice(bytes);
            self.count();
        }
        Ok(())
    }

    /// Sends the bytes that wait. `Ready`: none are left.
    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        let before = self.sent;
        while self.sent < self.bytes.len() {
            match Pin::new(&mut *socket).poll_write(cx, &self.bytes[self.sent..])? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(n) => self.sent += n,
                Poll::Pending => {
                    if self.sent > before {
                        self.count();
                    }
                    return Poll::Pending;
                }
            }
        }
        self.clear();
        Poll::Ready(Ok(()))
    }
}
