//! Slow commands of clients that share a connection: whose they are.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::seat::Seat;
use crate::resp::whole::Front;
use crate::session::slow::{Slow, SlowLog};

/// Clients whose requests wait are remembered so many times; of a later one's, nobody knows whose they are.
const MOST: usize = 1024;

pub(super) struct Watch {
    log: SlowLog,
    /// Requests that were sent.
    sent: u64,
    /// Who sent them.
    who: VecDeque<Sent>,
}

/// Requests in a row of one client.
struct Sent {
    numbers: RangeInclusive<u64>,
    seat: Arc<Seat>,
}

impl Watch {
    pub(super) fn new(threshold: Duration) -> Self {
        Self { log: SlowLog::new(threshold), sent: 0, who: VecDeque::new() }
    }

    /// Forgets all requests without a reply, `due` of them: some were dropped before they were sent, so numbers have changed.
    pub(super) fn begin_anew(&mut self, due: u64) {
        *self = Self { sent: due, ..Self::new(self.log.threshold()) };
    }

    /// `count` requests were sent for a client.
    pub(super) fn sent(&mut self, seat: &Arc<Seat>, mut requests: &[u8], count: u64) {
        let numbers = self.sent + 1..=self.sent + count;
        for number in numbers.clone() {
            let Front::Whole(whole) = Front::of(requests) else { break };
            self.log.book(number, whole.command, whole.bytes.len() as u64, false);
            requests = &requests[whole.bytes.len()..];
        }
        self.sent += count;
        if self.who.len() < MOST {
            self.who.push_back(Sent { numbers, seat: Arc::clone(seat) });
        }
    }

    /// Replies came: so many are still due, and the next has begun if `within`. What was slow, and whose it is if it is one
    /// client's.
    pub(super) fn received(&mut self, due: u64, within: bool) -> Option<(Slow, Option<Arc<Seat>>)> {
        let answered = self.sent.saturating_sub(due);
        let slow = self.log.arrived(answered, answered + u64::from(within));
        let slow = slow.map(|slow| {
            let client = self.client(slow.first, slow.commands as u64);
            (slow, client)
        });
        while self.who.front().is_some_and(|sent| *sent.numbers.end() <= answered) {
            self.who.pop_front();
        }
        slow
    }

    /// Who sent so many requests, from this one on, if that is one client.
    fn client(&self, first: u64, count: u64) -> Option<Arc<Seat>> {
        let mut whose = self.who.iter().skip_while(|sent| *sent.numbers.end() < first);
        let client = whose.next().filter(|sent| sent.numbers.contains(&first))?;
        let mut to = *client.numbers.end();
        while to < first + count - 1 {
            let next = whose.next().filter(|next| Arc::ptr_eq(&next.seat, &client.seat))?;
            to = *next.numbers.end();
        }
        Some(Arc::clone(&client.seat))
    }
}
