//! The Compose file for a laptop. The tests run its services without containers.

use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

use super::{checked, drain_seconds, must, strings};
use crate::harness::{Authority, Hosts, Pontoon, Redis};

static FILE: LazyLock<Value> =
    LazyLock::new(|| checked("compose", &std::fs::read_to_string("config/compose/compose.yaml").unwrap()));

fn service(name: &str) -> &'static Value {
    &FILE["services"][name]
}

#[test]
fn its_certificates_redis_and_bridge_carry_a_conversation() {
    let directory = tempfile::tempdir().unwrap();
    let here = |text: &String| text.replace("/tls", directory.path().to_str().unwrap());
    let script: Vec<String> = strings(&service("certificates")["command"]).iter().map(here).collect();
    must(Command::new(&script[0]).args(&script[1..]));
    must(Command::new(&script[0]).args(&script[1..]));

    // Here the ports are the machine's own, and the harness needs a plaintext one.
    let options: Vec<String> = strings(&service("redis")["command"])[5..].iter().map(here).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let others = Authority::new();
    let redis = Redis::with(others.issue(&["localhost"]), &others, &options);

    let hosts = Hosts::new(&["redis"]);
    let args: Vec<String> = strings(&service("pontoon")["command"])[1..]
        .iter()
        .map(here)
        .flat_map(|arg| arg.split('=').map(ToOwned::to_owned).collect::<Vec<_>>())
        .map(|word| match word.as_str() {
            "redis:6379" => format!("redis:{}", redis.tls_port),
            "0.0.0.0:6379" | "0.0.0.0:9900" => "127.0.0.1:0".into(),
            _ => word,
        })
        .collect();
    let pontoon = Pontoon::with_hosts(&hosts, &args.iter().map(String::as_str).collect::<Vec<_>>());
    pontoon.client().expect(&["SET", "greeting", "hello"], "+OK\r\n");
    redis.direct().expect(&["GET", "greeting"], "$5\r\nhello\r\n");
}

#[test]
fn only_the_laptop_itself_reaches_the_bridge() {
    for port in strings(&service("pontoon")["ports"]) {
        assert!(port.starts_with("127.0.0.1:"), "{port}");
    }
}

#[test]
fn the_bridge_gets_the_time_that_a_drain_takes() {
    let grace = service("pontoon")["stop_grace_period"].as_str().unwrap().to_owned();
    assert!(humantime::parse_duration(&grace).unwrap().as_secs() > drain_seconds(), "{grace}");
}

#[test]
fn the_app_waits_until_the_bridge_is_serving() {
    let check = strings(&service("pontoon")["healthcheck"]["test"]);
    assert_eq!(check[0], "CMD", "the image has no shell");
    pontoon::cli::command().try_get_matches_from(&check[1..]).unwrap();
    let app = service("app");
    assert_eq!(app["depends_on"]["pontoon"]["condition"], "service_healthy");
    assert_eq!(app["network_mode"], "service:pontoon", "its loopback is pontoon's");
}
