//! The queue of a connection's outstanding requests, in order, and what each reply decides. All that a session knows about replies comes
//! from this one queue. Ordinary requests in a row share one counter.
//!
//! If replies cannot be matched to requests, the session becomes [`Opaque`]: bytes still flow, and pontoon guesses nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::resp::arguments::ClientInfo;
use crate::resp::command_table::{AddressReply, Leaves, Transaction};
use crate::resp::connection_state::{ConnectionState, HelloReply, Queue};
use crate::resp::replies::OK;
use crate::resp::request::{ReplyMode, Request};
use crate::resp::scanner::{Confirmed, Reply, ReplyScanner};

/// The largest number of entries. A pipeline that alternates more often is not worth the memory.
const MAX_ENTRIES: usize = 16 * 1024;

/// The largest number of outstanding requests for addresses of nodes.
pub(super) const MAX_NODE_REQUESTS: u32 = 4096;

/// Why replies are no longer matched to requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opaque {
    /// A RESP2 connection is in subscribed mode: messages arrive among replies and look like them.
    Subscribed,
    /// MONITOR: the server sends a stream without requests.
    Monitor,
    /// CLIENT REPLY OFF or SKIP: requests get no replies.
    ReplyMode,
    /// The server sent a reply without a request.
    Unsolicited,
    /// A pipeline alternates between kinds of requests more often than the ledger can hold.
    Overflow,
    /// SYNC, PSYNC, REPLCONF: the stream is no longer RESP.
    Replication,
    /// A command whose name is unknown: an inline command in quotes.
    Unrecognized,
    /// A side sent bytes that are not RESP.
    Malformed,
    /// The client brings its own TLS.
    Encrypted,
}

impl Opaque {
    /// The reason as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Subscribed => "subscribed",
            Self::Monitor => "monitor",
            Self::ReplyMode => "reply_mode",
            Self::Unsolicited => "unsolicited",
            Self::Overflow => "overflow",
            Self::Replication => "replication",
            Self::Unrecognized => "unrecognized",
            Self::Malformed => "malformed",
            Self::Encrypted => "encrypted",
        }
    }

    /// The reason in words, for people.
    const fn words(self) -> &'static str {
        match self {
            Self::Subscribed => "subscribed",
            Self::Monitor => "MONITOR",
            Self::ReplyMode => "CLIENT REPLY",
            Self::Unsolicited => "unsolicited reply",
            Self::Overflow => "pipeline too long to track",
            Self::Replication => "replication stream",
            Self::Unrecognized => "unreadable command in quotes",
            Self::Malformed => "bytes that are not RESP",
            Self::Encrypted => "TLS of the client",
        }
    }

    /// Whether frames still have boundaries, although replies do not match requests.
    pub const fn is_framed(self) -> bool {
        !matches!(self, Self::Replication | Self::Malformed | Self::Encrypted)
    }
}

/// The outstanding requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// In an opaque session, only pontoon's own replies to the client.
    entries: VecDeque<Entry>,
    /// Number of outstanding replies, those that pontoon gives or receives itself included.
    outstanding: u64,
    /// Number of requests that have their reply.
    answered: u64,
    /// What the replies so far have left on the connection.
    state: ConnectionState,
    opaque: Option<Opaque>,
    count: OutstandingKinds,
    /// Whether an outstanding request is timed.
    is_timing: bool,
    /// The duration of the request that was timed.
    took: Option<Duration>,
    /// The reply to a request of pontoon's own was outstanding when the session became opaque.
    own_lost: bool,
    /// A reply with addresses of nodes was outstanding when the session became opaque.
    addresses_lost: bool,
    quit: Option<Quit>,
}

/// The request after whose reply the connection closes: QUIT, or one that makes the server close.
#[derive(Debug, Clone, Copy)]
struct Quit {
    number: u64,
    /// Whether pontoon answers it.
    is_local: bool,
}

/// Number of outstanding requests of each kind.
#[derive(Debug, Default)]
struct OutstandingKinds {
    /// Requests whose replies may take long.
    waiting: u32,
    /// HELLO and RESET: the protocol is unknown until their replies.
    switches: u32,
    /// Requests that begin or end a transaction.
    transactions: u32,
    /// Requests whose replies hold addresses of nodes.
    nodes: u32,
    /// Requests that say something about the client.
    informing: u32,
    /// Requests that pontoon answers.
    local: usize,
    /// Requests of pontoon's own.
    own: u32,
    /// Requests of pontoon's own that set up the connection.
    setups: u32,
}

