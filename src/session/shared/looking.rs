//! Decides what a client's requests need: the shared connection, a dedicated one, or an answer from pontoon.

use std::sync::atomic::Ordering;
use std::task::Context;

use super::client::{ClientNeed, DedicatedReason, LookOutcome, MAX_SHARED_REQUEST, SharedClient};
use super::connection::{PutError, SharedLease};
use super::in_flight::Recipient;
use crate::resp::command_table::{Command, Effect, Multiplexing, PinReason, Transaction};
use crate::resp::whole::{Front, Whole};
use crate::session::client_session::LastWrites;
use crate::session::counts::RequestCounts;
use crate::session::dedicated::Ended;

/// What follows the requests that can be shared unchanged.
enum FoundRequest<'a> {
    /// No request, or too little of one.
    Dry,
    /// A request that sets up the connection, or authenticates.
    Setup(Whole<'a>),
    /// A transaction from MULTI to EXEC: its length in bytes, and its requests.
    Transaction(usize, RequestCounts),
    /// A request that needs a dedicated connection.
    Own(DedicatedReason),
    /// The first byte of a TLS handshake.
    Tls,
}

/// Whether a transaction can be sent over a shared connection.
enum TransactionFit<'a> {
    /// It can: its length in bytes, and its requests.
    Whole(usize, RequestCounts),
    /// The server must first report what this command is.
    Asks(&'a [u8]),
    No,
}

