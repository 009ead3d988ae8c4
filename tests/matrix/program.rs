//! A client's program: run to its end, or for as long as a test watches it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Client;

/// The time limit of a scenario, in seconds.
const PATIENCE: &str = "120";

fn command(client: &Client, scenario: &str, port: u16, cluster: bool) -> Command {
    let program = (client.program)();
    let mut command = Command::new("timeout");
    // It stays in the test's process group, so that an interrupt from the terminal ends it, too.
    command.args(["--foreground", PATIENCE]).arg(program.get_program()).args(program.get_args());
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.args([scenario, &port.to_string()]);
    if cluster {
        command.arg("cluster");
    }
    command
}

/// Asserts that the program's last line names the library and the version that were to be tested. Returns the version.
fn ends_well(client: &Client, success: bool, stdout: &str, stderr: &str) -> Result<String, String> {
    let named = stdout
        .trim_end()
        .lines()
        .last()
        .and_then(|last| last.strip_prefix("ok ")?.strip_prefix(client.library)?.strip_prefix(' '));
    if let Some(version) = named.filter(|version| success && version.starts_with(client.version)) {
        return Ok(version.to_owned());
    }
    let lines: Vec<&str> = stderr.lines().collect();
    let last = &lines[lines.len().saturating_sub(25)..];
    let expected = format!("ok {} {}", client.library, client.version);
    Err(format!("did not end with {expected:?}: {stdout}{}", last.join("\n")))
}

/// Runs a scenario to its end, and returns the version of the library.
pub fn run(client: &Client, scenario: &str, port: u16, cluster: bool) -> Result<String, String> {
    let output: Output =
        command(client, scenario, port, cluster).stdin(Stdio::null()).output().expect("`timeout` is there");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ends_well(client, output.status.success(), &text(&output.stdout), &text(&output.stderr))
}

/// The scenario `stay`.
pub struct Stay {
    process: Child,
    stdin: Option<ChildStdin>,
    stderr: File,
    said: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Stay {
    pub fn start(client: &Client, port: u16, cluster: bool) -> Self {
        let stderr = tempfile::tempfile().unwrap();
        let mut process = command(client, "stay", port, cluster)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (process.stdin.take(), BufReader::new(process.stdout.take().unwrap()));
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let reader = {
            let said = Arc::clone(&said);
            thread::spawn(move || {
                stdout.lines().map_while(Result::ok).for_each(|line| said.lock().unwrap().push(line));
            })
        };
        Self { process, stdin, stderr, said, reader: Some(reader) }
    }

    /// Each "up" and "down" so far.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// Whether the last state that it printed is `state`.
    pub fn is(&self, state: &str) -> bool {
        self.said.lock().unwrap().last().is_some_and(|last| last == state)
    }

    /// Lets it end, and returns all that it printed before its last line.
    pub fn end(mut self, client: &Client) -> (Vec<String>, Result<String, String>) {
        self.stdin = None;
        let success = self.process.wait().unwrap().success();
        self.reader.take().expect("the reader is joined once").join().unwrap();
        let mut stderr = Vec::new();
        self.stderr.rewind().unwrap();
        self.stderr.read_to_end(&mut stderr).unwrap();
        let mut said = self.said();
        let end = ends_well(client, success, &said.join("\n"), &String::from_utf8_lossy(&stderr));
        said.retain(|line| ["up", "down"].contains(&line.as_str()));
        (said, end)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        // `timeout` ends the program. The end of its input also does.
        self.stdin = None;
        let _ = self.process.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Whether `condition` holds within `bound`.
pub fn holds_within(bound: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + bound;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
