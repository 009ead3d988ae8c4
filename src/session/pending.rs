//! Which reply answers which request, as far as it can be told: how many replies are due, whether the next may
//! take for ever, and when counting must be given up.
//!
//! Where it cannot be told the session becomes [`Opaque`]: bytes still flow, nothing is guessed.

use std::collections::VecDeque;

use crate::resp::command_table::{Leaves, Subscription, Transaction};
use crate::resp::request::{ReplyMode, Request};
use crate::resp::scanner::Reply;
use crate::resp::standing::Standing;

/// More alternations than this in one pipeline are not worth their memory.
const MAX_RUNS: usize = 16 * 1024;

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

    /// Whether frames still have boundaries, though replies do not match requests.
    pub const fn is_framed(self) -> bool {
        !matches!(self, Self::Replication | Self::Malformed | Self::Encrypted)
    }
}

/// The account of one connection.
#[derive(Debug, Default)]
pub(super) struct Pending {
    runs: VecDeque<Run>,
    count: u64,
    /// Requests that have their reply.
    answered: u64,
    /// HELLO 3 was accepted: pushes are told from replies.
    resp3: bool,
    /// HELLO and RESET without a reply yet: until then the protocol version is not known.
    switches: u32,
    opaque: Option<Opaque>,
    /// What was answered so far left with the connection.
    standing: Standing,
    /// The number of the request that was QUIT.
    quit: Option<u64>,
    /// It is answered here.
    quits_here: bool,
    /// Replies of ours whose turn has not come.
    locals: VecDeque<Vec<u8>>,
    /// Requests of ours without a reply yet.
    own: u64,
    /// Counting was given up while there was one.
    own_lost: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    /// So many requests that get one reply each, soon.
    Plain(u64),
    /// The same, and what is not refused leaves this.
    Leaves(Leaves, u64),
    /// One reply, soon: a transaction begins or ends.
    Transaction(Transaction),
    /// One reply, once something happens elsewhere.
    Blocking,
    /// RESP3: so many pushes of this kind, or one reply that refuses.
    Subscribe(Subscription, u32),
    /// RESP3: as above; 0: without arguments, at least one.
    Unsubscribe(Subscription, u32),
    /// HELLO: changes to RESP3 (or back) if it succeeds, `None`: changes nothing; what it leaves; and whether it may leave something
    /// though it is refused.
    Hello(Option<bool>, Leaves, bool),
    /// RESET: changes to RESP2.
    Reset,
    /// The reply is ours, and waits for its turn.
    Local,
    /// The request is ours: the client gets no reply to it.
    Own,
}

/// What a reply says of HELLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hello {
    /// It answers another request, or refuses.
    None,
    /// The server accepts it.
    Accepted,
    /// EXEC will do it, and its reply will hold HELLO's.
    Queued,
}

impl Pending {
    /// Of a connection that speaks RESP3, or RESP2, already.
    pub(super) fn speaking(resp3: bool) -> Self {
        Self { resp3, ..Self::default() }
    }

    /// Replies due.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The number of the last request that has its reply. The one sent last is `count` further on.
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    /// Of the replies due, those that the client waits for.
    pub(super) fn due_to_client(&self) -> u64 {
        if self.has_quit() { 0 } else { self.count - self.own }
    }

    /// Whether QUIT has its reply: its sender expects no other.
    pub(super) fn has_quit(&self) -> bool {
        self.quit.is_some_and(|number| self.answered >= number)
    }

    /// The client's request is answered here, in its turn.
    pub(super) fn local(&mut self, reply: Vec<u8>) {
        self.locals.push_back(reply);
        if self.opaque.is_none() {
            self.count += 1;
            self.push(Run::Local);
        }
    }

    /// QUIT is answered here, in its turn.
    pub(super) fn quit(&mut self) {
        self.local(b"+OK\r\n".into());
        self.quit.get_or_insert(self.answered + self.count);
        self.quits_here = true;
    }

