//! docs/json.md describes every field of every JSON output.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Authority, CHECK, Pontoon, Redis, pontoon};

/// Names of fields in a section of the page: the last parts of the paths in the first column of its table.
fn documented(section: &str) -> BTreeSet<String> {
    let page = std::fs::read_to_string("docs/json.md").unwrap();
    let start = format!("\n## {section}\n");
    let (_, rest) = page.split_once(&start).unwrap_or_else(|| panic!("no section {section}"));
    let rows = rest.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| `"));
    let paths = rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2));
    paths.map(|path| path.rsplit('.').next().unwrap().to_owned()).collect()
}

fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                found.insert(key.clone());
                keys(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

/// Fails if an output has a field that its section does not name.
#[track_caller]
fn assert_fields_documented(section: &str, output: &Value) {
    let mut found = BTreeSet::new();
    keys(output, &mut found);
    let unknown: Vec<_> = found.difference(&documented(section)).cloned().collect();
    assert!(unknown.is_empty(), "docs/json.md, {section}: {unknown:?} of {output}");
}

/// As [`assert_fields_documented`], for the output of a command, which has a schema version.
#[track_caller]
pub fn assert_documented(section: &str, output: &Value) {
    assert_eq!(output["schema"], 1, "{section}: {output}");
    assert_fields_documented(section, output);
}

#[test]
fn check_status_and_the_admin_server_write_only_documented_fields() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let (endpoint, ca) = (redis.endpoint(), authority.file());
    let output = pontoon(&[&CHECK[..], &["--upstream", &endpoint, "--tls-ca-file", &ca, "--json"]].concat());
    let steps = String::from_utf8(output.stdout).unwrap();
    assert!(steps.lines().count() > 5, "{steps}");
    for step in steps.lines() {
        assert_documented("check", &serde_json::from_str(step).unwrap());
    }
    let bridge = Pontoon::with(&endpoint, &authority, &["--sharing", "shared", "--group", "g"]).ready();
    let mut client = bridge.client();
    client.expect(&["SUBSCRIBE", "c"], "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    let admin = bridge.admin().to_string();
    let output = pontoon(&["status", "--json", "--admin", &admin]);
    let mut status: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [routes, clients] = ["routes", "clients"].map(|part| status[part].take());
    assert_documented("status", &status);
    assert_fields_documented("/routes", &routes);
    assert_fields_documented("/clients", &clients);
    for path in ["/routes", "/clients"] {
        assert_fields_documented(path, &serde_json::from_str(&bridge.get(path).1).unwrap());
    }
    let output = pontoon(&["fleet", "--json", &admin]);
    assert_documented("fleet", &serde_json::from_slice(&output.stdout).unwrap());
}
