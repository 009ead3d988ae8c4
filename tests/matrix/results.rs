//! The results of a client in a mode: as lines of JSON for the table, and as the outcome of its test.

use std::fs::OpenOptions;
use std::io::Write;

use serde_json::{Value, json};

use super::{Client, Mode, Outcome};

/// Written when dropped, also by a test that ends early: only then does each line have the version that a program printed.
pub struct Results {
    about: Value,
    lines: Vec<Value>,
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
        Self { about, lines: Vec::new(), problems: Vec::new() }
    }

    pub fn add(&mut self, scenario: &str, outcome: Outcome) {
        if let Some(version) = outcome.version {
            self.about["version"] = version.into();
        }
        self.lines.push(json!({
            "scenario": scenario,
            "measured": outcome.measured,
            "problems": outcome.problems,
        }));
        self.problems.extend(outcome.problems.iter().map(|problem| format!("{scenario}: {problem}")));
    }

    #[track_caller]
    pub fn assert_all_passed(self) {
        assert!(self.problems.is_empty(), "{}\n{}", self.about, self.problems.join("\n"));
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        let Some(path) = std::env::var_os("TEST_RESULTS") else { return };
        let mut text = Vec::new();
        for line in &mut self.lines {
            for (name, value) in self.about.as_object().expect("it was created as an object") {
                line[name] = value.clone();
            }
            writeln!(text, "{line}").unwrap();
        }
        // Writes once, because tests that run at the same time write to the same file.
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(&text).unwrap();
    }
}
