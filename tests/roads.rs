//! Random migrations of a real group to TLS. Each node is one port for plaintext and TLS, as ElastiCache has it in `preferred` mode, and
//! counts its clients in plaintext itself, so that it can check the verdict. `ROADS=50` runs 50 of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Authority, CountingNode, Pontoon, Wire, eventually};

const QUIET_FOR: Duration = Duration::from_secs(1);
const LENGTH: Duration = Duration::from_secs(12);
const STEP: Duration = Duration::from_millis(50);

/// Time after which a node that answers, or a bridge that started, counts as watched.
const FOUND: Duration = Duration::from_secs(2);

/// Time after which a node that joins is known.
const MET: Duration = Duration::from_secs(2);

/// Added to the longest gap that a yes reports: a plaintext client that stays longer is always seen.
const TOLERANCE: Duration = Duration::from_millis(300);

const MOST_NODES: usize = 4;
const ROADS_AT_ONCE: u64 = 4;

struct Member {
    node: CountingNode,
    /// When the group first named it; `None` if it has not yet.
    named: Option<Instant>,
    /// When pontoon last began to get answers, or to get none.
    changed: Instant,
}

/// A client in plaintext.
struct Job {
    at: usize,
    client: Option<Wire>,
    began: Instant,
    stay: Duration,
    ended: Option<Instant>,
    /// Whether the bridge and the node were up all the time.
    watched: bool,
}

struct Road {
    authority: Authority,
    is_cluster: bool,
    members: Vec<Member>,
    jobs: Vec<Job>,
    pontoon: Option<Pontoon>,
    /// When the bridge started.
    born: Instant,
    state: TempDir,
    random: Rng,
    yes: u64,
}

impl Road {
    fn begin(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let authority = Authority::new();
        let mut road = Self {
            authority,
            is_cluster: random.bool(),
            members: Vec::new(),
            jobs: Vec::new(),
            pontoon: None,
            born: Instant::now(),
            state: tempfile::tempdir().unwrap(),
            random,
            yes: 0,
        };
        for _ in 0..road.random.usize(1..=3) {
            road.add();
            road.join(road.members.len() - 1);
        }
        eventually("the group is complete", || {
            road.note_named();
            road.members.iter().all(|member| member.named.is_some())
        });
        road.start();
        road
    }

