//! Slow commands: each request of a session is timed, from its last byte to the first of its reply, or from the end of the
//! reply before, if that came later. Names that are known, sizes and times; never an argument.
//!
//! On a connection that clients share, the same is done for the requests of all of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use super::context::RouteContext;
use super::ledger::Ledger;
use crate::clients::SessionRecord;
use crate::resp::command_table::Command;
use crate::resp::request::Request;
use crate::resp::scanner::ReplyScanner;
use crate::telemetry::SLOW;
use crate::upstream::Connection;

/// Requests without a reply that are remembered; of a deeper pipeline the rest is not timed.
const MAX_TIMED_REQUESTS: usize = 1024;

/// Of more different names in one pipeline the rest is not told.
const MAX_SLOW_NAMES: usize = 8;

/// Finds a session's slow commands.
pub(super) struct SlowLog {
    /// What takes longer is slow.
    threshold: Duration,
    /// Requests without a reply.
    sent: VecDeque<TimedRequest>,
    /// Of the request that has begun.
    bytes: u64,
    /// Requests that had their reply when replies were last looked at.
    answered: u64,
    /// When the last of those replies ended.
    since: Instant,
}

#[derive(Clone)]
struct TimedRequest {
    number: u64,
    command: Command,
    bytes: u64,
    at: Instant,
    /// Its reply comes when something happens elsewhere.
    waits: bool,
    /// Whose it is, on a connection that clients share.
    client: Option<Arc<SessionRecord>>,
}

/// A command that was slow; several, if their replies came together and it cannot be told which of them it was.
pub(super) struct SlowCommand {
    /// How many.
    commands: usize,
    /// Of all of them together.
    bytes: u64,
    took: Duration,
    /// Whose they are, on a connection that clients share: if all are one client's.
    pub(super) client: Option<Arc<SessionRecord>>,
    /// Without repetition.
    names: Vec<&'static str>,
}

impl SlowLog {
    pub(super) fn new(threshold: Duration) -> Self {
        Self { threshold, sent: VecDeque::new(), bytes: 0, answered: 0, since: Instant::now() }
    }

    /// What takes longer is slow.
    pub(super) fn threshold(&self) -> Duration {
        self.threshold
    }

    /// So many bytes of a request were read, with which it `begins` or goes on.
    pub(super) fn read(&mut self, bytes: usize, begins: bool) {
        self.bytes = bytes as u64 + if begins { 0 } else { self.bytes };
    }

    /// The request that was read was booked.
    pub(super) fn booked(&mut self, command: Command, request: Request, ledger: &Ledger) {
        if ledger.opaque().is_some() || request == Request::Closes {
            return;
        }
        let waits = !matches!(
            request,
            Request::Plain
                | Request::Leaves(_)
                | Request::Auth
                | Request::Hello { .. }
                | Request::Reset
                | Request::Quit
                | Request::Cluster(_)
                | Request::Transaction(_)
        );
        self.book(ledger.answered() + ledger.outstanding(), command, self.bytes, waits, None);
    }

    /// A request was sent, the one with this number of all. `client`: whose it is, on a connection that clients share.
    pub(super) fn book(
        &mut self,
        number: u64,
        command: Command,
        bytes: u64,
        waits: bool,
        client: Option<&Arc<SessionRecord>>,
    ) {
        if self.sent.len() < MAX_TIMED_REQUESTS {
            self.sent.push_back(TimedRequest {
                number,
                command,
                bytes,
                at: Instant::now(),
                waits,
                client: client.map(Arc::clone),
            });
        }
    }

    /// What turned out to be slow by the replies that have begun.
    pub(super) fn received(&mut self, ledger: &Ledger, replies: &ReplyScanner) -> Option<SlowCommand> {
        if ledger.opaque().is_some() {
            self.sent = VecDeque::new();
            return None;
        }
        self.arrived(ledger.answered(), arrived(ledger, replies))
    }

    /// The same, where so many requests have their replies, and those of so many have begun.
    pub(super) fn arrived(&mut self, answered: u64, arrived: u64) -> Option<SlowCommand> {
        if self.sent.is_empty() {
            self.answered = answered;
            return None;
        }
        self.arrived_at(answered, arrived, Instant::now())
    }

    fn arrived_at(&mut self, ended: u64, arrived: u64, now: Instant) -> Option<SlowCommand> {
        let answered = std::mem::replace(&mut self.answered, ended);
        let since = if ended > answered { std::mem::replace(&mut self.since, now) } else { self.since };
        let count = self.sent.iter().take_while(|sent| sent.number <= arrived).count();
        let first = self.sent.front().filter(|_| count > 0)?.clone();
        let mut slow = SlowCommand {
            commands: count,
            bytes: 0,
            took: now.saturating_duration_since(first.at.max(since)),
            names: Vec::new(),
            client: first.client,
        };
        let mut waits = false;
        for sent in self.sent.drain(..count) {
            waits |= sent.waits;
            slow.bytes += sent.bytes;
            slow.client =
                slow.client.filter(|client| sent.client.is_some_and(|other| Arc::ptr_eq(client, &other)));
            if slow.names.len() < MAX_SLOW_NAMES && !slow.names.contains(&sent.command.name()) {
                slow.names.push(sent.command.name());
            }
        }
        // Otherwise the reply before it ended just now: its turn had not come.
        let had_its_turn = first.number == answered + 1;
        (had_its_turn && !waits && slow.took >= self.threshold).then_some(slow)
    }
}

