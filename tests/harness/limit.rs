//! Ends a test that waits without end: it would keep the whole run waiting, without a word of why.

use std::io::Write;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use procfs::process::Process;
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

/// Ends this program, and what it started.
fn end(test: &str, limit: Duration) -> ! {
    for task in Process::myself().unwrap().tasks().unwrap().flatten() {
        for child in task.children().unwrap_or_default() {
            let pid = Pid::from_raw(child.cast_signed()).expect("a process's number");
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    // Not `eprintln!`: what a test prints would be shown only after its end.
    let _ = writeln!(std::io::stderr(), "error: {test} still runs after {limit:?}, so the test program ends");
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
    // It inherits the pipes to the test above, which waits until they are closed.
    Command::new("sleep").arg("infinity").status().unwrap();
}
