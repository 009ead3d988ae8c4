//! A relay for a pinned client: it begins with what the client had sent, and ends when the client can share a connection again.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use zeroize::Zeroizing;

use super::relay::Relay;
use crate::resp::command_table::{Command, Multiplexing, PinReason};
use crate::resp::replies::encode_secret;
use crate::resp::whole::Front;
use crate::session::client_session::{LastWrites, Session};
use crate::session::ledger::{Ledger, OwnRequest};
use crate::session::scratch::READ;
use crate::session::setup::{self, ClientSetup};
use crate::session::shared::HandedOff;
use crate::session::wire::Wire;

/// How long a pinned client must be idle before it shares again. A client that sends sooner is likely to need the dedicated connection.
const PIN_LINGER: Duration = Duration::from_secs(1);

/// How a client is pinned.
pub(in crate::session) struct Pinned {
    /// The client stays pinned until then at least.
    pub(in crate::session) until: Option<Instant>,
    /// Which of the client's writes the connection has carried.
    pub(in crate::session) writes: Writes,
}

pub(super) struct PinState {
    until: Option<Instant>,
    writes: Writes,
    /// The request for which the client was pinned has been sent.
    served: bool,
    given_back: bool,
    /// Number of bytes that waited for the client when it was pinned.
    handed_output: usize,
    /// A request of pontoon's own that is still to be sent: it sets the client's name.
    name: Option<Zeroizing<Vec<u8>>>,
    waits_for_name: bool,
}

/// Which of the client's writes its connection has carried. WAIT asks about the connection's own writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) enum Writes {
    /// No writes.
    None,
    /// The last writes.
    Last,
    /// All writes. It is the shared connection that the client had before, and WAIT was sent over it.
    All,
}

impl PinState {
    /// Notes that a request with this command is sent.
    #[inline]
    pub(super) fn note(&mut self, command: Command) {
        if self.writes == Writes::None && command.facts().writes {
            self.writes = Writes::Last;
        }
    }
}

impl<'a> Relay<'a> {
    pub(in crate::session) fn pinned(session: Session<'a>, wire: Wire, pinned: &Pinned) -> Self {
        let resp3 = session.profile.setup().is_some_and(|setup| setup.key.resp3);
        let mut relay = Self::over(session, wire, false);
        relay.ledger = Ledger::speaking(resp3);
        relay.pin(pinned);
        relay
    }

    /// Continues on a connection that was shared, with its outstanding replies.
    pub(in crate::session) fn handed_off(
        session: Session<'a>,
        handed_off: HandedOff,
        pinned: &Pinned,
    ) -> Self {
        let mut relay = Self::over(session, handed_off.wire, false);
        relay.ledger = handed_off.ledger;
        if let (Some(rewriting), Some(held)) = (&mut relay.rewriting, handed_off.held) {
            rewriting.resume_error(held);
        }
        relay.replies = handed_off.replies;
        relay.pin(pinned);
        let name = relay.session.profile.setup().map(|setup| setup.name.clone()).unwrap_or_default();
        if let Some(pin) = relay.pin.as_mut().filter(|_| !name.is_empty()) {
            pin.name = Some(encode_secret(&[&b"CLIENT"[..], b"SETNAME", &name]));
        }
        relay
    }

    fn pin(&mut self, pinned: &Pinned) {
        self.pin = Some(Box::new(PinState {
            until: pinned.until,
            writes: pinned.writes,
            served: false,
            given_back: false,
            handed_output: self.session.to_client.len(),
            name: None,
            waits_for_name: false,
        }));
        self.authenticated();
    }

    /// Number of bytes that waited for the client when it was pinned.
    pub(super) fn handed_output(&self) -> usize {
        self.pin.as_ref().map_or(0, |pin| pin.handed_output)
    }

    /// The request that sets the client's name on a connection that was handed off to it. It is sent once no reply is outstanding, so that
    /// its own reply can be recognized.
    pub(super) fn take_name(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        let pin = self.pin.as_mut()?;
        if pin.name.is_none() || self.ledger.outstanding() > 0 || !self.requests.at_boundary() {
            return None;
        }
        let name = pin.name.take().filter(|_| self.ledger.opaque().is_none())?;
        self.account(|ledger| ledger.own(OwnRequest::SetUp));
        Some(name)
    }

    /// Whether the client's name is not set yet. Its next CLIENT request must wait for that.
    pub(super) fn lacks_name(&self) -> bool {
        self.pin.as_ref().is_some_and(|pin| pin.name.is_some())
    }

