//! In a cluster pontoon authenticates at every node, for every client, through failovers and changes of the secret.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::{NEW, OLD, Password, WRONGPASS};
use crate::harness::programs::{printed, python};
use crate::harness::{CHECK, Cluster, Engine, Pontoon, StopOnDrop, Wire, eventually, pontoon};

/// A cluster on which only the user `app` may do anything, with the old password.
struct Guarded(Cluster);

impl Guarded {
    fn start() -> Self {
        let cluster = Cluster::start();
        for node in &cluster.nodes {
            let mut wire = node.wire();
            // Replicas authenticate at their primary as this user.
            wire.expect(&["ACL", "SETUSER", "admin", "on", ">admin", "allcommands", "allkeys"], "+OK\r\n");
            for key in ["masteruser", "masterauth"] {
                wire.expect(&["CONFIG", "SET", key, "admin"], "+OK\r\n");
            }
            let (password, app) = (format!(">{OLD}"), ["ACL", "SETUSER", "app", "on"]);
            let may = [&password, "allkeys", "+@all", "-@dangerous", "+acl|whoami"];
            wire.expect(&[&app[..], &may].concat(), "+OK\r\n");
            if Engine::here().is_before_7() {
                // There, CLUSTER with all of its subcommands is in the category "dangerous".
                wire.expect(&[&app[..], &["+cluster|slots", "+cluster|nodes"]].concat(), "+OK\r\n");
            }
            wire.expect(&["ACL", "SETUSER", "default", "off"], "+OK\r\n");
        }
        Self(cluster)
    }

    fn admin(&self, node: usize) -> Wire {
        let mut admin = self.0.nodes[node].wire();
        admin.expect(&["AUTH", "admin", "admin"], "+OK\r\n");
        admin
    }

    fn set_user(&self, node: usize, rules: &[&str]) {
        self.admin(node).expect(&[&["ACL", "SETUSER", "app"], rules].concat(), "+OK\r\n");
    }
}

fn to(cluster: &Cluster, password: &Password, args: &[&str]) -> Pontoon {
    let path = password.path();
    let auth = ["--topology", "cluster", "--auth-password-file", path.to_str().unwrap()];
    Pontoon::with(&cluster.endpoint(), cluster.authority(), &[&auth, args].concat())
}

/// The local address of each node, as clients receive it.
fn doors(pontoon: &Pontoon) -> Vec<SocketAddr> {
    eventually("all nodes are known", || pontoon.metric("pontoon_cluster_nodes", "") == 6);
    let nodes = String::from_utf8(pontoon.client().ask(&["CLUSTER", "NODES"])).unwrap();
    let lines = nodes.lines().skip(1).filter(|line| !line.is_empty());
    lines.map(|line| line.split([' ', '@']).nth(1).unwrap().parse().unwrap()).collect()
}

/// Reads and writes on every primary, with no password.
const REDIS_PY: &str = r#"
import sys
from redis.cluster import RedisCluster
r = RedisCluster(host="127.0.0.1", port=int(sys.argv[1]))
for n in range(300):
    assert r.set(f"k{n}", n)
assert [r.get(f"k{n}") for n in range(300)] == [str(n).encode() for n in range(300)]
with r.pipeline() as p:
    for n in range(300):
        p.incr(f"n{n}")
    assert p.execute() == [1] * 300
"#;

#[test]
fn clients_of_a_cluster_need_no_password_on_any_node() {
    let (guarded, password) = (Guarded::start(), Password::new(OLD));
    let pontoon = to(&guarded.0, &password, &["--auth-username", "app"]);
    let doors = doors(&pontoon);
    assert_eq!(doors.len(), 6);
    for door in &doors {
        Wire::tcp(door).expect(&["ACL", "WHOAMI"], "$3\r\napp\r\n");
    }
    let port = pontoon.address().port().to_string();
    printed(python().args(["-c", REDIS_PY, &port]));
    // Slot 12182, of the third primary and its replica.
    guarded.admin(5).expect(&["CLUSTER", "FAILOVER"], "+OK\r\n");
    let mut replica = guarded.admin(5);
    eventually("the replica is the primary", || replica.ask(&["ROLE"]).starts_with(b"*3\r\n$6\r\nmaster"));
    eventually("clients are led to the new primary", || {
        let told = String::from_utf8(pontoon.client().ask(&["SET", "foo", "bar"])).unwrap();
        // Another primary answers for the slot. For a moment the slot may have no owner.
        let Some(door) = told.trim_end().strip_prefix("-MOVED 12182 ") else { return false };
        Wire::tcp(door).ask(&["SET", "foo", "bar"]) == b"+OK\r\n"
    });
    assert_eq!(pontoon.metric("pontoon_cluster_refreshes_total", "result=\"failed\""), 0);
}

