//! Watches a group's servers. It surveys all nodes at long intervals. Between two surveys it asks them every second or faster how many
//! clients they have in plaintext, so that it sees every client that stays for a second.

use std::collections::BTreeSet;
use std::iter;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::arrivals::Arrivals;
use super::evidence::{Asking, Evidence, NEW_NODE, NodeEvidence};
use super::info::Info;
use super::members::Members;
use super::node::{PLAINTEXT_CLIENTS, Roster, ask_roster, plaintext_clients};
use super::plaintext::{self, PlaintextAccess};
use super::quiet::{Look, QuietTime};
use super::servers::{NetworkServers, Servers};
use super::survey::{FoundNode, survey};
use crate::endpoint::Endpoint;
use crate::metrics::RouteMetrics;
use crate::moment::{Moment, Quiet};
use crate::resp::replies::Answer;
use crate::state::ServersMemory;

/// After this many intervals without an answer, the past is unknown.
const MISSED: u32 = 3;

/// Added to the patience, because a restart takes time.
const RESTART: Duration = Duration::from_secs(60);

/// A node that no source names and that does not answer is gone after this many surveys.
const GONE_AFTER: u32 = 10;

/// Longest time until the next survey once a node does not answer.
const UNSURE_INTERVAL: Duration = Duration::from_secs(10);

/// Length of a round of samples while a survey is running.
const SAMPLING_ROUND: Duration = Duration::from_secs(3600);

/// Shortest time between two surveys, unless a shorter interval is configured.
const SURVEY_GAP: Duration = Duration::from_secs(2);

/// The time between two samples counts as watched up to this many sampling intervals, plus [`BUSY`] for a busy machine.
const WATCHED_SAMPLES: u32 = 3;
const BUSY: Duration = Duration::from_secs(1);

/// Shortest time that a node gets to answer a sample.
const MIN_SAMPLE_LIMIT: Duration = Duration::from_millis(500);

/// How often the servers are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Time between two surveys.
    pub interval: Duration,
    /// Time between two samples.
    pub sampling: Duration,
}

impl Pace {
    /// Default of `evidence.sampling`: short enough to see a client that stays for a second.
    pub const SAMPLING: Duration = Duration::from_millis(800);

    /// How old an observation may be before it counts as unknown.
    fn patience(self) -> Duration {
        self.interval.saturating_mul(MISSED).saturating_add(RESTART)
    }
}

/// Watches the servers of one route.
pub struct Observer {
    asking: Asking,
    pace: Pace,
    seen: Mutex<Observation>,
    quiet: Mutex<QuietTime>,
    members: Mutex<Members>,
    arrivals: Mutex<Arrivals>,
    has_ended_quiet: AtomicBool,
}

/// What the servers reported.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// When they were asked last.
    pub asked: Option<Moment>,
    /// How long ago that is, by the monotonic clock.
    pub age: Duration,
    pub(super) asked_at: Option<Instant>,
    /// Time between two samples, where nodes count clients in plaintext.
    pub sampling: Duration,
    /// Their last replies; `None` if none could be asked.
    pub evidence: Option<Arc<Evidence>>,
    /// For how long no server has counted a client in plaintext.
    pub quiet: Option<Quiet>,
    /// Why no server could be asked.
    pub problem: Option<String>,
    /// For how long every server has refused plaintext.
    pub refused_for: Duration,
    /// How long that must last before TLS counts as already required, because a node that is away may return.
    pub refused_enough: Duration,
    pub(super) refused_since: Option<Instant>,
}

impl Observation {
    /// Returns the number of clients in plaintext over all servers; `None` if it is not known.
    pub fn plaintext_clients(&self) -> Option<u64> {
        let evidence = self.evidence.as_ref()?;
        evidence.nodes.iter().map(|node| node.plaintext_clients.filter(|_| node.problem.is_none())).sum()
    }

    /// Returns the evidence of each node.
    pub fn nodes(&self) -> &[NodeEvidence] {
        self.evidence.as_ref().map_or(&[], |evidence| &evidence.nodes)
    }