/// Consecutive requests of the same kind.
#[derive(Debug)]
struct Entry {
    count: u64,
    expects: Expects,
    /// When timing of the last of them began, if it is timed.
    timed: Option<Instant>,
    /// What the only request of the entry says about the client.
    info: Option<Box<ClientInfo>>,
}

/// The side that answers a request, and the side that gets the reply.
#[derive(Debug, PartialEq, Eq)]
enum Expects {
    /// The server answers the client.
    Client(Request),
    /// The server answers pontoon. The client does not get the reply.
    Own(OwnRequest),
    /// Pontoon answers the client.
    Local(Box<[u8]>),
}

/// A request of pontoon's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnRequest {
    /// AUTH.
    Auth,
    /// A request that sets up the connection as the client had set up another one.
    SetUp,
}

/// What a reply decides beyond the ledger's own state.
#[derive(Debug)]
pub(super) struct ReplyOutcome {
    pub(super) hello: HelloReply,
    /// What is now known about the client.
    pub(super) info: Option<Box<ClientInfo>>,
}

impl ReplyOutcome {
    const NOTHING: Self = Self { hello: HelloReply::None, info: None };
}

/// Addresses of nodes that a reply may hold. The client must not get them unchanged.
#[derive(Debug, Clone)]
pub(super) enum NodeAddresses {
    /// The reply answers a request for addresses.
    Topology(AddressReply),
    /// The reply answers EXEC, and these requests were queued.
    Transaction(Queue),
}

impl Entry {
    fn of(expects: Expects) -> Self {
        Self { count: 1, expects, timed: None, info: None }
    }

    /// Whether one more such request can be counted in this entry.
    #[inline]
    fn takes(&self, request: Request) -> bool {
        self.timed.is_none() && self.info.is_none() && self.expects == Expects::Client(request)
    }
}

impl Ledger {
    /// The ledger of a new connection that uses RESP3 (`true`) or RESP2.
    pub(super) fn speaking(resp3: bool) -> Self {
        Self { state: ConnectionState::speaking(resp3), ..Self::default() }
    }

    /// Number of outstanding replies.
    pub(super) fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// The number of the last request that has its reply. The number of the last request sent is greater by
    /// [`outstanding`](Self::outstanding).
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    /// Number of outstanding replies that the client waits for.
    pub(super) fn due_to_client(&self) -> u64 {
        if self.has_quit() { 0 } else { self.outstanding - u64::from(self.count.own) }
    }

    /// Whether QUIT has its reply, or the server has announced that it closes. The client expects no further reply.
    pub(super) fn has_quit(&self) -> bool {
        self.quit.is_some_and(|quit| self.answered >= quit.number)
    }

    /// Whether the server closes the connection because of what the client sent.
    pub(super) fn has_sent_quit(&self) -> bool {
        self.quit.is_some_and(|quit| !quit.is_local)
    }

    /// Whether pontoon answers QUIT.
    pub(super) fn quits_here(&self) -> bool {
        self.quit.is_some_and(|quit| quit.is_local)
    }

    /// Whether every outstanding reply comes promptly.
    pub(super) fn is_prompt(&self) -> bool {
        self.opaque.is_none() && self.count.waiting == 0
    }

    /// Whether a reply to HELLO or RESET is outstanding.
    #[inline]
    pub(super) fn awaits_switch(&self) -> bool {
        self.count.switches > 0
    }

    /// Whether the text of the next status reply decides something, so that the scanner must keep it.
    #[inline]
    pub(super) fn wants_status(&self) -> bool {
        self.count.informing > 0 || self.may_be_in_transaction()
    }

    /// Whether a transaction is open, or may be after the outstanding requests.
    #[inline]
    pub(super) fn may_be_in_transaction(&self) -> bool {
        self.count.transactions > 0 || self.state.in_transaction()
    }

    /// Number of pontoon's own replies that wait for their turn.
    pub(super) fn local_replies(&self) -> usize {
        self.count.local
    }

    /// The request of pontoon's own that the next reply answers. `None`: it answers the client.
    pub(super) fn next_own(&self) -> Option<OwnRequest> {
        if let Expects::Own(request) = self.entries.front()?.expects { Some(request) } else { None }
    }

