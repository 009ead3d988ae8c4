//! Totals of a route's sessions.

use super::session::{SessionRecord, TrafficCounts};
use crate::moment::Moment;

/// Totals of a route's sessions in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Number of active sessions.
    pub active: u64,
    /// Number of sessions, including active ones.
    pub sessions: u64,
    /// Number of sessions that have or had an upstream connection.
    pub connected: u64,
    /// Traffic of all sessions.
    pub counts: TrafficCounts,
    /// The part of it that was in plaintext upstream.
    pub plaintext: InPlaintext,
    /// When bytes last passed or a session ended, in this run or an earlier one.
    pub last_used: Option<Moment>,
}

/// Sessions whose upstream connection is or was in plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InPlaintext {
    /// Number of sessions in plaintext now.
    pub active: u64,
    /// Number of sessions that are or were in plaintext.
    pub sessions: u64,
    /// Traffic in plaintext: before the sessions ended or moved to TLS.
    pub counts: TrafficCounts,
    /// When the last such session ended or moved to TLS, in this run or an earlier one; now if one is active.
    pub last: Option<Moment>,
}

impl Totals {
    /// Adds the totals of a route's former name.
    pub(super) fn merge(&mut self, other: &Self) {
        self.active += other.active;
        self.sessions += other.sessions;
        self.connected += other.connected;
        self.counts.add(other.counts);
        self.plaintext.active += other.plaintext.active;
        self.plaintext.sessions += other.plaintext.sessions;
        self.plaintext.counts.add(other.plaintext.counts);
        self.plaintext.last = self.plaintext.last.max(other.plaintext.last);
        self.last_used = self.last_used.max(other.last_used);
    }

    /// Adds a session.
    pub(super) fn add(&mut self, session: &SessionRecord, is_active: bool, now: Moment) {
        self.active += u64::from(is_active);
        self.sessions += 1;
        self.connected += u64::from(session.was_connected());
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
