//! The scenarios, and what is measured in each.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::program::{Stay, holds_within, run};
use super::{Client, Mode, Outcome};
use crate::cluster::bridge as bridge_to_cluster;
use crate::harness::{Authority, Cluster, Dual, Mood, Pontoon, Redis, Wire};

const SECRET: &str = "s3rv3r-s3cr3t-of-the-test";

/// How long a client may take to notice a change, and to recover from it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Clients that retry for a long time do not notice that the server was down for this time.
const DOWN_TIME: Duration = Duration::from_secs(3);

/// A session that has not moved to TLS after this is taken never to move. pontoon tries again after five seconds.
const MOVE_TIME: Duration = Duration::from_secs(15);

/// pontoon in a mode, and the server or cluster behind it.
pub struct Bridge {
    pontoon: Pontoon,
    server: Server,
}

enum Server {
    Redis(Box<Redis>),
    Cluster(Box<Cluster>),
}

impl Bridge {
    pub fn to_a_server(mode: Mode) -> Self {
        let authority = Authority::new();
        let mut redis = Redis::start(&authority);
        let pontoon = Pontoon::with(&redis.endpoint(), &authority, mode.args());
        redis.keep(authority);
        Self { pontoon, server: Server::Redis(Box::new(redis)) }
    }

    pub fn to_a_cluster() -> Self {
        let cluster = Cluster::start();
        let pontoon = bridge_to_cluster(&cluster, Mode::Cluster.args());
        Self { pontoon, server: Server::Cluster(Box::new(cluster)) }
    }

    /// The server of a bridge to a single server.
    pub fn server(&mut self) -> &mut Redis {
        match &mut self.server {
            Server::Redis(redis) => redis,
            Server::Cluster(_) => panic!("a cluster has nodes"),
        }
    }

    /// The server's name and version.
    pub fn engine(&self) -> String {
        let mut wire = match &self.server {
            Server::Redis(redis) => redis.direct(),
            Server::Cluster(cluster) => cluster.nodes[0].wire(),
        };
        let info = String::from_utf8(wire.ask(&["INFO", "server"])).unwrap();
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let valkey = field("valkey_version").map(|version| format!("Valkey {version}"));
        valkey.or_else(|| Some(format!("Redis {}", field("redis_version")?))).unwrap()
    }

    fn port(&self) -> u16 {
        self.pontoon.address().port()
    }

    fn is_of_a_cluster(&self) -> bool {
        matches!(self.server, Server::Cluster(_))
    }

    fn run(&self, client: &Client, scenario: &str) -> Result<String, String> {
        run(client, scenario, self.port(), self.is_of_a_cluster())
    }
}

/// The library's ordinary use, and how the inventory lists its clients.
pub fn work(client: &Client, mode: Mode, bridge: &Bridge) -> Outcome {
    let mut outcome = Outcome::new();
    outcome.note(bridge.run(client, "work"));
    let report: Value = serde_json::from_str(&bridge.pontoon.get("/clients").1).unwrap();
    let shown: Vec<String> = report["clients"].as_array().unwrap().iter().map(shown).collect();
    if mode == Mode::Shared {
        outcome.measure("pinned", pins(&bridge.pontoon));
    }
    if !client.has_all_scenarios {
        let found = shown.iter().any(|shown| shown.starts_with(client.inventory));
        outcome.demand(found, || format!("{} is not in the inventory: {shown:?}", client.inventory));
    }
    outcome.measure("inventory", shown);
    outcome
}

/// A hundred clients, one after another: how many got a connection that had served another one before.
pub fn connect(client: &Client, mode: Mode, bridge: &Bridge) -> Outcome {
    let mut outcome = Outcome::new();
    let leases = |labels: &str| bridge.pontoon.metric("pontoon_upstream_leases_total", labels);
    let new = || leases("origin=\"dialled\"") + leases("origin=\"warm\"");
    let (all_before, new_before) = (leases(""), new());
    outcome.note(bridge.run(client, "connect"));
    let (all, dialled) = (leases("") - all_before, new() - new_before);
    outcome.measure("leases", all);
    outcome.measure("dialled", dialled);
    outcome.measure("reused", 100_u64.saturating_sub(dialled));
    if mode == Mode::Pooled {
        // One is the goal, and the number on a quiet machine. A busy one may serve the next client before it sees the end of the one
        // before.
        outcome.demand(dialled <= 3, || format!("{dialled} connections were dialled for 100 clients"));
    }
    outcome
}

