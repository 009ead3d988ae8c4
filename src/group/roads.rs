//! Simulates random ways of a group to TLS on virtual time: nodes that vanish, return and are replaced, jobs in plaintext, bridges that
//! restart, clocks that are set. A judge that sees every connection in plaintext checks the verdict. `ROADS=10000` sets the number of runs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::evidence::Asking;
use super::node::ListClients;
use super::observer::{Observation, Observer, Pace};
use super::servers::Servers;
use super::verdict::{RouteFacts, Settings, safe_to_require_tls};
use crate::clients::InPlaintext;
use crate::endpoint::{Endpoint, Host};
use crate::moment::Moment;
use crate::resp::replies::Answer;
use crate::state::ServersMemory;
use crate::tls;
use crate::upstream::{self, EndpointFacts, ObservedTransit, pool};

const PACE: Pace = Pace { interval: Duration::from_secs(20), sampling: Pace::SAMPLING };
const QUIET_FOR: Duration = Duration::from_secs(60);
const PLAYED_TIMEOUT: Duration = Duration::from_secs(5);
const LENGTH: Duration = Duration::from_secs(420);

/// A client in plaintext that stays for this long must be seen if its node answers.
const JOB: Duration = Duration::from_secs(1);

/// Time to find a node that answers again or is new, and to find all nodes after the bridge starts.
const FOUND: Duration = Duration::from_secs(40);

/// Time to notice a node that joins or stops answering.
const MET: Duration = Duration::from_secs(2);

/// Age of a process that ran before the simulation.
const OLD: Duration = Duration::from_secs(5000);

/// Maximum number of nodes.
const MOST_NODES: usize = 5;

/// Seconds between two writes of the state file.
const PLAYED_WRITE: u64 = 10;

/// How a node names another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    Well,
    /// It does not name it.
    Not,
    /// With no address, or an invalid one.
    NoAddress,
    /// As failed.
    Failed,
}

#[derive(Debug)]
struct PlayedNode {
    address: SocketAddr,
    /// The `run_id` of its process.
    run_id: u64,
    /// When it joined, and how old its process was then.
    there: (Instant, Duration),
    /// It answers the bridge. Clients can reach it either way.
    answers: bool,
    /// When its process started or stopped answering.
    changed: Vec<(Instant, bool)>,
    /// It has a running process.
    lives: bool,
    naming: Naming,
    /// When each client in plaintext came and left.
    plaintext: Vec<(Instant, Instant)>,
}

#[derive(Debug)]
struct World {
    nodes: Vec<PlayedNode>,
    primary: usize,
    is_cluster: bool,
    /// INFO has a section of its own for the count.
    has_section: bool,
    /// Shortest time that an answer takes.
    way: Duration,
    /// The nodes of a cluster announce one common host name, which leads to the first node.
    shares_name: bool,
}

impl PlayedNode {
    fn new(number: usize, random: &mut Rng, age: Duration) -> Self {
        Self {
            address: format!("10.0.0.{}:6379", number + 1).parse().unwrap(),
            run_id: random.u64(..),
            there: (Instant::now(), age),
            answers: true,
            changed: vec![(Instant::now(), true)],
            lives: true,
            naming: Naming::Well,
            plaintext: Vec::new(),
        }
    }

    fn set_answers(&mut self, answers: bool) {
        if self.answers != answers {
            self.answers = answers;
            self.changed.push((Instant::now(), answers && self.lives));
        }
    }

    /// Whether it stopped answering so recently that the bridge may still be waiting for an answer.
    fn has_just_ceased_to_answer(&self, now: Instant) -> bool {
        self.changed.last().is_some_and(|(at, answers)| !answers && now < *at + MET)
    }

    /// Whether it answered all the time, and long enough before to be found.
    fn has_answered(&self, from: Instant, to: Instant) -> bool {
        let before = self.changed.iter().rev().find(|(at, _)| *at <= from);
        let is_found = before.is_some_and(|(at, answers)| *answers && *at + FOUND <= from);
        is_found && !self.changed.iter().any(|(at, _)| from < *at && *at < to)
    }
}