#[test]
fn one_password_for_the_default_user_of_every_node_is_enough() {
    let (cluster, password) = (Cluster::start(), Password::new(OLD));
    for node in &cluster.nodes {
        let mut wire = node.wire();
        for key in ["masterauth", "requirepass"] {
            wire.expect(&["CONFIG", "SET", key, OLD], "+OK\r\n");
        }
    }
    let pontoon = to(&cluster, &password, &[]);
    for door in doors(&pontoon) {
        Wire::tcp(door).expect(&["ACL", "WHOAMI"], "$7\r\ndefault\r\n");
    }
}

#[test]
fn clients_do_not_notice_nodes_that_learn_a_secret_one_by_one() {
    let (guarded, password) = (Guarded::start(), Password::new(OLD));
    let pontoon = to(&guarded.0, &password, &["--auth-username", "app", "--cluster-refresh", "1s"]);
    let doors = doors(&pontoon);
    let mut lasting: Vec<_> = doors.iter().map(Wire::tcp).collect();
    for client in &mut lasting {
        client.expect(&["PING"], "+PONG\r\n");
    }
    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let end = StopOnDrop(&stop);
        let clients = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for door in &doors {
                    Wire::tcp(door).expect(&["ACL", "WHOAMI"], "$3\r\napp\r\n");
                }
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        let (old, new) = (format!("<{OLD}"), format!(">{NEW}"));
        // One round may already be under way, so a whole round after each step takes two more.
        let round = || {
            let enough = rounds.load(Ordering::Relaxed) + 2;
            eventually("every node was reached", || {
                clients.is_finished() || rounds.load(Ordering::Relaxed) >= enough
            });
        };
        password.replace(NEW);
        pontoon.wait_for_log("credentials changed");
        round();
        for node in 0..guarded.0.nodes.len() {
            guarded.set_user(node, &[&new, &old]);
            round();
        }
        drop(end);
        clients.join().unwrap();
    });
    for client in &mut lasting {
        client.expect(&["PING"], "+PONG\r\n");
    }
    let found = || pontoon.metric("pontoon_cluster_refreshes_total", "result=\"ok\"");
    let before = found();
    eventually("the nodes are looked up with the new secret, too", || found() > before);
    assert_eq!(pontoon.metric("pontoon_cluster_refreshes_total", "result=\"failed\""), 0);
    assert_eq!(pontoon.metric("pontoon_upstream_connect_errors_total", ""), 0);
    let seen = pontoon.printed() + &pontoon.get("/metrics").1;
    assert!(!seen.contains(OLD) && !seen.contains(NEW), "{seen}");
}

#[test]
fn refused_credentials_hide_the_nodes_and_the_right_ones_reveal_them() {
    let (guarded, password) = (Guarded::start(), Password::new("wr0ng-s3cr3t"));
    let path = password.path();
    let endpoint = guarded.0.endpoint();
    let check = || {
        let ca = guarded.0.authority().file();
        let reach =
            [&CHECK[..], &["--topology", "cluster", "--upstream", &endpoint, "--tls-ca-file", &ca]].concat();
        let auth = ["--auth-username", "app", "--auth-password-file", path.to_str().unwrap()];
        let output = pontoon(&[&reach[..], &auth].concat());
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let pontoon = to(&guarded.0, &password, &["--auth-username", "app"]);
    let text = format!("upstream refused the credentials of user app: {WRONGPASS}");
    pontoon.expects(&text);
    pontoon.expects("nodes not known");
    pontoon.wait_for_log("nodes not known");
    pontoon.client().expect(&["GET", "k"], &format!("-ERR pontoon: {text}\r\n"));
    let (ok, said) = check();
    assert!(!ok && said.contains(&text) && !said.contains("wr0ng-s3cr3t"), "{said}");
    password.replace(OLD);
    for door in doors(&pontoon) {
        Wire::tcp(door).expect(&["ACL", "WHOAMI"], "$3\r\napp\r\n");
    }
    pontoon.wait_for_log("nodes known again");
    // The endpoint and each node.
    let (ok, said) = check();
    assert!(ok && said.matches("accepted: user app, password from").count() == 7, "{said}");
}
