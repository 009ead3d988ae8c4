//! Watches a group's servers: surveys all nodes now and then, and asks between two surveys every second or faster how many clients they
//! have in plaintext, so that a client is seen that stays for a second.

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
use crate::upstream::Latch;

/// After a longer silence than this many intervals nobody knows what happened in it.
const MISSED: u32 = 3;

/// And a restart takes its time.
const RESTART: Duration = Duration::from_secs(60);

/// A node that no source names and that does not answer is gone after so many surveys.
const GONE_AFTER: u32 = 10;

/// Once a node does not answer, the next survey is not later than this.
const UNSURE_INTERVAL: Duration = Duration::from_secs(10);

/// While a survey goes on, samples are waited for in rounds of this length.
const SAMPLING_ROUND: Duration = Duration::from_secs(3600);

/// Surveys do not follow one another faster than this, unless so configured.
const SURVEY_GAP: Duration = Duration::from_secs(2);

/// Time between two samples counts as watched up to so many intervals of sampling, and a moment for a busy machine.
const WATCHED_SAMPLES: u32 = 3;
const BUSY: Duration = Duration::from_secs(1);

/// A node gets so long to answer, at least.
const MIN_SAMPLE_LIMIT: Duration = Duration::from_millis(500);

/// How often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between two surveys.
    pub interval: Duration,
    /// Between two samples.
    pub sampling: Duration,
}

impl Pace {
    /// `evidence.sampling` where it is not configured: a client that stays for a second is seen.
    pub const SAMPLING: Duration = Duration::from_millis(800);

    /// What is older than this is not known any more.
    fn patience(self) -> Duration {
        self.interval.saturating_mul(MISSED).saturating_add(RESTART)
    }
}

/// Of one route.
pub struct Observer {
    asking: Asking,
    pace: Pace,
    seen: Mutex<Observation>,
    quiet: Mutex<QuietTime>,
    members: Mutex<Members>,
    arrivals: Mutex<Arrivals>,
    has_ended_quiet: AtomicBool,
}

/// What the servers said.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// When they were asked last.
    pub asked: Option<Moment>,
    /// How long ago that is, by a clock that nobody sets.
    pub age: Duration,
    pub(super) asked_at: Option<Instant>,
    /// Between two questions, where nodes count clients in plaintext.
    pub sampling: Duration,
    /// What they said then; `None`: none could be asked.
    pub evidence: Option<Arc<Evidence>>,
    /// For how long none of them has counted a client in plaintext.
    pub quiet: Option<Quiet>,
    /// Why none could be asked.
    pub problem: Option<String>,
    /// For how long every server has refused plaintext.
    pub refused_for: Duration,
    /// For how long all must have before TLS is said to be required already: a node that is away may return.
    pub refused_enough: Duration,
    pub(super) refused_since: Option<Instant>,
}

impl Observation {
    /// All servers' count of clients in plaintext; `None`: not known.
    pub fn plaintext_clients(&self) -> Option<u64> {
        let evidence = self.evidence.as_ref()?;
        evidence.nodes.iter().map(|node| node.plaintext_clients.filter(|_| node.problem.is_none())).sum()
    }

    /// What each node said.
    pub fn nodes(&self) -> &[NodeEvidence] {
        self.evidence.as_ref().map_or(&[], |evidence| &evidence.nodes)
    }

    /// Every server refuses plaintext: TLS is required already.
    pub fn requires_tls(&self) -> bool {
        let refuses =
            |node: &NodeEvidence| node.problem.is_none() && node.plaintext == Some(PlaintextAccess::Refused);
        !self.nodes().is_empty() && self.nodes().iter().all(refuses)
    }

    /// A node has come since the last survey.
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

    /// What is worth a line in the log where it changes: the count, whether TLS is required already, and who could not be asked; `None`:
    /// nobody could.
    fn state(&self) -> (Option<u64>, bool, Option<Vec<String>>) {
        let failed = self.evidence.as_ref().map(|evidence| {
            let failed = evidence.nodes.iter().filter(|node| node.problem.is_some());
            failed.map(|node| node.endpoint.clone()).collect()
        });
        (self.plaintext_clients(), self.requires_tls(), failed)
    }
}

