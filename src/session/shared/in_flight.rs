//! The outstanding requests of a shared connection, in order: which client sent each, and what its reply is for.
//!
//! It is for a shared connection what the [ledger](crate::session::ledger) is for a dedicated one. All that is known about replies comes
//! from it: who gets the next one, how long requests take, and which commands are slow.

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
    /// Number of requests that have their reply.
    answered: u64,
    /// Number of outstanding requests.
    outstanding: u64,
    /// Whether one of them is timed.
    is_timing: bool,
    /// Finds slow commands, if they are logged.
    slow: Option<Box<SlowLog>>,
}

/// Consecutive replies for one client.
pub(super) struct DueReplies {
    pub(super) writer: Arc<ClientWriter>,
    pub(super) count: u64,
    pub(super) recipient: Recipient,
    /// The position of the requests among all bytes that were put on the shared connection.
    place: Range<u64>,
    /// When timing of the last request began, if it is timed.
    timed: Option<Instant>,
}

/// Who gets replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recipient {
    /// The client.
    Client,
    /// The client's task. There is one reply.
    Task,
    /// The client. It sent a transaction with this number of requests, from MULTI to EXEC.
    Transaction(u64),
}

/// Errors to EXEC after which the transaction is over on every server. Since Redis 6.0.6 any error to EXEC ends it (`rejectCommand` in
/// `server.c`, and `discardTransaction` if EXEC leads to another node). Before, only these do.
const ENDS: [&[u8]; 6] = [b"EXECABORT", b"MOVED", b"ASK", b"CROSSSLOT", b"TRYAGAIN", b"CLUSTERDOWN"];

impl InFlight {
    /// Logs commands that take longer than `slow`. `None`: logs none.
    pub(super) fn new(slow: Option<Duration>) -> Self {
        Self { slow: slow.map(|threshold| Box::new(SlowLog::new(threshold))), ..Self::default() }
    }

    /// Notes `count` requests of a client. `place`: their position among all bytes that were put on the shared connection. `unsent`: the
    /// position from which bytes are not sent yet.
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

    /// Whether no reply is outstanding.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// When timing of the oldest timed request began.
    pub(super) fn timed_since(&self) -> Option<Instant> {
        self.entries.iter().find_map(|due| due.timed)
    }

    /// The entry of the next reply.
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

    /// Notes that the next reply has come. Returns how long the request took, if it was timed.
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

    /// Notes that the next reply has begun. Returns how long its request took, if it was timed.
    pub(super) fn begun(&mut self) -> Option<Duration> {
        let first = self.entries.front_mut().filter(|first| first.count == 1)?;
        let since = first.timed.take()?;
        self.is_timing = false;
        Some(since.elapsed())
    }

    /// Whether the connection may stay in a transaction after this error, which is the next reply. The server would queue other clients'
    /// requests in it.
    pub(super) fn stays_in_transaction(&mut self, code: &[u8]) -> bool {
        let Some(first) = self.entries.front_mut() else { return false };
        match first.recipient {
            // MULTI was refused, so there is no transaction.
            Recipient::Transaction(all) if first.count == all => {
                first.recipient = Recipient::Client;
                false
            }
            Recipient::Transaction(_) => first.count == 1 && !ENDS.contains(&code),
            _ => false,
        }
    }

    /// The slow commands that the replies so far reveal. `within`: the next reply has begun.
    #[inline]
    pub(super) fn slow(&mut self, within: bool) -> Option<SlowCommand> {
        self.slow.as_mut()?.arrived(self.answered, self.answered + u64::from(within))
    }

    /// Stops logging slow commands, because replies no longer wait for the server alone.
    pub(super) fn log_no_slow(&mut self) {
        self.slow = None;
    }

    /// Drops the requests of a client that begin at `unsent` or later. Returns their number. `moves`: keeps the bytes of another client's
    /// request, and returns their new position.
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
            // The numbers of the later requests have changed.
            **log = SlowLog::new(log.threshold());
            log.arrived(self.answered, self.answered);
        }
        abandoned
    }

    /// Takes all outstanding replies. They will not come, or come over another path.
    pub(super) fn take(&mut self) -> VecDeque<DueReplies> {
        self.outstanding = 0;
        self.is_timing = false;
        std::mem::take(&mut self.entries)
    }
}