    /// Whether every server refuses plaintext, so that TLS is already required.
    pub fn requires_tls(&self) -> bool {
        let refuses =
            |node: &NodeEvidence| node.problem.is_none() && node.plaintext == Some(PlaintextAccess::Refused);
        !self.nodes().is_empty() && self.nodes().iter().all(refuses)
    }

    /// Whether a node has joined since the last survey.
    fn has_new_node(&self) -> bool {
        self.nodes().iter().any(|node| node.endpoint == NEW_NODE)
    }

    fn counts_plaintext(&self, node: &str) -> bool {
        self.nodes().iter().any(|known| known.endpoint == node && known.plaintext_clients.is_some())
    }

    fn look(&self) -> Look {
        let nodes = self.nodes();
        if nodes.iter().any(|node| node.plaintext_clients.is_some_and(|count| count > 0)) {
            Look::Plaintext
        } else if self.evidence.as_ref().is_some_and(|evidence| evidence.is_clean()) {
            Look::NoPlaintext
        } else if nodes.iter().any(|node| node.problem.is_none()) {
            Look::Unknown
        } else {
            Look::Silence
        }
    }

    /// Returns what a change is logged for: the count, whether TLS is already required, and which nodes could not be asked. The last is
    /// `None` if no node could be asked.
    fn state(&self) -> (Option<u64>, bool, Option<Vec<String>>) {
        let failed = self.evidence.as_ref().map(|evidence| {
            let failed = evidence.nodes.iter().filter(|node| node.problem.is_some());
            failed.map(|node| node.endpoint.clone()).collect()
        });
        (self.plaintext_clients(), self.requires_tls(), failed)
    }
}

impl Observer {
    /// `before` is what an earlier run saw.
    pub fn new(asking: Asking, pace: Pace, before: &ServersMemory) -> Self {
        let watched = pace.sampling.saturating_mul(WATCHED_SAMPLES).saturating_add(BUSY);
        let quiet = QuietTime::new(before.quiet, watched, pace.patience(), Moment::now());
        let gone_after = pace.interval.saturating_mul(GONE_AFTER);
        let seen = Observation {
            quiet: quiet.quiet(),
            sampling: pace.sampling,
            refused_enough: gone_after,
            ..Observation::default()
        };
        let nodes = before.nodes.iter();
        let nodes = nodes
            .filter_map(|node| Some((node.parse().ok()?, before.processes.get(node).cloned())))
            .collect();
        let members = Members::new(gone_after, nodes);
        let (seen, quiet, members) = (Mutex::new(seen), Mutex::new(quiet), Mutex::new(members));
        let (arrivals, has_ended_quiet) = (Mutex::default(), AtomicBool::new(false));
        Self { asking, pace, seen, quiet, members, arrivals, has_ended_quiet }
    }

    /// Returns the last observation.
    pub fn seen(&self) -> Observation {
        let mut seen = self.seen.lock().clone();
        seen.age = seen.asked_at.map(|at| at.elapsed()).unwrap_or_default();
        seen.refused_for = seen.refused_since.map(|since| since.elapsed()).unwrap_or_default();
        seen
    }

    /// Returns what a later observer of the same servers needs to know.
    pub fn memory(&self) -> ServersMemory {
        let members = self.members.lock().list();
        let nodes = members.iter().map(|(endpoint, _)| endpoint.to_string()).collect();
        let process = |(endpoint, run_id): (Endpoint, Option<String>)| Some((endpoint.to_string(), run_id?));
        let processes = members.into_iter().filter_map(process).collect();
        ServersMemory { quiet: self.quiet.lock().quiet(), nodes, processes }
    }

    /// Whether a client in plaintext has ended a quiet time since the last call.
    pub fn has_ended_quiet(&self) -> bool {
        self.has_ended_quiet.swap(false, Ordering::Relaxed)
    }

    /// Returns how old an observation may be before it counts as unknown.
    pub fn patience(&self) -> Duration {
        self.pace.patience()
    }