/// Plain work in shared mode: how often the client got a dedicated connection.
pub fn plain(client: &Client, bridge: &Bridge) -> Outcome {
    let mut outcome = Outcome::new();
    let before = bridge.pontoon.metric("pontoon_sessions_pinned_total", "");
    outcome.note(bridge.run(client, "plain"));
    let pinned = bridge.pontoon.metric("pontoon_sessions_pinned_total", "") - before;
    outcome.measure("pinned", pinned);
    outcome.demand(pinned == client.pinned, || {
        format!("pinned {pinned} times, of all: {}", pins(&bridge.pontoon))
    });
    outcome
}

/// A client with a password that it no longer needs.
pub fn leftover(client: &Client, mode: Mode) -> Outcome {
    let mut outcome = Outcome::new();
    let authority = Authority::new();
    let redis = Redis::with(authority.issue(&["localhost"]), &authority, &["--requirepass", SECRET]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, SECRET).unwrap();
    let auth = ["--auth-password-file", file.to_str().unwrap(), "--auth-client", "accept"];
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &[mode.args(), &auth].concat());
    outcome.note(run(client, "leftover", pontoon.address().port(), false));
    outcome
}

/// A client that began in plaintext: whether it is moved to TLS, and notices nothing.
pub fn moved(client: &Client, mode: Mode, redis: &Redis) -> Outcome {
    let mut outcome = Outcome::new();
    let dual = Dual::new(redis, Mood::Accept, Mood::Reset);
    let args = [mode.args(), &["--tls-mode", "preferred", "--tls-upgrade", "drain"]].concat();
    let pontoon = Pontoon::with(&dual.endpoint(), redis.authority(), &args);
    pontoon.allows("traffic is in plaintext until an endpoint accepts TLS");
    pontoon.allows("transit encryption observed: plaintext only");
    let stay = Stay::start(client, pontoon.address().port(), false);
    outcome.demand(holds_within(PATIENCE, || stay.is("up")), || "it does not come up".to_owned());
    inventory(client, &pontoon, &mut outcome);
    let in_plaintext = || pontoon.metric("pontoon_upstream_plaintext_connections", "");
    outcome.demand(in_plaintext() > 0, || "it did not begin in plaintext".to_owned());
    dual.set(Mood::Accept, Mood::Accept);
    let tls_seen =
        holds_within(PATIENCE, || pontoon.metric("pontoon_transit_encryption", "mode=\"tls\"") == 1);
    outcome.demand(tls_seen, || "TLS is not seen".to_owned());
    let moved = holds_within(MOVE_TIME, || in_plaintext() == 0);
    // The client goes on after the move, over TLS.
    let requests = || pontoon.metric("pontoon_requests_total", "");
    let before = requests();
    let goes_on = holds_within(PATIENCE, || requests() > before + 10);
    outcome.demand(goes_on, || "it does not go on".to_owned());
    let (said, end) = stay.end(client);
    outcome.note(end);
    outcome.measure("moved", moved && said == ["up"]);
    outcome.demand(moved, || "it is not moved to TLS".to_owned());
    outcome.demand(said == ["up"], || format!("it noticed the move: {said:?}"));
    outcome
}

/// The server is killed and restarted: the client notices at most one gap, or what it notices without pontoon.
pub fn recovery(client: &Client, bridge: &mut Bridge) -> Outcome {
    static DIRECT: Mutex<BTreeMap<&str, Vec<String>>> = Mutex::new(BTreeMap::new());
    let mut outcome = Outcome::new();
    // The log reports a server that is down in several messages.
    bridge.pontoon.allows("");
    let port = bridge.port();
    let direct = {
        let program = [client.library, client.version].concat();
        let mut known = DIRECT.lock().unwrap_or_else(PoisonError::into_inner);
        let program: &'static str = program.leak();
        known
            .entry(program)
            .or_insert_with(|| {
                let redis = bridge.server();
                let port = redis.plain_port;
                killed_under(client, port, redis, &mut outcome)
            })
            .clone()
    };
    let bridged = killed_under(client, port, bridge.server(), &mut outcome);
    outcome.measure("recovery", bridged.join(" "));
    outcome.measure("direct", direct.join(" "));
    // pontoon answers with an error while the server is down. A library that would retry the connection without pontoon passes this error
    // on.
    let one_gap = bridged == ["up", "down", "up"];
    outcome.demand(one_gap || bridged == direct, || format!("{bridged:?}, and without pontoon: {direct:?}"));
    outcome
}

