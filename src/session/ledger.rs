//! The requests of one connection that have no reply yet, in their order, and what each reply decides: one queue, from which all that
//! a session knows of replies is read. Ordinary requests in a row cost a counter.
//!
//! Where replies cannot be matched to requests the session becomes [`Opaque`]: bytes still flow, nothing is guessed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::resp::arguments::ClientInfo;
use crate::resp::command_table::{ClusterReply, Leaves, Transaction};
use crate::resp::connection_state::{ConnectionState, HelloReply, Queue};
use crate::resp::replies::OK;
use crate::resp::request::{ReplyMode, Request};
use crate::resp::scanner::{Confirmed, Reply, ReplyScanner};

/// More alternations than this in one pipeline are not worth their memory.
const MAX_ENTRIES: usize = 16 * 1024;

/// More requests for nodes' addresses than this are not sent in one pipeline.
pub(super) const MAX_NODE_REQUESTS: u32 = 4096;

/// Why replies are not counted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opaque {
    /// A RESP2 connection in subscribed mode: messages arrive among replies and look like them.
    Subscribed,
    /// MONITOR: a stream without requests.
    Monitor,
    /// CLIENT REPLY OFF or SKIP: requests without replies.
    ReplyMode,
    /// A reply that nothing asked for.
    Unsolicited,
    /// More kinds of requests in one pipeline than are kept account of.
    Overflow,
    /// SYNC, PSYNC, REPLCONF: not RESP from here on.
    Replication,
    /// A command whose name cannot be told: an inline one in quotes.
    Unrecognized,
    /// Bytes that are not RESP.
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
            Self::Unsolicited => "a reply that nothing asked for",
            Self::Overflow => "a pipeline too long to follow",
            Self::Replication => "a replication stream",
            Self::Unrecognized => "a command in quotes that cannot be read",
            Self::Malformed => "bytes that are not RESP",
            Self::Encrypted => "TLS of its own",
        }
    }

    /// Whether frames still have boundaries, though replies do not match requests.
    pub const fn is_framed(self) -> bool {
        !matches!(self, Self::Replication | Self::Malformed | Self::Encrypted)
    }
}

/// The account of one connection.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Where replies are not counted, only those of pontoon's own are here.
    entries: VecDeque<Entry>,
    /// Replies due, those of pontoon's own among them.
    outstanding: u64,
    /// Requests that have their reply.
    answered: u64,
    /// What the replies so far left with the connection.
    state: ConnectionState,
    opaque: Option<Opaque>,
    count: OutstandingKinds,
    /// Whether a request is timed that has no reply yet.
    is_timing: bool,
    /// What the request took that was timed.
    took: Option<Duration>,
    /// Pontoon's own request lost its place when counting was given up.
    own_lost: bool,
    /// So did a reply that holds addresses of nodes.
    addresses_lost: bool,
    quit: Option<Quit>,
}

/// The request after whose reply the connection is closed: QUIT, or one for which the server closes.
#[derive(Debug, Clone, Copy)]
struct Quit {
    number: u64,
    /// Pontoon answers it.
    is_local: bool,
}

/// Of the outstanding requests, those of a kind.
#[derive(Debug, Default)]
struct OutstandingKinds {
    /// Whose reply may not come soon.
    waiting: u32,
    /// HELLO and RESET: until their replies the protocol is not known.
    switches: u32,
    /// Those that begin or end a transaction.
    transactions: u32,
    /// Those whose replies hold addresses of nodes.
    nodes: u32,
    /// Those that say something of the client.
    informing: u32,
    /// Those that pontoon answers.
    local: usize,
    /// Pontoon's own.
    own: u32,
    /// Of those, the ones that set up the connection.
    setups: u32,
}

/// Requests in a row that mean the same.
#[derive(Debug)]
struct Entry {
    count: u64,
    expects: Expects,
    /// The last of them is timed since then.
    timed: Option<Instant>,
    /// What the only one says of the client.
    info: Option<Box<ClientInfo>>,
}

/// Whose the reply is, and what it is.
#[derive(Debug, PartialEq, Eq)]
enum Expects {
    /// The client's, by the server.
    Client(Request),
    /// Pontoon's, by the server: the client does not get it.
    Own(OwnRequest),
    /// The client's, by pontoon.
    Local(Box<[u8]>),
}

/// A request of pontoon's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnRequest {
    /// AUTH.
    Auth,
    /// It sets up the connection as the client set up another one.
    SetUp,
}

/// What a reply decides, beyond what the ledger itself keeps.
#[derive(Debug)]
pub(super) struct ReplyOutcome {
    pub(super) hello: HelloReply,
    /// True from now on.
    pub(super) info: Option<Box<ClientInfo>>,
}