    /// Stops reading the client until its name is set.
    #[cold]
    pub(super) fn wait_for_name(&mut self) {
        if let Some(pin) = &mut self.pin {
            pin.waits_for_name = true;
        }
    }

    pub(super) fn waits_for_name(&self) -> bool {
        self.lacks_name() && self.pin.as_ref().is_some_and(|pin| pin.waits_for_name)
    }

    /// Sets up the connection as the client had set up its own. The error is the server's reply, if the server refused.
    pub(in crate::session) async fn set_up(&mut self) -> Result<(), Option<Vec<u8>>> {
        let steps =
            self.session.profile.setup().map(ClientSetup::of_the_client).and_then(|setup| setup.steps());
        let steps = steps.ok_or(None)?;
        if !steps.is_empty() {
            self.ledger.was_set_up();
        }
        setup::set_up(&mut self.wire.connection, &steps).await
    }

    /// Closes the connection, because other clients cannot use it.
    pub(in crate::session) fn give_up_connection(&mut self) {
        self.wire.fail("it could not be set up");
    }

    /// Returns the client once it needs no dedicated connection. The connection is released if it can serve another client.
    pub(in crate::session) fn into_shared(mut self) -> Session<'a> {
        // Lets every byte that comes next wake a task.
        if let Some(socket) = self.session.client.as_tcp() {
            self.client_mark.expect(socket, 0, READ);
        }
        self.upstream_mark.expect(&self.wire.connection.stream, 0, READ);
        if self.pin.as_ref().is_some_and(|pin| pin.writes != Writes::None) {
            self.session.last_writes = LastWrites::Gone;
        }
        self.into_session()
    }

    /// Whether the client can share again, because neither its next request nor any state needs the dedicated connection. Keeps the request
    /// for the shared connection then.
    #[inline]
    pub(super) fn gives_back(&mut self, bytes: &[u8]) -> bool {
        self.pin.is_some() && self.give_back(bytes)
    }

    fn give_back(&mut self, bytes: &[u8]) -> bool {
        if let Some(pin) = self.pin.as_mut().filter(|pin| !pin.served) {
            // The client was pinned for this request. Sharing again would only pin it again.
            pin.served = true;
            return false;
        }
        let Front::Whole(whole) = Front::of(bytes) else { return false };
        let multiplexing = whole.multiplexing();
        // WAIT about writes over the shared connection.
        let waits = multiplexing == Multiplexing::Dedicated(PinReason::Wait);
        let shared = match multiplexing {
            Multiplexing::Shared | Multiplexing::PerClient => true,
            Multiplexing::Unknown => self.is_learned(whole.name),
            Multiplexing::Dedicated(_) => waits,
        };
        if !shared || !self.is_free() {
            return false;
        }
        let Some(pin) = &mut self.pin else { return false };
        let stays = match pin.writes {
            Writes::None => false,
            Writes::Last => waits,
            Writes::All => true,
        };
        if stays || (!waits && pin.until.is_some_and(|until| Instant::now() < until)) {
            return false;
        }
        pin.given_back = true;
        self.session.keep(bytes);
        true
    }

    /// Whether the server has reported that clients may share a connection for this command.
    fn is_learned(&self, name: &[u8]) -> bool {
        self.session.route.multiplexer.as_ref().and_then(|multiplexer| multiplexer.learned(name))
            == Some(true)
    }

    pub(super) fn is_given_back(&self) -> bool {
        self.pin.as_ref().is_some_and(|pin| pin.given_back)
    }

    /// Whether nothing needs the dedicated connection, and all that the client set up can be set up again.
    fn is_free(&self) -> bool {
        self.is_at_rest()
            && self.session.client_sends
            && !self.session.route.drain.is_draining()
            && self.ledger.is_free()
            && self.session.guard.as_ref().is_none_or(|guard| guard.is_open())
            && self.session.profile.setup().is_some_and(|setup| setup.steps().is_some())
    }

    /// `Ready`: the client has not needed its connection for a while.
    pub(super) fn poll_unpin(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.pin.is_none() {
            return Poll::Pending;
        }
        if !self.is_free() {
            self.note_hold();
            return Poll::Pending;
        }
        let until = self.pin.as_ref().and_then(|pin| pin.until);
        let timer = self.timers.unpin.get_or_insert_with(|| {
            let at = Instant::now() + PIN_LINGER;
            Box::pin(sleep_until(until.map_or(at, |until| until.max(at))))
        });
        ready!(Pin::as_mut(timer).poll(cx));
        Poll::Ready(())
    }
}
