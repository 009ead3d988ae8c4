//! How each step went, a line each.

use std::time::Duration;

use serde_json::{Value, json};

use crate::printable::{printable, printable_json};

/// The steps of one route, or of the process.
pub(super) struct CheckReport {
    pub(super) route: String,
    pub(super) json: bool,
    /// No step failed.
    pub(super) ok: bool,
}

impl CheckReport {
    pub(super) fn ok(&mut self, step: &str, took: Option<Duration>, detail: &str) {
        self.line(step, "ok", took, detail);
    }

    pub(super) fn warn(&mut self, step: &str, detail: &str) {
        self.line(step, "warn", None, detail);
    }

    pub(super) fn failed(&mut self, step: &str, detail: &str) {
        self.ok = false;
        self.line(step, "failed", None, detail);
    }

    fn line(&self, step: &str, result: &str, took: Option<Duration>, detail: &str) {
        let ms = took.map(|took| (took.as_secs_f64() * 1e6).round() / 1e3);
        if self.json {
            let mut line = json!({"route": self.route, "step": step, "result": result, "detail": detail});
            line["ms"] = ms.map_or(Value::Null, Value::from);
            say!("{}", printable_json(&line.to_string()));
        } else {
            let ms = ms.map_or_else(String::new, |ms| format!("{ms:.1} ms"));
            say!("{}  {step:<10} {result:<7} {ms:>10}  {}", self.route, printable(detail));
        }
    }
}
