//! The program under test, as a process. What it logs at WARN or ERROR must be expected, or the test fails.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Authority, Hosts, PATIENCE, Wire, eventually, http};

/// `pontoon check` with addresses that are free, whatever runs on this machine. The endpoint and more follow.
pub const CHECK: [&str; 5] = ["check", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

/// Runs a command to its end: one that is still running after a minute fails with 124.
pub fn pontoon(args: &[&str]) -> Output {
    pontoon_command().args(args).output().unwrap()
}

/// The program, ended after a minute.
pub fn pontoon_command() -> Command {
    let mut command = clean(Command::new("timeout"));
    command.args(["60", env!("CARGO_BIN_EXE_pontoon")]).stdin(Stdio::null());
    command
}

/// As [`pontoon`], with these names of this machine.
pub fn pontoon_with_hosts(hosts: &Hosts, args: &[&str]) -> Output {
    let mut command = clean(with_hosts(&hosts.path()));
    command
        .args(["timeout", "60", env!("CARGO_BIN_EXE_pontoon")])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// As [`pontoon`], with `socket` as if a service manager had opened it.
pub fn pontoon_activated(socket: impl Into<Stdio>, args: &[&str]) -> Output {
    let mut command = clean(activated("timeout"));
    // `timeout` would otherwise be the process that LISTEN_PID names.
    command.args(["--foreground", "60", "sh", "-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""]);
    command.arg(env!("CARGO_BIN_EXE_pontoon")).args(args).stdin(socket).output().unwrap()
}

/// Runs `program` with its standard input as the first descriptor of a service manager, in the way of `sd_listen_fds(3)`.
fn activated(program: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"", program]);
    shell
}

/// Runs the program named by the next argument, with `hosts` as its `/etc/hosts`.
pub fn with_hosts(hosts: &Path) -> Command {
    let mut unshare = Command::new("unshare");
    if !rustix::process::getuid().is_root() {
        unshare.arg("--map-root-user");
    }
    unshare.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]);
    unshare.arg(hosts);
    unshare
}