impl World {
    fn new(random: &mut Rng) -> Self {
        let nodes = (0..random.usize(1..=3)).map(|number| PlayedNode::new(number, random, OLD)).collect();
        Self {
            nodes,
            primary: 0,
            is_cluster: random.bool(),
            has_section: random.bool(),
            way: Duration::ZERO,
            shares_name: random.bool(),
        }
    }

    fn has(&self, section: &str) -> bool {
        section == "replication" || (section == "ssl" && self.has_section)
    }

    fn info(&self, at: usize) -> String {
        let now = Instant::now();
        let node = &self.nodes[at];
        let count = node.plaintext.iter().filter(|(since, until)| *since <= now && now < *until).count();
        let mut info = format!(
            "# Server\r\nredis_version:7.1.0\r\nrun_id:{:x}\r\nuptime_in_seconds:{}\r\nconnected_clients:{}\r\n{}tls_mode_connected_tcp_clients:{count}\r\ncluster_enabled:{}\r\n",
            node.run_id,
            (node.there.0.elapsed() + node.there.1).as_secs(),
            count + 1,
            if self.has_section { "# SSL\r\n" } else { "" },
            u8::from(self.is_cluster)
        );
        if self.is_cluster {
            return info;
        }
        if at != self.primary {
            let primary = self.nodes[self.primary].address;
            let _ = write!(
                info,
                "role:slave\r\nmaster_host:{}\r\nmaster_port:{}\r\n",
                primary.ip(),
                primary.port()
            );
            return info;
        }
        info += "role:master\r\n";
        let replicas = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(number, node)| *number != at && node.naming != Naming::Not);
        for (number, (_, node)) in replicas.enumerate() {
            let (ip, port) = match node.naming {
                Naming::NoAddress => ("?".to_owned(), 0),
                _ => (node.address.ip().to_string(), node.address.port()),
            };
            let _ = write!(info, "slave{number}:ip={ip},port={port},state=online,offset=1,lag=0\r\n");
        }
        info
    }

    fn cluster_info(&self, at: usize) -> String {
        let count = self.cluster_nodes(at).lines().count();
        format!("cluster_enabled:1\r\ncluster_known_nodes:{count}\r\n")
    }

    /// A node joins that has served other clients for a while, also in plaintext.
    fn join(&mut self, random: &mut Rng, began: Instant) {
        let now = Instant::now();
        let mut node = PlayedNode::new(self.nodes.len(), random, OLD);
        let since = began.max(now.checked_sub(Duration::from_secs(10)).unwrap_or(began));
        let stay = Duration::from_secs(random.u64(..30)).max(JOB);
        node.plaintext.push((since, since + stay));
        self.nodes.push(node);
    }

    fn cluster_nodes(&self, at: usize) -> String {
        let mut text = String::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let (address, flags) = match node.naming {
                _ if number == at => (node.address.to_string(), "myself,master"),
                Naming::Well => (node.address.to_string(), "master"),
                Naming::Failed => (node.address.to_string(), "master,fail"),
                Naming::NoAddress => (":0".to_owned(), "master,noaddr"),
                Naming::Not => continue,
            };
            let host = if self.shares_name { ",shared.test" } else { "" };
            let _ = writeln!(text, "node{number} {address}@16379{host} {flags} - 0 1 1 connected");
        }
        text
    }
}

/// The world as the bridge reaches it.
struct Played(Arc<Mutex<World>>);

struct PlayedConnection {
    at: usize,
    run_id: u64,
}

impl Played {
    async fn delay(&self) {
        let way = self.0.lock().way;
        sleep(way + Duration::from_micros(fastrand::u64(100..3000))).await;
    }

    /// A missing node refuses the connection or does not answer.
    async fn silence() -> String {
        if fastrand::bool() {
            sleep(PLAYED_TIMEOUT).await;
        }
        "no answer".to_owned()
    }
}

impl Servers for Played {
    type Connection = PlayedConnection;

    async fn addresses(&self, endpoint: &Endpoint) -> Result<Option<Vec<SocketAddr>>, String> {
        let world = self.0.lock();
        Ok(match &endpoint.host {
            Host::Ip(ip) => Some(vec![SocketAddr::new(*ip, endpoint.port)]),
            Host::Name(name) if name == "primary.test" => Some(vec![world.nodes[world.primary].address]),
            Host::Name(name) if name == "all.test" => {
                Some(world.nodes.iter().map(|node| node.address).collect())
            }
            Host::Name(name) if name == "shared.test" => Some(vec![world.nodes[0].address]),
            Host::Name(_) => None,
        })
    }

