//! The upstream connection below a line: plaintext in, plaintext out, by the buffers that the thread's sessions share.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use crate::metrics::Relayed;
use crate::session::outbox::Outbox;
use crate::session::scratch::{READ, Scratch};
use crate::tls::channel::Channel;
use crate::tls::explain;
use crate::upstream::Connection;

pub(super) struct Wire {
    pub(super) connection: Connection,
    outbox: Outbox,
    /// `Some`: nothing more comes.
    lost: Option<Loss>,
}

/// How a connection ended: the error that said so, if one did.
struct Loss(Option<String>);

impl Wire {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, outbox: Outbox::default(), lost: None }
    }

    /// Whether nothing more comes.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// The error that said so, if one did.
    pub(super) fn why(&self) -> Option<&str> {
        self.lost.as_ref()?.0.as_deref()
    }

    /// What came makes no sense: nothing of it is used any more.
    pub(super) fn fail(&mut self, why: &str) {
        self.lost = Some(Loss(Some(why.to_owned())));
    }

    /// Nothing waits to be sent, and nothing has come in part.
    pub(super) fn is_at_rest(&self) -> bool {
        self.lost.is_none()
            && self.outbox.is_empty()
            && self.connection.unread.is_empty()
            && self.connection.channel.as_ref().is_none_or(|channel| channel.kept() == 0)
    }

    /// Sends what waits. `true`: it takes more.
    pub(super) fn is_ready(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.outbox.is_empty() {
            match self.outbox.poll_flush(cx, &mut self.connection.stream) {
                Poll::Pending => return false,
                Poll::Ready(Ok(())) => {}
                // What the upstream said before is read to its end.
                Poll::Ready(Err(_)) => self.outbox.clear(),
            }
        }
        self.lost.is_none()
    }

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
                self.outbox.clear();
                return;
            }
        }
    }

    /// What has come. `None`: nothing, and the task is woken when something does.
    pub(super) fn receive<'a>(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &'a mut Scratch,
        relayed: &Relayed,
    ) -> Option<&'a [u8]> {
        let kept = self.connection.channel.as_ref().map_or(0, Channel::kept);
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
                    self.outbox.clear();
                }
                &scratch.reply[..]
            }
        };
        relayed.to_client.increment(plain.len() as u64);
        Some(plain)
    }

    /// Tells the upstream that this was no truncation, if it still listens.
    pub(super) fn say_goodbye(&mut self) {
        if let Some(channel) = &mut self.connection.channel {
            let mut alert = [0; 1024];
            if let Ok(n) = channel.close_notify(&mut alert) {
                let _ = self.connection.stream.try_write(&alert[..n]);
            }
        }
    }
}