    /// Whether the server was told QUIT: it closes the connection, or has.
    pub(super) fn has_sent_quit(&self) -> bool {
        self.quit.is_some() && !self.quits_here
    }

    /// Whether QUIT is answered here.
    pub(super) fn quits_here(&self) -> bool {
        self.quits_here
    }

    /// The reply of ours whose turn it is.
    pub(super) fn take_local(&mut self) -> Option<Vec<u8>> {
        if !self.has_local() {
            return None;
        }
        if self.opaque.is_none() {
            self.run_answered();
        }
        self.locals.pop_front()
    }

    /// Whether it is the turn of a reply of ours. Where replies are not counted, it always is.
    pub(super) fn has_local(&self) -> bool {
        !self.locals.is_empty() && (self.opaque.is_some() || self.runs.front() == Some(&Run::Local))
    }

    /// Whether every outstanding reply comes soon.
    pub(super) fn is_prompt(&self) -> bool {
        let is_prompt = |run: &Run| match run {
            Run::Plain(_)
            | Run::Leaves(..)
            | Run::Transaction(_)
            | Run::Hello(..)
            | Run::Reset
            | Run::Local
            | Run::Own => true,
            Run::Blocking | Run::Subscribe(..) | Run::Unsubscribe(..) => false,
        };
        self.opaque.is_none() && self.runs.iter().all(is_prompt)
    }

    /// Whether the request that was booked last gets a reply, soon.
    #[inline]
    pub(super) fn ends_promptly(&self) -> bool {
        matches!(self.runs.back(), Some(Run::Plain(_) | Run::Leaves(..) | Run::Transaction(_)))
            && self.is_prompt()
    }

    /// A request of our own is sent.
    pub(super) fn own(&mut self) {
        self.count += 1;
        self.own += 1;
        self.push(Run::Own);
    }

    /// Whether the reply to a request of our own can no more be told from others.
    pub(super) fn is_own_lost(&self) -> bool {
        self.own_lost
    }

    /// Whether a reply to HELLO, or to RESET, is outstanding.
    #[inline]
    pub(super) fn awaits_switch(&self) -> bool {
        self.switches > 0
    }

    /// Replies of ours that wait for their turn.
    pub(super) fn local_replies(&self) -> usize {
        self.locals.len()
    }

    /// Whether the next reply is to a request of our own.
    pub(super) fn is_own(&self) -> bool {
        self.runs.front() == Some(&Run::Own)
    }

    /// Whether not every reply goes from the upstream to the client as it is.
    #[inline]
    pub(super) fn is_interleaved(&self) -> bool {
        self.own > 0 || !self.locals.is_empty()
    }

    /// Whether no reply is due, and RESET would make the connection as good as new.
    pub(super) fn is_clean(&self) -> bool {
        self.is_settled() && self.standing.is_undone_by_reset()
    }

    /// Whether no reply is due, and nothing was left with the connection but what can be set up on another one.
    pub(super) fn is_free(&self) -> bool {
        self.is_settled() && self.standing.is_free()
    }

    /// Whether the connection is as new.
    pub(super) fn is_untouched(&self) -> bool {
        self.is_settled() && self.standing.is_untouched()
    }

    fn is_settled(&self) -> bool {
        self.opaque.is_none() && self.count == 0
    }

    /// The connection was set up by pontoon itself.
    pub(super) fn was_set_up(&mut self) {
        self.standing.accepted(Leaves::SetUp);
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
        self.runs = VecDeque::new();
        self.count = 0;
        self.own_lost |= self.own > 0;
        self.own = 0;
    }