impl Observer {
    /// `before`: what an earlier run saw.
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

    /// What was seen last.
    pub fn seen(&self) -> Observation {
        let mut seen = self.seen.lock().clone();
        seen.age = seen.asked_at.map(|at| at.elapsed()).unwrap_or_default();
        seen.refused_for = seen.refused_since.map(|since| since.elapsed()).unwrap_or_default();
        seen
    }

    /// What a later observer of the same servers is to know.
    pub fn memory(&self) -> ServersMemory {
        let members = self.members.lock().list();
        let nodes = members.iter().map(|(endpoint, _)| endpoint.to_string()).collect();
        let process = |(endpoint, run_id): (Endpoint, Option<String>)| Some((endpoint.to_string(), run_id?));
        let processes = members.into_iter().filter_map(process).collect();
        ServersMemory { quiet: self.quiet.lock().quiet(), nodes, processes }
    }

    /// Whether a client in plaintext has ended a quiet time since this was asked last.
    pub fn has_ended_quiet(&self) -> bool {
        self.has_ended_quiet.swap(false, Ordering::Relaxed)
    }

    /// What is older than this is not known any more.
    pub fn patience(&self) -> Duration {
        self.pace.patience()
    }

    /// Asks until it is dropped. `latch`: nobody is asked before it is set, for it is asked over TLS. `dialled`:
    /// connections that the bridge has opened to the servers so far.
    pub async fn run(
        &self,
        route: &str,
        latch: Option<&Latch>,
        metrics: &RouteMetrics,
        dialled: impl Fn() -> u64,
    ) {
        if let Some(latch) = latch {
            latch.wait().await;
        }
        metrics.evidence_begins(self.pace.interval);
        let mut told = None;
        let mut tell = |seen: &Observation| {
            metrics.server_plaintext_clients(seen.plaintext_clients(), Moment::now().unix());
            // Not the words: those with times in them are never the same twice.
            let state = seen.state();
            if told.as_ref() != Some(&state) {
                let words = describe(seen);
                if seen.plaintext_clients() == Some(0) || seen.requires_tls() {
                    info!(route, "{words}");
                } else {
                    warn!(route, "{words}");
                }
                told = Some(state);
            }
        };
        let Asking { settings, credentials, .. } = &self.asking;
        // Files are read anew each time.
        let reach =
            || NetworkServers::load(settings, credentials.as_ref()).map_err(|error| error.to_string());
        self.watch(reach, dialled, &mut tell).await;
    }