impl ReplyOutcome {
    const NOTHING: Self = Self { hello: HelloReply::None, info: None };
}

/// What a reply may hold that is not for the client as it is.
#[derive(Debug, Clone)]
pub(super) enum NodeAddresses {
    /// It answers a request for them.
    Topology(ClusterReply),
    /// It answers EXEC, and these were queued.
    Transaction(Queue),
}

impl Entry {
    fn of(expects: Expects) -> Self {
        Self { count: 1, expects, timed: None, info: None }
    }

    /// Whether one more such request can be counted here.
    #[inline]
    fn takes(&self, request: Request) -> bool {
        self.timed.is_none() && self.info.is_none() && self.expects == Expects::Client(request)
    }
}

impl Ledger {
    /// Of a connection that speaks RESP3, or RESP2, already.
    pub(super) fn speaking(resp3: bool) -> Self {
        Self { state: ConnectionState::speaking(resp3), ..Self::default() }
    }

    /// Replies due.
    pub(super) fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// The number of the last request that has its reply. The one sent last is [`outstanding`](Self::outstanding) further on.
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    /// Of the replies due, those that the client waits for.
    pub(super) fn due_to_client(&self) -> u64 {
        if self.has_quit() { 0 } else { self.outstanding - u64::from(self.count.own) }
    }

    /// Whether QUIT has its reply, or the server has had its last word: the client expects no other.
    pub(super) fn has_quit(&self) -> bool {
        self.quit.is_some_and(|quit| self.answered >= quit.number)
    }

    /// Whether the server closes the connection for what the client sent, or has.
    pub(super) fn has_sent_quit(&self) -> bool {
        self.quit.is_some_and(|quit| !quit.is_local)
    }

    /// Whether QUIT is answered by pontoon.
    pub(super) fn quits_here(&self) -> bool {
        self.quit.is_some_and(|quit| quit.is_local)
    }

    /// Whether every outstanding reply comes soon.
    pub(super) fn is_prompt(&self) -> bool {
        self.opaque.is_none() && self.count.waiting == 0
    }

    /// Whether a reply to HELLO, or to RESET, is outstanding.
    #[inline]
    pub(super) fn awaits_switch(&self) -> bool {
        self.count.switches > 0
    }

    /// Whether the next reply's status decides something: it must be kept.
    #[inline]
    pub(super) fn wants_status(&self) -> bool {
        self.count.informing > 0 || self.may_be_in_transaction()
    }

    /// Whether commands are queued, or may be by what was sent.
    #[inline]
    pub(super) fn may_be_in_transaction(&self) -> bool {
        self.count.transactions > 0 || self.state.in_transaction()
    }

    /// Replies of pontoon's own that wait for their turn.
    pub(super) fn local_replies(&self) -> usize {
        self.count.local
    }

    /// The request of pontoon's own that the next reply answers, if it does.
    pub(super) fn next_own(&self) -> Option<OwnRequest> {
        if let Expects::Own(request) = self.entries.front()?.expects { Some(request) } else { None }
    }

    /// Whether a request of pontoon's own that sets up the connection has no reply yet.
    #[inline]
    pub(super) fn is_setting_up(&self) -> bool {
        self.count.setups > 0
    }

    /// Whether the reply to a request of pontoon's own can no more be told from others.
    pub(super) fn is_own_lost(&self) -> bool {
        self.own_lost
    }

    /// Whether not every reply goes from the upstream to the client as it is.
    #[inline]
    pub(super) fn is_interleaved(&self) -> bool {
        self.count.own > 0 || self.count.local > 0
    }

    /// Whether no reply is due, and RESET would make the connection as good as new.
    pub(super) fn is_clean(&self) -> bool {
        self.is_settled() && self.state.is_undone_by_reset()
    }

    /// Whether no reply is due, and nothing was left with the connection but what can be set up on another one.
    pub(super) fn is_free(&self) -> bool {
        self.is_settled() && self.state.is_free()
    }

