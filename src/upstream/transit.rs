//! Plaintext or TLS, where `tls.mode` is `preferred`: what an endpoint was seen to accept, and the latch of its route.
//!
//! The latch is one-way: once an endpoint of the route has spoken TLS with a certificate that verifies, none of its
//! endpoints is spoken to in plaintext any more. They are names of one group, and whoever can silence one of them must
//! not bring plaintext back through another. Looking at endpoints is `dial`'s work, when to look is the parent's.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Shared by all connections of a route. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Latch(CancellationToken);

impl Latch {
    /// Whether plaintext is over.
    pub fn is_set(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Plaintext is over.
    pub fn set(&self) {
        self.0.cancel();
    }

    /// Cancelled when plaintext is over.
    pub fn token(&self) -> CancellationToken {
        self.0.clone()
    }

    /// Completes when plaintext is over.
    pub fn wait(&self) -> WaitForCancellationFutureOwned {
        self.0.clone().cancelled_owned()
    }
}

/// What an endpoint was seen to accept, by [ElastiCache's name for it](
/// https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/in-transit-encryption-enable.html).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObservedTransit {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// Plaintext only: transit encryption is off.
    Disabled,
    /// Plaintext, and TLS with a certificate that does not verify.
    Untrusted,
    /// TLS with a certificate that does not verify, and no plaintext.
    UntrustedOnly,
    /// TLS, with a certificate that verifies; plaintext may be accepted, too: it is not tried any more.
    Tls,
    /// Neither: it cannot be reached, or is no Redis.
    Unreachable,
}

impl ObservedTransit {
    /// In words.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Unknown => "not known",
            Self::Disabled => "plaintext only",
            Self::Untrusted => "plaintext, and TLS that cannot be trusted",
            Self::UntrustedOnly => "only TLS, and it cannot be trusted",
            Self::Tls => "TLS",
            Self::Unreachable => "neither TLS nor plaintext",
        }
    }

    /// As a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Disabled => "disabled",
            Self::Untrusted => "untrusted",
            Self::UntrustedOnly => "untrusted_only",
            Self::Tls => "tls",
            Self::Unreachable => "unreachable",
        }
    }
}

/// One endpoint's.
pub(super) struct Transit {
    latch: Latch,
    seen: watch::Sender<ObservedTransit>,
    /// Clients need not wait any more: it was looked at, or answered in plaintext while TLS is still waited for.
    ready: watch::Sender<bool>,
}

impl Transit {
    pub(super) fn new(latch: Latch) -> Self {
        Self { latch, seen: watch::Sender::default(), ready: watch::Sender::default() }
    }

    pub(super) fn latch(&self) -> &Latch {
        &self.latch
    }

    pub(super) fn seen(&self) -> ObservedTransit {
        *self.seen.borrow()
    }

    /// Remembers what was seen; sets the latch if that was TLS. Returns what was known before, if it was something else.
    pub(super) fn note(&self, mode: ObservedTransit) -> Option<ObservedTransit> {
        if mode == ObservedTransit::Tls {
            self.latch.set();
        }
        let before = self.seen.send_replace(mode);
        self.ready.send_replace(true);
        (before != mode).then_some(before)
    }

    /// It answers in plaintext, and nothing else is known yet.
    pub(super) fn presume_plaintext(&self) {
        self.ready.send_replace(true);
    }

    /// Whether to speak TLS. Waits for the first look, which ends soon, and no longer than `deadline`.
    pub(super) async fn speaks_tls(&self, deadline: Instant) -> bool {
        let mut ready = self.ready.subscribe();
        tokio::select! {
            _ = timeout_at(deadline, ready.wait_for(|ready| *ready)) => {}
            () = self.latch.wait() => {}
        }
        // What cannot be reached may come back as it was: only an attempt in plaintext starts to work at once.
        self.latch.is_set() || self.seen() == ObservedTransit::UntrustedOnly
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_speaks_before_the_first_look_and_none_speaks_plaintext_after_the_latch() {
        let latch = Latch::default();
        let (old, new) = (Transit::new(latch.clone()), Transit::new(latch.clone()));
        let deadline = || Instant::now() + Duration::from_secs(5);
        let began = Instant::now();
        assert!(!old.speaks_tls(deadline()).await);
        assert_eq!(began.elapsed(), Duration::from_secs(5));

        assert_eq!(old.note(ObservedTransit::Disabled), Some(ObservedTransit::Unknown));
        assert_eq!(old.note(ObservedTransit::Disabled), None);
        let began = Instant::now();
        assert!(!old.speaks_tls(deadline()).await);
        assert_eq!(began.elapsed(), Duration::ZERO);

        assert_eq!(new.note(ObservedTransit::Tls), Some(ObservedTransit::Unknown));
        assert!(old.speaks_tls(deadline()).await && new.speaks_tls(deadline()).await);
        old.note(ObservedTransit::Disabled);
        new.note(ObservedTransit::Unreachable);
        assert!(latch.is_set() && old.speaks_tls(deadline()).await && new.speaks_tls(deadline()).await);
    }
}
