//! Reads the client's bytes: finds the requests, and decides what goes upstream.

use std::io;
use std::task::Context;

use zeroize::Zeroizing;

use super::relay::Relay;
use crate::resp::client_requests;
use crate::resp::replies::encode_secret;
use crate::resp::request::Request;
use crate::resp::scanner::Event;
use crate::session::abort_reason::AbortReason;
use crate::session::client_session::Input;
use crate::session::counts::RequestCounts;
use crate::session::guard::{self, Decision, Guard};
use crate::session::ledger::{Ledger, Opaque, OwnRequest};
use crate::session::rewriting::Rewriting;
use crate::upstream::SeenId;

impl Relay<'_> {
    /// Counts the requests in `bytes`. Returns how many bytes to send: all of them, or in a drain those up to the end of the request that
    /// had begun.
    pub(super) fn note_requests(&mut self, bytes: &[u8]) -> usize {
        if !self.is_framed() {
            self.session.profile.sent(bytes.len(), 0);
            return bytes.len();
        }
        let within = self.session.within();
        let mut passed = 0;
        // Where the present request begins, if it begins in these bytes.
        let mut began = self.requests.at_boundary().then_some(0);
        let mut counts = RequestCounts::default();
        while passed < bytes.len() {
            let (n, event) = self.next_request(&bytes[passed..]);
            passed += n;
            match event {
                Event::NeedMore => {
                    if let Some(began) = began.filter(|began| self.may_have_to_change(&bytes[*began..])) {
                        self.session.input.lacks_more = self.session.input.bytes.is_empty();
                        self.session.keep(&bytes[began..]);
                        self.requests.rewind();
                        passed = began;
                    }
                    break;
                }
                Event::Frame => {
                    let begins = began.replace(passed);
                    if self.requests.request() == Request::Quit
                        && let Some(begins) = begins
                        && self.answers_quit()
                    {
                        counts.add(self.requests.command());
                        self.quit();
                        passed = begins;
                        break;
                    }
                    if self.requests.may_be_client() {
                        if self.lacks_name()
                            && let Some(begins) = begins
                        {
                            self.wait_for_name();
                            self.session.keep(&bytes[begins..]);
                            passed = begins;
                            break;
                        }
                        if begins.is_none() && self.requests.must_be_seen() {
                            self.aborted = Some(AbortReason::TooLong);
                            passed -= n;
                            break;
                        }
                        if let Some(begins) = begins
                            && let Some(other) = self.instead(&bytes[begins..passed])
                        {
                            self.session.keep(&bytes[passed..]);
                            self.session.keep(&other);
                            self.session.replaced(passed - begins, other.len());
                            passed = begins;
                            break;
                        }
                    }
                    let request = match &self.rewriting {
                        Some(rewriting) => rewriting.request(&self.requests),
                        None => self.requests.request(),
                    };
                    if !self.book(request) {
                        passed -= n;
                        break;
                    }
                    counts.add(self.requests.command());
                    if passed >= within {
                        break;
                    }
                }
                Event::Malformed => {
                    self.account(|ledger| ledger.become_opaque(Opaque::Malformed));
                    if self.requests.speaks_tls() {
                        return passed;
                    }
                }
            }
            if !self.is_framed() {
                passed = bytes.len();
            }
        }
        self.session.looked_at(passed);
        self.noted(passed, &counts);
        passed
    }

    /// Whether pontoon answers QUIT, so that the connection can serve another client. A server would close it. Not after a request whose
    /// reply may take forever: only QUIT may let the server see the end of such a client.
    fn answers_quit(&self) -> bool {
        self.ledger.is_prompt() && self.wire.connection.is_reusable()
    }

    /// Answers QUIT in its turn, and stops reading the client.
    fn quit(&mut self) {
        self.account(Ledger::quit);
        self.session.input = Input::default();
        self.session.client_sends = false;
    }

    /// Whether the request that begins with `part` may have to be changed once it is whole.
    fn may_have_to_change(&self, part: &[u8]) -> bool {
        self.session.client_sends
            && self.requests.may_yet_be_client()
            && part.len() <= guard::MAX_GUARDED_REQUEST
            // A server may refuse a word because of its length, without waiting for it.
            && self.requests.due() <= guard::MAX_GUARDED_REQUEST as u64
    }

    /// What to send in place of a CLIENT request.
    #[cold]
    fn instead(&self, request: &[u8]) -> Option<Vec<u8>> {
        let words = guard::words(request).ok()??;
        let words: Vec<&[u8]> = words.iter().collect();
        client_requests::instead(&words).map(|words| encode_secret(&words).to_vec()).or_else(|| {
            self.judges_ids.then(|| self.session.route.upstream.without_passed_on_ids(&words)).flatten()
        })
    }

    /// Consumes bytes up to the end of a request.
    #[inline]
    fn next_request(&mut self, bytes: &[u8]) -> (usize, Event) {
        let Some(slow) = &mut self.slow else { return self.requests.next(bytes) };
        let begins = self.requests.at_boundary();
        let (n, event) = self.requests.next(bytes);
        slow.read(n, begins);
        (n, event)
    }

    /// Notes that `bytes` are sent, with the requests in `counts`.
    #[inline]
    fn noted(&mut self, bytes: usize, counts: &RequestCounts) {
        self.session.profile.sent(bytes, counts.all);
        if counts.all > 0 {
            counts.record(&self.session.route.metrics);
            self.ledger.time();
        }
    }

    /// Enters a request that is sent into the ledger. `false`: it must not be sent.
    #[inline]
    fn book(&mut self, request: Request) -> bool {
        if self.rewriting.is_some()
            && let Some(reason) = Rewriting::refuses(request, &self.ledger)
        {
            self.aborted = Some(reason);
            return false;
        }
        let info = self.session.profile.request(&mut self.requests);
        self.account(|ledger| ledger.request(request, info));
        if self.aborted.is_some() {
            return false;
        }
        if self.requests.asks_for_id() {
            self.note_unread_id();
        }
        if let Some(pin) = &mut self.pin {
            pin.note(self.requests.command());
        }
        if let Some(slow) = &mut self.slow {
            slow.booked(self.requests.command(), request, &self.ledger);
        }
        self.replies.keep_status(self.ledger.wants_status());
        true
    }

    /// Notes that a reply that is not read shows the client its connection's id. From now on the id stands for this client, so no other
    /// client may get the connection.
    #[cold]
    pub(super) fn note_unread_id(&mut self) {
        self.wire.connection.passed_on = None;
        self.wire.connection.seen_id = SeenId::Unread;
    }

    /// Does the same as [`note_requests`](Self::note_requests) for a client with a guard, whose AUTH does not go upstream. Returns what to
    /// send. `within`: no request may begin at this byte or later.
    pub(super) fn guard_requests(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        within: usize,
    ) -> io::Result<Zeroizing<Vec<u8>>> {
        let Some(mut guard) = self.session.guard.take() else { return Ok(bytes.to_vec().into()) };
        let mut out = Zeroizing::new(Vec::with_capacity(bytes.len()));
        let mut passed = 0;
        let mut counts = RequestCounts::default();
        while passed < bytes.len() && self.is_framed() && self.aborted.is_none() && !self.ledger.quits_here()
        {
            if guard.has_later() || self.relogin.as_ref().is_some_and(|relogin| relogin.is_urgent()) {
                guard.keep_for_later(&bytes[passed..]);
                break;
            }
            if passed >= within && self.requests.at_boundary() {
                break;
            }
            let (n, event) = self.next_request(&bytes[passed..]);
            let part = &bytes[passed..passed + n];
            passed += n;
            match event {
                Event::NeedMore => {
                    if guard.part(self.requests.name(), part, &mut out).is_err() {
                        self.aborted = Some(AbortReason::TooLong);
                    }
                }
                Event::Frame => {
                    counts.add(self.requests.command());
                    self.guarded_request(cx, &mut guard, part, &mut out);
                }
                Event::Malformed => {
                    self.account(|ledger| ledger.become_opaque(Opaque::Malformed));
                    // Malformed bytes pass only from a client that may send any request. TLS never does.
                    if !guard.is_open() {
                        self.aborted = Some(AbortReason::Unauthenticated);
                    } else if !self.requests.speaks_tls() {
                        guard.release(part, &mut out);
                    }
                }
            }
        }
        if !self.is_framed() && guard.is_open() && !self.requests.speaks_tls() {
            out.extend_from_slice(&bytes[passed..]);
        }
        self.session.guard = Some(guard);
        self.noted(out.len(), &counts);
        self.answer_locally(cx)?;
        Ok(out)
    }

    fn guarded_request(
        &mut self,
        cx: &mut Context<'_>,
        guard: &mut Guard,
        part: &[u8],
        out: &mut Zeroizing<Vec<u8>>,
    ) {
        let request = self.requests.request();
        if self.requests.may_be_client()
            && let Some(whole) = guard.whole(part)
            && let Some(other) = self.instead(&whole)
        {
            guard.forget();
            // Quotes may have hidden what the request is.
            if self.next_request(&other) == (other.len(), Event::Frame) {
                self.guarded_request(cx, guard, &other, out);
            }
            return;
        }
        match guard.decide(request, part) {
            Decision::Pass
                if request == Request::Quit && !guard.passed_in_pieces() && self.answers_quit() =>
            {
                guard.forget();
                self.quit();
            }
            Decision::Pass if self.ledger.local_replies() > 0 && request.ends_counting() => {
                // After this request the position of pontoon's own replies would be unknown, so they go first.
                if !guard.put_back(part) {
                    self.aborted = Some(AbortReason::Unmatched);
                }
            }
            Decision::Pass => {
                if self.book(request) {
                    guard.release(part, out);
                }
                if request == Request::Reset
                    && let Some(relogin) = &mut self.relogin
                {
                    if self.ledger.opaque().is_some() {
                        // The reply to pontoon's AUTH could not be distinguished from the client's.
                        self.aborted = Some(AbortReason::Unmatched);
                    } else {
                        relogin.after_reset();
                        self.log_in_again(cx, out);
                    }
                }
            }
            Decision::Replace(request, bytes) => {
                if self.book(request) {
                    out.extend_from_slice(&bytes);
                }
            }
            Decision::Again(bytes) => {
                if self.next_request(&bytes) == (bytes.len(), Event::Frame) {
                    self.guarded_request(cx, guard, &bytes, out);
                }
            }
            Decision::Answer(reply) => self.account(|ledger| ledger.local(reply)),
        }
    }

    /// Sends AUTH once credentials are available, between two requests and never inside a transaction.
    pub(super) fn log_in_again(&mut self, cx: &mut Context<'_>, out: &mut Zeroizing<Vec<u8>>) {
        let Some(relogin) = &mut self.relogin else { return };
        if let Some(command) = relogin.poll_command(cx, self.session.route) {
            // Allocates the final size at once, because a buffer that grows leaves copies of the secret behind.
            let mut longer = Zeroizing::new(Vec::with_capacity(out.len() + command.len()));
            longer.extend_from_slice(out);
            longer.extend_from_slice(&command);
            *out = longer;
            self.account(|ledger| ledger.own(OwnRequest::Auth));
            if self.ledger.opaque().is_some() {
                // The reply to AUTH could not be distinguished from the client's.
                self.aborted = Some(AbortReason::Unmatched);
            }
        }
    }
}
