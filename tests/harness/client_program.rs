//! A client's program that runs beside its test, and what it has printed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::eventually;

/// A program, and the lines that it has printed.
pub struct ClientProgram {
    process: Child,
    stderr: File,
    said: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl ClientProgram {
    pub fn start(mut command: Command) -> Self {
        let stderr = tempfile::tempfile().unwrap();
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let reader = {
            let said = Arc::clone(&said);
            thread::spawn(move || {
                stdout.lines().map_while(Result::ok).for_each(|line| said.lock().unwrap().push(line));
            })
        };
        Self { process, stderr, said, reader: Some(reader) }
    }

    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends it an empty line.
    pub fn prompt(&mut self) {
        self.process.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// Waits until the program prints this line.
    #[track_caller]
    pub fn wait_for(&mut self, line: &str) {
        let says = |program: &Self| program.said().iter().any(|said| said == line);
        eventually(&format!("the program says {line:?}, or ends"), || says(self) || !self.is_running());
        if !says(self) {
            // The program's last line may still be unread.
            self.join_reader();
        }
        assert!(says(self), "the program ended: {:?}\n{}", self.said(), self.log());
    }

    /// Waits until the program ends, and returns the last line that it printed.
    #[track_caller]
    pub fn last_line(&mut self) -> String {
        eventually("the program ends", || !self.is_running());
        self.join_reader();
        self.said().pop().unwrap_or_default()
    }

    fn join_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    /// What it wrote to standard error.
    pub fn log(&mut self) -> String {
        let mut text = Vec::new();
        self.stderr.rewind().unwrap();
        self.stderr.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for ClientProgram {
    fn drop(&mut self) {
        // On SIGTERM, a worker ends its own processes.
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        for _ in 0..500 {
            if !self.is_running() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        // Its reader ends with the last process that has its standard output.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