    async fn connect(&self, _: &Endpoint, address: SocketAddr, _: bool) -> Result<PlayedConnection, String> {
        self.delay().await;
        let found = {
            let world = self.0.lock();
            let mut nodes = world.nodes.iter().enumerate();
            let node = nodes.find(|(_, node)| node.address == address && node.lives && node.answers);
            node.map(|(at, node)| PlayedConnection { at, run_id: node.run_id })
        };
        match found {
            Some(connection) => Ok(connection),
            None => Err(Self::silence().await),
        }
    }

    fn wants_auth(&self, _: &PlayedConnection) -> bool {
        false
    }

    async fn ask(&self, connection: &mut PlayedConnection, command: &[&str]) -> Result<Answer, String> {
        self.delay().await;
        let answer = {
            let world = self.0.lock();
            let node = &world.nodes[connection.at];
            (node.lives && node.answers && node.run_id == connection.run_id).then(|| match command {
                ["CLIENT", "ID"] => Answer::Number(1),
                ["INFO", section] if !world.has(section) => Answer::Text("# Other\r\n".into()),
                ["INFO", ..] => Answer::Text(world.info(connection.at)),
                ["CLUSTER", "INFO"] => Answer::Text(world.cluster_info(connection.at)),
                ["CLUSTER", "NODES"] => Answer::Text(world.cluster_nodes(connection.at)),
                _ => Answer::Text(String::new()),
            })
        };
        match answer {
            Some(answer) => Ok(answer),
            None => Err(Self::silence().await),
        }
    }

    fn timeout(&self) -> Duration {
        PLAYED_TIMEOUT
    }
}

fn asking(is_cluster: bool) -> Asking {
    let name = if is_cluster { "all.test:6379" } else { "primary.test:6379" };
    let mut endpoints = vec![name.parse().unwrap(), "old.test:6379".parse().unwrap()];
    if !is_cluster && fastrand::bool() {
        endpoints.push("all.test:6379".parse().unwrap());
    }
    let pool = pool::Settings {
        warm: false,
        warm_min: pool::Settings::WARM_MIN,
        warm_max: pool::Settings::WARM_MAX,
        reuse: true,
        max_age: pool::Settings::MAX_AGE,
    };
    let settings = upstream::Settings {
        endpoints,
        connect_timeout: PLAYED_TIMEOUT,
        handshakes: upstream::Settings::HANDSHAKES,
        client_name: None,
        auth: None,
        pool,
        tls: tls::Settings::default(),
    };
    let clients = ListClients::WherePlaintextOrFew;
    Asking { settings, credentials: None, bridges: Vec::new(), clients, all_must_exist: false }
}

/// Everything else is in favour of yes.
fn facts(observer: &Observer) -> RouteFacts {
    let now = Moment::now();
    let endpoint = EndpointFacts {
        endpoint: "cache:6379".into(),
        seen: Some(ObservedTransit::Tls),
        certificate_expires: Some(Moment::at(now.unix() + 90 * 86_400)),
        ..EndpointFacts::default()
    };
    RouteFacts {
        now,
        mode: tls::TlsMode::Required,
        upgrades: true,
        verifies: true,
        unreached: None,
        latched: true,
        endpoints: vec![endpoint],
        plaintext: InPlaintext::default(),
        active: 0,
        last_used: None,
        watched_since: Moment::at(0),
        servers: Some(observer.seen()),
        patience: observer.patience(),
    }
}

/// The result of one run.
#[derive(Default)]
struct Outcome {
    /// Seconds in which the verdict was yes.
    yes: u64,
    reasons: BTreeSet<&'static str>,
    /// Time from the end of the last plaintext to yes.
    after: Option<Duration>,
}

/// The reasons for no that servers can cause.
const NO_REASONS: [&str; 6] = [
    "not asked yet",
    "counts clients in plaintext",
    "could not be asked: no answer",
    "it was a node of the group and does not answer",
    "names it without an address",
    "the servers were watched for",
];