    /// Whether a request of pontoon's own that sets up the connection is outstanding.
    #[inline]
    pub(super) fn is_setting_up(&self) -> bool {
        self.count.setups > 0
    }

    /// Whether the reply to a request of pontoon's own can no longer be distinguished from others.
    pub(super) fn is_own_lost(&self) -> bool {
        self.own_lost
    }

    /// Whether some outstanding replies are swallowed or given by pontoon.
    #[inline]
    pub(super) fn is_interleaved(&self) -> bool {
        self.count.own > 0 || self.count.local > 0
    }

    /// Whether no reply is outstanding, and RESET would make the connection like new.
    pub(super) fn is_clean(&self) -> bool {
        self.is_settled() && self.state.is_undone_by_reset()
    }

    /// Whether no reply is outstanding, and all that is left on the connection can be set up on another one.
    pub(super) fn is_free(&self) -> bool {
        self.is_settled() && self.state.is_free()
    }

    /// What keeps the client on this connection for longer than a prompt reply takes, in words.
    pub(super) fn hold(&self) -> Option<&'static str> {
        match self.opaque {
            Some(opaque) => Some(opaque.words()),
            None => self.state.hold().or((self.count.waiting > 0).then_some("blocking command")),
        }
    }

    /// Whether the connection is like new.
    pub(super) fn is_untouched(&self) -> bool {
        self.is_settled() && self.state.is_untouched()
    }

    fn is_settled(&self) -> bool {
        self.opaque.is_none() && self.outstanding == 0
    }

    /// Notes a request that the server accepted before this ledger began.
    pub(super) fn has_accepted(&mut self, request: Request) {
        self.state.answered(request, false, false);
    }

    /// Notes that pontoon has set up the connection.
    pub(super) fn was_set_up(&mut self) {
        self.state.accept(Leaves::SetUp);
    }

    /// Whether a reply that holds addresses of nodes can no longer be distinguished from others.
    pub(super) fn are_addresses_lost(&self) -> bool {
        self.addresses_lost
    }

    /// Whether no more requests for addresses may be sent for now.
    pub(super) fn is_full_of_node_requests(&self) -> bool {
        self.count.nodes == MAX_NODE_REQUESTS
    }

    /// The addresses of nodes that the next reply may hold.
    #[inline]
    pub(super) fn node_addresses(&self) -> Option<NodeAddresses> {
        match self.entries.front()?.expects {
            Expects::Client(Request::Addresses(reply)) => Some(NodeAddresses::Topology(reply)),
            Expects::Client(Request::Transaction(Transaction::Executes)) => {
                let queue = self.state.queue().filter(|queue| !queue.nodes.is_empty())?;
                Some(NodeAddresses::Transaction(queue.clone()))
            }
            _ => None,
        }
    }

    /// Why replies are not matched to requests. `None`: they still are matched.
    pub(super) fn opaque(&self) -> Option<Opaque> {
        self.opaque
    }

    /// Stops matching replies to requests, permanently.
    pub(super) fn become_opaque(&mut self, reason: Opaque) {
        // "Not RESP at all" overrides "RESP, but not matched". Otherwise the first reason stays.
        if self.opaque.is_none_or(|known| known.is_framed() && !reason.is_framed()) {
            self.opaque = Some(reason);
        }
        let locals = self.entries.drain(..).filter(|entry| matches!(entry.expects, Expects::Local(_)));
        self.entries = locals.collect();
        self.outstanding = 0;
        self.own_lost |= self.count.own > 0;
        let leads = |queue: &Queue| queue.nodes.iter().any(|(_, reply)| reply.leads_clients());
        self.addresses_lost |= self.count.nodes > 0 || self.state.queue().is_some_and(leads);
        self.count = OutstandingKinds { local: self.count.local, ..OutstandingKinds::default() };
        self.is_timing = false;
    }

    /// Notes a request of the client that pontoon answers in its turn.
    pub(super) fn local(&mut self, reply: Vec<u8>) {
        self.count.local += 1;
        self.push(Entry::of(Expects::Local(reply.into())));
    }

    /// Notes a QUIT that pontoon answers in its turn.
    pub(super) fn quit(&mut self) {
        self.local(OK.into());
        self.quit = Some(Quit { number: self.answered + self.outstanding, is_local: true });
    }

    /// Notes that the server closes the connection because of what the client sent, whatever is outstanding.
    pub(super) fn server_closes(&mut self) {
        self.quit.get_or_insert(Quit { number: self.answered, is_local: false });
    }

    /// Whether a reply of pontoon's own is next. In an opaque session it always is.
    pub(super) fn has_local(&self) -> bool {
        self.entries.front().is_some_and(|entry| matches!(entry.expects, Expects::Local(_)))
    }

    /// Takes the reply of pontoon's own that is next, if there is one.
    pub(super) fn take_local(&mut self) -> Option<Box<[u8]>> {
        if !self.has_local() {
            return None;
        }
        self.count.local -= 1;
        if self.opaque.is_none() {
            self.outstanding -= 1;
            self.answered += 1;
        }
        let entry = self.pop()?;
        if let Expects::Local(reply) = entry.expects { Some(reply) } else { None }
    }

    /// Notes a request of pontoon's own.
    pub(super) fn own(&mut self, request: OwnRequest) {
        self.count.own += 1;
        self.count.setups += u32::from(request == OwnRequest::SetUp);
        self.push(Entry::of(Expects::Own(request)));
    }

    /// Notes a request that is sent upstream, and what it says about the client.
    #[inline]
    pub(super) fn request(&mut self, request: Request, info: Option<ClientInfo>) {
        if let Request::Plain | Request::Leaves(_) = request
            && info.is_none()
            && let Some(last) = self.entries.back_mut()
            && last.takes(request)
        {
            last.count += 1;
            self.outstanding += 1;
            return;
        }
        self.book(request, info);
    }

    fn book(&mut self, request: Request, info: Option<ClientInfo>) {
        if self.opaque.is_some() {
            if request == Request::Replication {
                self.become_opaque(Opaque::Replication);
            }
            return;
        }
        let is_resp3 = self.state.is_resp3() && self.count.switches == 0;
        let request = match request {
            Request::ReplyMode(ReplyMode::On) => Request::Plain,
            Request::Auth => Request::Leaves(Leaves::Authenticated),
            Request::Quit => {
                let number = self.answered + self.outstanding + 1;
                self.quit.get_or_insert(Quit { number, is_local: false });
                Request::Plain
            }
            // The server may close before it answers earlier requests.
            Request::Closes => return self.server_closes(),
            // Without channels it has at least one confirmation.
            Request::Subscribe { kind, count } if is_resp3 => {
                Request::Subscribe { kind, count: count.max(1) }
            }
            Request::Unsubscribe { .. } if is_resp3 => request,
            // Libraries send it as a precaution. With several channels, each has a confirmation, or all have one error.
            Request::Unsubscribe { count: 0 | 1, .. } if self.is_unsubscribed_in_resp2() => Request::Plain,
            Request::Subscribe { .. } | Request::Unsubscribe { .. } => {
                return self.become_opaque(Opaque::Subscribed);
            }
            Request::Monitor => return self.become_opaque(Opaque::Monitor),
            Request::ReplyMode(_) => return self.become_opaque(Opaque::ReplyMode),
            Request::Replication => return self.become_opaque(Opaque::Replication),
            Request::Unknown => return self.become_opaque(Opaque::Unrecognized),
            request => request,
        };
        if let Some(count) = self.count.of(request) {
            *count += 1;
        }
        self.count.informing += u32::from(info.is_some());
        self.push(Entry { info: info.map(Box::new), ..Entry::of(Expects::Client(request)) });
    }

    /// Whether the connection can have no subscription, so that a confirmation is a reply like any other.
    fn is_unsubscribed_in_resp2(&self) -> bool {
        self.count.switches == 0 && self.state.is_resp2() && self.state.is_free()
    }

    fn push(&mut self, entry: Entry) {
        if self.opaque.is_none() && self.entries.len() == MAX_ENTRIES {
            self.become_opaque(Opaque::Overflow);
        }
        if self.opaque.is_none() {
            self.outstanding += entry.count;
        } else if !matches!(entry.expects, Expects::Local(_)) {
            return;
        }
        self.entries.push_back(entry);
    }

    /// Starts timing the request that was sent last, if no other is timed and its reply comes promptly. Its last byte was read just now.
    #[inline]
    pub(super) fn time(&mut self) {
        if self.is_timing || self.count.waiting > 0 {
            return;
        }
        if let Some(last) = self.entries.back_mut()
            && let Expects::Client(
                Request::Plain | Request::Leaves(_) | Request::Transaction(_) | Request::Addresses(_),
            ) = last.expects
        {
            last.timed = Some(Instant::now());
            self.is_timing = true;
        }
    }

    /// The duration of the timed request, once the first byte of its reply has arrived.
    #[inline]
    pub(super) fn took(&mut self, replies: &ReplyScanner) -> Option<Duration> {
        if self.is_timing
            && let Some(first) = self.entries.front_mut()
            && first.count == 1
            && first.timed.is_some()
            && replies.is_within_reply()
        {
            self.took = first.timed.take().map(|since| since.elapsed());
            self.is_timing = false;
        }
        self.took.take()
    }

    /// Notes a frame from the upstream. `queued`: it is `+QUEUED`.
    #[inline]
    pub(super) fn reply(&mut self, reply: Reply, queued: bool) -> ReplyOutcome {
        if self.opaque.is_some() {
            return ReplyOutcome::NOTHING;
        }
        let Some(first) = self.entries.front_mut() else {
            if !matches!(reply, Reply::Push(_)) {
                self.become_opaque(Opaque::Unsolicited);
            }
            return ReplyOutcome::NOTHING;
        };
        if let Reply::Push(confirmed) = reply {
            self.push_arrived(confirmed);
            return ReplyOutcome::NOTHING;
        }
        let refused = reply == Reply::Error;
        let mut answer = ReplyOutcome::NOTHING;
        match first.expects {
            // EXEC will reply with more elements than it announces, if there are several channels.
            Expects::Client(Request::Subscribe { .. } | Request::Unsubscribe { .. }) if queued => {
                self.become_opaque(Opaque::Subscribed);
                return answer;
            }
            Expects::Client(request) => {
                answer.hello = self.state.answered(request, refused, queued);
                if let Some(count) = self.count.of(request) {
                    *count -= 1;
                }
            }
            Expects::Own(request) => {
                self.count.own -= 1;
                self.count.setups -= u32::from(request == OwnRequest::SetUp);
            }
            // Pontoon's reply was next, so the server's reply is unsolicited.
            Expects::Local(_) => {
                self.become_opaque(Opaque::Unsolicited);
                return answer;
            }
        }
        first.count -= 1;
        self.outstanding -= 1;
        self.answered += 1;
        if first.count == 0 {
            let info = self.end_entry();
            answer.info = info.filter(|_| !refused && !queued);
        }
        answer
    }

    /// Notes a push. Messages and invalidations answer no request.
    #[cold]
    fn push_arrived(&mut self, confirmed: Option<Confirmed>) {
        let (Some(first), Some(confirmed)) = (self.entries.front_mut(), confirmed) else { return };
        let left = match &mut first.expects {
            Expects::Client(Request::Subscribe { kind, count }) if confirmed.subscribes() == Some(*kind) => {
                self.state.accept(Leaves::Subscribed);
                count
            }
            Expects::Client(Request::Unsubscribe { kind, count })
                if confirmed.unsubscribes() == Some(*kind) =>
            {
                count
            }
            _ => return,
        };
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.count.waiting -= 1;
            self.outstanding -= 1;
            self.answered += 1;
            self.end_entry();
        }
    }

    /// Removes the first entry, whose requests all have their replies. Returns what its last request says about the client.
    fn end_entry(&mut self) -> Option<Box<ClientInfo>> {
        let entry = self.pop()?;
        if let Some(since) = entry.timed {
            self.took = Some(since.elapsed());
            self.is_timing = false;
        }
        self.count.informing -= u32::from(entry.info.is_some());
        entry.info
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front();
        // Frees the memory that a deep pipeline needed.
        if self.entries.is_empty() && self.entries.capacity() > 16 {
            self.entries = VecDeque::new();
        }
        entry
    }
}