/// All that a client with a lasting connection reports while the server is killed and restarted.
fn killed_under(client: &Client, port: u16, redis: &mut Redis, outcome: &mut Outcome) -> Vec<String> {
    let stay = Stay::start(client, port, false);
    outcome.demand(holds_within(PATIENCE, || stay.is("up")), || "it does not come up".to_owned());
    redis.kill();
    holds_within(DOWN_TIME, || stay.is("down"));
    redis.restart();
    let mut direct = redis.direct();
    // The new server has no keys but the client's.
    let back = holds_within(PATIENCE, || has_keys(&mut direct) && stay.is("up"));
    outcome.demand(back, || format!("it does not come back: {:?}", stay.said()));
    let (said, end) = stay.end(client);
    outcome.note(end);
    said
}

/// The primary that has the client's key is killed, and its replica takes over.
pub fn cluster_recovery(client: &Client, bridge: &mut Bridge) -> Outcome {
    let mut outcome = Outcome::new();
    bridge.pontoon.allows("");
    let stay = Stay::start(client, bridge.port(), true);
    outcome.demand(holds_within(PATIENCE, || stay.is("up")), || "it does not come up".to_owned());
    inventory(client, &bridge.pontoon, &mut outcome);
    let Server::Cluster(cluster) = &mut bridge.server else { panic!("a server has no replicas") };
    let writes = |node: usize| cluster.ask(node, &["INFO", "commandstats"]).contains("cmdstat_set:");
    // Resets the counts of earlier scenarios.
    (0..3).for_each(|node| drop(cluster.ask(node, &["CONFIG", "RESETSTAT"])));
    let mut primary = 0;
    let found = holds_within(PATIENCE, || {
        (0..3).any(|node| {
            writes(node) && {
                primary = node;
                true
            }
        })
    });
    outcome.demand(found, || "no primary is written to".to_owned());
    cluster.nodes[primary].kill();
    let replica = primary + 3;
    let elected = holds_within(PATIENCE, || cluster.is_primary(replica));
    outcome.demand(elected, || "its replica is not elected".to_owned());
    let _ = cluster.ask(replica, &["CONFIG", "RESETSTAT"]);
    let writes = || cluster.ask(replica, &["INFO", "commandstats"]).contains("cmdstat_set:");
    let back = holds_within(PATIENCE, || writes() && stay.is("up"));
    outcome.demand(back == client.survives_failover, || {
        format!("it {} back: {:?}", if back { "comes" } else { "does not come" }, stay.said())
    });
    let (said, end) = stay.end(client);
    outcome.measure("recovery", said.join(" "));
    outcome.note(end);
    outcome
}

fn has_keys(server: &mut Wire) -> bool {
    server.ask(&["DBSIZE"]) != b":0\r\n"
}

/// Records how the inventory lists the client's live sessions.
fn inventory(client: &Client, pontoon: &Pontoon, outcome: &mut Outcome) {
    let report: Value = serde_json::from_str(&pontoon.get("/clients").1).unwrap();
    let shown: Vec<String> = report["sessions"].as_array().unwrap().iter().map(shown).collect();
    let as_expected = !shown.is_empty() && shown.iter().all(|shown| shown.starts_with(client.inventory));
    outcome.demand(as_expected, || format!("the inventory shows {shown:?}, not {}", client.inventory));
    outcome.measure("inventory", shown);
}

/// The library and version of an entry of the inventory.
fn shown(entry: &Value) -> String {
    let library = &entry["library"];
    match (library["name"].as_str(), library["version"].as_str()) {
        (Some(name), Some(version)) => format!("{name} {version}"),
        (name, _) => name.unwrap_or("unknown").to_owned(),
    }
}

/// How often clients got dedicated connections, and why.
fn pins(pontoon: &Pontoon) -> String {
    let (_, text) = pontoon.get("/metrics");
    let lines = text.lines().filter(|line| line.starts_with("pontoon_sessions_pinned_total{"));
    let reasons = lines.filter_map(|line| {
        let reason = line.split_once("reason=\"")?.1.split_once('"')?.0;
        let count = line.rsplit(' ').next()?;
        (count != "0").then(|| format!("{reason}: {count}"))
    });
    reasons.collect::<Vec<_>>().join(", ")
}
