//! One pass in each direction: sends what waits, then reads, notes and sends what has arrived.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use zeroize::Zeroizing;

use super::relay::Relay;
use crate::session::client_session::Input;
use crate::session::scratch::{READ, Scratch};

impl Relay<'_> {
    /// Sends what waits for the upstream, then reads the client once and sends that. `true`: bytes moved. Errors are the client's.
    pub(super) fn pump_requests(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> io::Result<bool> {
        if self.wire.poll_flush(cx).is_pending() {
            return Ok(false);
        }
        if let Some(name) = self.take_name() {
            self.wire.send(cx, &name, &mut scratch.sealed, self.relayed);
            return Ok(true);
        }
        if !self.reads_client() {
            return Ok(false);
        }
        let kept = self.session.input.bytes.len();
        let n = if kept > 0 && !self.session.input.lacks_more {
            self.take_input(&mut scratch.request)
        } else {
            let mut read = ReadBuf::new(&mut scratch.request[kept..]);
            match Pin::new(&mut self.session.client).poll_read(cx, &mut read) {
                Poll::Pending => return Ok(false),
                Poll::Ready(result) => result?,
            }
            let n = read.filled().len();
            self.session.client_sends = n > 0;
            self.session.input.lacks_more = false;
            if kept > 0 {
                self.take_input(&mut scratch.request);
            }
            kept + n
        };
        if n == 0 {
            return Ok(true);
        }
        if self.gives_back(&scratch.request[..n]) {
            return Ok(true);
        }
        if self.session.guard.is_some() {
            // How much a held request still lacks is unknown, so every byte that comes wakes the session.
            if let Some(socket) = self.session.client.as_tcp() {
                self.client_mark.expect(socket, 0, READ);
            }
            let within = self.session.within();
            let bytes = self.guard_requests(cx, &scratch.request[..n], within)?;
            self.session.looked_at(n);
            self.wire.send(cx, &bytes, &mut scratch.sealed, self.relayed);
            return Ok(true);
        }
        let n = self.note_requests(&scratch.request[..n]);
        if self.ledger.quits_here() {
            self.answer_locally(cx)?;
        }
        if let Some(socket) = self.session.client.as_tcp() {
            let certain = if self.is_framed() { self.requests.due() } else { 0 };
            self.client_mark.expect(socket, certain, READ);
        }
        self.wire.send(cx, &scratch.request[..n], &mut scratch.sealed, self.relayed);
        Ok(true)
    }

    /// Takes bytes that the client had sent before.
    #[cold]
    fn take_input(&mut self, into: &mut [u8]) -> usize {
        let n = self.session.input.bytes.len().min(into.len());
        into[..n].copy_from_slice(&self.session.input.bytes[..n]);
        self.session.input.bytes.drain(..n);
        if self.session.input.bytes.is_empty() {
            // An idle client should hold no memory.
            self.session.input = Input::default();
        }
        n
    }

    /// Sends pontoon's own AUTH when it is due, and once it is answered, what the client sent in the meantime. `true`: bytes moved.
    pub(super) fn pump_login(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> io::Result<bool> {
        if self.session.guard.is_none() {
            return Ok(false);
        }
        let safe = self.requests.at_boundary() && self.ledger.is_prompt();
        let impossible = self.ledger.opaque().is_some();
        let in_transaction = self.ledger.may_be_in_transaction();
        let due = match &mut self.relogin {
            Some(relogin) => relogin.is_due(cx, safe && !in_transaction, impossible, self.session.route),
            None => false,
        };
        if self.wire.waiting() > 0 {
            return Ok(false);
        }
        let mut out = Zeroizing::default();
        if due {
            self.log_in_again(cx, &mut out);
        }
        if self.relogin.as_ref().is_none_or(|relogin| !relogin.is_urgent())
            && self.ledger.local_replies() == 0
            && let Some(later) = self.session.guard.as_mut().and_then(|guard| guard.take_for_later())
        {
            out.extend_from_slice(&self.guard_requests(cx, &later, later.len())?);
        }
        if out.is_empty() {
            return Ok(false);
        }
        self.wire.send(cx, &out, &mut scratch.sealed, self.relayed);
        Ok(true)
    }

    /// Sends what waits for the client, then reads the upstream once and sends that. `true`: bytes moved. Errors are the client's.
    pub(super) fn pump_replies(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> io::Result<bool> {
        if !self.session.to_client.is_empty()
            && self.session.to_client.poll_flush(cx, &mut self.session.client)?.is_pending()
        {
            return Ok(false);
        }
        if self.is_waiting() {
            return self.go_on(cx);
        }
        if self.wire.is_lost() {
            return Ok(false);
        }
        let Some(plain) = self.wire.receive(cx, scratch, self.relayed) else { return Ok(false) };
        if plain.is_empty() && self.wire.is_lost() {
            return Ok(true);
        }
        let rewrites = self.rewriting.is_some() || self.ledger.is_interleaved();
        if rewrites {
            self.session.profile.received(plain.len());
            self.rewrite(cx, plain)?;
        } else {
            self.note_replies(plain);
        }
        // A part of the missing bytes may have arrived in an incomplete record.
        let kept = self.wire.kept() as u64;
        let certain = if self.is_framed() { self.replies.due().saturating_sub(kept) } else { 0 };
        self.upstream_mark.expect(&self.wire.connection.stream, certain, READ);
        if !rewrites {
            self.session.to_client.send(cx, &mut self.session.client, plain)?;
        }
        Ok(true)
    }
}