/// Removes variables of the tests' environment that would configure the program.
fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("PONTOON_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// Whether the tests run with shared mode: `TEST_SHARING=shared`. Some promises are made only to clients with dedicated connections.
pub fn clients_share() -> bool {
    std::env::var("TEST_SHARING").as_deref() == Ok("shared")
}

pub struct Pontoon {
    process: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
    expected: Mutex<Vec<String>>,
    allowed: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Log {
    records: Mutex<(Vec<Value>, bool)>,
    more: Condvar,
}

impl Pontoon {
    /// A bridge to `endpoint` that trusts `authority`, on a port of the system's choice.
    pub fn to(endpoint: &str, authority: &Authority) -> Self {
        Self::with(endpoint, authority, &[])
    }

    pub fn with(endpoint: &str, authority: &Authority, args: &[&str]) -> Self {
        let ca = authority.file();
        let mut all = vec!["--upstream", endpoint, "--tls-ca-file", &ca];
        if !args.contains(&"--listen") {
            all.extend(["--listen", "127.0.0.1:0"]);
        }
        all.extend(args);
        Self::run(&all)
    }

    /// Starts `pontoon run` with these arguments.
    pub fn run(args: &[&str]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_pontoon")), args)
    }

    /// As [`run`](Self::run), with these variables.
    pub fn with_variables(variables: &[(&str, &str)], args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
        command.envs(variables.iter().copied());
        Self::spawn(command, args)
    }

    /// As [`run`](Self::run), with at most `limit` descriptors.
    pub fn with_descriptors(limit: u32, args: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_pontoon")]);
        Self::spawn(shell, args)
    }

    /// As [`run`](Self::run), with a listening socket of a service manager.
    pub fn activated(socket: impl Into<Stdio>, args: &[&str]) -> Self {
        Self::spawn_with(activated(env!("CARGO_BIN_EXE_pontoon")), socket.into(), args)
    }

    /// As [`run`](Self::run), with `hosts` as its `/etc/hosts`: names appear and vanish as the file is written.
    pub fn with_hosts(hosts: &Hosts, args: &[&str]) -> Self {
        Self::by(with_hosts(&hosts.path()), args)
    }

    /// Uses a launcher that runs the program named by its last arguments.
    pub fn by(mut launcher: Command, args: &[&str]) -> Self {
        launcher.arg(env!("CARGO_BIN_EXE_pontoon"));
        Self::spawn(launcher, args)
    }

    fn spawn(command: Command, args: &[&str]) -> Self {
        Self::spawn_with(command, Stdio::null(), args)
    }

    fn spawn_with(command: Command, stdin: Stdio, args: &[&str]) -> Self {
        let mut command = clean(command);
        command.arg("run").args(["--log-format", "json"]);
        if !args.contains(&"--admin") && !args.contains(&"--config") {
            command.args(["--admin", "127.0.0.1:0"]);
        }
        if !args.contains(&"--max-clients") && !args.contains(&"--config") {
            command.args(["--max-clients", "1000"]);
        }
        // The same promises hold with connections kept ready, and without: `TEST_POOL` chooses.
        if !args.iter().any(|arg| arg.starts_with("--pool") || *arg == "--config") {
            match std::env::var("TEST_POOL").as_deref() {
                Ok("off") => command.args(["--pool-reuse", "false"]),
                Ok("on") => command.args(["--pool-warm", "true", "--pool-reuse", "true"]),
                _ => &mut command,
            };
        }
        if clients_share() && !args.iter().any(|arg| ["--sharing", "--config"].contains(arg)) {
            command.args(["--sharing", "shared"]);
        }
        let mut process =
            command.args(args).stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Log::default());
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let reader = {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                for line in stderr.lines().map_while(Result::ok) {
                    let record = serde_json::from_str(&line).unwrap_or(Value::String(line));
                    log.records.lock().unwrap().0.push(record);
                    log.more.notify_all();
                }
                log.records.lock().unwrap().1 = true;
                log.more.notify_all();
            })
        };
        let pontoon = Self {
            process,
            log,
            reader: Some(reader),
            expected: Mutex::default(),
            allowed: Mutex::default(),
        };
        pontoon.wait_for_log("started");
        pontoon
    }

    /// The listener's address, or the first of several.
    pub fn address(&self) -> SocketAddr {
        self.addresses()[0].parse().unwrap()
    }

    /// Every listener's address, from the start-up records.
    pub fn addresses(&self) -> Vec<String> {
        self.field("listening", "address")
    }

    /// A client's connection to it.
    pub fn client(&self) -> Wire {
        Wire::tcp(self.address())
    }

    /// The reply to a new client's first command. Empty if the connection ends without one, for example because the client got an upstream
    /// connection whose end pontoon had not noticed yet.
    pub fn first_reply(&self, words: &[&str]) -> Vec<u8> {
        self.client().try_ask(words).unwrap_or_default()
    }

    /// The admin server's address.
    pub fn admin(&self) -> SocketAddr {
        self.field("admin listening", "address")[0].parse().unwrap()
    }

    /// Declares that a WARN or ERROR record with this text is part of the test.
    pub fn expects(&self, text: &str) {
        self.expected.lock().unwrap().push(text.to_owned());
    }

    /// Declares that a WARN or ERROR record with this text may or may not come.
    pub fn allows(&self, text: &str) {
        self.allowed.lock().unwrap().push(text.to_owned());
    }

    /// Waits for a record with this text, and returns it.
    pub fn wait_for_log(&self, text: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut records = self.log.records.lock().unwrap();
        loop {
            if let Some(record) = records.0.iter().find(|record| message(record).contains(text)) {
                return record.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !records.1, "the log never said {text:?}: {:#?}", records.0);
            records = self.log.more.wait_timeout(records, left).unwrap().0;
        }
    }

    /// All records so far.
    pub fn printed(&self) -> String {
        let records = self.log.records.lock().unwrap();
        records.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    /// Number of records with this text.
    pub fn log_count(&self, text: &str) -> usize {
        self.log.records.lock().unwrap().0.iter().filter(|record| message(record).contains(text)).count()
    }

    /// Asserts that the cause is logged in one line, however many clients met it.
    pub fn expect_one_line(&self, text: &str) {
        self.wait_for_log(text);
        assert_eq!(self.log_count(text), 1, "one line for each cause, not for each client: {text}");
    }

    /// `GET` from the admin server: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.request("GET", path)
    }

    /// `POST` to the admin server: status and body.
    pub fn post(&self, path: &str) -> (u16, String) {
        self.request("POST", path)
    }

    fn request(&self, method: &str, path: &str) -> (u16, String) {
        let address = self.admin();
        let answer = http::ask(address, &format!("{method} {path}"), &[("Host", &address.to_string())]);
        (answer.status, answer.body)
    }

    /// A metric's value, summed over all label sets that contain `labels`; 0 if there are none.
    pub fn metric(&self, name: &str, labels: &str) -> u64 {
        let (_, text) = self.get("/metrics");
        text.lines()
            .filter(|line| {
                line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                    && line.contains(labels)
            })
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    /// Waits until its upstream has been reached.
    pub fn ready(self) -> Self {
        eventually("pontoon is ready", || self.get("/readyz").0 == 200);
        self
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("pontoon exits", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status.unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Its peak memory, in KiB.
    pub fn peak_memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn field(&self, text: &str, field: &str) -> Vec<String> {
        let records = self.log.records.lock().unwrap();
        let with_field = records.0.iter().filter(|record| record["message"] == text);
        with_field.map(|record| record[field].as_str().unwrap().to_owned()).collect()
    }
}

/// Returns a record's message, with the fields that say what the upstream accepts, the warning and the error.
fn message(record: &Value) -> String {
    let message = record["message"].as_str().or(record.as_str()).unwrap_or("");
    let fields = ["accepts", "warning", "error"].iter().filter_map(|field| record[*field].as_str());
    std::iter::once(message).chain(fields).collect::<Vec<_>>().join(": ")
}

impl Pontoon {
    fn has_said_what_is_expected(&self) -> bool {
        let records = &self.log.records.lock().unwrap_or_else(PoisonError::into_inner).0;
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        expected.iter().all(|text| records.iter().any(|record| message(record).contains(text.as_str())))
    }
}

impl Drop for Pontoon {
    fn drop(&mut self) {
        // A client may have its reply before the log has its line.
        let deadline = Instant::now() + Duration::from_secs(5);
        while !thread::panicking()
            && !self.has_said_what_is_expected()
            && matches!(self.process.try_wait(), Ok(None))
            && Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        // A test that failed may have failed while it held the lock.
        let records = &self.log.records.lock().unwrap_or_else(PoisonError::into_inner).0;
        if thread::panicking() {
            for record in records {
                eprintln!("pontoon: {record}");
            }
            return;
        }
        let (expected, allowed) = (self.expected.lock().unwrap(), self.allowed.lock().unwrap());
        let surprises: Vec<&Value> = records
            .iter()
            .filter(|record| !matches!(record["level"].as_str(), Some("INFO" | "DEBUG" | "TRACE")))
            .filter(|record| {
                !expected.iter().chain(allowed.iter()).any(|text| message(record).contains(text.as_str()))
            })
            .collect();
        assert!(surprises.is_empty(), "the log has what the test did not expect: {surprises:#?}");
        for text in expected.iter() {
            let found = records.iter().any(|record| message(record).contains(text.as_str()));
            assert!(found, "the test expected the log to say {text:?}: {records:#?}");
        }
    }
}