impl OutstandingKinds {
    /// The counter for requests of this kind.
    fn of(&mut self, request: Request) -> Option<&mut u32> {
        match request {
            Request::Blocking | Request::Subscribe { .. } | Request::Unsubscribe { .. } => {
                Some(&mut self.waiting)
            }
            Request::Hello { .. } | Request::Reset => Some(&mut self.switches),
            Request::Transaction(_) => Some(&mut self.transactions),
            Request::Addresses(reply) if reply.leads_clients() => Some(&mut self.nodes),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::command_table::Subscription;
    use crate::resp::scanner::Event;

    fn subscribe(count: u32) -> Request {
        Request::Subscribe { kind: Subscription::Channel, count }
    }

    fn confirmed(kind: Subscription) -> Reply {
        Reply::Push(Some(Confirmed::Subscribe(kind)))
    }

    fn resp3() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.request(Request::Hello { resp3: Some(true), leaves: Leaves::SetUp, has_options: false }, None);
        ledger.reply(Reply::Other, false);
        ledger
    }

    #[test]
    fn each_request_is_answered_by_one_reply() {
        let mut ledger = Ledger::default();
        for _ in 0..1000 {
            ledger.request(Request::Plain, None);
        }
        ledger.request(Request::Blocking, None);
        for left in (1..=1000).rev() {
            assert!(!ledger.is_prompt());
            ledger.reply(Reply::Other, false);
            assert_eq!((ledger.outstanding(), ledger.answered()), (left, 1001 - left));
        }
        assert!(!ledger.is_prompt());
        ledger.reply(Reply::Error, false);
        assert_eq!((ledger.outstanding(), ledger.opaque()), (0, None));
    }

    #[test]
    fn in_resp3_each_channel_is_confirmed_by_a_push_and_messages_answer_nothing() {
        let mut ledger = resp3();
        ledger.request(subscribe(2), None);
        ledger.request(Request::Plain, None);
        ledger.reply(confirmed(Subscription::Channel), false);
        ledger.reply(Reply::Push(None), false);
        assert_eq!(ledger.outstanding(), 2);
        ledger.reply(confirmed(Subscription::Channel), false);
        assert_eq!(ledger.outstanding(), 1);
        ledger.reply(confirmed(Subscription::Pattern), false);
        ledger.reply(Reply::Other, false);
        ledger.reply(Reply::Push(None), false);
        assert_eq!((ledger.outstanding(), ledger.opaque()), (0, None));
    }

    #[test]
    fn a_refused_subscription_is_answered_by_its_error() {
        let mut ledger = resp3();
        ledger.request(subscribe(3), None);
        ledger.reply(Reply::Error, false);
        assert_eq!(ledger.outstanding(), 0);
    }

    #[test]
    fn unsubscribing_from_all_is_answered_by_the_first_push() {
        let mut ledger = resp3();
        ledger.request(Request::Unsubscribe { kind: Subscription::Shard, count: 0 }, None);
        ledger.reply(Reply::Push(Some(Confirmed::Unsubscribe(Subscription::Shard))), false);
        assert_eq!((ledger.outstanding(), ledger.opaque()), (0, None));
    }

    #[test]
    fn a_subscription_in_resp2_or_during_a_switch_makes_opaque() {
        let mut ledger = Ledger::default();
        ledger.request(subscribe(1), None);
        assert_eq!(ledger.opaque(), Some(Opaque::Subscribed));
        let mut ledger = Ledger::default();
        ledger.request(Request::Hello { resp3: Some(true), leaves: Leaves::SetUp, has_options: false }, None);
        ledger.request(subscribe(1), None);
        assert_eq!(ledger.opaque(), Some(Opaque::Subscribed));
        let mut ledger = resp3();
        ledger.request(Request::Reset, None);
        ledger.reply(Reply::Other, false);
        ledger.request(subscribe(1), None);
        assert_eq!(ledger.opaque(), Some(Opaque::Subscribed));
    }

    #[test]
    fn a_subscription_that_exec_will_run_makes_opaque() {
        let mut ledger = resp3();
        ledger.request(Request::Transaction(Transaction::Begins), None);
        ledger.reply(Reply::Other, false);
        ledger.request(subscribe(2), None);
        assert_eq!(ledger.opaque(), None);
        ledger.reply(Reply::Other, true);
        assert_eq!(ledger.opaque(), Some(Opaque::Subscribed));
    }

    #[test]
    fn an_unsubscription_in_resp2_without_subscriptions_has_one_reply() {
        let unsubscribe = |count| Request::Unsubscribe { kind: Subscription::Pattern, count };
        for count in [0, 1] {
            let mut ledger = Ledger::default();
            ledger.request(unsubscribe(count), None);
            assert_eq!((ledger.outstanding(), ledger.opaque()), (1, None));
            ledger.reply(Reply::Other, false);
            assert_eq!((ledger.outstanding(), ledger.opaque()), (0, None));
        }
        let mut ledger = Ledger::default();
        ledger.request(unsubscribe(2), None);
        assert_eq!(ledger.opaque(), Some(Opaque::Subscribed), "it has two replies, or one error");
        let mut ledger = resp3();
        ledger.request(subscribe(1), None);
        ledger.reply(confirmed(Subscription::Channel), false);
        ledger
            .request(Request::Hello { resp3: Some(false), leaves: Leaves::SetUp, has_options: false }, None);
        ledger.reply(Reply::Other, false);
        ledger.request(unsubscribe(1), None);
        assert_eq!(ledger.opaque(), Some(Opaque::Subscribed), "messages may come before its reply");
    }

    #[test]
    fn a_refused_hello_changes_nothing() {
        let mut ledger = Ledger::default();
        ledger.request(Request::Hello { resp3: Some(true), leaves: Leaves::SetUp, has_options: false }, None);
        ledger.reply(Reply::Error, false);
        ledger.request(subscribe(1), None);
        assert_eq!(ledger.opaque(), Some(Opaque::Subscribed));
    }

    #[test]
    fn requests_that_cannot_be_matched_make_opaque_for_good() {
        for (request, reason) in [
            (Request::Monitor, Opaque::Monitor),
            (Request::ReplyMode(ReplyMode::Off), Opaque::ReplyMode),
            (Request::ReplyMode(ReplyMode::Skip), Opaque::ReplyMode),
            (Request::Replication, Opaque::Replication),
            (Request::Unknown, Opaque::Unrecognized),
        ] {
            let mut ledger = Ledger::default();
            ledger.request(Request::Plain, None);
            ledger.request(request, None);
            ledger.request(Request::Plain, None);
            ledger.reply(Reply::Other, false);
            assert_eq!((ledger.opaque(), ledger.outstanding()), (Some(reason), 0));
        }
    }

    #[test]
    fn a_connection_is_clean_between_replies_unless_state_lasts() {
        let mut ledger = Ledger::default();
        assert!(ledger.is_clean());
        ledger.request(Request::Plain, None);
        assert!(!ledger.is_clean());
        ledger.reply(Reply::Other, false);
        assert!(ledger.is_clean());
        ledger.request(Request::Leaves(Leaves::UntilClose), None);
        ledger.request(Request::Leaves(Leaves::UntilClose), None);
        ledger.reply(Reply::Error, false);
        ledger.reply(Reply::Error, false);
        assert!(ledger.is_clean() && ledger.is_untouched(), "a refused request leaves nothing");
        ledger.request(Request::Leaves(Leaves::UntilClose), None);
        ledger.reply(Reply::Other, false);
        assert_eq!(ledger.outstanding(), 0);
        assert!(!ledger.is_clean());
    }

    #[test]
    fn a_refused_reset_changes_nothing() {
        let mut ledger = resp3();
        ledger.request(Request::Reset, None);
        ledger.reply(Reply::Error, false);
        assert!(!ledger.is_untouched());
        ledger.request(subscribe(1), None);
        assert_eq!(ledger.opaque(), None, "it is still RESP3");
    }

    #[test]
    fn an_unsolicited_reply_makes_opaque_but_a_push_does_not() {
        let mut ledger = Ledger::default();
        ledger.reply(Reply::Push(None), false);
        assert_eq!(ledger.opaque(), None);
        ledger.reply(Reply::Error, false);
        assert_eq!(ledger.opaque(), Some(Opaque::Unsolicited));
    }

    #[test]
    fn a_long_pipeline_of_alternating_kinds_makes_opaque() {
        let mut ledger = Ledger::default();
        for _ in 0..100_000 {
            ledger.request(Request::Plain, None);
            ledger.request(Request::Blocking, None);
        }
        assert_eq!(ledger.opaque(), Some(Opaque::Overflow));
    }

    /// A ledger with the bytes that answer its requests.
    #[derive(Default)]
    struct Exchange {
        ledger: Ledger,
        replies: ReplyScanner,
    }

    impl Exchange {
        fn sends(&mut self, requests: &[Request]) {
            for request in requests {
                self.ledger.request(*request, None);
            }
            self.ledger.time();
        }

        /// Returns whether the reply to the timed request has begun.
        fn gets(&mut self, mut bytes: &[u8]) -> bool {
            while !bytes.is_empty() {
                let (n, event) = self.replies.next(bytes);
                bytes = &bytes[n..];
                if event == Event::Frame {
                    self.ledger.reply(self.replies.reply(), false);
                }
            }
            self.ledger.took(&self.replies).is_some()
        }
    }

    #[test]
    fn a_request_is_timed_to_the_first_byte_of_its_own_reply() {
        let mut session = Exchange::default();
        session.sends(&[Request::Plain; 3]);
        assert!(!session.gets(b"+1\r\n"));
        assert!(!session.gets(b"+2\r\n"));
        assert!(session.gets(b"$"));
        assert!(!session.ledger.is_timing);
        session.sends(&[Request::Plain]);
        assert!(!session.gets(b"1\r\nx\r\n"), "the end of the reply before");
        assert!(session.gets(b"+4\r\n"));
    }

    #[test]
    fn only_one_request_is_timed_at_once() {
        let mut session = Exchange::default();
        session.sends(&[Request::Plain]);
        session.sends(&[Request::Plain]);
        assert!(session.gets(b"+1\r\n"));
        assert!(!session.ledger.is_timing);
        assert!(!session.gets(b"+2\r\n"));
    }

    #[test]
    fn blocking_requests_and_those_behind_them_are_not_timed() {
        for waits in [Request::Blocking, Request::Monitor] {
            let mut session = Exchange::default();
            session.sends(&[waits]);
            session.sends(&[Request::Plain]);
            assert!(!session.ledger.is_timing, "{waits:?}");
        }
    }

    #[test]
    fn a_message_is_not_a_reply() {
        let mut session = Exchange { ledger: Ledger::speaking(true), ..Exchange::default() };
        session.sends(&[Request::Plain]);
        assert!(!session.gets(b">2\r\n$10\r\ninvalid"));
        assert!(!session.gets(b"ate\r\n$1\r\nk\r\n"));
        assert!(session.gets(b"+OK\r\n"));
    }

    #[test]
    fn an_opaque_session_is_not_timed() {
        let mut session = Exchange::default();
        session.sends(&[Request::Plain]);
        session.ledger.become_opaque(Opaque::Malformed);
        assert!(!session.gets(b"+1\r\n"));
        assert!(!session.ledger.is_timing);
    }

    #[test]
    fn client_info_holds_once_the_request_is_accepted() {
        let name = || Some(ClientInfo::Name(b"x".to_vec()));
        for (reply, queued, is_true) in
            [(Reply::Other, false, true), (Reply::Error, false, false), (Reply::Other, true, false)]
        {
            let mut ledger = Ledger::default();
            ledger.request(Request::Plain, None);
            ledger.request(Request::Leaves(Leaves::SetUp), name());
            ledger.request(Request::Leaves(Leaves::SetUp), None);
            assert!(ledger.wants_status());
            assert!(ledger.reply(Reply::Other, false).info.is_none());
            assert_eq!(ledger.reply(reply, queued).info.as_deref().cloned(), name().filter(|_| is_true));
            assert!(ledger.reply(Reply::Other, false).info.is_none() && !ledger.wants_status());
        }
    }

    #[test]
    fn pontoons_own_replies_keep_their_place_until_the_session_is_opaque() {
        let mut ledger = Ledger::default();
        ledger.request(Request::Plain, None);
        ledger.local(b"+one\r\n".into());
        ledger.request(Request::Plain, None);
        ledger.local(b"+two\r\n".into());
        assert!(ledger.take_local().is_none() && ledger.is_interleaved());
        ledger.reply(Reply::Other, false);
        assert_eq!(ledger.take_local().as_deref(), Some(&b"+one\r\n"[..]));
        assert!(ledger.take_local().is_none());
        ledger.become_opaque(Opaque::Malformed);
        assert_eq!(ledger.take_local().as_deref(), Some(&b"+two\r\n"[..]));
        assert!(!ledger.is_interleaved() && ledger.local_replies() == 0);
    }

    #[test]
    fn pontoons_own_reply_survives_an_overflow() {
        let mut ledger = Ledger::default();
        for _ in 0..MAX_ENTRIES / 2 {
            ledger.request(Request::Plain, None);
            ledger.request(Request::Blocking, None);
        }
        ledger.local(b"+OK\r\n".into());
        assert_eq!(ledger.opaque(), Some(Opaque::Overflow));
        assert_eq!(ledger.take_local().as_deref(), Some(&b"+OK\r\n"[..]));
        assert!(!ledger.is_interleaved() && ledger.local_replies() == 0);
    }
}
