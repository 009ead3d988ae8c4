//! Gives the replies of a shared connection to its clients.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{debug, info};

use super::connection::SharedState;
use super::driver::{Driver, STALL_OUTPUT};
use super::in_flight::{DueReplies, InFlight, Recipient};
use crate::cluster::{Rewriter, may_redirect};
use crate::resp::scanner::{Event, Reply};
use crate::session::context::NO_RESP;
use crate::session::rewriting::{MAX_HELD_ERROR, unknown_node};

// Why a shared connection is closed.
const UNASKED: &str = "the server sent an unsolicited reply";
const REDIRECT_TOO_LONG: &str = "an error that may name a node is too long";
const TOO_LONG: &str = "the reply to a command that sets up a connection is too long";
pub(super) const IN_TRANSACTION: &str = "EXEC was refused, and the transaction may still be open";

impl Driver {
    /// Gives each client its replies.
    pub(super) fn hand_out(&mut self, plain: &[u8]) {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        // Positions in `plain`: given out, last whole reply, scanned. Then the number of replies that ended since `given`.
        let (mut given, mut whole, mut at, mut ended) = (0, 0, 0, 0);
        let mut wrong = None;
        while at < plain.len() {
            if self.replies.at_boundary() {
                self.skips = plain[at] == b'>';
                if self.skips {
                    if let Err(why) = self.give(state.in_flight.next(), &plain[given..at], ended) {
                        (wrong, given) = (Some(why), at);
                        break;
                    }
                    (given, ended) = (at, 0);
                }
            }
            let (n, event) = self.replies.next(&plain[at..]);
            at += n;
            match event {
                Event::NeedMore => break,
                Event::Malformed => {
                    wrong = Some(NO_RESP);
                    break;
                }
                Event::Frame if self.skips => (given, whole) = (at, at),
                Event::Frame => {
                    if self.replies.reply() == Reply::Error && !self.note_error(&mut state) {
                        wrong = Some(IN_TRANSACTION);
                        break;
                    }
                    if state.in_flight.is_empty() {
                        wrong = Some(UNASKED);
                        break;
                    }
                    (whole, ended) = (at, ended + 1);
                    if state.in_flight.ends_entry() {
                        if let Err(why) = self.give(state.in_flight.next(), &plain[given..at], ended) {
                            (wrong, given) = (Some(why), at);
                            break;
                        }
                        (given, ended) = (at, 0);
                    }
                    self.replied(&mut state.in_flight);
                }
            }
        }
        let end = if wrong.is_some() { whole } else { plain.len() };
        if given < end
            && !self.skips
            && let Err(why) = self.give(state.in_flight.next(), &plain[given..end], ended)
        {
            wrong = wrong.or(Some(why));
        }
        drop(state);
        if let Some(why) = wrong {
            self.fail_wire(why);
        }
    }

    /// Gives each client its replies in a cluster, where an error may name a node.
    pub(super) fn hand_out_rewritten(&mut self, plain: &[u8]) {
        let mut at = 0;
        while at < plain.len() {
            if self.held.is_none() && self.replies.at_boundary() {
                self.held = matches!(plain[at], b'-' | b'!' | b'|').then(Vec::new);
                self.skips = plain[at] == b'>';
            }
            let (n, event) = self.replies.next(&plain[at..]);
            if let Err(why) = self.hand_out_one(&plain[at..at + n], event) {
                return self.fail_wire(why);
            }
            at += n;
        }
    }

    /// Handles a reply that hints at a failover.
    #[cold]
    fn note_hint(&self) {
        if !self.key.replica {
            self.route.may_be_read_only(&self.wire.connection);
        }
    }

    fn fail_wire(&mut self, why: &'static str) {
        // Another log line reports it.
        if why != IN_TRANSACTION {
            self.route.refuse_reply(&self.wire.connection.endpoint, why);
        }
        self.wire.fail(why);
    }