    /// What binds the client to this connection for longer than a prompt reply takes, in words.
    pub(super) fn hold(&self) -> Option<&'static str> {
        match self.opaque {
            Some(opaque) => Some(opaque.words()),
            None => self.state.hold().or((self.count.waiting > 0).then_some("a blocking command")),
        }
    }

    /// Whether the connection is as new.
    pub(super) fn is_untouched(&self) -> bool {
        self.is_settled() && self.state.is_untouched()
    }

    fn is_settled(&self) -> bool {
        self.opaque.is_none() && self.outstanding == 0
    }

    /// The server has accepted this request, before the account began.
    pub(super) fn has_accepted(&mut self, request: Request) {
        self.state.answered(request, false, false);
    }

    /// The connection was set up by pontoon itself.
    pub(super) fn was_set_up(&mut self) {
        self.state.accept(Leaves::SetUp);
    }

    /// Whether a reply that holds addresses of nodes can no more be told from others.
    pub(super) fn are_addresses_lost(&self) -> bool {
        self.addresses_lost
    }

    /// Whether one more request for addresses is one too many.
    pub(super) fn is_full_of_node_requests(&self) -> bool {
        self.count.nodes == MAX_NODE_REQUESTS
    }

    /// The addresses of nodes that the next reply may hold.
    #[inline]
    pub(super) fn node_addresses(&self) -> Option<NodeAddresses> {
        match self.entries.front()?.expects {
            Expects::Client(Request::Cluster(reply)) => Some(NodeAddresses::Topology(reply)),
            Expects::Client(Request::Transaction(Transaction::Executes)) => {
                let queue = self.state.queue().filter(|queue| !queue.nodes.is_empty())?;
                Some(NodeAddresses::Transaction(queue.clone()))
            }
            _ => None,
        }
    }

    /// Why replies are not counted, if they aren't.
    pub(super) fn opaque(&self) -> Option<Opaque> {
        self.opaque
    }

    /// Gives up counting, for good.
    pub(super) fn become_opaque(&mut self, reason: Opaque) {
        // "Not RESP at all" overrides "RESP, but uncounted"; otherwise the first reason stands.
        if self.opaque.is_none_or(|known| known.is_framed() && !reason.is_framed()) {
            self.opaque = Some(reason);
        }
        let locals = self.entries.drain(..).filter(|entry| matches!(entry.expects, Expects::Local(_)));
        self.entries = locals.collect();
        self.outstanding = 0;
        self.own_lost |= self.count.own > 0;
        self.addresses_lost |=
            self.count.nodes > 0 || self.state.queue().is_some_and(|queue| !queue.nodes.is_empty());
        self.count = OutstandingKinds { local: self.count.local, ..OutstandingKinds::default() };
        self.is_timing = false;
    }

    /// Pontoon answers a request of the client in its turn.
    pub(super) fn local(&mut self, reply: Vec<u8>) {
        self.count.local += 1;
        self.push(Entry::of(Expects::Local(reply.into())));
    }

    /// Pontoon answers QUIT in its turn.
    pub(super) fn quit(&mut self) {
        self.local(OK.into());
        self.quit = Some(Quit { number: self.answered + self.outstanding, is_local: true });
    }

    /// The server closes the connection for what the client sent, whatever has no reply.
    pub(super) fn server_closes(&mut self) {
        self.quit.get_or_insert(Quit { number: self.answered, is_local: false });
    }

    /// Whether it is the turn of a reply of pontoon's own. Where replies are not counted, it always is.
    pub(super) fn has_local(&self) -> bool {
        self.entries.front().is_some_and(|entry| matches!(entry.expects, Expects::Local(_)))
    }

    /// The reply of pontoon's own whose turn it is.
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

    /// A request of pontoon's own is sent.
    pub(super) fn own(&mut self, request: OwnRequest) {
        self.count.own += 1;
        self.count.setups += u32::from(request == OwnRequest::SetUp);
        self.push(Entry::of(Expects::Own(request)));
    }

    /// A request was sent upstream, which says this of the client.
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
            // Not even those to what came before may come.
            Request::Closes => return self.server_closes(),
            // Without channels it has one confirmation at least.
            Request::Subscribe { kind, count } if is_resp3 => {
                Request::Subscribe { kind, count: count.max(1) }
            }
            Request::Unsubscribe { .. } if is_resp3 => request,
            // Libraries send it to be sure. Of several channels each has a confirmation, or all have one error.
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

    /// Whether nothing can be subscribed, and a confirmation is a reply like any other.
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

    /// The last byte of the request that was sent last was read just now: times it, if none is timed and its reply comes soon.
    #[inline]
    pub(super) fn time(&mut self) {
        if self.is_timing || self.count.waiting > 0 {
            return;
        }
        if let Some(last) = self.entries.back_mut()
            && let Expects::Client(
                Request::Plain | Request::Leaves(_) | Request::Transaction(_) | Request::Cluster(_),
            ) = last.expects
        {
            last.timed = Some(Instant::now());
            self.is_timing = true;
        }
    }

    /// What the request that was timed took, once the first byte of its reply is here.
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

    /// A frame arrived from upstream. `queued`: it is `+QUEUED`.
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
            // Its turn had come before this reply: nothing of the kind is sent.
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

    /// A push arrived. A message or an invalidation answers no request.
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

    /// All requests of the first entry have their replies. What the last said of the client.
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
        // What a deep pipeline needed is not kept.
        if self.entries.is_empty() && self.entries.capacity() > 16 {
            self.entries = VecDeque::new();
        }
        entry
    }
}