    /// Asks until it is dropped, beginning with the servers that `start` returns. `dialled` returns the number of connections that the
    /// bridge has opened to the servers so far.
    pub async fn run(
        &self,
        route: &str,
        metrics: &RouteMetrics,
        start: impl Fn() -> Vec<Endpoint>,
        dialled: impl Fn() -> u64,
    ) {
        metrics.evidence_begins(self.pace.interval);
        let mut logged = None;
        let mut tell = |seen: &Observation| {
            metrics.server_plaintext_clients(seen.plaintext_clients(), Moment::now().unix());
            // Compare states and not texts, because texts may contain times that differ each time.
            let state = seen.state();
            if logged.as_ref() != Some(&state) {
                log(route, seen);
                logged = Some(state);
            }
        };
        let Asking { settings, credentials, .. } = &self.asking;
        // Read the files again each time, because they may change.
        let reach =
            || NetworkServers::load(settings, credentials.as_ref()).map_err(|error| error.to_string());
        self.watch(reach, start, dialled, &mut tell).await;
    }

    /// Surveys all nodes at intervals, and between surveys samples those that count clients in plaintext.
    pub(super) async fn watch<S: Servers>(
        &self,
        reach: impl Fn() -> Result<S, String>,
        start: impl Fn() -> Vec<Endpoint>,
        dialled: impl Fn() -> u64,
        tell: &mut impl FnMut(&Observation),
    ) {
        let mut nodes = Vec::new();
        let mut next = Instant::now();
        loop {
            let began = Instant::now();
            let mut due = began + jittered(self.pace.interval);
            match reach() {
                Ok(servers) => {
                    let configured = start();
                    if configured.is_empty() {
                        tell(&self.note(Err("the sentinels have not named the servers yet".into())));
                        due = due.min(began + UNSURE_INTERVAL);
                    } else {
                        let servers = Arc::new(servers);
                        self.survey(servers, &configured, &dialled, &mut nodes, &mut next, tell).await;
                    }
                }
                Err(problem) => tell(&self.note(Err(problem))),
            }
            let surveyed = self.seen.lock().plaintext_clients();
            loop {
                let (count, has_new_node) = {
                    let seen = self.seen.lock();
                    (seen.plaintext_clients(), seen.has_new_node())
                };
                if has_new_node {
                    due = due.min(began + SURVEY_GAP);
                } else if surveyed == Some(0) && count != Some(0) {
                    // The next survey finds out which client that is, or what became of the node that does not answer.
                    due = due.min(began + if count.is_some() { SURVEY_GAP } else { UNSURE_INTERVAL });
                }
                if Instant::now() >= due {
                    break;
                }
                self.sample(&mut nodes, &mut next, due, tell).await;
            }
        }
    }

    /// Surveys all nodes, and meanwhile samples those of the last survey, so that a silent node delays no other.
    async fn survey<S: Servers>(
        &self,
        servers: Arc<S>,
        configured: &[Endpoint],
        dialled: &impl Fn() -> u64,
        nodes: &mut Vec<SampledNode<S>>,
        next: &mut Instant,
        tell: &mut impl FnMut(&Observation),
    ) {
        let Asking { clients, all_must_exist, bridges, .. } = &self.asking;
        let remembered = self.members.lock().list();
        let survey = async {
            let mut round = survey(&*servers, configured, remembered, *clients, *all_must_exist).await;
            plaintext::look(&*servers, &mut round).await;
            round
        };
        let mut survey = pin!(survey);
        let mut round = loop {
            tokio::select! {
                biased;
                round = &mut survey => break round,
                () = self.sample(nodes, next, Instant::now() + SAMPLING_ROUND, tell) => {}
            }
        };
        // A sample may have been cancelled in flight.
        *next = Instant::now();
        let unwatched = self.members.lock().learn(&mut round, Instant::now());
        self.quiet.lock().note_unwatched(unwatched, Instant::now());
        let unseen = self.arrivals.lock().unseen(&round, dialled(), bridges, Instant::now());
        self.quiet.lock().note_unseen(unseen);
        let seen = self.note(Ok(Evidence::of(&round, bridges)));
        tell(&seen);
        // A node whose engine has no such count is not sampled.
        let known: BTreeSet<String> = round.nodes.iter().flat_map(|node| node.names.clone()).collect();
        let counting = round.nodes.into_iter().filter(|node| seen.counts_plaintext(&node.shown));
        *nodes = counting.filter_map(|node| SampledNode::new(node, &servers, &known)).collect();
    }

