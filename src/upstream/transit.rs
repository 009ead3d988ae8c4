//! Plaintext or TLS, where `tls.mode` is `preferred`: what an endpoint was seen to accept, and the latch of its route.
//!
//! The latch is one-way. Once an endpoint of the route has accepted TLS with a certificate that verifies, plaintext is refused for all its
//! endpoints. They are names of one group, and an attacker who can silence one of them must not bring plaintext back through another.
//! `dial` looks at endpoints; the parent decides when.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The one-way switch of a route from plaintext to TLS. Shared by all its connections and cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Latch(CancellationToken);

impl Latch {
    /// Whether plaintext is refused.
    pub fn is_set(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Refuses plaintext from now on.
    pub fn set(&self) {
        self.0.cancel();
    }

    /// A token that is cancelled when the latch is set.
    pub fn token(&self) -> CancellationToken {
        self.0.clone()
    }

    /// Completes when the latch is set.
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
    /// TLS with a certificate that verifies. Plaintext may be accepted, too, but is no longer tried.
    Tls,
    /// Neither TLS nor plaintext: it cannot be reached, or is not Redis.
    Unreachable,
}

impl ObservedTransit {
    /// The value in words.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Unknown => "not known",
            Self::Disabled => "plaintext only",
            Self::Untrusted => "plaintext, and TLS that cannot be trusted",
            Self::UntrustedOnly => "only TLS, and it cannot be trusted",
            Self::Tls => "TLS",
            Self::Unreachable => "not reachable",
        }
    }

    /// The value as a metric label.
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

/// What one endpoint was seen to accept, and its route's latch.
pub(super) struct Transit {
    latch: Latch,
    seen: watch::Sender<ObservedTransit>,
    /// Clients no longer have to wait: the endpoint was looked at, or answered in plaintext while the TLS attempt still waits.
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

    /// Remembers what was seen, and sets the latch if that was TLS. Returns the earlier value if it differs.
    pub(super) fn note(&self, mode: ObservedTransit) -> Option<ObservedTransit> {
        let before = self.seen.send_replace(mode);
        // `find_tls` wakes at the latch, and reads what was seen.
        if mode == ObservedTransit::Tls {
            self.latch.set();
        }
        self.ready.send_replace(true);
        (before != mode).then_some(before)
    }

    /// Lets clients use plaintext: the endpoint answers in plaintext, and the TLS attempt has no result yet.
    pub(super) fn presume_plaintext(&self) {
        self.ready.send_replace(true);
    }

    /// Whether to use TLS. Waits for the first look, which ends soon, but not beyond `deadline`.
    pub(super) async fn speaks_tls(&self, deadline: Instant) -> bool {
        let mut ready = self.ready.subscribe();
        tokio::select! {
            _ = timeout_at(deadline, ready.wait_for(|ready| *ready)) => {}
            () = self.latch.wait() => {}
        }
        // An unreachable endpoint may come back as it was: only a plaintext attempt works at once then.
        self.latch.is_set() || self.seen() == ObservedTransit::UntrustedOnly
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn clients_wait_for_the_first_look_and_the_latch_ends_plaintext() {
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
