//! Real clients, in their ordinary use.

use std::process::Command;

use crate::harness::bridge;

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the client is installed; tests/run.sh does it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn redis_cli_works() {
    let (_redis, pontoon) = bridge();
    let port = pontoon.address().port().to_string();
    let cli = |args: &[&str]| run(Command::new("redis-cli").args(["-p", &port]).args(args));
    assert_eq!(cli(&["SET", "k", "v"]), "OK\n");
    assert_eq!(cli(&["-3", "HGETALL", "none"]).trim(), "");
    assert_eq!(cli(&["GET", "k"]), "v\n");
    assert!(cli(&["INFO", "server"]).contains("redis_version"));
    assert!(cli(&["--scan"]).contains('k'));
}

#[test]
fn redis_benchmark_runs_with_pipelines() {
    let (_redis, pontoon) = bridge();
    let port = pontoon.address().port().to_string();
    for pipeline in ["1", "16"] {
        let report = run(Command::new("redis-benchmark").args([
            "-p",
            &port,
            "-n",
            "20000",
            "-c",
            "20",
            "-P",
            pipeline,
            "-t",
            "set,get,lpush,lrange_100",
            "--csv",
        ]));
        assert!(report.lines().filter(|line| line.starts_with('"')).count() >= 5, "{report}");
    }
}

/// What redis-py's users do: pool, pipeline, transaction, Pub/Sub, blocking pop, script, in both protocols.
const REDIS_PY: &str = r#"
import sys, threading, redis
for protocol in (2, 3):
    r = redis.Redis(port=int(sys.argv[1]), protocol=protocol)
    r.flushall()
    assert r.set("k", b"\r\n\x00") and r.get("k") == b"\r\n\x00"
    with r.pipeline(transaction=True) as p:
        p.incr("n").incr("n").get("n")
        assert p.execute() == [1, 2, b"2"]
    r.hset("h", mapping={"a": 1, "b": 2})
    assert r.hgetall("h") == {b"a": b"1", b"b": b"2"}
    s = r.pubsub()
    s.subscribe("c")
    assert s.get_message(timeout=5)["type"] == "subscribe"
    r.publish("c", "m")
    assert s.get_message(timeout=5)["data"] == b"m"
    s.close()
    t = threading.Timer(0.2, lambda: redis.Redis(port=int(sys.argv[1])).rpush("q", "job"))
    t.start()
    assert list(r.blpop("q", timeout=10)) == [b"q", b"job"]
    t.join()
    assert r.register_script("return ARGV[1]")(args=["x"]) == b"x"
    assert sum(1 for _ in r.scan_iter()) == 3
    with r.lock("lock", timeout=5):
        pass
    r.close()
print("done")
"#;

#[test]
fn redis_py_works() {
    let (_redis, pontoon) = bridge();
    let python = std::env::var("PONTOON_TEST_PYTHON").unwrap_or_else(|_| "target/venv/bin/python".into());
    let report = run(Command::new(&python).args(["-c", REDIS_PY, &pontoon.address().port().to_string()]));
    assert_eq!(report, "done\n");
}
