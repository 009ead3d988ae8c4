//! What a client's requests need: the shared connection, one of its own, or an answer from here.

use std::sync::atomic::Ordering;
use std::task::Context;

use super::{LARGE, Member, Next, Reason, What};
use crate::resp::command_table::{Command, Effect, Multiplexing, PinReason, Transaction};
use crate::resp::whole::{Front, Whole};
use crate::session::core::LastWrites;
use crate::session::counts::Counts;
use crate::session::relay::Ended;
use crate::session::shared::in_flight::Whose;
use crate::session::shared::line::{Hold, NotNow};

/// What comes after requests that can be shared as they are.
enum Found<'a> {
    /// Nothing, or not enough to tell.
    Dry,
    /// It sets up the connection, or authenticates.
    Setup(Whole<'a>),
    /// A transaction from MULTI to EXEC: its bytes, and its requests.
    Transaction(usize, Counts),
    /// What needs a connection of the client's own.
    Own(Reason),
    /// A client that speaks TLS.
    Tls,
}

/// Whether a transaction could do without a connection of its own.
enum Whether<'a> {
    /// It could: its bytes, and its requests.
    Whole(usize, Counts),
    /// Not before the server has said what this command is.
    Asks(&'a [u8]),
    No,
}

impl Member<'_> {
    /// Looks at requests, and puts on the line what may go there. None may begin at the byte `within`, or later. Returns how
    /// many bytes need no further look.
    pub(super) fn look(
        &mut self,
        cx: &mut Context<'_>,
        line: &Hold,
        input: &[u8],
        heavy: bool,
        within: usize,
    ) -> (usize, What) {
        let (mut put, mut at, mut counts, mut writes) = (0, 0, Counts::default(), false);
        let found = loop {
            if at >= input.len().min(within) {
                break Found::Dry;
            }
            let whole = match Front::of(&input[at..]) {
                Front::Whole(whole)
                    if heavy && whole.multiplexing() != Multiplexing::Dedicated(PinReason::Wait) =>
                {
                    break Found::Own(Reason::Heavy);
                }
                Front::Whole(whole) => whole,
                Front::Part(least) if least > LARGE => break Found::Own(Reason::Large),
                Front::Part(_) => break Found::Dry,
                Front::Other => break Found::Own(Reason::Inline),
                Front::Tls => break Found::Tls,
            };
            match self.multiplexing(&whole) {
                Multiplexing::Shared => {
                    if self.session.about.looks() {
                        self.session.about.look(whole.bytes);
                    }
                }
                Multiplexing::PerClient | Multiplexing::Dedicated(PinReason::Auth) => {
                    break Found::Setup(whole);
                }
                Multiplexing::Dedicated(reason) => {
                    let begins = is(&whole, Transaction::Begins);
                    break match begins.then(|| self.transaction(&input[at..])) {
                        Some(Whether::Whole(length, counts)) => Found::Transaction(length, counts),
                        Some(Whether::Asks(name)) => Found::Own(Reason::Unknown(Some(name.into()))),
                        Some(Whether::No) | None => Found::Own(Reason::Command(reason)),
                    };
                }
                Multiplexing::Unknown => match self.hubs.learned(whole.name) {
                    Some(true) => {}
                    Some(false) => break Found::Own(Reason::Unknown(None)),
                    None => break Found::Own(Reason::Unknown(Some(whole.name.into()))),
                },
            }
            at += whole.bytes.len();
            counts.add(whole.command);
            writes |= whole.command.facts().writes;
        };
        if counts.all > 0 {
            match self.put(cx, line, &input[..at], &counts, Whose::Client) {
                Ok(()) => put = at,
                Err(what) => return (0, what),
            }
            if writes {
                self.session.last_writes = LastWrites::Line(line.id);
            }
        }
        match found {
            Found::Dry => (put, What::Dry),
            Found::Transaction(length, counts) => {
                let end = at + length;
                match self.put(cx, line, &input[at..end], &counts, Whose::Transaction(counts.all)) {
                    Ok(()) => {
                        self.session.last_writes = LastWrites::Line(line.id);
                        (end, What::More)
                    }
                    Err(what) => (put, what),
                }
            }
            // What was sent before is answered before.
            _ if self.seat.due() > 0 => (put, What::Wait),
            Found::Own(reason) => (put, What::Next(Next::Own(reason))),
            Found::Tls => (put, What::Next(Next::Ended(Ended::SpeaksTls))),
            Found::Setup(whole) => {
                let (passed, what) = match whole.multiplexing() {
                    Multiplexing::PerClient => self.set_up(cx, line, &whole),
                    _ => self.identify(cx, line, &whole),
                };
                (put + passed, what)
            }
        }
    }

    /// How a request is sent. A client that has to authenticate here may do little else before.
    fn multiplexing(&self, whole: &Whole<'_>) -> Multiplexing {
        let multiplexing = whole.multiplexing();
        match multiplexing {
            Multiplexing::Dedicated(_) => multiplexing,
            _ if self.may_do_all() || whole.command == Command::QUIT => multiplexing,
            _ => Multiplexing::Dedicated(PinReason::ConnectionState),
        }
    }

    /// Whether the client has authenticated here, where it has to.
    fn may_do_all(&self) -> bool {
        self.session.guard.as_ref().is_none_or(|guard| guard.is_open())
    }

    /// A transaction that is here from MULTI to EXEC, and could do without a connection of its own: sent in one piece, nothing
    /// of others comes between, and none of its commands leaves anything.
    fn transaction<'i>(&self, input: &'i [u8]) -> Whether<'i> {
        if !self.may_do_all() || !self.hubs.transactions.load(Ordering::Relaxed) {
            return Whether::No;
        }
        let (mut at, mut counts, mut asks) = (0, Counts::default(), None);
        while at < input.len() {
            let Front::Whole(whole) = Front::of(&input[at..]) else { return Whether::No };
            let ends = match self.multiplexing(&whole) {
                _ if is(&whole, Transaction::Begins) && counts.all == 0 => false,
                // With an argument it is refused, and the transaction goes on.
                _ if is(&whole, Transaction::Executes) && whole.words == 1 => true,
                Multiplexing::Shared => false,
                Multiplexing::Unknown => match self.hubs.learned(whole.name) {
                    Some(true) => false,
                    Some(false) => return Whether::No,
                    None => {
                        asks = asks.or(Some(whole.name));
                        false
                    }
                },
                _ => return Whether::No,
            };
            at += whole.bytes.len();
            counts.add(whole.command);
            if ends {
                return asks.map_or(Whether::Whole(at, counts), Whether::Asks);
            }
        }
        Whether::No
    }

    fn put(
        &mut self,
        cx: &mut Context<'_>,
        line: &Hold,
        requests: &[u8],
        counts: &Counts,
        whose: Whose,
    ) -> Result<(), What> {
        let result = if self.is_in_place() {
            line.put(cx, &self.seat, requests, counts.all, whose)
        } else {
            Err(NotNow::Closed)
        };
        match result {
            Ok(()) => {
                counts.record(&self.session.route.metrics);
                self.session.about.sent(requests.len(), counts.all);
                Ok(())
            }
            Err(NotNow::Full) => Err(What::Wait),
            Err(NotNow::Closed) if self.seat.due() > 0 => Err(What::Wait),
            Err(NotNow::Closed) => Err(What::Next(Next::Line(self.key()))),
        }
    }
}

fn is(whole: &Whole<'_>, transaction: Transaction) -> bool {
    whole.command.facts().effect == Effect::Transaction(transaction)
}