    /// A request was sent upstream.
    #[inline]
    pub(super) fn request(&mut self, request: Request) {
        if self.opaque.is_some() {
            if request == Request::Replication {
                self.become_opaque(Opaque::Replication);
            }
            return;
        }
        match request {
            Request::Plain => {
                self.count += 1;
                match self.runs.back_mut() {
                    Some(Run::Plain(count)) => *count += 1,
                    _ => self.push(Run::Plain(1)),
                }
            }
            Request::Leaves(leaves) => {
                self.count += 1;
                match self.runs.back_mut() {
                    Some(Run::Leaves(last, count)) if *last == leaves => *count += 1,
                    _ => self.push(Run::Leaves(leaves, 1)),
                }
            }
            other => self.special(other),
        }
    }

    #[cold]
    fn special(&mut self, request: Request) {
        let run = match request {
            Request::Plain | Request::Cluster(_) | Request::ReplyMode(ReplyMode::On) => {
                return self.request(Request::Plain);
            }
            Request::Leaves(_) => return self.request(request),
            Request::Auth => return self.request(Request::Leaves(Leaves::UntilReset)),
            Request::Transaction(transaction) => Run::Transaction(transaction),
            Request::Quit => {
                self.request(Request::Plain);
                self.quit.get_or_insert(self.answered + self.count);
                return;
            }
            Request::Blocking => Run::Blocking,
            Request::Hello { resp3, leaves, has_options } => {
                self.switches += 1;
                Run::Hello(resp3, leaves, has_options)
            }
            Request::Reset => {
                self.switches += 1;
                Run::Reset
            }
            Request::Subscribe { kind, count } if self.resp3 && self.switches == 0 => {
                Run::Subscribe(kind, count.max(1))
            }
            Request::Unsubscribe { kind, count } if self.resp3 && self.switches == 0 => {
                Run::Unsubscribe(kind, count)
            }
            Request::Subscribe { .. } | Request::Unsubscribe { .. } => {
                return self.become_opaque(Opaque::Subscribed);
            }
            Request::Monitor => return self.become_opaque(Opaque::Monitor),
            Request::ReplyMode(_) => return self.become_opaque(Opaque::ReplyMode),
            Request::Replication => return self.become_opaque(Opaque::Replication),
            Request::Unknown => return self.become_opaque(Opaque::Unrecognized),
        };
        self.count += 1;
        self.push(run);
    }

    fn push(&mut self, run: Run) {
        if self.runs.len() == MAX_RUNS {
            self.become_opaque(Opaque::Overflow);
        } else {
            self.runs.push_back(run);
        }
    }

