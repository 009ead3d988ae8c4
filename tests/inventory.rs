//! Which clients use the bridge, which did before, and what each needs to leave it: `/clients`, `/routes`, `pontoon status`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::harness::programs::{node, python, redis_cli_over_tls};
use crate::harness::{
    Authority, Dual, Engine, Mood, Pontoon, Redis, Wire, bridge, clients_share, command, eventually,
    pontoon as run,
};

fn clients(pontoon: &Pontoon) -> Value {
    let (status, body) = pontoon.get("/clients");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// The live session for which `is` holds, once there is one.
fn session(pontoon: &Pontoon, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let mut found = Value::Null;
    eventually(what, || {
        let report = clients(pontoon);
        found = report["sessions"].as_array().unwrap().iter().find(|s| is(s)).cloned().unwrap_or_default();
        !found.is_null()
    });
    found
}

/// The client, of ended and live sessions, for which `is` holds, once there is one.
fn client(pontoon: &Pontoon, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let mut found = Value::Null;
    eventually(what, || {
        let report = clients(pontoon);
        found = report["clients"].as_array().unwrap().iter().find(|c| is(c)).cloned().unwrap_or_default();
        !found.is_null()
    });
    found
}

fn named(name: &str) -> impl Fn(&Value) -> bool {
    move |entry| entry["client_name"] == name
}

fn uses(library: &str) -> impl Fn(&Value) -> bool {
    move |entry| entry["library"]["name"] == library
}

/// A program that has done its work, said "ready" and holds its connections.
pub struct Program(Child);

impl Program {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let program = Self(child);
        assert_eq!(first, "ready\n");
        program
    }

    pub fn redis_py(pontoon: &Pontoon, script: &str) -> Self {
        Self::redis_py_at(pontoon.address().port(), script)
    }

    /// As [`redis_py`](Self::redis_py), connected directly to a server.
    pub fn redis_py_at(port: u16, script: &str) -> Self {
        let script = format!(
            "import redis, sys\nport = int(sys.argv[1])\n{script}\nprint('ready', flush=True)\ninput()"
        );
        Self::start(python().args(["-c", &script, &port.to_string()]))
    }

    fn node(pontoon: &Pontoon, module: &str) -> Self {
        Self::node_at(pontoon.address().port(), module)
    }

    /// As [`node`](Self::node), connected directly to a server.
    pub fn node_at(port: u16, module: &str) -> Self {
        let script = "
            const Redis = require(process.argv[1]);
            const client = new Redis({ port: +process.argv[2], db: 2, connectionName: 'node-app' });
            client.set('k', 'v').then(() => client.get('k')).then(() => console.log('ready'));
        ";
        Self::start(node().args(["-e", script, module, &port.to_string()]))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn port(pontoon: &Pontoon) -> String {
    pontoon.address().port().to_string()
}

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

/// The kernel's name of this test's process.
fn own_name() -> String {
    std::fs::read_to_string("/proc/self/comm").unwrap().trim_end().to_owned()
}

#[test]
fn redis_py_is_listed_with_its_version_protocol_database_name_and_process() {
    let (redis, pontoon) = bridge();
    let script = "
for protocol in (2, 3):
    r = redis.Redis(port=port, protocol=protocol, db=protocol, client_name=f'app-{protocol}', single_connection_client=True)
    r.ping()
    globals()[f'keep{protocol}'] = r";
    let program = Program::redis_py(&pontoon, script);
    for protocol in [2, 3] {
        let name = format!("app-{protocol}");
        let session = session(&pontoon, &name, named(&name));
        assert_eq!(session["library"]["name"], "redis-py", "{session}");
        assert_eq!(session["library"]["version"], "8.1.0", "{session}");
        assert_eq!(session["library"]["guessed"], false);
        assert_eq!(
            (&session["protocol"], &session["database"]),
            (&protocol.into(), &protocol.into()),
            "{session}"
        );
        assert!(session["commands"].as_u64().unwrap() >= 3, "{session}");
        assert_eq!(session["upstream"]["endpoint"], redis.endpoint());
        assert_eq!(session["upstream"]["tls"], true);
        eventually("the client's process is known", || {
            self::session(&pontoon, &name, named(&name))["process"]["pid"] == program.pid()
        });
    }
    let libraries = &clients(&pontoon)["libraries"];
    assert_eq!(libraries[0]["library"], "redis-py");
    assert_eq!(libraries[0]["tls_since"], "2.10");
    assert!(libraries[0]["setting"].as_str().unwrap().contains("rediss://"));
}

#[test]
fn ioredis_is_known_by_its_library_name_or_its_commands() {
    let (_redis, pontoon) = bridge();
    let present = Program::node(&pontoon, "ioredis");
    let session = session(&pontoon, "ioredis", uses("ioredis"));
    assert_eq!(session["library"]["version"], "5.8.2");
    assert_eq!((&session["client_name"], &session["database"]), (&"node-app".into(), &2.into()), "{session}");
    drop(present);
    let _before = Program::node(&pontoon, "ioredis-before");
    let session = self::session(&pontoon, "an older ioredis", uses("ioredis or node_redis"));
    assert_eq!(
        (&session["library"]["guessed"], &session["library"]["version"]),
        (&true.into(), &Value::Null)
    );
    assert_eq!((&session["client_name"], &session["database"]), (&"node-app".into(), &2.into()), "{session}");
}

#[test]
fn redis_cli_and_redis_benchmark_are_known_by_their_commands() {
    let (_redis, pontoon) = bridge();
    let benchmark = ["-p", &port(&pontoon), "-n", "200", "-c", "2", "-t", "get", "-q"];
    assert!(Command::new("redis-benchmark").args(benchmark).output().unwrap().status.success());
    let gone = client(&pontoon, "redis-benchmark", uses("redis-benchmark"));
    assert_eq!(gone["library"]["guessed"], true);
    // Without a command redis-cli is interactive, and asks for help texts. Since 8.0 it does so only if it has a terminal, which `script`
    // provides.
    let cli = Command::new("script")
        .args(["--quiet", "--return", "--command", &format!("redis-cli -p {}", port(&pontoon)), "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn();
    let mut cli = cli.unwrap();
    let cli = Program({
        use std::io::Write;
        cli.stdin.as_mut().unwrap().write_all(b"PING\n").unwrap();
        cli
    });
    if Engine::here().is_before_7() {
        // Its only request, COMMAND, is also made by others.
        let session = session(&pontoon, "redis-cli", |entry| entry["commands"].as_u64() >= Some(1));
        assert_eq!(session["library"], Value::Null);
    } else {
        let session = session(&pontoon, "redis-cli", uses("redis-cli"));
        assert_eq!(session["library"]["guessed"], true);
    }
    drop(cli);
}

#[test]
fn a_client_that_says_nothing_is_listed_as_unknown_with_its_process() {
    let (_redis, pontoon) = bridge();
    let mut wire = pontoon.client();
    wire.expect(&["PING"], "+PONG\r\n");
    let session = session(&pontoon, "its process", |session| session["process"]["pid"] == std::process::id());
    assert_eq!(
        (&session["process"]["uid"], &session["process"]["name"]),
        (&own_uid().into(), &own_name().into())
    );
    assert_eq!((&session["library"], &session["client_name"]), (&Value::Null, &Value::Null));
    assert_eq!(
        (&session["protocol"], &session["database"], &session["commands"]),
        (&2.into(), &0.into(), &1.into())
    );
    let request = command(&["PING"]).len();
    assert_eq!((&session["bytes_to_upstream"], &session["bytes_to_client"]), (&request.into(), &7.into()));
    assert!(session["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(clients(&pontoon)["libraries"], Value::Array(vec![]));
}

#[test]
fn a_client_over_a_unix_socket_is_listed_with_its_process() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("redis.sock");
    let listen = format!("unix:{}", path.display());
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--listen", &listen]);
    let mut wire = Wire::unix(&path);
    wire.expect(&["PING"], "+PONG\r\n");
    let session = session(&pontoon, "its process' name", |session| session["process"]["name"] == own_name());
    assert_eq!(session["peer"], "unix");
    assert_eq!(session["process"]["pid"], std::process::id());
    assert_eq!(session["process"]["uid"], own_uid());
}

#[test]
fn database_name_and_protocol_follow_what_the_server_accepts() {
    let (_redis, pontoon) = bridge();
    let mut wire = pontoon.client();
    let state = || {
        let session = &clients(&pontoon)["sessions"][0];
        let name = session["client_name"].as_str().unwrap_or("-").to_owned();
        (session["protocol"].as_u64().unwrap(), session["database"].as_u64().unwrap(), name)
    };
    assert!(wire.ask(&["HELLO", "3", "SETNAME", "first"]).starts_with(b"%7\r\n"));
    assert_eq!(state(), (3, 0, "first".into()));
    assert!(wire.ask(&["HELLO", "4", "SETNAME", "refused"]).starts_with(b"-NOPROTO"));
    assert!(wire.ask(&["SELECT", "99"]).starts_with(b"-ERR"));
    assert!(wire.ask(&["CLIENT", "SETNAME", "with space"]).starts_with(b"-ERR"));
    assert_eq!(state(), (3, 0, "first".into()));
    wire.send(
        &[command(&["GET", "k"]), command(&["SELECT", "5"]), command(&["CLIENT", "SETNAME", "second"])]
            .concat(),
    );
    wire.expect_next("_\r\n");
    wire.expect_next("+OK\r\n");
    wire.expect_next("+OK\r\n");
    assert_eq!(state(), (3, 5, "second".into()));
    // A queued command has not happened.
    wire.expect(&["MULTI"], "+OK\r\n");
    wire.expect(&["SELECT", "7"], "+QUEUED\r\n");
    wire.expect(&["DISCARD"], "+OK\r\n");
    assert_eq!(state(), (3, 5, "second".into()));
    wire.expect(&["CLIENT", "SETNAME", ""], "+OK\r\n");
    assert_eq!(state(), (3, 5, "-".into()));
    assert!(wire.ask(&["HELLO", "2", "SETNAME", "third"]).starts_with(b"*14\r\n"));
    assert_eq!(state(), (2, 5, "third".into()));
    wire.expect(&["RESET"], "+RESET\r\n");
    assert_eq!(state(), (2, 0, "-".into()));
}

#[test]
fn a_client_that_left_is_remembered_with_its_sessions_and_last_use() {
    let (_redis, pontoon) = bridge();
    for _ in 0..3 {
        let mut wire = pontoon.client();
        wire.expect(&["CLIENT", "SETNAME", "batch"], "+OK\r\n");
        wire.expect(&["PING"], "+PONG\r\n");
    }
    let gone = |entry: &Value| entry["client_name"] == "batch" && entry["active"] == 0;
    // pontoon may have found a process for some of them.
    let total = |what: &str| {
        let report = clients(&pontoon);
        let all = report["clients"].as_array().unwrap().iter().filter(|entry| gone(entry));
        all.map(|entry| entry[what].as_u64().unwrap()).sum::<u64>()
    };
    eventually("all clients have left", || total("sessions") == 3);
    assert_eq!(total("commands"), 6);
    let entry = client(&pontoon, "batch", gone);
    let time = |what: &str| humantime::parse_rfc3339(entry[what].as_str().unwrap()).unwrap();
    assert!(time("first_seen") <= time("last_seen"));
    assert!(time("last_seen").elapsed().unwrap().as_secs() < 3600);
    assert_eq!(clients(&pontoon)["sessions_total"], 0);
}

#[test]
fn the_origin_of_an_upstream_connection_is_reported() {
    if clients_share() {
        // In shared mode clients have few connections, and not one each.
        return;
    }
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let args = ["--workers", "1", "--pool-warm", "false", "--pool-reuse", "true"];
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &args);
    let origin = |name: &str| {
        let mut wire = pontoon.client();
        wire.expect(&["CLIENT", "SETNAME", name], "+OK\r\n");
        session(&pontoon, name, named(name))["upstream"]["origin"].clone()
    };
    assert_eq!(origin("first"), "dialled");
    eventually("the connection is kept", || {
        pontoon.metric("pontoon_upstream_connections", "state=\"idle\"") == 1
    });
    assert_eq!(origin("second"), "reused");
}

#[test]
fn a_client_with_its_own_tls_only_has_to_change_its_address() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--accept", "any"]);
    let flags = [
        "-h",
        "localhost",
        "-p",
        &port(&pontoon),
        "--tls",
        "--cacert",
        &authority.file(),
        "--sni",
        "localhost",
    ];
    let output =
        Command::new("timeout").arg("30").arg(redis_cli_over_tls()).args(flags).arg("PING").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let gone = client(&pontoon, "it", |entry| entry["own_tls"] == true);
    assert_eq!(
        (&gone["commands"], &gone["library"]),
        (&0.into(), &Value::Null),
        "pontoon read no request of the client"
    );
}

#[test]
fn ten_thousand_short_connections_leave_a_bounded_inventory() {
    let (_redis, pontoon) = bridge();
    let pontoon = pontoon.ready();
    thread::scope(|scope| {
        for part in 0..8 {
            let address = pontoon.address();
            scope.spawn(move || {
                for n in 0..1250 {
                    let mut wire = Wire::tcp(address);
                    wire.expect(&["CLIENT", "SETNAME", &format!("c-{part}-{n}")], "+OK\r\n");
                }
            });
        }
    });
    eventually("all clients have left", || clients(&pontoon)["sessions_total"] == 0);
    let report = clients(&pontoon);
    let clients_total = report["clients_total"].as_u64().unwrap();
    assert!(clients_total <= 1000, "{clients_total}");
    assert_eq!(clients_total + report["clients_forgotten"].as_u64().unwrap(), 10_000);
    let (_, routes) = pontoon.get("/routes");
    let routes: Value = serde_json::from_str(&routes).unwrap();
    assert_eq!((&routes[0]["sessions_total"], &routes[0]["commands"]), (&10_000.into(), &10_000.into()));
    let few: Value = serde_json::from_str(&pontoon.get("/clients?limit=5").1).unwrap();
    assert_eq!(few["clients"].as_array().unwrap().len(), 5);
    assert_eq!(few["clients_total"], clients_total);
    assert_eq!(pontoon.get("/clients?limit=many").0, 400);
}

#[test]
fn passwords_and_stored_values_are_shown_nowhere() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let redis = Redis::with(identity, &authority, &["--requirepass", "s3cr3t-Pa55"]);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--log-level", "trace"]);
    let mut first = pontoon.client();
    first.expect(&["AUTH", "s3cr3t-Pa55"], "+OK\r\n");
    first.expect(&["SET", "k3y-0f-0ne", "va1ue-0f-0ne"], "+OK\r\n");
    let mut second = pontoon.client();
    let hello = ["HELLO", "3", "AUTH", "default", "s3cr3t-Pa55", "SETNAME", "second"];
    assert!(second.ask(&hello).starts_with(b"%7\r\n"));
    let mut third = pontoon.client();
    assert!(third.ask(&["HELLO", "3", "AUTH", "default", "wr0ng-Pa55"]).starts_with(b"-WRONGPASS"));
    let mut fourth = pontoon.client();
    fourth.send(b"AUTH s3cr3t-Pa55\r\nGET k3y-0f-0ne\r\n");
    fourth.expect_next("+OK\r\n");
    fourth.expect_next("$12\r\nva1ue-0f-0ne\r\n");
    session(&pontoon, "the name beside the password", named("second"));
    let status = run(&["status", "--admin", &pontoon.admin().to_string()]);
    let told =
        [pontoon.get("/clients").1, pontoon.get("/routes").1, String::from_utf8(status.stdout).unwrap()]
            .concat();
    for secret in ["Pa55", "k3y-", "va1ue"] {
        assert!(!told.contains(secret), "{told}");
        assert_eq!(pontoon.log_count(secret), 0);
    }
}

#[test]
fn hostile_client_names_are_harmless() {
    let (_redis, pontoon) = bridge();
    let info = |wire: &mut Wire, attribute: &str, value: &[u8]| {
        // Whether the server knows the attribute or not, the client has sent it.
        wire.ask(&[&b"CLIENT"[..], b"SETINFO", attribute.as_bytes(), value]);
    };
    let mut wire = pontoon.client();
    info(&mut wire, "LIB-NAME", b"\x1b[2J\r\nname\0\xff");
    info(&mut wire, "LIB-VER", "1\u{202e}\u{200b}2".as_bytes());
    wire.expect(&["CLIENT", "SETNAME", "<script>alert('x')</script>"], "+OK\r\n");
    let session = session(&pontoon, "its name", named("<script>alert('x')</script>"));
    assert_eq!(
        (&session["library"]["name"], &session["library"]["version"]),
        (&"?[2J??name??".into(), &"1??2".into())
    );
    let mut long = pontoon.client();
    long.expect(&["CLIENT", "SETNAME", &"n".repeat(1 << 20)], "+OK\r\n");
    info(&mut long, "LIB-NAME", &vec![0xff; 1 << 20]);
    let session = self::session(&pontoon, "its name, cut", named(&"n".repeat(64)));
    assert_eq!(session["library"], Value::Null, "no part of the library's name can be shown");
    long.expect(&["PING"], "+PONG\r\n");
    let status = run(&["status", "--admin", &pontoon.admin().to_string()]);
    assert!(String::from_utf8(status.stdout).unwrap().chars().all(|c| c == '\n' || !c.is_control()));
}

#[test]
fn status_is_a_work_list_for_people_and_json_for_programs() {
    let (redis, pontoon) = bridge();
    let _program = Program::redis_py(&pontoon, "r = redis.Redis(port=port, client_name='worker')\nr.ping()");
    session(&pontoon, "worker", named("worker"));
    let admin = pontoon.admin().to_string();
    let output = run(&["status", "--admin", &admin]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let line = |words: &str| {
        text.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}: {text}"))
    };
    assert!(line("rediss://").contains("redis-py 8.1.0") && line("rediss://").contains(" worker "), "{text}");
    assert!(line("rediss://").contains(" now "), "{text}");
    assert!(line(&redis.endpoint()).contains(&pontoon.address().to_string()), "{text}");
    assert!(line("TLS SINCE").contains("CHECKS HOST NAME"), "{text}");
    let output = run(&["status", "--json", "--admin", &admin]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["routes"][0]["sessions_active"], 1);
    assert_eq!(json["clients"]["sessions"][0]["client_name"], "worker");
}

#[test]
fn status_without_a_pontoon_says_so_and_fails() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = run(&["status", "--admin", &nobody]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.starts_with(&format!("error: no answer from {nobody}: ")) && error.contains("--admin"),
        "{error}"
    );
    let output = run(&["status", "--admin", "nowhere"]);
    assert_eq!(output.status.code(), Some(2));
}

/// Why sessions of the client with this name cannot move: `1 pinned: subscribed`.
fn stays(pontoon: &Pontoon, name: &str) -> Vec<String> {
    let report = clients(pontoon);
    let rows = report["clients"].as_array().unwrap().iter().filter(|row| row["client_name"] == name);
    let stays = rows.filter_map(|row| row["stays"].as_array()).flatten();
    let words = |stay: &Value| {
        format!("{} {}: {}", stay["sessions"], stay["state"].as_str().unwrap(), stay["why"].as_str().unwrap())
    };
    stays.map(words).collect()
}

fn says(pontoon: &Pontoon, name: &str, words: &str) {
    let mut last = Vec::new();
    eventually(&format!("{name}: {words}"), || {
        last = stays(pontoon, name);
        last.len() == 1 && last[0].contains(words)
    });
}

/// A client whose session cannot move because of what `words` do.
fn held(redis: &Redis, pontoon: &Pontoon, name: &str, words: &[&str]) -> Wire {
    let mut client = pontoon.client();
    client.expect(&["CLIENT", "SETNAME", name], "+OK\r\n");
    if words[0] == "BLPOP" {
        client.send(&command(words));
        let mut direct = redis.direct();
        eventually("the client is blocked", || {
            String::from_utf8_lossy(&direct.ask(&["INFO", "clients"])).contains("blocked_clients:1")
        });
    } else {
        assert!(!client.ask(words).starts_with(b"-"), "{words:?}");
    }
    client
}

const HELD: [(&str, &[&str], &str); 5] = [
    ("subscriber", &["SUBSCRIBE", "channel"], "subscribed"),
    ("transaction", &["MULTI"], "transaction open"),
    ("worker", &["BLPOP", "nothing", "0"], "blocking command"),
    ("watcher", &["WATCH", "key"], "keys watched (WATCH)"),
    ("tracker", &["CLIENT", "ID"], "permanent state (CLIENT TRACKING, CLIENT ID"),
];

/// A server that accepts plaintext, and TLS once its front is set to it; and a bridge that may move sessions to TLS.
fn preferred(args: &[&str]) -> (Redis, Dual, Pontoon) {
    let authority = Authority::new();
    let mut redis = Redis::start(&authority);
    let dual = Dual::new(&redis, Mood::Accept, Mood::Close);
    let args = [&["--tls-mode", "preferred", "--workers", "1"][..], args].concat();
    let pontoon = Pontoon::with(&dual.endpoint(), &authority, &args);
    pontoon.allows("traffic is in plaintext until an endpoint accepts TLS");
    pontoon.allows("transit encryption observed: plaintext only");
    redis.keep(authority);
    (redis, dual, pontoon)
}

fn tls_is_seen(dual: &Dual, pontoon: &Pontoon) {
    dual.set(Mood::Accept, Mood::Accept);
    eventually("TLS is seen", || pontoon.metric("pontoon_transit_encryption", "mode=\"tls\"") == 1);
}

#[test]
fn the_inventory_says_why_sessions_stay_in_plaintext_and_the_remedy() {
    let (redis, dual, pontoon) = preferred(&["--sharing", "dedicated"]);
    let [_one, _other] = [(); 2].map(|()| held(&redis, &pontoon, "shop", &["PING"]));
    says(&pontoon, "shop", "2 plaintext: no endpoint has offered TLS yet");
    tls_is_seen(&dual, &pontoon);
    says(&pontoon, "shop", "tls.upgrade is \"keep\": reconnect the client");
    let output = run(&["status", "--admin", &pontoon.admin().to_string()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("named shop, ") && text.contains("\n  - 2 in plaintext: started before"), "{text}");
    let page = pontoon.get("/").1;
    assert!(page.contains("2 in plaintext: started before TLS was seen"), "{page}");
}

#[test]
fn the_inventory_says_what_keeps_a_session_from_being_moved_to_tls() {
    let (redis, dual, pontoon) = preferred(&["--sharing", "dedicated", "--tls-upgrade", "drain"]);
    let mut clients = HELD.map(|(name, words, _)| held(&redis, &pontoon, name, words));
    let mut user = held(&redis, &pontoon, "user", &["AUTH", "default", "any"]);
    let mut resp3 = pontoon.client();
    resp3.ask(&["HELLO", "3", "SETNAME", "resp3"]);
    resp3.ask(&["SUBSCRIBE", "channel"]);
    tls_is_seen(&dual, &pontoon);
    for (name, _, why) in HELD.into_iter().chain([
        ("user", &[][..], "authenticated by the client (AUTH)"),
        ("resp3", &[][..], "subscribed in RESP3, now or earlier (lasts until RESET)"),
    ]) {
        says(&pontoon, name, &format!("1 plaintext: {why}"));
        says(&pontoon, name, "if it lasts, reconnect the client");
    }
    // A session whose transaction ends is moved, and its reason is no longer listed.
    clients[1].expect(&["EXEC"], "*0\r\n");
    eventually("the transaction is over", || stays(&pontoon, "transaction").is_empty());
    clients[1].expect(&["PING"], "+PONG\r\n");
    user.expect(&["PING"], "+PONG\r\n");
    let plain = format!("127.0.0.1:{}", redis.plain_port);
    let disabled = Pontoon::run(&["--upstream", &plain, "--listen", "127.0.0.1:0", "--tls-mode", "disabled"]);
    disabled.allows("tls.mode is \"disabled\"");
    let _client = held(&redis, &disabled, "shop", &["PING"]);
    says(&disabled, "shop", "tls.mode is \"disabled\": set it to \"preferred\"");
}

#[test]
fn the_inventory_says_why_a_client_of_shared_mode_is_not_sharing() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon =
        Pontoon::with(&redis.endpoint(), &authority, &["--sharing", "shared", "--workers", "1"]).ready();
    let mut clients = HELD.map(|(name, words, _)| held(&redis, &pontoon, name, words));
    for (name, _, why) in HELD {
        says(&pontoon, name, &format!("1 pinned: {why}"));
    }
    clients[3].expect(&["UNWATCH"], "+OK\r\n");
    eventually("the client shares again", || stays(&pontoon, "watcher").is_empty());
}
