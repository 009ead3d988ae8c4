//! Prints the result of each step, one line each.

use std::io::{IsTerminal, Write as _, stderr};
use std::time::Duration;

use serde_json::{Value, json};

use crate::commands::colour::Tint;
use crate::commands::json::print_json;
use crate::commands::table::Table;
use crate::printable::printable;

/// The steps of one route, or of the process.
pub(super) struct CheckReport {
    pub(super) route: String,
    json: bool,
    /// The first step that failed.
    pub(super) failed_at: Option<String>,
    steps: Table<5>,
}

impl CheckReport {
    /// Creates a report without steps.
    pub(super) fn new(route: &str, json: bool) -> Self {
        let steps = Table::new(["ROUTE", "STEP", "RESULT", "TIME", "DETAIL"]);
        Self { route: route.into(), json, failed_at: None, steps }
    }

    pub(super) fn ok(&mut self, step: &str, took: Option<Duration>, detail: &str) {
        self.line(step, Tint::Good, took, detail);
    }

    pub(super) fn warn(&mut self, step: &str, detail: &str) {
        self.line(step, Tint::Doubtful, None, detail);
    }

    pub(super) fn failed(&mut self, step: &str, detail: &str) {
        self.failed_at.get_or_insert_with(|| step.into());
        self.line(step, Tint::Bad, None, detail);
    }

    fn line(&mut self, step: &str, tint: Tint, took: Option<Duration>, detail: &str) {
        let result = match tint {
            Tint::Good => "ok",
            Tint::Doubtful => "warn",
            Tint::Bad => "failed",
        };
        let ms = took.map(|took| (took.as_secs_f64() * 1e6).round() / 1e3);
        if self.json {
            let mut line = json!({"route": self.route, "step": step, "result": result, "detail": detail});
            line["ms"] = ms.map_or(Value::Null, Value::from);
            print_json(&line);
        } else {
            let ms = ms.map_or_else(String::new, |ms| format!("{ms:.1} ms"));
            let cells = [&self.route, step, result, &ms, detail].map(str::to_owned);
            self.steps.tinted_row(cells, 2, tint);
            self.show_progress(step);
        }
    }

    /// Shows the current step on a terminal, because the table is printed only after the last step.
    fn show_progress(&self, step: &str) {
        if stderr().is_terminal() {
            let _ = write!(stderr(), "\r\x1b[K{}: {}", printable(&self.route), printable(step));
        }
    }

    /// Prints the steps.
    pub(super) fn print(&self) {
        if self.json {
            return;
        }
        if stderr().is_terminal() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
        say!("{}\n", self.steps);
    }
}
