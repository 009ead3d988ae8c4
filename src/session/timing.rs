//! How long requests wait for their replies. One of a session at a time is timed: that costs two looks at the clock for a
//! client that waits for each reply, and no more for one that sends thousands at once.

use std::time::{Duration, Instant};

use super::pending::Pending;
use crate::resp::scanner::{Reply, ReplyScanner};

#[derive(Default)]
pub(super) struct Timing {
    /// The number of the request that is timed, and when its last byte was here.
    sample: Option<(u64, Instant)>,
}

impl Timing {
    /// Requests were booked, the last bytes of which were just read.
    #[inline]
    pub(super) fn sent(&mut self, pending: &Pending) {
        if self.sample.is_none() && pending.ends_promptly() {
            self.sample = Some((pending.answered() + pending.count(), Instant::now()));
        }
    }

    /// Whether a reply is awaited.
    #[inline]
    pub(super) fn waits(&self) -> bool {
        self.sample.is_some()
    }

    /// How long the first byte of the reply that is awaited took, once it is here.
    #[inline]
    pub(super) fn received(&mut self, pending: &Pending, replies: &ReplyScanner) -> Option<Duration> {
        let (number, since) = self.sample?;
        if pending.opaque().is_some() {
            self.sample = None;
            return None;
        }
        if arrived(pending, replies) < number {
            return None;
        }
        self.sample = None;
        Some(since.elapsed())
    }
}

/// The number of the last request whose reply has begun.
#[inline]
pub(super) fn arrived(pending: &Pending, replies: &ReplyScanner) -> u64 {
    let begun = !replies.at_boundary() && !matches!(replies.reply(), Reply::Push(_));
    pending.answered() + u64::from(begun)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::command_table::Leaves;
    use crate::resp::request::Request;
    use crate::resp::scanner::Event;
    use crate::session::pending::Opaque;

    #[derive(Default)]
    struct Session {
        timing: Timing,
        pending: Pending,
        replies: ReplyScanner,
    }

    impl Session {
        fn sends(&mut self, requests: &[Request]) {
            for request in requests {
                self.pending.request(*request);
            }
            self.timing.sent(&self.pending);
        }

        /// Whether the reply that was awaited has begun.
        fn gets(&mut self, mut bytes: &[u8]) -> bool {
            while !bytes.is_empty() {
                let (n, event) = self.replies.next(bytes);
                bytes = &bytes[n..];
                if event == Event::Frame {
                    self.pending.reply(self.replies.reply());
                }
            }
            self.timing.received(&self.pending, &self.replies).is_some()
        }
    }

    #[test]
    fn a_request_is_timed_to_the_first_byte_of_its_own_reply() {
        let mut session = Session::default();
        session.sends(&[Request::Plain; 3]);
        assert!(!session.gets(b"+1\r\n"));
        assert!(!session.gets(b"+2\r\n"));
        assert!(session.gets(b"$"));
        assert!(!session.timing.waits());
        session.sends(&[Request::Plain]);
        assert!(!session.gets(b"1\r\nx\r\n"), "the end of the reply before");
        assert!(session.gets(b"+4\r\n"));
    }

    #[test]
    fn what_is_sent_while_a_request_is_timed_is_not() {
        let mut session = Session::default();
        session.sends(&[Request::Plain]);
        session.sends(&[Request::Plain]);
        assert!(session.gets(b"+1\r\n"));
        assert!(!session.timing.waits());
        assert!(!session.gets(b"+2\r\n"));
    }

    #[test]
    fn what_may_take_for_ever_is_not_timed_nor_what_waits_behind_it() {
        for waits in [Request::Blocking, Request::Monitor] {
            let mut session = Session::default();
            session.sends(&[waits]);
            session.sends(&[Request::Plain]);
            assert!(!session.timing.waits(), "{waits:?}");
        }
    }

    #[test]
    fn a_message_is_no_reply() {
        let mut session = Session::default();
        session.sends(&[Request::Hello { resp3: Some(true), leaves: Leaves::SetUp, has_options: false }]);
        assert!(!session.gets(b"%0\r\n"));
        session.sends(&[Request::Plain]);
        assert!(!session.gets(b">2\r\n$10\r\ninvalid"));
        assert!(!session.gets(b"ate\r\n$1\r\nk\r\n"));
        assert!(session.gets(b"+OK\r\n"));
    }

    #[test]
    fn a_session_that_becomes_opaque_is_not_timed_any_more() {
        let mut session = Session::default();
        session.sends(&[Request::Plain]);
        session.pending.become_opaque(Opaque::Malformed);
        assert!(!session.gets(b"+1\r\n"));
        assert!(!session.timing.waits());
    }
}
