//! Real clients at work, in `tests/load`: each repeats all that its library's users do, and reports what failed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use super::eventually;
use super::programs::{node, python};

pub struct Load {
    process: Child,
    stdin: Option<ChildStdin>,
    told: Arc<Mutex<Told>>,
    reader: Option<JoinHandle<()>>,
}

/// An operation that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The step in which it began.
    pub step: String,
    pub operation: String,
    pub error: String,
}

#[derive(Debug, Default)]
struct Told {
    step: String,
    rounds: usize,
    failures: Vec<Failure>,
    tally: BTreeMap<String, (u64, u64)>,
    ended: bool,
}

impl Load {
    pub fn redis_py(address: SocketAddr) -> Self {
        Self::start(python().arg("tests/load/redis_py.py"), address)
    }

    /// With variables that `tests/load/load.py` explains.
    pub fn redis_py_with(address: SocketAddr, variables: &[(&str, &str)]) -> Self {
        Self::start(python().arg("tests/load/redis_py.py").envs(variables.iter().copied()), address)
    }

    /// As [`redis_py_with`](Self::redis_py_with), but it reads only the variables for TLS and the password.
    pub fn ioredis_with(address: SocketAddr, variables: &[(&str, &str)]) -> Self {
        Self::start(node().arg("tests/load/ioredis.js").envs(variables.iter().copied()), address)
    }

    pub fn redis_cli(address: SocketAddr) -> Self {
        Self::start(python().arg("tests/load/redis_cli.py"), address)
    }

    pub fn ioredis(address: SocketAddr) -> Self {
        Self::start(node().arg("tests/load/ioredis.js"), address)
    }

    fn start(command: &mut Command, address: SocketAddr) -> Self {
        command.arg(address.ip().to_string()).arg(address.port().to_string());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (process.stdin.take(), BufReader::new(process.stdout.take().unwrap()));
        let told: Arc<Mutex<Told>> = Arc::default();
        let reader = {
            let told = Arc::clone(&told);
            thread::spawn(move || {
                for line in stdout.lines().map_while(Result::ok) {
                    told.lock().unwrap().take(&serde_json::from_str(&line).unwrap());
                }
                told.lock().unwrap().ended = true;
            })
        };
        Self { process, stdin, told, reader: Some(reader) }
    }

    /// Begins a step with this name. Once this returns, every operation under way began in it.
    pub fn step(&mut self, name: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{name}").unwrap();
        self.wait("the load knows of the step", |told| told.step == name);
    }

    /// How often all operations succeeded in turn.
    pub fn rounds(&self) -> usize {
        self.told.lock().unwrap().rounds
    }

    pub fn failures(&self) -> Vec<Failure> {
        self.told.lock().unwrap().failures.clone()
    }

    /// Stops it. Returns for each key how often it was certainly incremented, and how many further increments may have happened.
    pub fn finish(&mut self) -> BTreeMap<String, (u64, u64)> {
        self.stdin = None;
        self.wait("the load ends", |told| !told.tally.is_empty());
        self.told.lock().unwrap().tally.clone()
    }

    fn wait(&self, what: &str, condition: impl Fn(&Told) -> bool) {
        eventually(what, || {
            let told = self.told.lock().unwrap();
            let holds = condition(&told);
            assert!(holds || !told.ended, "a load ended before: {what}");
            holds
        });
    }
}

impl Told {
    fn take(&mut self, line: &Value) {
        let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
        if !line["failed"].is_null() {
            self.failures.push(Failure {
                step: text("step"),
                operation: text("failed"),
                error: text("error"),
            });
        } else if !line["step"].is_null() {
            self.step = text("step");
        } else if !line["round"].is_null() {
            self.rounds += 1;
        } else {
            self.tally = serde_json::from_value(line["tally"].clone()).unwrap();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if thread::panicking() {
            eprintln!("load: {:#?}", self.told.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}
