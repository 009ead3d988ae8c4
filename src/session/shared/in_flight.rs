//! The requests on a shared connection that have no reply yet, in their order: whose they are, and what each reply is for.
//!
//! It is for a shared connection what the [ledger](crate::session::ledger) is for a dedicated one. All that is known of replies is
//! read from it: who gets the next one, how long requests take, which commands are slow.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::writer::ClientWriter;
use crate::resp::whole::Front;
use crate::session::slow::{SlowCommand, SlowLog};

#[derive(Default)]
pub(super) struct InFlight {
    entries: VecDeque<DueReplies>,
    /// Requests that have their reply.
    answered: u64,
    /// Requests that have none.
    outstanding: u64,
    /// One of them is timed.
    is_timing: bool,
    /// Where slow commands are logged.
    slow: Option<Box<SlowLog>>,
}

/// Replies in a row that one client gets.
pub(super) struct DueReplies {
    pub(super) writer: Arc<ClientWriter>,
    pub(super) count: u64,
    pub(super) recipient: Recipient,
    /// Where the requests are, among all bytes that were put on the shared connection.
    place: Range<u64>,
    /// The last of the requests is timed since then.
    timed: Option<Instant>,
}

/// What replies are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recipient {
    /// The client.
    Client,
    /// The client's task: there is one.
    Task,
    /// The client, who sent a transaction of so many requests: the first is MULTI's, and the last EXEC's.
    Transaction(u64),
}

/// After one of these errors to EXEC the transaction is over on every server. From Redis 6.0.6 on any error to EXEC ends it (`rejectCommand`
/// in `server.c`, and `discardTransaction` where EXEC leads to another node); before, these alone do.
const ENDS: [&[u8]; 6] = [b"EXECABORT", b"MOVED", b"ASK", b"CROSSSLOT", b"TRYAGAIN", b"CLUSTERDOWN"];

impl InFlight {
    /// Commands that take longer than `slow` are logged; `None`: none are.
    pub(super) fn new(slow: Option<Duration>) -> Self {
        Self { slow: slow.map(|threshold| Box::new(SlowLog::new(threshold))), ..Self::default() }
    }

    /// Books `count` requests of a client. `place`: where they are among all bytes that were put on the shared connection; `unsent`:
    /// from where on these were not sent.
    pub(super) fn book(
        &mut self,
        writer: &Arc<ClientWriter>,
        requests: &[u8],
        count: u64,
        recipient: Recipient,
        place: Range<u64>,
        unsent: u64,
    ) {
        if let Some(log) = &mut self.slow {
            let mut rest = requests;
            for number in self.answered + self.outstanding + 1..=self.answered + self.outstanding + count {
                let Front::Whole(whole) = Front::of(rest) else { break };
                log.book(number, whole.command, whole.bytes.len() as u64, false, Some(writer.client()));
                rest = &rest[whole.bytes.len()..];
            }
        }
        self.outstanding += count;
        let times = !std::mem::replace(&mut self.is_timing, true);
        let timed = times.then(Instant::now);
        match self.entries.back_mut() {
            Some(last)
                if recipient == Recipient::Client
                    && last.recipient == recipient
                    && last.timed.is_none()
                    && last.place.start >= unsent
                    && Arc::ptr_eq(&last.writer, writer) =>
            {
                last.count += count;
                last.place.end = place.end;
                last.timed = timed;
            }
            _ => self.entries.push_back(DueReplies {
                writer: Arc::clone(writer),
                count,
                recipient,
                place,
                timed,
            }),
        }
    }

    /// No reply is outstanding.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Since when the oldest request is outstanding that is timed.
    pub(super) fn timed_since(&self) -> Option<Instant> {
        self.entries.iter().find_map(|due| due.timed)
    }

    /// What the next reply is for.
    pub(super) fn next(&self) -> Option<&DueReplies> {
        self.entries.front()
    }

    /// All outstanding replies.
    pub(super) fn iter(&self) -> impl Iterator<Item = &DueReplies> {
        self.entries.iter()
    }

    /// Whether the next reply is the last of its entry.
    pub(super) fn ends_entry(&self) -> bool {
        self.next().is_some_and(|due| due.count == 1)
    }

    /// The next reply has come. What the request took, if it was timed.
    pub(super) fn replied(&mut self) -> Option<Duration> {
        let first = self.entries.front_mut()?;
        first.count -= 1;
        self.answered += 1;
        self.outstanding -= 1;
        if first.count > 0 {
            return None;
        }
        let since = self.entries.pop_front()?.timed?;
        self.is_timing = false;
        Some(since.elapsed())
    }

    /// The next reply has begun. What its request took, if it was timed.
    pub(super) fn begun(&mut self) -> Option<Duration> {
        let first = self.entries.front_mut().filter(|first| first.count == 1)?;
        let since = first.timed.take()?;
        self.is_timing = false;
        Some(since.elapsed())
    }

    /// The next reply is this error. Whether the connection may stay in a transaction, in which the server queues what other clients
    /// send.
    pub(super) fn stays_in_transaction(&mut self, code: &[u8]) -> bool {
        let Some(first) = self.entries.front_mut() else { return false };
        match first.recipient {
            // MULTI was refused, and none has begun.
            Recipient::Transaction(all) if first.count == all => {
                first.recipient = Recipient::Client;
                false
            }
            Recipient::Transaction(_) => first.count == 1 && !ENDS.contains(&code),
            _ => false,
        }
    }

    /// Slow commands, as far as the replies that have come show them. `within`: the next reply has begun.
    #[inline]
    pub(super) fn slow(&mut self, within: bool) -> Option<SlowCommand> {
        self.slow.as_mut()?.arrived(self.answered, self.answered + u64::from(within))
    }

    /// From now on replies wait not for the server alone: none is logged as slow.
    pub(super) fn log_no_slow(&mut self) {
        self.slow = None;
    }

    /// Drops the requests of a client that begin at `unsent` or later, and returns how many these were. `moves`: keeps the bytes of
    /// another client's request, and tells where they are from now on.
    pub(super) fn abandon(
        &mut self,
        writer: &Arc<ClientWriter>,
        unsent: u64,
        mut moves: impl FnMut(Range<u64>) -> Range<u64>,
    ) -> u64 {
        let mut abandoned = 0;
        self.entries.retain_mut(|due| {
            if due.place.start < unsent {
                return true;
            }
            if Arc::ptr_eq(&due.writer, writer) {
                abandoned += due.count;
                return false;
            }
            due.place = moves(due.place.clone());
            true
        });
        self.outstanding -= abandoned;
        self.is_timing = self.entries.iter().any(|due| due.timed.is_some());
        if abandoned > 0
            && let Some(log) = &mut self.slow
        {
            // The numbers of the requests behind them have changed.
            **log = SlowLog::new(log.threshold());
            log.arrived(self.answered, self.answered);
        }
        abandoned
    }

    /// All outstanding replies: they come no more, or elsewhere.
    pub(super) fn take(&mut self) -> VecDeque<DueReplies> {
        self.outstanding = 0;
        self.is_timing = false;
        std::mem::take(&mut self.entries)
    }
}
