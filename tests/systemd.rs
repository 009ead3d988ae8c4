//! What pontoon sends to systemd, received on a socket like systemd's own.

use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{Authority, PATIENCE, Pontoon, Redis, uninterrupted};

/// A socket like the one on which systemd listens.
struct Ears {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Ears {
    fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, directory }
    }

    fn path(&self) -> String {
        self.directory.path().join("notify").display().to_string()
    }

    /// The value in the next message that assigns one to `variable`.
    fn wait_for(&self, variable: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let length = uninterrupted(|| self.socket.recv(&mut buffer)).unwrap();
            let message = str::from_utf8(&buffer[..length]).unwrap();
            if message.lines().any(|line| line.starts_with(&format!("{variable}="))) {
                return message.to_owned();
            }
        }
    }

    fn wait_for_status(&self, text: &str) {
        while !self.wait_for("STATUS").contains(text) {}
    }
}

fn bridge(ears: &Ears, redis: &Redis, authority: &Authority, more: &[(&str, &str)]) -> Pontoon {
    let socket = ears.path();
    let mut variables = vec![("NOTIFY_SOCKET", &*socket)];
    variables.extend(more);
    let (endpoint, ca) = (redis.endpoint(), authority.file());
    let args =
        ["--upstream", &endpoint, "--tls-ca-file", &ca, "--listen", "127.0.0.1:0", "--shutdown-delay", "5m"];
    Pontoon::with_variables(&variables, &args)
}

#[test]
fn systemd_learns_when_clients_are_served_and_when_shutdown_begins() {
    let (ears, authority) = (Ears::open(), Authority::new());
    let redis = Redis::start(&authority);
    let mut pontoon = bridge(&ears, &redis, &authority, &[]);
    ears.wait_for("READY");
    pontoon.client().expect(&["PING"], "+PONG\r\n");
    pontoon.signal(Signal::TERM);
    let micros = (5 * 60 + 25 + 4) * 1_000_000;
    assert_eq!(ears.wait_for("STOPPING"), format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\n"));
    ears.wait_for_status("draining");
    pontoon.signal(Signal::TERM);
    assert_eq!(pontoon.wait().code(), Some(0));
}

#[test]
fn a_start_without_an_upstream_succeeds_and_the_status_names_it() {
    let (ears, authority) = (Ears::open(), Authority::new());
    let mut redis = Redis::start(&authority);
    redis.kill();
    let pontoon = bridge(&ears, &redis, &authority, &[]);
    pontoon.expects("TCP connection to");
    ears.wait_for("READY");
    ears.wait_for_status("sessions: 0; not serving: route \"localhost\": upstream not reached since 20");
    redis.restart();
    ears.wait_for_status("sessions: 0; serving");
}

#[test]
fn systemd_learns_of_a_reload_and_of_its_end() {
    let (ears, authority) = (Ears::open(), Authority::new());
    let redis = Redis::start(&authority);
    let pontoon = bridge(&ears, &redis, &authority, &[]);
    ears.wait_for("READY");
    pontoon.signal(Signal::HUP);
    let message = ears.wait_for("RELOADING");
    let (reloading, time) = message.split_once('\n').unwrap();
    assert_eq!(reloading, "RELOADING=1");
    assert!(time.trim_end().strip_prefix("MONOTONIC_USEC=").unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(ears.wait_for("READY"), "READY=1\n");
}

#[test]
fn the_watchdog_is_notified_again_and_again() {
    let (ears, authority) = (Ears::open(), Authority::new());
    let redis = Redis::start(&authority);
    let _pontoon = bridge(&ears, &redis, &authority, &[("WATCHDOG_USEC", "60000000")]);
    ears.wait_for("WATCHDOG");
    // As often as systemd asks, while pontoon has nothing else to do.
    let _pontoon = bridge(&ears, &redis, &authority, &[("WATCHDOG_USEC", "200000")]);
    for _ in 0..5 {
        ears.wait_for("WATCHDOG");
    }
}