struct Road {
    world: Arc<Mutex<World>>,
    random: Rng,
    /// Seconds added to the date.
    step: i64,
    began: Instant,
}

impl Road {
    /// Simulates one second, in which mostly nothing happens.
    fn happens(&mut self) {
        let now = Instant::now();
        let mut world = self.world.lock();
        // In the second half of the run only the quiet time counts.
        let is_over = now.duration_since(self.began) > LENGTH / 2;
        let count = world.nodes.len();
        let at = self.random.usize(..count);
        let others = count > 1 && at != world.primary;
        match self.random.u32(..if is_over { 2000 } else { 120 }) {
            0..=2 => {
                let stay = [1000, 1500, 30_000][self.random.usize(..3)];
                let begin = now + Duration::from_millis(self.random.u64(..1000));
                world.nodes[at].plaintext.push((begin, begin + Duration::from_millis(stay)));
            }
            3 => world.nodes[at].set_answers(false),
            4 | 5 => {
                for node in &mut world.nodes {
                    node.set_answers(true);
                    node.naming = Naming::Well;
                    if !node.lives {
                        (node.lives, node.run_id) = (true, self.random.u64(..));
                        node.there = (now, Duration::ZERO);
                        node.changed.push((now, true));
                    }
                }
            }
            6 if others => {
                world.nodes[at].lives = false;
                world.nodes[at].changed.push((now, false));
                world.nodes[at].plaintext.clear();
            }
            7..=9 if others && world.nodes[at].there.0.elapsed() > MET => {
                let namings = [Naming::Not, Naming::NoAddress, Naming::Failed];
                world.nodes[at].naming = namings[self.random.usize(..3)];
            }
            10 if others && world.nodes[at].lives && world.nodes[at].naming == Naming::Well => {
                world.primary = at;
            }
            12 if count < MOST_NODES => world.join(&mut self.random, self.began),
            11 => self.step += self.random.i64(-300..=300),
            _ => {}
        }
    }

    fn set_date(&self) {
        let seconds = Instant::now().duration_since(self.began).as_secs();
        Moment::set(1_700_000_000_u64.saturating_add(seconds).saturating_add_signed(self.step));
    }

    /// Returns why a yes is wrong; `None` if it is right. `watched` holds the times in which the bridge ran.
    fn judge(&self, watched: &[(Instant, Instant)]) -> Option<String> {
        let now = Instant::now();
        for node in &self.world.lock().nodes {
            let (joined, age) = node.there;
            let came = age == OLD && joined > self.began;
            if came && now < joined + MET {
                continue;
            }
            for (since, until) in &node.plaintext {
                if came && *since < joined && *until <= now && now < *until + QUIET_FOR {
                    return Some(format!(
                        "{} had one before it joined, {:?} ago",
                        node.address,
                        now - *until
                    ));
                }
                let seen_at = *since + JOB;
                if seen_at <= now && now < *until && !node.has_just_ceased_to_answer(now) {
                    return Some(format!("{} has a client in plaintext", node.address));
                }
                // Nothing was watched while the bridge was away or the node did not answer. A yes reports the longest gap.
                let was_there = watched.iter().any(|(from, to)| from <= since && seen_at <= *to);
                let was_watched = was_there && node.has_answered(*since, seen_at);
                if was_watched && *until <= now && now < *until + QUIET_FOR {
                    return Some(format!("{} had one {:?} ago", node.address, now - *until));
                }
            }
        }
        None
    }

    fn last_plaintext(&self) -> Instant {
        let world = self.world.lock();
        let ends = world.nodes.iter().flat_map(|node| &node.plaintext).map(|(_, until)| *until);
        ends.filter(|until| *until <= Instant::now()).max().unwrap_or(self.began)
    }