impl SharedClient<'_> {
    /// Reads requests, and puts on the shared connection those that may be shared. No request may begin at the byte `within` or later.
    /// Returns how many bytes are done.
    pub(super) fn look(
        &mut self,
        cx: &mut Context<'_>,
        shared: &SharedLease,
        input: &[u8],
        heavy: bool,
        within: usize,
    ) -> (usize, LookOutcome) {
        let (mut put, mut at, mut counts, mut writes) = (0, 0, RequestCounts::default(), false);
        let found = loop {
            if at >= input.len().min(within) {
                break FoundRequest::Dry;
            }
            let whole = match Front::of(&input[at..]) {
                Front::Whole(whole)
                    if heavy && whole.multiplexing() != Multiplexing::Dedicated(PinReason::Wait) =>
                {
                    break FoundRequest::Own(DedicatedReason::Heavy);
                }
                Front::Whole(whole) => whole,
                Front::Part(least) if least > MAX_SHARED_REQUEST => {
                    break FoundRequest::Own(DedicatedReason::Large);
                }
                Front::Part(_) => break FoundRequest::Dry,
                Front::Other => break FoundRequest::Own(DedicatedReason::Inline),
                Front::Tls => break FoundRequest::Tls,
            };
            match self.multiplexing(&whole) {
                Multiplexing::Shared => {
                    if self.session.profile.looks() {
                        self.session.profile.look(whole.bytes);
                    }
                }
                Multiplexing::PerClient | Multiplexing::Dedicated(PinReason::Auth) => {
                    break FoundRequest::Setup(whole);
                }
                Multiplexing::Dedicated(reason) => {
                    let begins = is(&whole, Transaction::Begins);
                    break match begins.then(|| self.transaction(&input[at..])) {
                        Some(TransactionFit::Whole(length, counts)) => {
                            FoundRequest::Transaction(length, counts)
                        }
                        Some(TransactionFit::Asks(name)) => {
                            FoundRequest::Own(DedicatedReason::Unknown(Some(name.into())))
                        }
                        Some(TransactionFit::No) | None => {
                            FoundRequest::Own(DedicatedReason::Command(reason))
                        }
                    };
                }
                Multiplexing::Unknown => match self.multiplexer.learned(whole.name) {
                    Some(true) => {}
                    Some(false) => break FoundRequest::Own(DedicatedReason::Unknown(None)),
                    None => break FoundRequest::Own(DedicatedReason::Unknown(Some(whole.name.into()))),
                },
            }
            at += whole.bytes.len();
            counts.add(whole.command);
            writes |= whole.command.facts().writes;
        };
        if counts.all > 0 {
            match self.put(cx, shared, &input[..at], &counts, Recipient::Client) {
                Ok(()) => put = at,
                Err(what) => return (0, what),
            }
            if writes {
                self.session.last_writes = LastWrites::Shared(shared.id);
            }
        }
        match found {
            FoundRequest::Dry => (put, LookOutcome::Dry),
            FoundRequest::Transaction(length, counts) => {
                let end = at + length;
                match self.put(cx, shared, &input[at..end], &counts, Recipient::Transaction(counts.all)) {
                    Ok(()) => {
                        self.session.last_writes = LastWrites::Shared(shared.id);
                        (end, LookOutcome::More)
                    }
                    Err(what) => (put, what),
                }
            }
            // The replies to earlier requests come first.
            _ if self.writer.due() > 0 => (put, LookOutcome::Wait),
            FoundRequest::Own(reason) => (put, LookOutcome::Next(ClientNeed::Own(reason))),
            FoundRequest::Tls => (put, LookOutcome::Next(ClientNeed::Ended(Ended::SpeaksTls))),
            FoundRequest::Setup(whole) => {
                let (passed, what) = match whole.multiplexing() {
                    Multiplexing::Dedicated(_) => self.identify(cx, shared, &whole),
                    _ => self.set_up(cx, shared, &whole),
                };
                (put + passed, what)
            }
        }
    }

    /// How a request can be sent. A client that has to authenticate to pontoon may do little else before.
    fn multiplexing(&self, whole: &Whole<'_>) -> Multiplexing {
        let multiplexing = whole.multiplexing();
        match multiplexing {
            // For a kill there is no relay with a guard between this client and the server.
            Multiplexing::Dedicated(PinReason::Kill) if !self.may_do_all() => {
                Multiplexing::Dedicated(PinReason::ConnectionState)
            }
            Multiplexing::Dedicated(_) => multiplexing,
            _ if !self.may_do_all() && whole.command != Command::QUIT => {
                Multiplexing::Dedicated(PinReason::ConnectionState)
            }
            // Each client gets its own local addresses in the reply.
            Multiplexing::Shared if whole.command.nodes().is_some() && self.session.route.nodes.is_some() => {
                Multiplexing::PerClient
            }
            _ => multiplexing,
        }
    }

    /// Whether the client has authenticated to pontoon, if it has to.
    fn may_do_all(&self) -> bool {
        self.session.guard.as_ref().is_none_or(|guard| guard.is_open())
    }

    /// Whether a transaction that is here from MULTI to EXEC can be shared. It is sent in one piece, so that no other client's request
    /// comes between. None of its commands may leave state on the connection.
    fn transaction<'i>(&self, input: &'i [u8]) -> TransactionFit<'i> {
        if !self.may_do_all() || !self.multiplexer.transactions.load(Ordering::Relaxed) {
            return TransactionFit::No;
        }
        let (mut at, mut counts, mut asks) = (0, RequestCounts::default(), None);
        while at < input.len() {
            let Front::Whole(whole) = Front::of(&input[at..]) else { return TransactionFit::No };
            let ends = match self.multiplexing(&whole) {
                _ if is(&whole, Transaction::Begins) && counts.all == 0 => false,
                // With an argument EXEC is refused, and the transaction continues.
                _ if is(&whole, Transaction::Executes) && whole.words == 1 => true,
                Multiplexing::Shared => false,
                Multiplexing::Unknown => match self.multiplexer.learned(whole.name) {
                    Some(true) => false,
                    Some(false) => return TransactionFit::No,
                    None => {
                        asks = asks.or(Some(whole.name));
                        false
                    }
                },
                _ => return TransactionFit::No,
            };
            at += whole.bytes.len();
            counts.add(whole.command);
            if ends {
                return asks.map_or(TransactionFit::Whole(at, counts), TransactionFit::Asks);
            }
        }
        TransactionFit::No
    }

    fn put(
        &mut self,
        cx: &mut Context<'_>,
        shared: &SharedLease,
        requests: &[u8],
        counts: &RequestCounts,
        recipient: Recipient,
    ) -> Result<(), LookOutcome> {
        let result = if self.is_in_place() {
            shared.put(cx, &self.writer, requests, counts.all, recipient)
        } else {
            Err(PutError::Closed)
        };
        match result {
            Ok(()) => {
                counts.record(&self.session.route.metrics);
                self.session.profile.sent(requests.len(), counts.all);
                Ok(())
            }
            Err(PutError::Full) => Err(LookOutcome::Wait),
            Err(PutError::Closed) if self.writer.due() > 0 => Err(LookOutcome::Wait),
            Err(PutError::Closed) => Err(LookOutcome::Next(ClientNeed::Shared(self.key()))),
        }
    }
}

fn is(whole: &Whole<'_>, transaction: Transaction) -> bool {
    whole.command.facts().effect == Effect::Transaction(transaction)
}
