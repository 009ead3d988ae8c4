//! What a client can find out about its connection.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::harness::{PATIENCE, Pontoon, Redis, Wire, command};

/// Answers by question, and the fields of CLIENT INFO by name.
pub type View = BTreeMap<String, String>;

/// What `lib-name` and `lib-ver` may say if no client has set them.
pub const NO_CLIENTS_LIBRARY: &[&str] = &["", "pontoon", env!("CARGO_PKG_VERSION")];

/// Fields of CLIENT INFO that differ between any two new connections.
pub const VARIES: &[&str] = &[
    "id",
    "addr",
    "laddr",
    "fd",
    "age",
    "idle",
    "tot-mem",
    "rbs",
    "rbp",
    "qbuf",
    "qbuf-free",
    "tot-net-in",
    "tot-net-out",
    "tot-cmds",
    "io-thread",
    // EXEC's answer reveals a transaction. Once a connection has had one, Valkey 9.1 says 0 here instead of -1, even after RESET.
    "multi",
];

/// Questions besides CLIENT INFO, without HELLO: the replies to HGETALL and TRACKINGINFO show the protocol.
const QUESTIONS: &[&[&str]] = &[
    &["PING"],
    &["EXEC"],
    &["HGETALL", "isolation:none"],
    &["CLIENT", "GETNAME"],
    &["CLIENT", "GETREDIR"],
    &["CLIENT", "TRACKINGINFO"],
    &["ACL", "WHOAMI"],
    // Fails if replies are switched off, and if the connection has subscribed.
    &["ECHO", "isolation"],
];

/// All that a client can find out about its connection by asking, without what differs between any two new ones.
pub fn view(client: &mut Wire) -> View {
    let all = std::iter::once(&["CLIENT", "INFO"][..]).chain(QUESTIONS.iter().copied());
    client.send(&all.flat_map(command).collect::<Vec<u8>>());
    let mut text = || String::from_utf8_lossy(&client.try_reply().unwrap_or_default()).into_owned();
    let mut seen = BTreeMap::new();
    let info = text();
    let line = info.lines().nth(1).unwrap_or(&info);
    // In RESP3 the text begins with its format.
    for field in line.strip_prefix("txt:").unwrap_or(line).split(' ') {
        let (name, value) = field.split_once('=').unwrap_or(("CLIENT INFO", field));
        let is_no_clients = name.starts_with("lib-") && NO_CLIENTS_LIBRARY.contains(&value);
        if !VARIES.contains(&name) && !is_no_clients {
            seen.insert(name.to_owned(), value.to_owned());
        }
    }
    for words in QUESTIONS {
        seen.insert(words.join(" "), text());
    }
    seen
}

/// How a client's view differs from that of a new connection.
pub fn differences(seen: &View, new: &View) -> Vec<String> {
    let names: BTreeSet<&String> = seen.keys().chain(new.keys()).collect();
    let differ = names.into_iter().filter(|name| seen.get(*name) != new.get(*name));
    differ.map(|name| format!("{name} is {:?}", seen.get(name).map_or("", String::as_str))).collect()
}

/// What a client of a new connection to the server finds.
pub fn pristine(redis: &Redis) -> View {
    view(&mut redis.direct())
}

/// The databases that hold `key`, asked of the server itself. Removes the key.
pub fn database_of(direct: &mut Wire, key: &str) -> String {
    const SEARCH: &str = "local found = {}
        for database = 0, 15 do
            redis.call('SELECT', database)
            if redis.call('DEL', KEYS[1]) == 1 then table.insert(found, database) end
        end
        return table.concat(found, ' ')";
    let reply = String::from_utf8(direct.ask(&["EVAL", SEARCH, "1", key])).unwrap();
    reply.lines().nth(1).unwrap_or(&reply).to_owned()
}

/// Waits until no client is connected, and pontoon has cleaned or closed the connections that clients have left, so that the server has
/// only those that pontoon keeps. `ours` is the number of connections that the test itself has to the server.
pub fn settle(pontoon: &Pontoon, direct: &mut Wire, ours: u64) {
    settle_with(pontoon, direct, ours, 0);
}

/// As [`settle`], with `clients` connected clients, each with its own connection.
pub fn settle_with(pontoon: &Pontoon, direct: &mut Wire, ours: u64, clients: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, metrics) = pontoon.get("/metrics");
        let of = |name: &str, label: &str| -> u64 {
            let lines = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
        };
        let kept =
            ["state=\"idle\"", "state=\"shared\""].map(|state| of("pontoon_upstream_connections", state));
        let info = String::from_utf8_lossy(&direct.ask(&["INFO", "clients"])).into_owned();
        let connected = info.lines().find_map(|line| line.strip_prefix("connected_clients:"));
        let connected: u64 =
            connected.unwrap_or_else(|| panic!("INFO says {info:?}")).trim().parse().unwrap();
        let sessions = of("pontoon_sessions_active", "");
        if sessions == clients && connected == ours + clients + kept[0] + kept[1] {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "never settled: {sessions} sessions, {connected} connections at the server, {kept:?} kept"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}
