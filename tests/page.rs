//! The status page, as a browser shows it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::programs::node;
use crate::harness::{Authority, Cluster, Dual, Mood, PATIENCE, Pontoon, Redis, Wire, command, eventually};

/// A browser that looks at a page: `tests/browser/page.cjs`.
struct Browser {
    process: Child,
    says: BufReader<ChildStdout>,
}

impl Browser {
    fn at(pontoon: &Pontoon) -> Self {
        let mut node = node();
        node.arg("tests/browser/page.cjs");
        node.arg(format!("http://{}/", pontoon.admin())).args(std::env::var_os("TEST_SCREENSHOTS"));
        let mut process = node.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let says = BufReader::new(process.stdout.take().unwrap());
        Self { process, says }
    }

    /// Waits until the browser reports this step.
    fn has(&mut self, word: &str) {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), word, "what the browser found is above");
    }

    fn go_on(&mut self) {
        self.process.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends by itself once its standard input is closed, and ends Chromium as well.
        drop(self.process.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_page_shows_the_verdict_the_road_the_load_and_the_clients_live() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let before = Dual::new(&redis, Mood::Accept, Mood::Close);
    let limits = "limits.max_clients = 100";
    let config = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[[route]]\nname = \"sessions\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{}\"\n\
         tls.ca_files = [\"{ca}\"]\n{limits}\n[[route]]\nname = \"carts\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{}\"\n\
         tls.ca_files = [\"{ca}\"]\ntls.mode = \"preferred\"\n{limits}\n\
         [[route]]\nname = \"jobs\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{}\"\ntls.ca_files = [\"{ca}\"]\n\
         tls.mode = \"preferred\"\n{limits}\n[[route]]\nname = \"spare\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{}\"\n\
         tls.ca_files = [\"{ca}\"]\n{limits}\n",
        redis.endpoint(),
        before.endpoint(),
        before.endpoint(),
        redis.endpoint(),
        ca = authority.file()
    );
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pontoon.toml");
    std::fs::write(&file, config).unwrap();
    let mut pontoon = Pontoon::run(&["--config", file.to_str().unwrap()]).ready();
    pontoon.expects("traffic is in plaintext");
    pontoon.expects("transit encryption observed: plaintext only");
    let addresses = pontoon.addresses();
    let named = |address: &str, name: &str| {
        let mut wire = Wire::tcp(address);
        wire.expect(&["CLIENT", "SETNAME", name], "+OK\r\n");
        wire
    };
    let mut working: Vec<Wire> = (0..3).map(|_| named(&addresses[0], "worker")).collect();
    let idle = [named(&addresses[1], "nightly-<b>job</b>"), named(&addresses[0], "report")];
    drop(named(&addresses[2], "former"));
    let done = Arc::new(AtomicBool::new(false));
    let load = {
        let done = Arc::clone(&done);
        thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                for wire in &mut working {
                    wire.ask(&["INCR", "n"]);
                }
            }
        })
    };
    let mut browser = Browser::at(&pontoon);
    browser.has("ready");
    let late = [named(&addresses[3], "again"), named(&addresses[0], "late-comer")];
    browser.go_on();
    browser.has("seen");
    done.store(true, Ordering::Relaxed);
    load.join().unwrap();
    drop((idle, late));
    pontoon.signal(rustix::process::Signal::TERM);
    pontoon.wait();
    browser.go_on();
    assert!(browser.process.wait().unwrap().success(), "what the browser found is above");
}

#[test]
fn the_page_of_a_cluster_shows_each_node_with_its_role_port_and_health() {
    let mut cluster = Cluster::start();
    let ca = cluster.authority().file();
    let args = [
        "--upstream",
        &cluster.endpoint(),
        "--topology",
        "cluster",
        "--tls-ca-file",
        &ca,
        "--listen",
        "127.0.0.1:0",
    ];
    let pontoon = Pontoon::run(&args);
    eventually("all nodes are known", || pontoon.metric("pontoon_cluster_nodes", "") == 6);
    eventually("all nodes were tried", || pontoon.get("/").1.matches("</span>up since ").count() == 7);
    let (status, page) = pontoon.get("/");
    assert_eq!(status, 200);
    let routes: serde_json::Value = serde_json::from_str(&pontoon.get("/routes").1).unwrap();
    let nodes: Vec<_> = routes[0]["upstreams"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|node| !node["local_port"].is_null())
        .collect();
    assert_eq!(nodes.len(), 6);
    let mut rows = page.split("<th scope=\"row\">").skip(2);
    for (number, node) in nodes.into_iter().enumerate() {
        let (endpoint, port) = (node["endpoint"].as_str().unwrap(), &node["local_port"]);
        // The harness gives the first slots to the first primary, and starts primaries before replicas.
        let (role, expected) =
            if number % 2 == 0 { ("primary", number / 2) } else { ("replica", 3 + number / 2) };
        assert!(endpoint.ends_with(&format!(":{}", cluster.nodes[expected].port)), "{number}: {endpoint}");
        let row = rows.next().unwrap();
        assert!(
            row.starts_with(&format!("{endpoint}</th><td>{role}</td><td>{port}</td>")),
            "{endpoint}: {row}"
        );
    }
    pontoon.expects("upstream connection failed");
    cluster.nodes[5].kill();
    eventually("the node looks down", || {
        let page = pontoon.get("/").1;
        page.contains("</span>down since ") && page.contains("1 of 6 nodes down")
    });
}

#[test]
fn no_page_shows_a_secret_a_key_or_a_value() {
    let authority = Authority::new();
    let redis = Redis::with(authority.issue(&["localhost"]), &authority, &["--requirepass", "s3cr3t-Pa55"]);
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "s3cr3t-Pa55").unwrap();
    let secret = secret.to_str().unwrap();
    let args = ["--auth-password-file", secret, "--log-level", "trace"];
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &args).ready();
    let mut client = pontoon.client();
    client.expect(&["SET", "k3y-0f-0ne", "va1ue-0f-0ne"], "+OK\r\n");
    client.send(&command(&["GET", "k3y-0f-0ne"]));
    client.expect_next("$12\r\nva1ue-0f-0ne\r\n");
    let mut other = pontoon.client();
    other.ask(&["AUTH", "wr0ng-Pa55"]);
    other.ask(&["HELLO", "3", "AUTH", "default", "wr0ng-Pa55", "SETNAME", "known"]);
    other.ask(&["EVAL", "return redis.call('get', 'k3y-0f-0ne')", "0"]);
    for path in
        ["/", "/livez", "/readyz", "/metrics", "/routes", "/clients", "/nothing", "/clients?limit=k3y-"]
    {
        let (_, body) = pontoon.get(path);
        for word in ["Pa55", "k3y-", "va1ue"] {
            assert!(!body.contains(word), "{path}: {body}");
        }
    }
}
