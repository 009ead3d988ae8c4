//! Whether the process serves clients: it is not draining, and every route's upstream was reached recently. Also lists current problems.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long an upstream counts as reached after an attempt succeeded.
const LATELY: Duration = Duration::from_secs(60);

/// Shared by the tasks that watch the upstreams and the handlers of requests.
#[derive(Debug, Default)]
pub struct Serving {
    draining: AtomicBool,
    /// When each route's upstream was last reached.
    routes: Mutex<BTreeMap<String, Option<Instant>>>,
}

impl Serving {
    /// Sets the current routes. Keeps what is known of routes that stay.
    pub fn follow(&self, routes: impl Iterator<Item = String>) {
        let mut seen = self.routes.lock();
        *seen = routes.map(|route| (route.clone(), seen.remove(&route).unwrap_or_default())).collect();
    }

    /// Forgets what is known of `route`, because its upstream was changed.
    pub fn forget(&self, route: &str) {
        self.note(route, None);
    }

    /// Notes that the upstream of `route` was just reached.
    pub fn reached(&self, route: &str) {
        self.note(route, Some(Instant::now()));
    }

    fn note(&self, route: &str, reached: Option<Instant>) {
        if let Some(seen) = self.routes.lock().get_mut(route) {
            *seen = reached;
        }
    }

    /// Stops serving from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Returns why the upstream of `route` does not count as reached; `None` if it was reached recently.
    pub(super) fn late(&self, route: &str) -> Option<String> {
        match self.routes.lock().get(route).copied().flatten() {
            None => Some("upstream not reached yet".into()),
            Some(at) if at.elapsed() > LATELY => {
                Some(format!("upstream not reached for {} s", at.elapsed().as_secs()))
            }
            Some(_) => None,
        }
    }
}

/// The answer of `/readyz`, `health`, `status`, the page and systemd's status, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingReport {
    /// Whether clients are served.
    pub serving: bool,
    /// Current problems, including those that do not stop the service.
    pub problems: Vec<String>,
}

impl ServingReport {
    /// Returns only the state.
    pub fn state(&self) -> &'static str {
        if self.serving { "serving" } else { "not serving" }
    }
}

impl fmt::Display for ServingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.state())?;
        if self.problems.is_empty() {
            return Ok(());
        }
        let joined = if self.serving { ", but " } else { ": " };
        write!(f, "{joined}{}", self.problems.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_upstream_counts_as_reached_for_a_minute() {
        let serving = Serving::default();
        serving.follow(["a".to_owned(), "b".to_owned()].into_iter());
        assert_eq!(serving.late("a").unwrap(), "upstream not reached yet");
        serving.reached("a");
        assert_eq!(serving.late("a"), None);
        tokio::time::advance(LATELY + Duration::from_secs(1)).await;
        assert_eq!(serving.late("a").unwrap(), "upstream not reached for 61 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_that_stays_keeps_its_reachability() {
        let serving = Serving::default();
        let routes = |names: &[&str]| serving.follow(names.iter().map(|&name| name.to_owned()));
        routes(&["a", "b"]);
        serving.reached("a");
        routes(&["a"]);
        assert_eq!(serving.late("a"), None);
        serving.forget("a");
        assert!(serving.late("a").is_some());
    }

    #[test]
    fn the_report_is_one_line() {
        let report = |serving, problems: &[&str]| {
            let problems = problems.iter().map(|&problem| problem.to_owned()).collect();
            ServingReport { serving, problems }.to_string()
        };
        assert_eq!(report(true, &[]), "serving");
        assert_eq!(report(true, &["route \"a\": x"]), "serving, but route \"a\": x");
        assert_eq!(report(false, &["a", "b"]), "not serving: a; b");
    }
}
