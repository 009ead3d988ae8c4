//! Finds slow commands. Each request of a session is timed from its last byte, or from the end of the previous reply if that came later, to
//! the first byte of its reply. The log gets known names, sizes and times, and never an argument.
//!
//! On a shared connection the requests of all its clients are timed together.

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

/// The largest number of outstanding requests that are remembered. In a deeper pipeline the rest is not timed.
const MAX_TIMED_REQUESTS: usize = 1024;

/// The largest number of different names that are logged for one pipeline.
const MAX_SLOW_NAMES: usize = 8;

/// Finds slow commands on one connection.
pub(super) struct SlowLog {
    /// Commands that take longer are slow.
    threshold: Duration,
    /// The outstanding requests.
    sent: VecDeque<TimedRequest>,
    /// Bytes of the request that has begun.
    bytes: u64,
    /// Number of replies that had ended at the last look.
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
    /// Its reply waits for another event.
    waits: bool,
    /// The client that sent it, on a shared connection.
    client: Option<Arc<SessionRecord>>,
}

/// A slow command. It stands for several if their replies arrived together, so that the slow one is unknown.
pub(super) struct SlowCommand {
    /// Number of commands.
    commands: usize,
    /// Total size of the requests.
    bytes: u64,
    took: Duration,
    /// The client that sent them, on a shared connection, if all are from one client.
    pub(super) client: Option<Arc<SessionRecord>>,
    /// The different names.
    names: Vec<&'static str>,
}

impl SlowLog {
    pub(super) fn new(threshold: Duration) -> Self {
        Self { threshold, sent: VecDeque::new(), bytes: 0, answered: 0, since: Instant::now() }
    }

    /// Commands that take longer are slow.
    pub(super) fn threshold(&self) -> Duration {
        self.threshold
    }

    /// Notes that `bytes` of a request were read. `begins`: they are its first.
    pub(super) fn read(&mut self, bytes: usize, begins: bool) {
        self.bytes = bytes as u64 + if begins { 0 } else { self.bytes };
    }

    /// Notes the request that was just entered into the ledger.
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
                | Request::Addresses(_)
                | Request::Transaction(_)
        );
        self.book(ledger.answered() + ledger.outstanding(), command, self.bytes, waits, None);
    }

    /// Notes the request with this number. `client`: the client that sent it, on a shared connection.
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

    /// The slow command that the replies so far reveal, if there is one.
    pub(super) fn received(&mut self, ledger: &Ledger, replies: &ReplyScanner) -> Option<SlowCommand> {
        if ledger.opaque().is_some() {
            self.sent = VecDeque::new();
            return None;
        }
        self.arrived(ledger.answered(), arrived(ledger, replies))
    }

    /// The same, if `answered` requests have their replies, and the replies to `arrived` requests have begun.
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
        // Otherwise the reply before it ended only just now, and the server was busy with that one.
        let had_its_turn = first.number == answered + 1;
        (had_its_turn && !waits && slow.took >= self.threshold).then_some(slow)
    }
}

/// The number of the last request whose reply has begun.
fn arrived(ledger: &Ledger, replies: &ReplyScanner) -> u64 {
    ledger.answered() + u64::from(replies.is_within_reply())
}

impl SlowCommand {
    /// The name in OpenTelemetry's form for operations of Redis: `GET`, `PIPELINE GET`, `PIPELINE`.
    fn operation(&self) -> String {
        match (self.commands, &self.names[..]) {
            (0 | 1, [name]) => (*name).to_owned(),
            (_, [name]) => format!("PIPELINE {name}"),
            _ => "PIPELINE".to_owned(),
        }
    }

    /// Logs the slow command. `client`: the client that sent it, if it is known.
    #[cold]
    pub(super) fn log(&self, route: &RouteContext, upstream: &Connection, client: Option<&SessionRecord>) {
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

        /// These bytes arrive `milliseconds` later.
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
        assert_eq!(session.gets(b"1\r\nx\r\n", 60_000), None, "the rest of a reply does not count");
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
        assert_eq!(session.gets(b"1\r\n+2\r\n", 250), None, "the reply before it has just ended");
    }

    #[test]
    fn replies_that_arrive_together_are_logged_as_one_pipeline() {
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
    fn a_blocking_command_is_not_slow() {
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
