//! Whether clients are welcome: not draining, and every route's upstream reached lately.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// An upstream that was reached this recently counts as reachable.
const LATELY: Duration = Duration::from_secs(60);

/// Shared between what finds out and what answers.
#[derive(Debug, Default)]
pub struct Readiness {
    draining: AtomicBool,
    routes: Mutex<BTreeMap<String, Reachability>>,
}

#[derive(Debug, Default)]
struct Reachability {
    reached: Option<Instant>,
    /// Why not, where that is worth more than a look at the log.
    problem: Option<String>,
}

impl Reachability {
    /// Why it does not count as reached.
    fn late(&self) -> Option<String> {
        let since = match self.reached {
            None => "yet".to_owned(),
            Some(at) if at.elapsed() > LATELY => format!("for {} s", at.elapsed().as_secs()),
            Some(_) => return None,
        };
        let why = self.problem.as_ref().map_or_else(String::new, |problem| format!(": {problem}"));
        Some(format!("upstream not reached {since}{why}"))
    }
}

impl Readiness {
    /// These are all routes from now on. What was seen of those that stay is still true.
    pub fn follow(&self, routes: impl Iterator<Item = String>) {
        let mut seen = self.routes.lock();
        *seen = routes.map(|route| (route.clone(), seen.remove(&route).unwrap_or_default())).collect();
    }

    /// The upstream of `route` is another one: nothing is known of it.
    pub fn forget(&self, route: &str) {
        self.note(route, |seen| *seen = Reachability::default());
    }

    /// The upstream of `route` was reached just now.
    pub fn reached(&self, route: &str) {
        self.note(route, |seen| *seen = Reachability { reached: Some(Instant::now()), problem: None });
    }

    /// The upstream of `route` could not be reached, for this reason.
    pub fn failed(&self, route: &str, problem: Option<String>) {
        self.note(route, |seen| seen.problem = problem);
    }

    fn note(&self, route: &str, change: impl FnOnce(&mut Reachability)) {
        let mut routes = self.routes.lock();
        if let Some(seen) = routes.get_mut(route) {
            change(seen);
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
        let routes = self.routes.lock();
        let late = routes.iter().filter_map(|(route, seen)| Some((route, seen.late()?)));
        late.map(|(route, why)| format!("route \"{route}\": {why}; see the log")).collect()
    }

    /// Why the upstream of `route` does not count as reached; `None`: it was reached lately.
    pub fn unreached(&self, route: &str) -> Option<String> {
        let routes = self.routes.lock();
        routes.get(route).map_or_else(|| Some("there is no such route".into()), Reachability::late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ready_means_every_upstream_reached_within_a_minute_and_not_draining() {
        let readiness = Readiness::default();
        readiness.follow(["a".to_owned(), "b".to_owned()].into_iter());
        assert_eq!(readiness.reasons().len(), 2);
        readiness.reached("a");
        readiness.reached("b");
        assert!(readiness.reasons().is_empty());
        tokio::time::advance(LATELY + Duration::from_secs(1)).await;
        readiness.reached("b");
        assert_eq!(readiness.reasons(), ["route \"a\": upstream not reached for 61 s; see the log"]);
        readiness.failed("a", Some("refused".into()));
        assert_eq!(readiness.reasons(), ["route \"a\": upstream not reached for 61 s: refused; see the log"]);
        readiness.reached("a");
        readiness.drain();
        assert_eq!(readiness.reasons(), ["draining"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_that_stays_is_as_ready_as_before_and_one_that_went_is_not_asked_for() {
        let readiness = Readiness::default();
        let routes = |names: &[&str]| readiness.follow(names.iter().map(|&name| name.to_owned()));
        routes(&["a", "b"]);
        readiness.reached("a");
        routes(&["a"]);
        assert!(readiness.reasons().is_empty());
        readiness.forget("a");
        assert_eq!(readiness.reasons().len(), 1);
    }
}