    /// Gives out one reply, or a part of it.
    fn hand_out_one(&mut self, part: &[u8], event: Event) -> Result<(), &'static str> {
        if let Some(held) = &mut self.held {
            held.extend_from_slice(part);
            return match event {
                Event::NeedMore if held.len() <= MAX_HELD_ERROR => Ok(()),
                Event::NeedMore if may_redirect(held) => Err(REDIRECT_TOO_LONG),
                Event::NeedMore => {
                    let held = self.held.take().unwrap_or_default();
                    self.give(Arc::clone(&self.shared).state.lock().in_flight.next(), &held, 0)
                }
                Event::Malformed => Err(NO_RESP),
                Event::Frame => self.release(),
            };
        }
        let shared = Arc::clone(&self.shared);
        match event {
            Event::Malformed => Err(NO_RESP),
            _ if self.skips => Ok(()),
            Event::NeedMore => self.give(shared.state.lock().in_flight.next(), part, 0),
            Event::Frame
                if self.replies.reply() == Reply::Error && !self.note_error(&mut shared.state.lock()) =>
            {
                Err(IN_TRANSACTION)
            }
            Event::Frame => self.answered(part),
        }
    }

    fn answered(&mut self, part: &[u8]) -> Result<(), &'static str> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        self.give(state.in_flight.next(), part, 1)?;
        self.replied(&mut state.in_flight);
        Ok(())
    }

    /// Notes that a reply is whole.
    #[inline]
    fn replied(&mut self, in_flight: &mut InFlight) {
        if self.replies.take_read_only_hint() {
            self.note_hint();
        }
        if let Some(took) = in_flight.replied() {
            self.route.metrics.request_seconds.record(took);
        }
    }

    /// Gives out a held error that is whole.
    fn release(&mut self) -> Result<(), &'static str> {
        let Some(held) = self.held.take() else { return Ok(()) };
        let shared = Arc::clone(&self.shared);
        if !self.note_error(&mut shared.state.lock()) {
            return Err(IN_TRANSACTION);
        }
        let host = self.shared.state.lock().in_flight.next().and_then(|due| due.writer.local_host.clone());
        let reply = match (&self.route.nodes, host) {
            (Some(nodes), Some(host)) => {
                let map = nodes.map();
                let asked = &self.wire.connection.endpoint;
                let rewritten = Rewriter::new(&map, &host, asked).error(&held);
                match rewritten {
                    Ok(reply) if reply == held => reply,
                    Ok(reply) => {
                        self.route.metrics.rewritten("redirect");
                        nodes.refresh(Some(asked));
                        reply
                    }
                    // Clients retry after this error. The node is looked up in the meantime.
                    Err(problem) => {
                        debug!(%problem, "redirect not rewritten");
                        self.route.metrics.rewritten("refused");
                        nodes.refresh(Some(asked));
                        unknown_node()
                    }
                }
            }
            _ => held,
        };
        self.answered(&reply)
    }

    fn give(&mut self, due: Option<&DueReplies>, bytes: &[u8], replies: u64) -> Result<(), &'static str> {
        if bytes.is_empty() {
            return Ok(());
        }
        let due = due.ok_or(UNASKED)?;
        if due.recipient == Recipient::Task {
            return if due.writer.answer(bytes, replies > 0) { Ok(()) } else { Err(TOO_LONG) };
        }
        let waiting = due.writer.deliver(bytes, replies);
        let much = waiting > STALL_OUTPUT || (waiting > 0 && self.output.is_exceeded());
        if much && self.slow.as_ref().is_none_or(|(_, most)| waiting >= *most) {
            self.slow = Some((Arc::clone(&due.writer), waiting));
        }
        Ok(())
    }

    /// Handles an error reply. `false`: the connection cannot be used after it.
    #[cold]
    fn note_error(&mut self, state: &mut SharedState) -> bool {
        let code = self.replies.error_code();
        self.route.metrics.server_error(code);
        if state.in_flight.stays_in_transaction(code) {
            self.transactions.store(false, Ordering::Relaxed);
            info!(
                route = &*self.route.route,
                code = %code.escape_ascii(),
                "server refused EXEC and may keep the transaction open, transactions now use dedicated connections"
            );
            return false;
        }
        let endpoint = &self.wire.connection.endpoint;
        match code {
            // The clients continue over the next connection, which leads to the primary.
            b"READONLY" if !self.key.replica => {
                self.read_only |= self.route.is_read_only(&self.wire.connection);
            }
            b"UNBLOCKED" | b"REDIRECT" => self.note_hint(),
            b"NOAUTH" => self.route.upstream.wants_auth(&self.wire.connection),
            b"MOVED" if self.route.nodes.is_none() => self.route.warn_of_cluster(endpoint),
            _ => {}
        }
        true
    }
}
