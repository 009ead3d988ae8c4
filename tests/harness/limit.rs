//! Ends a test that waits without end: it would keep the whole run waiting, without a word of why.

use std::io::Write;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use procfs::process::all_processes;
use rustix::process::{Pid, Signal, kill_process};

/// No test takes this long, even on a busy machine. `TEST_LIMIT` changes it, in seconds.
const LONGEST_TEST: Duration = Duration::from_secs(600);

/// The status of a test program that ended because of a test that did not, as that of `timeout`.
const TIMED_OUT: i32 = 124;

/// While it lives, its test runs.
pub struct Limit {
    _running: Sender<()>,
}

impl Limit {
    /// The limit of the test that this thread belongs to.
    pub fn start() -> Self {
        let test = thread::current().name().unwrap_or("a test").to_owned();
        let limit = std::env::var("TEST_LIMIT").ok().and_then(|seconds| seconds.parse().ok());
        let limit = limit.map_or(LONGEST_TEST, Duration::from_secs);
        let (running, ended) = mpsc::channel::<()>();
        thread::spawn(move || {
            if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                end(&test, limit);
            }
        });
        Self { _running: running }
    }
}

/// Ends this program, and the processes that descend from it.
fn end(test: &str, limit: Duration) -> ! {
    // Not `eprintln!`: what a test prints would be shown only after its end.
    let _ = writeln!(std::io::stderr(), "error: {test} still runs after {limit:?}, so the test program ends");
    let stats = all_processes().unwrap().flatten().filter_map(|process| process.stat().ok());
    let parents: Vec<(i32, i32)> = stats.map(|stat| (stat.pid, stat.ppid)).collect();
    let mut family = vec![std::process::id().cast_signed()];
    let mut at = 0;
    while let Some(&parent) = family.get(at) {
        family.extend(parents.iter().filter(|(_, ppid)| *ppid == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    for pid in family.into_iter().skip(1).filter_map(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
    std::process::exit(TIMED_OUT);
}

#[test]
fn a_test_that_waits_without_end_is_named_and_ended_with_its_processes() {
    let _limit = Limit::start();
    let own = std::env::current_exe().unwrap();
    let waits = "harness::limit::waits_without_end";
    let output =
        Command::new(own).args(["--exact", waits, "--ignored"]).env("TEST_LIMIT", "1").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(TIMED_OUT), "{told}");
    let message = format!("error: {waits} still runs after 1s");
    let line = told.lines().find(|line| line.starts_with(&message)).unwrap_or_else(|| panic!("{told}"));
    assert!(line.ends_with("so the test program ends"), "{line}");
}

#[test]
#[ignore = "waits without end"]
fn waits_without_end() {
    let _limit = Limit::start();
    // They inherit the pipes to the test above, which waits until all are closed.
    let _ = Command::new("sh").args(["-c", "sleep infinity & wait"]).status();
    loop {
        thread::park();
    }
}
