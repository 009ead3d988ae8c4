//! The systemd unit and its socket.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use super::{drain_seconds, must, said};
use crate::harness::{Authority, Pontoon, Redis, Wire, bridge, pontoon};

const UNIT: &str = "config/systemd/pontoon.service";

/// The value that the unit sets for `name`.
fn setting(name: &str) -> String {
    let unit = fs::read_to_string(UNIT).unwrap();
    let value = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("the unit has no {name}")).to_owned()
}

#[test]
fn systemd_accepts_the_units() {
    let directory = tempfile::tempdir().unwrap();
    let here = |name: &str| directory.path().join(name);
    let unit = fs::read_to_string(UNIT).unwrap();
    // The program is installed elsewhere, or not at all.
    fs::write(here("pontoon.service"), unit.replace("/usr/bin/pontoon", env!("CARGO_BIN_EXE_pontoon")))
        .unwrap();
    fs::copy("config/systemd/pontoon.socket", here("pontoon.socket")).unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.arg("verify").args([here("pontoon.service"), here("pontoon.socket")]);
    let output = verify.output().unwrap();
    let words = said(&output);
    assert!(output.status.success() && !words.contains("pontoon"), "{words}");
}

#[test]
fn the_service_has_a_low_exposure_score() {
    let mut security = Command::new("systemd-analyze");
    // In tenths. The remaining exposure is a bridge's purpose: Internet address families, and clients of all users.
    must(security.args(["security", "--no-pager", "--offline=yes", "--threshold=14", UNIT]));
}

#[test]
fn the_service_gets_the_time_that_a_drain_takes() {
    let stop = humantime::parse_duration(&setting("TimeoutStopSec")).unwrap().as_secs();
    assert!(stop > drain_seconds(), "{stop} s");
}

/// `systemctl reload` first runs `check`, which must accept that pontoon itself holds the addresses.
#[test]
fn a_reload_is_refused_for_a_bad_configuration_not_for_a_running_pontoon() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("pontoon.toml");
    let unit = fs::read_to_string(UNIT).unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecReload=/usr/bin/pontoon ")).unwrap();
    let words = line.replace("/etc/pontoon/pontoon.toml", config.to_str().unwrap());
    let check = |text: String| {
        fs::write(&config, text).unwrap();
        pontoon(&words.split(' ').collect::<Vec<_>>()).status.code()
    };
    let (_redis, running) = bridge();
    let (listen, admin) = (running.address(), running.admin());
    let good = format!(
        "[[route]]\nlisten = [\"{listen}\"]\nupstream = \"cache.example\"\n[admin]\nlisten = \"{admin}\"\n"
    );
    assert_eq!(check(good.clone()), Some(0));
    assert_eq!(check(good.replace("upstream", "upsteam")), Some(2));
}

#[test]
fn the_socket_is_the_one_in_the_packages_configuration() {
    let socket = fs::read_to_string("config/systemd/pontoon.socket").unwrap();
    let address = socket.lines().find_map(|line| line.strip_prefix("ListenStream=")).unwrap();
    let configuration = fs::read_to_string("config/minimal.toml").unwrap();
    assert!(configuration.contains(&format!("listen = [\"{address}\"]")), "{address}");
}

/// Of the unit's restrictions, only the system call filter can break a conversation if it is too narrow.
#[test]
fn all_of_pontoon_runs_within_the_units_system_call_filter() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    redis.direct().expect(&["CONFIG", "SET", "requirepass", "secret"], "+OK\r\n");
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state.json");
    let socket = directory.path().join("redis.sock");
    let ca = authority.file();
    let mut launcher = Command::new("python3");
    launcher.args(["tests/deploy/confined.py", UNIT]);
    let args = [
        ["--upstream", &redis.endpoint()],
        ["--tls-ca-file", &ca],
        ["--listen", "127.0.0.1:0"],
        ["--listen", &format!("unix:{}?mode=0666", socket.display())],
        ["--state-file", state.to_str().unwrap()],
        ["--auth-password-command", "echo secret"],
        ["--pool-warm", "true"],
    ];
    let mut pontoon = Pontoon::by(launcher, args.as_flattened());
    pontoon.client().expect(&["SET", "key", "value"], "+OK\r\n");
    let mut client = Wire::unix(&socket);
    client.expect(&["GET", "key"], "$5\r\nvalue\r\n");
    assert!(pontoon.get("/clients").1.contains("\"clients\""));
    assert!(pontoon.get("/metrics").1.contains("pontoon_sessions_active"));
    pontoon.signal(Signal::TERM);
    assert_eq!(pontoon.wait().code(), Some(0), "shutdown needs no other call");
    client.expect_end();
    assert!(state.exists());
}

#[test]
fn the_filter_of_the_test_above_takes_effect() {
    let mut launcher = Command::new("python3");
    let output = launcher
        .args(["tests/deploy/confined.py", UNIT, "/usr/bin/python3", "-c", "import os; os.nice(1)"])
        .output()
        .unwrap();
    assert!(!output.status.success(), "{}", said(&output));
}