/// The number of the last request whose reply has begun.
fn arrived(ledger: &Ledger, replies: &ReplyScanner) -> u64 {
    ledger.answered() + u64::from(replies.is_within_reply())
}

impl SlowCommand {
    /// As OpenTelemetry names operations of Redis: `GET`, `PIPELINE GET`, `PIPELINE`.
    fn operation(&self) -> String {
        match (self.commands, &self.names[..]) {
            (0 | 1, [name]) => (*name).to_owned(),
            (_, [name]) => format!("PIPELINE {name}"),
            _ => "PIPELINE".to_owned(),
        }
    }

    /// Logs it. `client`: whose it is, if that can be told.
    #[cold]
    pub(super) fn tell(&self, route: &RouteContext, upstream: &Connection, client: Option<&SessionRecord>) {
        let operation = self.operation();
        let Some(suppressed) = route.slow_throttle.allow(&operation) else { return };
        let (process, library) = client.map(SessionRecord::client).unwrap_or_default();
        info!(
            target: SLOW,
            route = &*route.route,
            session = client.map(SessionRecord::number),
            upstream = %upstream.endpoint,
            peer = %upstream.peer,
            command = operation,
            commands = self.commands,
            names = (self.commands > 1).then(|| self.names.join(" ")),
            bytes = self.bytes,
            seconds = self.took.as_secs_f64(),
            pid = process.as_ref().and_then(|process| process.pid),
            process = process.as_ref().and_then(|process| process.name.as_deref()),
            library = library.as_ref().map(|library| &*library.name),
            suppressed,
            "slow command"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::command_table::Leaves;
    use crate::resp::scanner::Event;

    const THRESHOLD: Duration = Duration::from_millis(100);

    struct TimedExchange {
        slow: SlowLog,
        ledger: Ledger,
        replies: ReplyScanner,
    }

    impl TimedExchange {
        fn new() -> Self {
            Self {
                slow: SlowLog::new(THRESHOLD),
                ledger: Ledger::default(),
                replies: ReplyScanner::default(),
            }
        }

        fn sends(&mut self, name: &str, request: Request) {
            self.ledger.request(request, None);
            self.slow.read(10, true);
            self.slow.read(20, false);
            self.slow.booked(Command::named(name.as_bytes()), request, &self.ledger);
        }

        /// These bytes come so many milliseconds later.
        fn gets(&mut self, mut bytes: &[u8], milliseconds: u64) -> Option<(String, u64, u64)> {
            while !bytes.is_empty() {
                let (n, event) = self.replies.next(bytes);
                bytes = &bytes[n..];
                if event == Event::Frame {
                    self.ledger.reply(self.replies.reply(), false);
                }
            }
            let now = Instant::now() + Duration::from_millis(milliseconds);
            let arrived = arrived(&self.ledger, &self.replies);
            let slow = self.slow.arrived_at(self.ledger.answered(), arrived, now)?;
            Some((slow.operation(), slow.bytes, slow.took.as_millis() as u64 / 100 * 100))
        }
    }

    #[test]
    fn a_command_is_slow_by_the_first_byte_of_its_reply() {
        let mut session = TimedExchange::new();
        session.sends("get", Request::Plain);
        assert_eq!(session.gets(b"$", 50), None);
        assert_eq!(session.gets(b"1\r\nx\r\n", 60_000), None, "a client that reads slowly");
        session.slow.since = Instant::now();
        session.sends("keys", Request::Plain);
        assert_eq!(session.gets(b"*", 250), Some(("KEYS".into(), 30, 200)));
    }

    #[test]
    fn a_command_behind_a_slow_one_is_not_slow_itself() {
        let mut session = TimedExchange::new();
        session.sends("eval", Request::Plain);
        session.sends("get", Request::Plain);
        assert_eq!(session.gets(b"+1\r\n", 250), Some(("EVAL".into(), 30, 200)));
        assert_eq!(session.gets(b"+2\r\n", 260), None);
        let mut session = TimedExchange::new();
        session.sends("eval", Request::Plain);
        session.sends("get", Request::Plain);
        assert_eq!(session.gets(b"+", 20), None);
        assert_eq!(session.gets(b"1\r\n+2\r\n", 250), None, "its turn came just now");
    }

    #[test]
    fn of_replies_that_come_together_it_is_not_guessed_which_was_slow() {
        let mut session = TimedExchange::new();
        session.sends("get", Request::Plain);
        session.sends("get", Request::Plain);
        assert_eq!(session.gets(b"+1\r\n+2\r\n", 300), Some(("PIPELINE GET".into(), 60, 300)));
        session.slow.since = Instant::now();
        session.sends("get", Request::Plain);
        session.sends("debug", Request::Leaves(Leaves::UntilClose));
        assert_eq!(session.gets(b"+1\r\n+2\r\n", 300), Some(("PIPELINE".into(), 60, 300)));
    }

    #[test]
    fn what_waits_for_others_is_not_slow() {
        let mut session = TimedExchange::new();
        session.sends("blpop", Request::Blocking);
        session.sends("get", Request::Plain);
        assert_eq!(session.gets(b"*-1\r\n", 60_000), None);
        assert_eq!(session.gets(b"+1\r\n", 60_001), None);
    }

    #[test]
    fn a_deep_pipeline_does_not_fill_memory() {
        let mut session = TimedExchange::new();
        for _ in 0..10 * MAX_TIMED_REQUESTS {
            session.sends("get", Request::Plain);
        }
        assert_eq!(session.slow.sent.len(), MAX_TIMED_REQUESTS);
    }
}
