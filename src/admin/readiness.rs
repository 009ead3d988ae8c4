//! Whether clients are welcome: not draining, and every route's upstream reached lately.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// An upstream that was reached this recently counts as reachable.
const LATELY: Duration = Duration::from_secs(60);

/// Shared between what finds out and what answers.
#[derive(Debug)]
pub struct Readiness {
    draining: AtomicBool,
    reached: Mutex<BTreeMap<String, Option<Instant>>>,
}

impl Readiness {
    /// Of these routes; none is reached yet.
    pub fn new(routes: impl Iterator<Item = String>) -> Self {
        Self {
            draining: AtomicBool::new(false),
            reached: Mutex::new(routes.map(|route| (route, None)).collect()),
        }
    }

    /// The upstream of `route` was reached just now.
    pub fn reached(&self, route: &str) {
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = reached.get_mut(route) {
            *at = Some(Instant::now());
        }
    }

    /// Not ready from here on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Why not ready; empty: ready.
    pub fn reasons(&self) -> Vec<String> {
        if self.draining.load(Ordering::Acquire) {
            return vec!["draining".into()];
        }
        let reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        let late = reached.iter().filter_map(|(route, at)| Some((route, late(*at)?)));
        late.map(|(route, why)| format!("route \"{route}\": {why}; see the log")).collect()
    }

    /// Why the upstream of `route` does not count as reached; `None`: it was reached lately.
    pub fn unreached(&self, route: &str) -> Option<String> {
        let reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        late(reached.get(route).copied().flatten())
    }
}

fn late(reached: Option<Instant>) -> Option<String> {
    match reached {
        None => Some("upstream not reached yet".into()),
        Some(at) if at.elapsed() > LATELY => {
            Some(format!("upstream not reached for {} s", at.elapsed().as_secs()))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ready_means_every_upstream_reached_within_a_minute_and_not_draining() {
        let readiness = Readiness::new(["a".to_owned(), "b".to_owned()].into_iter());
        assert_eq!(readiness.reasons().len(), 2);
        readiness.reached("a");
        readiness.reached("b");
        assert!(readiness.reasons().is_empty());
        tokio::time::advance(LATELY + Duration::from_secs(1)).await;
        readiness.reached("b");
        assert_eq!(readiness.reasons(), ["route \"a\": upstream not reached for 61 s; see the log"]);
        readiness.reached("a");
        readiness.drain();
        assert_eq!(readiness.reasons(), ["draining"]);
    }
}
