//! Asks a group's servers again and again how many clients they have in plaintext, and remembers since when there is none.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;
use tracing::{info, warn};

use super::evidence::{Asking, Evidence, gather};
use crate::metrics::RouteMetrics;
use crate::moment::{Moment, Quiet};
use crate::upstream::Latch;

/// After a longer silence than this many intervals nobody knows what happened in it.
const MISSED: u32 = 3;

/// And a restart takes its time.
const RESTART: Duration = Duration::from_secs(60);

/// Of one route.
pub struct Observer {
    asking: Asking,
    interval: Duration,
    seen: Mutex<Observation>,
}

/// What the servers said.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// When they were asked last.
    pub asked: Option<Moment>,
    /// What they said then; `None`: none could be asked.
    pub evidence: Option<Arc<Evidence>>,
    /// Since when none of them counts a client in plaintext, and until when that is known.
    pub quiet: Option<Quiet>,
    /// Why none could be asked.
    pub problem: Option<String>,
}

impl Observation {
    /// All servers' count of clients in plaintext; `None`: not known.
    pub fn plaintext_clients(&self) -> Option<u64> {
        let evidence = self.evidence.as_ref()?;
        evidence.nodes.iter().map(|node| node.plaintext_clients.filter(|_| node.problem.is_none())).sum()
    }

    /// What is worth a line in the log where it changes: the count, and who could not be asked; `None`: nobody could.
    fn state(&self) -> (Option<u64>, Option<Vec<String>>) {
        let failed = self.evidence.as_ref().map(|evidence| {
            let failed = evidence.nodes.iter().filter(|node| node.problem.is_some());
            failed.map(|node| node.endpoint.clone()).collect()
        });
        (self.plaintext_clients(), failed)
    }
}

impl Observer {
    /// `quiet`: what an earlier run saw.
    pub fn new(asking: Asking, interval: Duration, quiet: Option<Quiet>) -> Self {
        Self { asking, interval, seen: Mutex::new(Observation { quiet, ..Observation::default() }) }
    }

    /// What was seen last.
    pub fn seen(&self) -> Observation {
        self.seen.lock().clone()
    }

    /// What is older than this is not known any more.
    pub fn patience(&self) -> Duration {
        self.interval.saturating_mul(MISSED).saturating_add(RESTART)
    }

    /// Asks until it is dropped. `latch`: nobody is asked before it is set, for it is asked over TLS.
    pub async fn run(&self, route: &str, latch: Option<&Latch>, metrics: &RouteMetrics) {
        if let Some(latch) = latch {
            latch.wait().await;
        }
        metrics.evidence_begins(self.interval);
        let mut told = None;
        loop {
            let result = gather(&self.asking).await.map_err(|error| error.to_string());
            let seen = self.note(result, Moment::now());
            metrics.server_plaintext_clients(seen.plaintext_clients(), Moment::now().unix());
            // Not the words: those with times in them are never the same twice.
            let state = seen.state();
            if told.as_ref() != Some(&state) {
                let words = describe(&seen);
                if seen.plaintext_clients() == Some(0) {
                    info!(route, "{words}");
                } else {
                    warn!(route, "{words}");
                }
                told = Some(state);
            }
            // Many sidecars, started together, do not ask together for ever.
            sleep(self.interval.mul_f64(0.9 + fastrand::f64() / 5.0)).await;
        }
    }

    fn note(&self, result: Result<Evidence, String>, now: Moment) -> Observation {
        let patience = self.patience().as_secs();
        let mut seen = self.seen.lock();
        seen.asked = Some(now);
        seen.quiet = seen.quiet.filter(|quiet| now.seconds_since(quiet.until) <= patience);
        match result {
            Ok(evidence) => {
                if evidence.is_clean() {
                    let since = seen.quiet.map_or(now, |quiet| quiet.since);
                    seen.quiet = Some(Quiet { since, until: now });
                } else if evidence
                    .nodes
                    .iter()
                    .any(|node| node.plaintext_clients.is_some_and(|count| count > 0))
                {
                    seen.quiet = None;
                }
                (seen.evidence, seen.problem) = (Some(Arc::new(evidence)), None);
            }
            Err(problem) => (seen.evidence, seen.problem) = (None, Some(problem)),
        }
        seen.clone()
    }
}

