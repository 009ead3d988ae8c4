//! What a client gave in a mode: as lines of JSON for the table, and as the end of its test.

use std::fs::OpenOptions;
use std::io::Write;

use serde_json::json;

use super::{Client, Mode, Outcome};

pub struct Results {
    about: serde_json::Value,
    problems: Vec<String>,
}

impl Results {
    pub fn of(client: &Client, mode: Mode, engine: &str) -> Self {
        let about = json!({
            "client": client.library,
            "version": client.version,
            "engine": engine,
            "mode": mode.letter(),
        });
        Self { about, problems: Vec::new() }
    }

    pub fn add(&mut self, scenario: &str, outcome: Outcome) {
        let mut line = self.about.clone();
        line["scenario"] = scenario.into();
        line["measured"] = outcome.measured;
        line["problems"] = outcome.problems.clone().into();
        write(&line);
        self.problems.extend(outcome.problems.iter().map(|problem| format!("{scenario}: {problem}")));
    }

    #[track_caller]
    pub fn assert_all_passed(self) {
        assert!(self.problems.is_empty(), "{}\n{}", self.about, self.problems.join("\n"));
    }
}

/// In one write: tests that run at the same time write to the same file.
fn write(line: &serde_json::Value) {
    if let Some(path) = std::env::var_os("PONTOON_TEST_RESULTS") {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}