    /// Starts a server that belongs to no group yet.
    fn add(&mut self) {
        let options: &[&str] = if self.is_cluster {
            &["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]
        } else {
            &["--repl-diskless-sync-delay", "0"]
        };
        let node = CountingNode::start(&self.authority, options);
        self.members.push(Member { node, named: None, changed: Instant::now() });
    }

    fn join(&self, at: usize) {
        let Some(first) = self.members.first().filter(|_| at > 0).map(|member| &member.node) else { return };
        let (host, port) = ("127.0.0.1", first.address().port().to_string());
        let mut direct = self.members[at].node.direct();
        if self.is_cluster {
            direct.expect(&["CLUSTER", "MEET", host, &port, &first.bus().to_string()], "+OK\r\n");
        } else {
            direct.expect(&["REPLICAOF", host, &port], "+OK\r\n");
        }
    }

    /// Records which members the first node names.
    fn note_named(&mut self) {
        let command: &[&str] = if self.is_cluster { &["CLUSTER", "NODES"] } else { &["INFO", "replication"] };
        let said = String::from_utf8(self.members[0].node.direct().ask(command)).unwrap();
        for (at, member) in self.members.iter_mut().enumerate() {
            let port = member.node.address().port();
            let is_named =
                at == 0 || said.contains(&format!(":{port}@")) || said.contains(&format!("port={port},"));
            if is_named && !said.contains("handshake") {
                member.named.get_or_insert_with(Instant::now);
            }
        }
    }

    fn start(&mut self) {
        let upstream = format!("localhost:{}", self.members[0].node.address().port());
        let state = self.state.path().join("state.json");
        let args = [
            ["--evidence-interval", "500ms"],
            ["--evidence-sampling", "100ms"],
            ["--verdict-quiet-for", "1s"],
            ["--connect-timeout", "1s"],
            ["--state-file", state.to_str().unwrap()],
        ];
        let pontoon = Pontoon::with(&upstream, &self.authority, args.as_flattened());
        // Whatever pontoon says about the servers.
        pontoon.allows("");
        (self.pontoon, self.born) = (Some(pontoon), Instant::now());
    }

    /// The events of a step: mostly none.
    fn happens(&mut self, is_over: bool) {
        let now = Instant::now();
        for job in self.jobs.iter_mut().filter(|job| job.ended.is_none() && job.began + job.stay <= now) {
            (job.ended, job.client) = (Some(now), None);
        }
        let at = self.random.usize(..self.members.len());
        let is_other = at > 0;
        match self.random.u32(..if is_over { 1000 } else { 100 }) {
            0..=5 if self.members[at].node.lives() => self.begin_job(at),
            6 | 7 => self.set_answers(at, false),
            8..=11 => {
                for at in 0..self.members.len() {
                    if !self.members[at].node.lives() {
                        self.members[at].node.begin();
                        self.members[at].changed = Instant::now();
                    }
                    self.set_answers(at, true);
                }
            }
            12 if is_other => {
                let ended = Some(Instant::now());
                for job in self.jobs.iter_mut().filter(|job| job.at == at && job.ended.is_none()) {
                    (job.ended, job.client, job.watched) = (ended, None, false);
                }
                self.members[at].node.crash();
                self.members[at].changed = now;
            }
            13 => self.restart(),
            14 if is_other && !self.is_cluster && self.members[at].node.lives() => {
                // Its primary loses it, and it goes on serving.
                self.members[at].node.direct().expect(&["REPLICAOF", "NO", "ONE"], "+OK\r\n");
            }
            15 if self.members.len() < MOST_NODES => {
                self.add();
                let at = self.members.len() - 1;
                self.begin_job(at);
                self.join(at);
            }
            _ => {}
        }
        self.note_named();
    }

    fn begin_job(&mut self, at: usize) {
        let member = &self.members[at];
        let mut client = Wire::tcp(member.node.address());
        client.expect(&["CLIENT", "SETNAME", "job"], "+OK\r\n");
        let began = Instant::now();
        let watched = [Some(member.changed), Some(self.born), member.named]
            .iter()
            .all(|since| since.is_some_and(|since| since + FOUND <= began));
        let stay = Duration::from_millis(if self.random.bool() { 1000 } else { 2500 });
        let watched = watched && member.node.answers();
        self.jobs.push(Job { at, client: Some(client), began, stay, ended: None, watched });
    }

    fn set_answers(&mut self, at: usize, answers: bool) {
        let member = &mut self.members[at];
        if member.node.answers() != answers {
            member.node.set_answers(answers);
            member.changed = Instant::now();
            for job in self.jobs.iter_mut().filter(|job| job.at == at && job.ended.is_none()) {
                job.watched = false;
            }
        }
    }

    fn restart(&mut self) {
        if let Some(mut pontoon) = self.pontoon.take() {
            pontoon.signal(if self.random.bool() { Signal::TERM } else { Signal::KILL });
            pontoon.wait();
        }
        for job in self.jobs.iter_mut().filter(|job| job.ended.is_none()) {
            job.watched = false;
        }
        self.start();
    }

    /// Asks for the verdict. If it is wrong, returns the reason.
    fn judge(&mut self) -> Option<String> {
        let asked = Instant::now();
        let routes: Value = serde_json::from_str(&self.pontoon.as_ref()?.get("/routes").1).unwrap();
        let verdict = &routes[0]["safe_to_require_tls"];
        if verdict["answer"] != true {
            return None;
        }
        self.yes += 1;
        let evidence = verdict["evidence"].to_string();
        let gap = evidence.split_once("longest time between two questions ")?.1.split([';', ',']).next()?;
        let seen_after = humantime::parse_duration(gap).unwrap() + TOLERANCE;
        for Job { at, began, ended, watched, .. } in &self.jobs {
            let Some(named) = self.members[*at].named.filter(|named| *named + MET < asked) else { continue };
            let is_wrong = match ended {
                None => *began + seen_after < asked,
                Some(ended) => {
                    let stay = *ended - *began.max(&named);
                    *watched && stay > seen_after && Instant::now() < *ended + QUIET_FOR
                }
            };
            if is_wrong {
                let address = self.members[*at].node.address();
                let (began, ended) = (began.elapsed(), ended.map(|ended| ended.elapsed()));
                return Some(format!(
                    "{address} had a client in plaintext, {began:?} to {ended:?} ago: {evidence}"
                ));
            }
        }
        None
    }

    /// Runs the whole migration. Returns how often the answer was yes, or an error for a wrong yes.
    fn travel(mut self) -> Result<u64, String> {
        let began = Instant::now();
        while began.elapsed() < LENGTH {
            self.happens(began.elapsed() > LENGTH / 2);
            if let Some(why) = self.judge() {
                return Err(why);
            }
            thread::sleep(STEP);
        }
        Ok(self.yes)
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "the figures of a long run")]
fn a_yes_is_right_on_every_road_of_real_servers() {
    let roads = std::env::var("ROADS").ok().and_then(|roads| roads.parse().ok()).unwrap_or(4_u64);
    let (next, with_yes) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..ROADS_AT_ONCE.min(roads) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= roads {
                        return;
                    }
                    let yes = Road::begin(seed).travel().unwrap_or_else(|why| panic!("road {seed}: {why}"));
                    with_yes.fetch_add(u64::from(yes > 0), Ordering::SeqCst);
                }
            });
        }
    });
    let with_yes = with_yes.into_inner();
    println!("{roads} roads on real servers, {with_yes} with a yes");
    assert!(with_yes > 0);
}