impl OutstandingKinds {
    /// Where a request of this kind is counted.
    fn of(&mut self, request: Request) -> Option<&mut u32> {
        match request {
            Request::Blocking | Request::Subscribe { .. } | Request::Unsubscribe { .. } => {
                Some(&mut self.waiting)
            }
            Request::Hello { .. } | Request::Reset => Some(&mut self.switches),
            Request::Transaction(_) => Some(&mut self.transactions),
            Request::Cluster(_) => Some(&mut self.nodes),
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
    fn in_resp3_a_subscription_is_answered_by_as_many_pushes_and_messages_answer_nothing() {
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
    fn a_subscription_in_resp2_or_before_the_version_is_known_makes_opaque() {
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
    fn where_nothing_is_subscribed_an_unsubscription_in_resp2_has_one_reply() {
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
        assert_eq!(ledger.opaque(), Some(Opaque::Subscribed), "it has two, or one error");
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
    fn what_cannot_be_counted_makes_opaque_and_its_reason_stays() {
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
    fn a_connection_is_clean_between_replies_unless_something_lasts() {
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
        assert!(ledger.is_clean() && ledger.is_untouched(), "what was refused leaves nothing");
        ledger.request(Request::Leaves(Leaves::UntilClose), None);
        ledger.reply(Reply::Other, false);
        assert_eq!(ledger.outstanding(), 0);
        assert!(!ledger.is_clean());
    }

    #[test]
    fn a_reset_that_is_refused_changes_nothing() {
        let mut ledger = resp3();
        ledger.request(Request::Reset, None);
        ledger.reply(Reply::Error, false);
        assert!(!ledger.is_untouched());
        ledger.request(subscribe(1), None);
        assert_eq!(ledger.opaque(), None, "it is RESP3 still");
    }

    #[test]
    fn a_reply_that_nothing_asked_for_makes_opaque_and_a_push_does_not() {
        let mut ledger = Ledger::default();
        ledger.reply(Reply::Push(None), false);
        assert_eq!(ledger.opaque(), None);
        ledger.reply(Reply::Error, false);
        assert_eq!(ledger.opaque(), Some(Opaque::Unsolicited));
    }

    #[test]
    fn a_pipeline_of_alternating_kinds_is_not_kept_account_of_without_end() {
        let mut ledger = Ledger::default();
        for _ in 0..100_000 {
            ledger.request(Request::Plain, None);
            ledger.request(Request::Blocking, None);
        }
        assert_eq!(ledger.opaque(), Some(Opaque::Overflow));
    }

    /// Requests, and the bytes that answer them.
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

        /// Whether the reply to the request that is timed has begun.
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
    fn what_is_sent_while_a_request_is_timed_is_not() {
        let mut session = Exchange::default();
        session.sends(&[Request::Plain]);
        session.sends(&[Request::Plain]);
        assert!(session.gets(b"+1\r\n"));
        assert!(!session.ledger.is_timing);
        assert!(!session.gets(b"+2\r\n"));
    }

    #[test]
    fn what_may_take_for_ever_is_not_timed_nor_what_waits_behind_it() {
        for waits in [Request::Blocking, Request::Monitor] {
            let mut session = Exchange::default();
            session.sends(&[waits]);
            session.sends(&[Request::Plain]);
            assert!(!session.ledger.is_timing, "{waits:?}");
        }
    }

    #[test]
    fn a_message_is_no_reply() {
        let mut session = Exchange { ledger: Ledger::speaking(true), ..Exchange::default() };
        session.sends(&[Request::Plain]);
        assert!(!session.gets(b">2\r\n$10\r\ninvalid"));
        assert!(!session.gets(b"ate\r\n$1\r\nk\r\n"));
        assert!(session.gets(b"+OK\r\n"));
    }

    #[test]
    fn a_session_that_becomes_opaque_is_not_timed_any_more() {
        let mut session = Exchange::default();
        session.sends(&[Request::Plain]);
        session.ledger.become_opaque(Opaque::Malformed);
        assert!(!session.gets(b"+1\r\n"));
        assert!(!session.ledger.is_timing);
    }

    #[test]
    fn what_a_request_says_of_its_client_is_true_once_it_is_accepted() {
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
    fn replies_of_pontoons_own_keep_their_place_until_counting_is_given_up() {
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
    fn a_reply_of_pontoons_own_is_not_lost_where_it_is_one_too_many() {
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