    /// Surveys all nodes now and then, and samples those that count clients in plaintext all the while.
    pub(super) async fn watch<S: Servers>(
        &self,
        reach: impl Fn() -> Result<S, String>,
        dialled: impl Fn() -> u64,
        tell: &mut impl FnMut(&Observation),
    ) {
        let mut nodes = Vec::new();
        let mut next = Instant::now();
        loop {
            let began = Instant::now();
            let mut due = began + jittered(self.pace.interval);
            match reach() {
                Ok(servers) => self.survey(Arc::new(servers), &dialled, &mut nodes, &mut next, tell).await,
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
                    // Who that is, the next survey tells, and what became of a node that does not answer.
                    due = due.min(began + if count.is_some() { SURVEY_GAP } else { UNSURE_INTERVAL });
                }
                if Instant::now() >= due {
                    break;
                }
                self.sample(&mut nodes, &mut next, due, tell).await;
            }
        }
    }

    /// Surveys all nodes, and samples those of the last survey meanwhile: a node that does not answer holds up no other.
    async fn survey<S: Servers>(
        &self,
        servers: Arc<S>,
        dialled: &impl Fn() -> u64,
        nodes: &mut Vec<SampledNode<S>>,
        next: &mut Instant,
        tell: &mut impl FnMut(&Observation),
    ) {
        let Asking { settings, clients, all_must_exist, bridges, .. } = &self.asking;
        let remembered = self.members.lock().list();
        let survey = async {
            let mut round =
                survey(&*servers, &settings.endpoints, remembered, *clients, *all_must_exist).await;
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
        // A sample may have been in flight.
        *next = Instant::now();
        let unwatched = self.members.lock().learn(&mut round, Instant::now());
        self.quiet.lock().note_unwatched(unwatched, Instant::now());
        let unseen = self.arrivals.lock().unseen(&round, dialled(), bridges, Instant::now());
        self.quiet.lock().note_unseen(unseen);
        let seen = self.note(Ok(Evidence::of(&round, bridges)));
        tell(&seen);
        // An engine that does not count them is not asked again and again.
        let known: BTreeSet<String> = round.nodes.iter().flat_map(|node| node.names.clone()).collect();
        let counting = round.nodes.into_iter().filter(|node| seen.counts_plaintext(&node.shown));
        *nodes = counting.filter_map(|node| SampledNode::new(node, &servers, &known)).collect();
    }

    /// Waits for the time of the `next` sample, and asks each node how many clients in plaintext it has. `due`: it waits no longer.
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
        // Before the next sample: a node that does not answer holds up no other.
        let limit = self.pace.sampling.mul_f64(0.9).max(MIN_SAMPLE_LIMIT);
        let mut silent = BTreeSet::new();
        let mut counts = Vec::new();
        let mut asked: FuturesUnordered<_> = nodes.iter_mut().map(|node| node.sample(limit)).collect();
        while let Some((shown, sample)) = asked.next().await {
            if sample.as_ref().is_ok_and(|sample| *sample == SampleReply::default()) {
                counts.push((shown, sample));
                continue;
            }
            // What speaks against yes does so at once.
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
    /// As the last survey names it.
    shown: String,
    /// Which section of `INFO` has the count; `None`: it is looked for in all of them.
    section: Option<String>,
    is_clustered: bool,
    /// Which nodes are known; `None`: it does not tell which it knows.
    roster: Option<Roster>,
    servers: Arc<S>,
    connection: S::Connection,
}

/// What a node said between two surveys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct SampleReply {
    plaintext_clients: u64,
    /// It names a node that is not known.
    has_new_node: bool,
}

impl<S: Servers> SampledNode<S> {
    /// `known`: the names of all nodes.
    fn new(node: FoundNode<S::Connection>, servers: &Arc<S>, known: &BTreeSet<String>) -> Option<Self> {
        let (shown, connection, replies) = (node.shown, node.connection?, node.replies.ok()?);
        let replies = replies.into_iter().next()?;
        let is_clustered = replies.is_clustered();
        // One short question for each sample: a server may be far away.
        let section = Info(&replies.info).section_of(PLAINTEXT_CLIENTS).map(str::to_ascii_lowercase);
        let roster = replies.roster.map(|roster| match roster {
            // Those that it does not name now are no news when it names them again.
            Roster::Names(names) => Roster::Names(names.union(known).cloned().collect()),
            Roster::Count(count) => Roster::Count(count),
        });
        Some(Self { shown, section, is_clustered, roster, servers: Arc::clone(servers), connection })
    }

    /// What to call it, and what it says now.
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
        // Where one is gone, the next one to come is news.
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
                Answer::Error(words) => return Err(format!("INFO was answered \"{words}\"")),
                _ => return Err("an answer of another type to INFO".into()),
            }
            if self.section.take().is_none() {
                return Err("it does not count its clients in plaintext any more".into());
            }
        }
    }
}

/// Many sidecars, started together, do not ask together for ever.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + fastrand::f64() / 5.0)
}

fn describe(seen: &Observation) -> String {
    let Some(evidence) = &seen.evidence else {
        return format!("the servers cannot be asked: {}", seen.problem.as_deref().unwrap_or("not yet"));
    };
    if let Some(node) = evidence.nodes.iter().find(|node| node.problem.is_some()) {
        return format!("{} cannot be asked: {}", node.endpoint, node.problem.as_deref().unwrap_or_default());
    }
    match seen.plaintext_clients() {
        None if seen.requires_tls() => "TLS is already required: the servers refuse plaintext".into(),
        None => "the servers do not count their clients in plaintext: this engine has no \
                 tls_mode_connected_tcp_clients"
            .into(),
        Some(0) => format!("no client is in plaintext, count {} servers", evidence.nodes.len()),
        Some(count) => format!("the servers count clients in plaintext: {count}"),
    }
}
