//! A route's sessions, added up.

use super::session::{SessionRecord, TrafficCounts};
use crate::moment::Moment;

/// A route's sessions over all of this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Sessions now.
    pub active: u64,
    /// Sessions, the active ones included.
    pub sessions: u64,
    /// What passed.
    pub counts: TrafficCounts,
    /// Of these, what was in plaintext upstream.
    pub plaintext: InPlaintext,
    /// When something last passed, or a session ended, in this run or an earlier one.
    pub last_used: Option<Moment>,
}

/// Sessions whose upstream connection is or was in plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InPlaintext {
    /// Those that are so now.
    pub active: u64,
    /// All of them.
    pub sessions: u64,
    /// What passed before they ended or went on over TLS.
    pub counts: TrafficCounts,
    /// When the last of them did, in this run or an earlier one; now, if one is active.
    pub last: Option<Moment>,
}

impl Totals {
    /// With those of another name.
    pub(super) fn merge(&mut self, other: &Self) {
        self.active += other.active;
        self.sessions += other.sessions;
        self.counts.add(other.counts);
        self.plaintext.active += other.plaintext.active;
        self.plaintext.sessions += other.plaintext.sessions;
        self.plaintext.counts.add(other.plaintext.counts);
        self.plaintext.last = self.plaintext.last.max(other.plaintext.last);
        self.last_used = self.last_used.max(other.last_used);
    }

    /// With one session more.
    pub(super) fn add(&mut self, session: &SessionRecord, is_active: bool, now: Moment) {
        self.active += u64::from(is_active);
        self.sessions += 1;
        self.counts.add(session.counts());
        self.last_used = self.last_used.max(Some(if is_active { session.last() } else { now }));
        if let Some((counts, moved)) = session.in_plaintext() {
            self.plaintext.active += u64::from(is_active && moved.is_none());
            self.plaintext.sessions += 1;
            self.plaintext.counts.add(counts);
            self.plaintext.last = self.plaintext.last.max(Some(moved.unwrap_or(now)));
        }
    }
}