    /// A frame arrived from upstream: whether it answers HELLO.
    #[inline]
    pub(super) fn reply(&mut self, reply: Reply) -> Hello {
        if self.opaque.is_some() {
            return Hello::None;
        }
        let Some(head) = self.runs.front_mut() else {
            if !matches!(reply, Reply::Push(_)) {
                self.become_opaque(Opaque::Unsolicited);
            }
            return Hello::None;
        };
        let mut hello = Hello::None;
        let refused = reply == Reply::Error;
        match (head, reply) {
            (Run::Plain(left), Reply::Error | Reply::Other) => {
                self.standing.replied();
                self.count -= 1;
                self.answered += 1;
                *left -= 1;
                if *left == 0 {
                    self.pop();
                }
            }
            (Run::Leaves(leaves, left), Reply::Error | Reply::Other) => {
                self.standing.replied();
                if !refused {
                    self.standing.accepted(*leaves);
                }
                self.count -= 1;
                self.answered += 1;
                *left -= 1;
                if *left == 0 {
                    self.pop();
                }
            }
            (Run::Transaction(transaction), Reply::Error | Reply::Other) => {
                self.standing.replied();
                self.standing.transaction(*transaction, refused);
                self.run_answered();
            }
            (Run::Subscribe(kind, left), Reply::Push(Some(confirmed)))
                if confirmed.subscribes() == Some(*kind) =>
            {
                self.standing.accepted(Leaves::UntilReset);
                *left -= 1;
                if *left == 0 {
                    self.run_answered();
                }
            }
            (Run::Unsubscribe(kind, left), Reply::Push(Some(confirmed)))
                if confirmed.unsubscribes() == Some(*kind) =>
            {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.run_answered();
                }
            }
            // Messages, invalidations: nobody asked, nobody waits.
            (_, Reply::Push(_)) => {}
            (Run::Hello(resp3, leaves, has_options), _) => {
                self.standing.replied();
                if !refused && self.standing.in_transaction() {
                    hello = Hello::Queued;
                } else if !refused {
                    self.resp3 = resp3.unwrap_or(self.resp3);
                    hello = Hello::Accepted;
                }
                if !refused {
                    self.standing.accepted(*leaves);
                } else if *has_options {
                    self.standing.accepted(Leaves::UntilReset);
                }
                // Whether EXEC will change the protocol is not known.
                self.switches -= u32::from(hello != Hello::Queued);
                self.run_answered();
            }
            (Run::Reset, _) => {
                if !refused {
                    self.resp3 = false;
                    self.standing.reset();
                }
                self.switches -= 1;
                self.run_answered();
            }
            (Run::Own, _) => {
                self.own -= 1;
                self.run_answered();
            }
            // Its turn had come before this reply: nothing of the kind is sent.
            (Run::Local, _) => self.become_opaque(Opaque::Unsolicited),
            (Run::Blocking | Run::Subscribe(..) | Run::Unsubscribe(..), _) => {
                self.standing.replied();
                self.run_answered();
            }
        }
        hello
    }

    fn run_answered(&mut self) {
        self.count -= 1;
        self.answered += 1;
        self.pop();
    }

    fn pop(&mut self) {
        self.runs.pop_front();
        if self.runs.is_empty() {
            // What a deep pipeline needed is not kept.
            if self.runs.capacity() > 16 {
                self.runs = VecDeque::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::scanner::Confirmed;

    fn subscribe(count: u32) -> Request {
        Request::Subscribe { kind: Subscription::Channel, count }
    }

    fn confirmed(kind: Subscription) -> Reply {
        Reply::Push(Some(Confirmed::Subscribe(kind)))
    }

    fn resp3() -> Pending {
        let mut pending = Pending::default();
        pending.request(Request::Hello { resp3: Some(true), leaves: Leaves::SetUp, has_options: false });
        pending.reply(Reply::Other);
        pending
    }

    #[test]
    fn each_request_is_answered_by_one_reply() {
        let mut pending = Pending::default();
        for _ in 0..1000 {
            pending.request(Request::Plain);
        }
        pending.request(Request::Blocking);
        for left in (1..=1000).rev() {
            assert!(!pending.is_prompt());
            pending.reply(Reply::Other);
            assert_eq!((pending.count(), pending.answered()), (left, 1001 - left));
        }
        assert!(!pending.is_prompt());
        pending.reply(Reply::Error);
        assert_eq!((pending.count(), pending.opaque()), (0, None));
    }

    #[test]
    fn in_resp3_a_subscription_is_answered_by_as_many_pushes_and_messages_answer_nothing() {
        let mut pending = resp3();
        pending.request(subscribe(2));
        pending.request(Request::Plain);
        pending.reply(confirmed(Subscription::Channel));
        pending.reply(Reply::Push(None));
        assert_eq!(pending.count(), 2);
        pending.reply(confirmed(Subscription::Channel));
        assert_eq!(pending.count(), 1);
        pending.reply(confirmed(Subscription::Pattern));
        pending.reply(Reply::Other);
        pending.reply(Reply::Push(None));
        assert_eq!((pending.count(), pending.opaque()), (0, None));
    }

    #[test]
    fn a_refused_subscription_is_answered_by_its_error() {
        let mut pending = resp3();
        pending.request(subscribe(3));
        pending.reply(Reply::Error);
        assert_eq!(pending.count(), 0);
    }

    #[test]
    fn unsubscribing_from_all_is_answered_by_the_first_push() {
        let mut pending = resp3();
        pending.request(Request::Unsubscribe { kind: Subscription::Shard, count: 0 });
        pending.reply(Reply::Push(Some(Confirmed::Unsubscribe(Subscription::Shard))));
        assert_eq!((pending.count(), pending.opaque()), (0, None));
    }

    #[test]
    fn a_subscription_in_resp2_or_before_the_version_is_known_makes_opaque() {
        let mut pending = Pending::default();
        pending.request(subscribe(1));
        assert_eq!(pending.opaque(), Some(Opaque::Subscribed));
        let mut pending = Pending::default();
        pending.request(Request::Hello { resp3: Some(true), leaves: Leaves::SetUp, has_options: false });
        pending.request(subscribe(1));
        assert_eq!(pending.opaque(), Some(Opaque::Subscribed));
        let mut pending = resp3();
        pending.request(Request::Reset);
        pending.reply(Reply::Other);
        pending.request(subscribe(1));
        assert_eq!(pending.opaque(), Some(Opaque::Subscribed));
    }

    #[test]
    fn a_refused_hello_changes_nothing() {
        let mut pending = Pending::default();
        pending.request(Request::Hello { resp3: Some(true), leaves: Leaves::SetUp, has_options: false });
        pending.reply(Reply::Error);
        pending.request(subscribe(1));
        assert_eq!(pending.opaque(), Some(Opaque::Subscribed));
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
            let mut pending = Pending::default();
            pending.request(Request::Plain);
            pending.request(request);
            pending.request(Request::Plain);
            pending.reply(Reply::Other);
            assert_eq!((pending.opaque(), pending.count()), (Some(reason), 0));
        }
    }

    #[test]
    fn a_connection_is_clean_between_replies_unless_something_lasts() {
        let mut pending = Pending::default();
        assert!(pending.is_clean());
        pending.request(Request::Plain);
        assert!(!pending.is_clean());
        pending.reply(Reply::Other);
        assert!(pending.is_clean());
        pending.request(Request::Leaves(Leaves::UntilClose));
        pending.request(Request::Leaves(Leaves::UntilClose));
        pending.reply(Reply::Error);
        pending.reply(Reply::Error);
        assert!(pending.is_clean() && pending.is_untouched(), "what was refused leaves nothing");
        pending.request(Request::Leaves(Leaves::UntilClose));
        pending.reply(Reply::Other);
        assert_eq!(pending.count(), 0);
        assert!(!pending.is_clean());
    }

    #[test]
    fn a_hello_with_options_may_have_done_what_it_was_refused_for_later() {
        for has_options in [false, true] {
            let mut pending = Pending::default();
            pending.request(Request::Hello { resp3: Some(true), leaves: Leaves::SetUp, has_options });
            pending.reply(Reply::Error);
            assert_eq!(pending.is_untouched(), !has_options);
        }
    }

    #[test]
    fn a_reset_that_is_refused_changes_nothing() {
        let mut pending = resp3();
        pending.request(Request::Reset);
        pending.reply(Reply::Error);
        assert!(!pending.is_untouched());
        pending.request(subscribe(1));
        assert_eq!(pending.opaque(), None, "it is RESP3 still");
    }

    #[test]
    fn a_reply_that_nothing_asked_for_makes_opaque_and_a_push_does_not() {
        let mut pending = Pending::default();
        pending.reply(Reply::Push(None));
        assert_eq!(pending.opaque(), None);
        pending.reply(Reply::Error);
        assert_eq!(pending.opaque(), Some(Opaque::Unsolicited));
    }

    #[test]
    fn a_pipeline_of_alternating_kinds_is_not_kept_account_of_without_end() {
        let mut pending = Pending::default();
        for _ in 0..100_000 {
            pending.request(Request::Plain);
            pending.request(Request::Blocking);
        }
        assert_eq!(pending.opaque(), Some(Opaque::Overflow));
    }
}
