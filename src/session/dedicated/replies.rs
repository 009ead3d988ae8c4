//! Reads the upstream's bytes: finds the replies, and decides what the client gets.

use std::io;
use std::task::Context;

use super::relay::Relay;
use crate::resp::connection_state::HelloReply;
use crate::resp::scanner::{Event, Reply};
use crate::session::context::NO_RESP;
use crate::session::ledger::{Opaque, OwnRequest};
use crate::session::rewriting::Rewritten;
use crate::upstream::SeenId;

impl Relay<'_> {
    pub(super) fn note_replies(&mut self, bytes: &[u8]) {
        self.session.profile.received(bytes.len());
        let mut passed = 0;
        while passed < bytes.len() && self.is_framed() {
            let whole = self.ledger.awaits_switch() && self.replies.at_boundary();
            let (n, event) = self.replies.next(&bytes[passed..]);
            self.note_reply(event, whole.then(|| &bytes[passed..passed + n]));
            passed += n;
            if event == Event::NeedMore {
                break;
            }
        }
    }

    /// Handles a scanner's result. `whole`: the whole reply, if it has arrived and may contain the connection's id.
    #[inline]
    fn note_reply(&mut self, event: Event, whole: Option<&[u8]>) {
        match event {
            Event::NeedMore => {}
            Event::Frame => {
                let reply = self.replies.reply();
                if reply == Reply::Error {
                    self.note_error();
                }
                if self.replies.take_read_only_hint() {
                    self.note_hint();
                }
                let queued = self.ledger.wants_status() && self.replies.is_queued();
                let answer = self.account(|ledger| ledger.reply(reply, queued));
                match answer.hello {
                    HelloReply::None => {}
                    HelloReply::Accepted => self.wire.connection.seen_id = SeenId::by_hello(whole),
                    // EXEC's reply, which is not read, will contain the id.
                    HelloReply::Queued => self.note_unread_id(),
                }
                if let Some(info) = answer.info {
                    self.session.profile.accepted(*info);
                }
                self.replies.keep_status(self.ledger.wants_status());
            }
            Event::Malformed => {
                self.account(|ledger| ledger.become_opaque(Opaque::Malformed));
            }
        }
    }

    /// Handles a reply that hints at a failover.
    #[cold]
    fn note_hint(&self) {
        self.session.route.may_be_read_only(&self.wire.connection);
    }

    #[cold]
    fn note_error(&mut self) {
        let code = self.replies.error_code();
        if self.replies.is_protocol_error() {
            self.ledger.server_closes();
        }
        self.session.route.metrics.server_error(code);
        match code {
            b"READONLY" => {
                self.session.route.is_read_only(&self.wire.connection);
            }
            b"UNBLOCKED" | b"REDIRECT" => self.note_hint(),
            b"NOAUTH" => self.session.route.upstream.wants_auth(&self.wire.connection),
            b"MOVED" if self.rewriting.is_none() => {
                self.session.route.warn_of_cluster(&self.wire.connection.endpoint);
            }
            _ => {}
        }
    }

    /// Sends `bytes` to the client in order. Puts local addresses into replies that name nodes, leaves out replies to pontoon's own
    /// requests, and inserts pontoon's own replies.
    pub(super) fn rewrite(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        // Positions in `bytes`: sent, scanned, and the end of the last whole reply.
        let (mut sent, mut passed, mut whole_to) = (0, 0, 0);
        while passed < bytes.len() && self.follows_replies() {
            if self.replies.at_boundary() {
                self.swallows = self.ledger.next_own().filter(|_| bytes[passed] != b'>');
                if self.swallows.is_some() {
                    self.replies.keep_status(true);
                } else if let Some(rewriting) = &mut self.rewriting {
                    rewriting.begins(bytes[passed], &self.ledger);
                }
            }
            let whole = self.ledger.awaits_switch() && self.replies.at_boundary();
            let (n, event) = self.replies.next(&bytes[passed..]);
            let whole = whole.then(|| &bytes[passed..passed + n]);
            let holds = self.rewriting.as_ref().is_some_and(|rewriting| rewriting.holds());
            if self.swallows.is_some() || holds {
                self.session.to_client.send(cx, &mut self.session.client, &bytes[sent..passed])?;
                sent = passed + n;
            }
            if let Some(rewriting) = self.rewriting.as_mut().filter(|_| holds) {
                match rewriting.hold(&bytes[passed..passed + n]) {
                    Ok(None) => {}
                    Ok(Some(held)) => self.session.to_client.send(cx, &mut self.session.client, &held)?,
                    Err(reason) => {
                        self.session.route.refuse_reply(&self.wire.connection.endpoint, &reason.to_string());
                        self.aborted = Some(reason);
                        return Ok(());
                    }
                }
            }
            passed += n;
            if event == Event::Frame
                && self.swallows.take() == Some(OwnRequest::Auth)
                && let Some(relogin) = &mut self.relogin
            {
                relogin.answered(self.replies.is_ok(), self.session.route, &self.wire.connection.endpoint);
                self.session.profile.reauthenticates(relogin.due());
            }
            if event == Event::Malformed && self.rewriting.is_some() {
                // The rest could name nodes, and where the next reply begins is unknown.
                self.session.to_client.send(
                    cx,
                    &mut self.session.client,
                    &bytes[sent..whole_to.max(sent)],
                )?;
                self.session.route.refuse_reply(&self.wire.connection.endpoint, NO_RESP);
                self.wire.fail(NO_RESP);
                return Ok(());
            }
            self.note_reply(event, whole);
            if event == Event::NeedMore {
                break;
            }
            if event == Event::Frame {
                whole_to = passed;
                if !self.release(cx)? {
                    if let Some(rewriting) = &mut self.rewriting {
                        rewriting.keep(&bytes[passed..]);
                    }
                    return Ok(());
                }
                if self.ledger.has_local() {
                    self.session.to_client.send(cx, &mut self.session.client, &bytes[sent..passed])?;
                    sent = passed;
                    self.answer_locally(cx)?;
                }
            }
        }
        self.session.to_client.send(cx, &mut self.session.client, &bytes[sent..])
    }

    /// Whether the relay looks for the ends of replies. For a node it also does so after malformed requests, because outstanding replies
    /// may still name other nodes.
    pub(super) fn follows_replies(&self) -> bool {
        self.is_framed() || (self.rewriting.is_some() && self.ledger.opaque() == Some(Opaque::Malformed))
    }

    /// Sends the client each of pontoon's own replies that is next in order.
    pub(super) fn answer_locally(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        // A push may have begun.
        while self.replies.at_boundary()
            && !self.is_waiting()
            && let Some(reply) = self.ledger.take_local()
        {
            self.session.to_client.send(cx, &mut self.session.client, &reply)?;
        }
        Ok(())
    }

    /// Sends the held reply, if there is one. `false`: it must wait.
    fn release(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let Some(rewriting) = self.rewriting.as_mut().filter(|rewriting| rewriting.holds()) else {
            return Ok(true);
        };
        match rewriting.rewrite() {
            Rewritten::Unknown => Ok(false),
            Rewritten::Reply { bytes, kind } => {
                if kind != "none" {
                    self.session.route.metrics.rewritten(kind);
                }
                self.session.to_client.send(cx, &mut self.session.client, &bytes)?;
                Ok(true)
            }
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.rewriting.as_ref().is_some_and(|rewriting| rewriting.waits())
    }

    /// Retries the held reply after the lookup of its node, then handles what came after it. `true`: bytes moved.
    pub(super) fn go_on(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let Some(rewriting) = &mut self.rewriting else { return Ok(false) };
        if rewriting.poll_lookup(cx).is_pending() {
            return Ok(false);
        }
        self.release(cx)?;
        self.answer_locally(cx)?;
        let after = self.rewriting.as_mut().map(|rewriting| rewriting.take_kept()).unwrap_or_default();
        self.rewrite(cx, &after)?;
        Ok(true)
    }
}