fn describe(seen: &Observation) -> String {
    let Some(evidence) = &seen.evidence else {
        return format!("the servers cannot be asked: {}", seen.problem.as_deref().unwrap_or("not yet"));
    };
    if let Some(node) = evidence.nodes.iter().find(|node| node.problem.is_some()) {
        return format!("{} cannot be asked: {}", node.endpoint, node.problem.as_deref().unwrap_or_default());
    }
    match seen.plaintext_clients() {
        None => "the servers do not count their clients in plaintext: this engine has no \
                 tls_mode_connected_tcp_clients"
            .into(),
        Some(0) => format!("no client is in plaintext, count {} servers", evidence.nodes.len()),
        Some(count) => format!("the servers count clients in plaintext: {count}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::NodeEvidence;
    use crate::tls;
    use crate::upstream::{self, pool};

    fn observer(quiet: Option<Quiet>) -> Observer {
        let settings = upstream::Settings {
            endpoints: vec!["cache.example:6379".parse().unwrap()],
            connect_timeout: upstream::Settings::CONNECT_TIMEOUT,
            handshakes: upstream::Settings::HANDSHAKES,
            client_name: None,
            auth: None,
            pool: pool::Settings {
                warm: false,
                warm_min: pool::Settings::WARM_MIN,
                warm_max: pool::Settings::WARM_MAX,
                reuse: true,
                max_age: pool::Settings::MAX_AGE,
            },
            tls: tls::Settings::default(),
        };
        let asking = Asking {
            settings,
            credentials: None,
            bridges: Vec::new(),
            list_always: false,
            all_must_answer: false,
        };
        Observer::new(asking, Duration::from_secs(60), quiet)
    }

    #[allow(clippy::unnecessary_wraps, reason = "as it is noted")]
    fn evidence(count: Option<u64>, problem: Option<&str>) -> Result<Evidence, String> {
        let node = NodeEvidence {
            plaintext_clients: count,
            problem: problem.map(str::to_owned),
            ..NodeEvidence::new("cache.example:6379".into())
        };
        Ok(Evidence { nodes: vec![node], direct: Vec::new(), unknown: Vec::new() })
    }

    #[test]
    fn quiet_lasts_from_the_first_zero_and_ends_with_the_first_client() {
        let observer = observer(None);
        let at = Moment::at;
        let quiet = |since, until| Some(Quiet { since: at(since), until: at(until) });
        assert_eq!(observer.note(evidence(Some(0), None), at(1000)).quiet, quiet(1000, 1000));
        assert_eq!(observer.note(evidence(Some(0), None), at(1060)).quiet, quiet(1000, 1060));
        assert_eq!(observer.note(evidence(Some(1), None), at(1120)).quiet, None);
        assert_eq!(observer.note(evidence(Some(0), None), at(1180)).quiet, quiet(1180, 1180));
        // Once unanswered is no proof of the contrary, and none of the quiet either.
        assert_eq!(observer.note(evidence(None, Some("timed out")), at(1240)).quiet, quiet(1180, 1180));
        assert_eq!(observer.note(Err("no CA".into()), at(1300)).quiet, quiet(1180, 1180));
        assert_eq!(observer.note(evidence(Some(0), None), at(1360)).quiet, quiet(1180, 1360));
        assert_eq!(observer.note(evidence(None, None), at(1360 + 241)).quiet, None);
    }

    #[test]
    fn a_short_restart_goes_on_and_a_long_one_begins_anew() {
        let at = Moment::at;
        let before = Some(Quiet { since: at(1000), until: at(2000) });
        assert_eq!(observer(before).note(evidence(Some(0), None), at(2200)).quiet.unwrap().since, at(1000));
        assert_eq!(observer(before).note(evidence(Some(0), None), at(2300)).quiet.unwrap().since, at(2300));
    }

    #[test]
    fn a_node_that_times_out_again_after_another_time_is_no_news() {
        let observer = observer(None);
        let state = |problem| observer.note(evidence(None, Some(problem)), Moment::at(1)).state();
        assert_eq!(state("timed out after 5000ms"), state("timed out after 5001ms"));
        let answers = observer.note(evidence(None, None), Moment::at(1)).state();
        assert_ne!(state("timed out after 5000ms"), answers);
        assert_ne!(answers, observer.note(evidence(Some(0), None), Moment::at(1)).state());
    }

    #[test]
    fn what_is_not_known_is_no_zero() {
        let observer = observer(None);
        let at = Moment::at;
        assert_eq!(observer.note(evidence(None, None), at(1)).plaintext_clients(), None);
        assert_eq!(observer.note(evidence(Some(0), Some("closed")), at(1)).plaintext_clients(), None);
        assert_eq!(observer.note(Err("no CA".into()), at(1)).plaintext_clients(), None);
        assert_eq!(observer.note(evidence(Some(3), None), at(1)).plaintext_clients(), Some(3));
    }
}