    /// Waits for the `next` sample, and asks each node for its number of clients in plaintext. Returns at `due` at the latest.
    async fn sample<S: Servers>(
        &self,
        nodes: &mut Vec<SampledNode<S>>,
        next: &mut Instant,
        due: Instant,
        tell: &mut impl FnMut(&Observation),
    ) {
        sleep_until((*next).min(due)).await;
        if due <= *next {
            return;
        }
        *next = Instant::now() + jittered(self.pace.sampling);
        if nodes.is_empty() {
            return;
        }
        // End before the next sample, so that a silent node delays no other.
        let limit = self.pace.sampling.mul_f64(0.9).max(MIN_SAMPLE_LIMIT);
        let mut silent = BTreeSet::new();
        let mut counts = Vec::new();
        let mut asked: FuturesUnordered<_> = nodes.iter_mut().map(|node| node.sample(limit)).collect();
        while let Some((shown, sample)) = asked.next().await {
            if sample.as_ref().is_ok_and(|sample| *sample == SampleReply::default()) {
                counts.push((shown, sample));
                continue;
            }
            // Publish what speaks against yes immediately.
            if sample.is_err() {
                silent.insert(shown.clone());
            }
            tell(&self.note_samples(vec![(shown, sample)]));
        }
        drop(asked);
        tell(&self.note_samples(counts));
        nodes.retain(|node| !silent.contains(&node.shown));
    }

    fn note(&self, result: Result<Evidence, String>) -> Observation {
        let mut seen = self.seen.lock();
        match result {
            Ok(evidence) => (seen.evidence, seen.problem) = (Some(Arc::new(evidence)), None),
            Err(problem) => (seen.evidence, seen.problem) = (None, Some(problem)),
        }
        self.count(&mut seen)
    }

    fn note_samples(&self, samples: Vec<(String, Result<SampleReply, String>)>) -> Observation {
        let mut seen = self.seen.lock();
        if let Some(evidence) = &mut seen.evidence {
            let evidence = Arc::make_mut(evidence);
            for (shown, sample) in samples {
                let known = evidence.nodes.iter_mut().find(|node| node.endpoint == shown);
                match (known, sample) {
                    (Some(node), Ok(sample)) => {
                        node.plaintext_clients = Some(sample.plaintext_clients);
                        if sample.has_new_node {
                            evidence.note_new_node(&shown);
                        }
                    }
                    (Some(node), Err(problem)) => node.problem = Some(problem),
                    (None, _) => {}
                }
            }
        }
        self.count(&mut seen)
    }

    fn count(&self, seen: &mut Observation) -> Observation {
        (seen.asked, seen.asked_at) = (Some(Moment::now()), Some(Instant::now()));
        seen.refused_since = seen.requires_tls().then(|| seen.refused_since.unwrap_or_else(Instant::now));
        let mut quiet = self.quiet.lock();
        quiet.note(seen.look(), Instant::now(), Moment::now());
        if seen.quiet.is_some() && quiet.quiet().is_none() {
            self.has_ended_quiet.store(true, Ordering::Relaxed);
        }
        seen.quiet = quiet.quiet();
        seen.clone()
    }
}

/// A node that is asked between two surveys.
struct SampledNode<S: Servers> {
    /// Its name in the last survey.
    shown: String,
    /// The section of `INFO` that contains the count; `None` to search all sections.
    section: Option<String>,
    is_clustered: bool,
    /// The nodes that it knows; `None` if it does not report them.
    roster: Option<Roster>,
    servers: Arc<S>,
    connection: S::Connection,
}

