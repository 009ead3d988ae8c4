//! Tests of what monitors a fleet: Prometheus' rules and Grafana's dashboard ask for metrics that exist, and get right answers.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::programs::promtool;

/// The metrics that a text of `PromQL` asks for. Recorded metrics, whose names contain colons, are not pontoon's.
fn asked_for(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .filter(|word| ["pontoon_", "process_"].iter().any(|prefix| word.starts_with(prefix)))
        .filter(|word| !word.contains(':'))
        .collect()
}

fn assert_all_exist(text: &str) {
    let known: BTreeSet<&str> = pontoon::metrics::names().collect();
    let asked = asked_for(text);
    assert!(asked.len() > 5, "{asked:?}");
    for name in asked {
        let plain = name.strip_suffix("_bucket").unwrap_or(name);
        assert!(known.contains(plain), "there is no metric {name}");
    }
}

#[test]
fn the_rules_ask_for_metrics_that_exist() {
    assert_all_exist(&std::fs::read_to_string("config/prometheus/pontoon.rules.yml").unwrap());
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let text = std::fs::read_to_string("config/grafana/pontoon.json").unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let asked =
        |panel: &Value| panel["targets"].as_array().unwrap().iter().all(|target| target["expr"].is_string());
    assert!(panels.len() > 5 && panels.iter().all(asked));
    assert_all_exist(&text);
}

#[test]
fn the_rules_answer_the_questions_of_the_road() {
    for args in [
        ["test", "rules", "tests/prometheus/road.yml"],
        ["check", "rules", "config/prometheus/pontoon.rules.yml"],
    ] {
        let output = promtool().args(args).output().expect("tests/run.sh downloads promtool");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
    }
}
