//! The upstream side of a session, or of many: encrypts and decrypts in the buffers that the sessions of a thread share.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::outbox::Outbox;
use super::scratch::{READ, Scratch};
use crate::metrics::Relayed;
use crate::tls::channel::Channel;
use crate::tls::explain;
use crate::upstream::Lease;

/// A connection, the bytes that wait to be sent, and how the connection ended. On drop the connection returns to its pool if it was
/// [released](Self::release). Otherwise the upstream is notified and the connection closes.
pub(super) struct Wire {
    pub(super) connection: Lease,
    outbox: Outbox,
    /// The connection accepts bytes.
    takes: bool,
    /// After the bytes that wait, nothing more is sent.
    finishes: bool,
    /// How the connection ended. `None`: it is open.
    lost: Option<Loss>,
}

/// How a connection ended, with the error if there was one.
struct Loss(Option<String>);

impl Wire {
    pub(super) fn new(connection: Lease) -> Self {
        Self { connection, outbox: Outbox::default(), takes: true, finishes: false, lost: None }
    }

    /// Whether no more bytes will come.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// The error that ended the connection, if there was one.
    pub(super) fn why(&self) -> Option<&str> {
        self.lost.as_ref()?.0.as_deref()
    }

    /// Whether the connection accepts bytes, and more may come.
    pub(super) fn is_open(&self) -> bool {
        self.takes && !self.finishes && self.lost.is_none()
    }

    /// Number of bytes that wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.outbox.len()
    }

    /// Number of bytes of an incomplete TLS record that have arrived.
    pub(super) fn kept(&self) -> usize {
        self.connection.channel.as_ref().map_or(0, Channel::kept)
    }

    /// Whether the connection is open, no bytes wait to be sent, and no record has arrived in part.
    pub(super) fn is_at_rest(&self) -> bool {
        self.is_open() && self.outbox.is_empty() && self.connection.unread.is_empty() && self.kept() == 0
    }

    /// Gives the connection up, because pontoon cannot use what came.
    pub(super) fn fail(&mut self, why: &str) {
        self.lost = Some(Loss(Some(why.to_owned())));
    }

    /// Sends the bytes that wait. `Ready`: none are left.
    #[inline]
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.outbox.is_empty() {
            match self.outbox.poll_flush(cx, &mut self.connection.stream) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => self.takes_no_more(),
            }
        }
        if self.finishes && self.takes {
            self.takes = false;
            let _ = Pin::new(&mut self.connection.stream).poll_shutdown(cx);
        }
        Poll::Ready(())
    }

    /// Half-closes the connection after the bytes that wait: `close_notify`, then the end of the stream.
    pub(super) fn finish(&mut self, cx: &mut Context<'_>) {
        if self.finishes || !self.takes {
            return;
        }
        self.finishes = true;
        if let Some(channel) = &mut self.connection.channel {
            let mut alert = [0; 1024];
            let n = channel.close_notify(&mut alert).unwrap_or(0);
            if self.outbox.send(cx, &mut self.connection.stream, &alert[..n]).is_err() {
                self.takes_no_more();
            }
        }
        let _ = self.poll_flush(cx);
    }

    /// Whether [`finish`](Self::finish) was called.
    pub(super) fn is_finished(&self) -> bool {
        self.finishes
    }

    /// Sends `bytes` after those that wait.
    #[inline]
    pub(super) fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8], sealed: &mut [u8], relayed: &Relayed) {
        relayed.to_upstream.increment(bytes.len() as u64);
        for bytes in bytes.chunks(READ) {
            let bytes = match &mut self.connection.channel {
                None => bytes,
                Some(channel) => match channel.encrypt(bytes, sealed) {
                    Ok(n) => &sealed[..n],
                    Err(error) => {
                        self.lost = Some(Loss(Some(explain(&error))));
                        return;
                    }
                },
            };
            if self.outbox.send(cx, &mut self.connection.stream, bytes).is_err() {
                return self.takes_no_more();
            }
        }
    }

    /// Receives bytes. `None`: there are none, and the task is woken when some arrive.
    #[inline]
    pub(super) fn receive<'a>(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &'a mut Scratch,
        relayed: &Relayed,
    ) -> Option<&'a [u8]> {
        let kept = self.kept();
        let mut read = ReadBuf::new(&mut scratch.received[kept..kept + READ]);
        let n = match Pin::new(&mut self.connection.stream).poll_read(cx, &mut read) {
            Poll::Pending => return None,
            Poll::Ready(Ok(())) => read.filled().len(),
            Poll::Ready(Err(error)) => {
                self.lost = Some(Loss(Some(error.to_string())));
                return Some(&[]);
            }
        };
        if n == 0 {
            self.lost = Some(Loss(None));
            return Some(&[]);
        }
        let plain = match &mut self.connection.channel {
            None => &scratch.received[..n],
            Some(channel) => {
                scratch.reply.clear();
                let mut answer = Vec::new();
                match channel.decrypt(&mut scratch.received[..kept + n], &mut scratch.reply, &mut answer) {
                    Ok(decrypted) if decrypted.closed => self.lost = Some(Loss(None)),
                    Ok(_) => {}
                    Err(error) => self.lost = Some(Loss(Some(explain(&error)))),
                }
                if !answer.is_empty() && self.outbox.send(cx, &mut self.connection.stream, &answer).is_err() {
                    self.takes_no_more();
                }
                &scratch.reply[..]
            }
        };
        relayed.to_client.increment(plain.len() as u64);
        Some(plain)
    }

    /// Returns the connection to its pool for another client. Nothing may be under way on it. `needs_reset`: it may differ from a new one.
    pub(super) fn release(&mut self, needs_reset: bool) {
        self.connection.release(needs_reset);
    }

    /// Stops sending after a failed write. The upstream is still read to its end, because it may have sent something before.
    fn takes_no_more(&mut self) {
        self.takes = false;
        self.outbox.clear();
    }
}

impl Drop for Wire {
    /// Sends `close_notify`, so that the upstream does not take the end for a truncation.
    fn drop(&mut self) {
        if !self.is_open() || !self.outbox.is_empty() || self.connection.is_released() {
            return;
        }
        let connection = &mut *self.connection;
        if let Some(channel) = &mut connection.channel {
            let mut alert = [0; 1024];
            if let Ok(n) = channel.close_notify(&mut alert) {
                let _ = connection.stream.try_write(&alert[..n]);
            }
        }
    }
}