    /// Plays a run from beginning to end. `Err` is a wrong yes.
    async fn travel(mut self) -> Result<Outcome, String> {
        let mut outcome = Outcome::default();
        let world = Arc::clone(&self.world);
        let reach = || Ok(Played(Arc::clone(&world)));
        let is_cluster = self.world.lock().is_cluster;
        let settings = Settings { quiet_for: QUIET_FOR, ..Settings::default() };
        let mut memory = ServersMemory::default();
        let mut watched = Vec::new();
        self.set_date();
        while self.began.elapsed() < LENGTH {
            // One process of the bridge.
            let observer = Observer::new(asking(is_cluster), PACE, &memory);
            let born = Instant::now() + Duration::from_secs(1);
            let longest = if self.random.bool() { 120 } else { 2000 };
            let life = self.random.u64(30..longest);
            let mut tell = |_: &Observation| {};
            let start = asking(is_cluster).settings.endpoints;
            let mut watch = pin!(observer.watch(reach, || start.clone(), || 0, &mut tell));
            for second in 0..life {
                let _ = timeout(Duration::from_secs(1), &mut watch).await;
                self.happens();
                self.set_date();
                let verdict = safe_to_require_tls(&facts(&observer), &settings);
                let reasons = NO_REASONS
                    .iter()
                    .filter(|known| verdict.because.iter().any(|reason| reason.contains(**known)));
                outcome.reasons.extend(reasons);
                if verdict.answer {
                    outcome.yes += 1;
                    outcome.after.get_or_insert(Instant::now() - self.last_plaintext());
                    let lives: Vec<_> = watched.iter().copied().chain([(born, Instant::now())]).collect();
                    if let Some(why) = self.judge(&lives) {
                        return Err(format!("{why}, and the verdict is yes: {:?}", verdict.evidence));
                    }
                }
                if observer.has_ended_quiet() || second % PLAYED_WRITE == PLAYED_WRITE - 1 {
                    memory = observer.memory();
                }
                if self.began.elapsed() >= LENGTH {
                    break;
                }
            }
            watched.push((born, Instant::now()));
            // The bridge either ends in order and writes its file, or does not.
            if self.random.bool() {
                memory = observer.memory();
            }
            sleep(Duration::from_secs(self.random.u64(1..150))).await;
            self.set_date();
        }
        Ok(outcome)
    }
}

#[test]
fn distant_servers_are_watched_like_others() {
    for has_section in [true, false] {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(&mut Rng::with_seed(1));
            (world.way, world.has_section) = (Duration::from_millis(200), has_section);
            let (is_cluster, world) = (world.is_cluster, Arc::new(Mutex::new(world)));
            let observer = Observer::new(asking(is_cluster), PACE, &ServersMemory::default());
            let reach = || Ok(Played(Arc::clone(&world)));
            let mut tell = |_: &Observation| {};
            let start = asking(is_cluster).settings.endpoints;
            let _ = timeout(QUIET_FOR * 2, observer.watch(reach, || start.clone(), || 0, &mut tell)).await;
            let settings = Settings { quiet_for: QUIET_FOR, ..Settings::default() };
            let verdict = safe_to_require_tls(&facts(&observer), &settings);
            assert!(verdict.answer, "has_section {has_section}: {verdict:?}");
        });
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "the figures of a long run")]
fn no_run_has_a_wrong_yes_and_every_reason_for_no_occurs() {
    let roads = std::env::var("ROADS").ok().and_then(|roads| roads.parse().ok()).unwrap_or(200_u64);
    let (mut yes, mut reasons, mut after) = (0, BTreeSet::new(), Vec::new());
    for seed in 0..roads {
        fastrand::seed(seed);
        let mut random = Rng::with_seed(seed);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let outcome = runtime.block_on(async {
            let world = Arc::new(Mutex::new(World::new(&mut random)));
            Road { world, random, step: 0, began: Instant::now() }.travel().await
        });
        let outcome = outcome.unwrap_or_else(|why| panic!("road {seed}: {why}"));
        yes += u64::from(outcome.yes > 0);
        reasons.extend(outcome.reasons);
        after.extend(outcome.after);
    }
    let missing: Vec<_> = NO_REASONS.iter().filter(|reason| !reasons.contains(**reason)).collect();
    assert!(missing.is_empty(), "never met: {missing:?}");
    after.sort();
    let median = after.get(after.len() / 2).copied().unwrap_or_default();
    println!("{roads} roads, {yes} with a yes, median {median:?} from the last plaintext to yes");
    assert!(yes > roads / 4, "{yes} of {roads} roads came to a yes");
}