/// A node's reply to a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct SampleReply {
    plaintext_clients: u64,
    /// It names a node that is not known.
    has_new_node: bool,
}

impl<S: Servers> SampledNode<S> {
    /// `known` holds the names of all nodes.
    fn new(node: FoundNode<S::Connection>, servers: &Arc<S>, known: &BTreeSet<String>) -> Option<Self> {
        let (shown, connection, replies) = (node.shown, node.connection?, node.replies.ok()?);
        let replies = replies.into_iter().next()?;
        let is_clustered = replies.is_clustered();
        // Ask for one section, to keep the reply short: a server may be far away.
        let section = Info(&replies.info).section_of(PLAINTEXT_CLIENTS).map(str::to_ascii_lowercase);
        let roster = replies.roster.map(|roster| match roster {
            // A known node that it does not name now is not new when it names it again.
            Roster::Names(names) => Roster::Names(names.union(known).cloned().collect()),
            Roster::Count(count) => Roster::Count(count),
        });
        Some(Self { shown, section, is_clustered, roster, servers: Arc::clone(servers), connection })
    }

    /// Returns the node's name and its reply.
    async fn sample(&mut self, limit: Duration) -> (String, Result<SampleReply, String>) {
        let late = |_| Err(format!("no answer within {}", humantime::format_duration(limit)));
        (self.shown.clone(), timeout(limit, self.ask()).await.unwrap_or_else(late))
    }

    async fn ask(&mut self) -> Result<SampleReply, String> {
        let plaintext_clients = self.find_count().await?;
        let has_new_node = self.names_a_new_node().await?;
        Ok(SampleReply { plaintext_clients, has_new_node })
    }

    async fn names_a_new_node(&mut self) -> Result<bool, String> {
        let Some(known) = &mut self.roster else { return Ok(false) };
        let Some(now) = ask_roster(&*self.servers, &mut self.connection, self.is_clustered).await? else {
            return Ok(false);
        };
        if now.is_wider_than(known) {
            return Ok(true);
        }
        // After a node has left, the next one that joins is noticed.
        if let Roster::Count(_) = now {
            *known = now;
        }
        Ok(false)
    }

    async fn find_count(&mut self) -> Result<u64, String> {
        loop {
            let command: Vec<&str> = iter::once("INFO").chain(self.section.as_deref()).collect();
            match self.servers.ask(&mut self.connection, &command).await? {
                Answer::Text(text) => {
                    if let Some(count) = plaintext_clients(Info(&text)) {
                        return Ok(count);
                    }
                }
                Answer::Error(words) => return Err(format!("INFO failed: {words}")),
                _ => return Err("unexpected reply type to INFO".into()),
            }
            if self.section.take().is_none() {
                return Err("it no longer counts its clients in plaintext".into());
            }
        }
    }
}

/// Spreads the questions of sidecars that started at the same time.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + fastrand::f64() / 5.0)
}

fn log(route: &str, seen: &Observation) {
    let Some(evidence) = &seen.evidence else {
        let problem = seen.problem.as_deref().unwrap_or("not asked yet");
        warn!(route, problem, "plaintext clients of the servers cannot be counted");
        return;
    };
    let failed = evidence.nodes.iter().find_map(|node| Some((&node.endpoint, node.problem.as_deref()?)));
    if let Some((server, problem)) = failed {
        warn!(route, %server, problem, "plaintext clients of the server cannot be counted");
        return;
    }
    let servers = evidence.nodes.len();
    match seen.plaintext_clients() {
        None if seen.requires_tls() => {
            info!(route, servers, "TLS already required: servers refuse plaintext");
        }
        None => warn!(
            route,
            servers, "servers do not count clients in plaintext: engine lacks tls_mode_connected_tcp_clients"
        ),
        Some(0) => info!(route, servers, "no clients in plaintext"),
        Some(clients) => warn!(route, clients, servers, "servers count clients in plaintext"),
    }
}
