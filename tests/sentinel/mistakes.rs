//! Mistakes in the configuration of a Sentinel group: `pontoon check` and the log name the thing and the remedy.

use std::path::Path;

use super::{bridge_with, configuration};
use crate::harness::{Authority, MASTER_NAME, Pontoon, SentinelGroup, SentinelSettings, free_port, pontoon};

/// What `pontoon check` prints, and whether it found everything to work.
fn check(configuration: &str, directory: &Path) -> (bool, String) {
    let file = directory.join("pontoon.toml");
    std::fs::write(&file, configuration).unwrap();
    let output = pontoon(&["check", "--config", file.to_str().unwrap()]);
    let text = [output.stdout, output.stderr].concat();
    // Columns are wrapped.
    let words: Vec<String> = String::from_utf8(text).unwrap().split_whitespace().map(str::to_owned).collect();
    (output.status.success(), words.join(" "))
}

/// Asserts that `pontoon check` fails, and that it and the log have these texts. Returns the running bridge.
#[track_caller]
fn assert_reported(text: &str, group: &SentinelGroup, in_check: &[&str], in_log: &[&str]) -> Pontoon {
    let directory = tempfile::tempdir().unwrap();
    let (works, printed) = check(text, directory.path());
    assert!(!works, "{printed}");
    for part in in_check {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    let pontoon = bridge_with(text, group, directory.path());
    pontoon.allows("");
    for part in in_log {
        pontoon.wait_for_log(part);
    }
    pontoon
}

fn group() -> SentinelGroup {
    SentinelGroup::start(SentinelSettings::tls())
}

/// The configuration of a bridge to a group without passwords.
fn right(group: &SentinelGroup) -> String {
    configuration(group, Path::new(""))
}

/// The line of the configuration that begins with `key`, replaced.
#[track_caller]
fn with(text: &str, key: &str, line: &str) -> String {
    let lines: Vec<&str> =
        text.lines().map(|found| if found.starts_with(key) { line } else { found }).collect();
    let changed = lines.join("\n") + "\n";
    assert_ne!(changed, text);
    changed
}

#[test]
fn servers_in_place_of_sentinels_are_reported() {
    let group = group();
    let servers: Vec<String> =
        group.servers.iter().map(|server| format!("\"localhost:{}\"", server.port())).collect();
    let text = with(&right(&group), "upstream", &format!("upstream = [{}]", servers.join(", ")));
    let named = format!("localhost:{}", group.servers[0].port());
    let remedy = "upstream must list the sentinels, not the servers";
    assert_reported(&text, &group, &[&named, remedy], &[remedy]);
}

#[test]
fn an_unknown_group_is_reported() {
    let group = group();
    let text = with(&right(&group), "master_name", "master_name = \"misspelt\"");
    let parts = ["misspelt", "check sentinel.master_name"];
    let pontoon = assert_reported(&text, &group, &parts, &parts);
    assert_eq!(pontoon.get("/readyz").0, 503, "no client can be served");
}

#[test]
fn a_sentinel_as_a_server_is_reported() {
    let group = group();
    let (endpoint, ca) =
        (format!("localhost:{}", group.sentinels[0].client_port()), group.authority().file());
    let remedy = "topology = \"sentinel\" and sentinel.master_name";
    for topology in ["standalone", "cluster"] {
        let text = format!(
            "admin.listen = \"127.0.0.1:0\"\n[[route]]\ntopology = \"{topology}\"\nupstream = \"{endpoint}\"\n\
             listen = \"127.0.0.1:0\"\nlimits.max_clients = 100\ntls.ca_files = [\"{ca}\"]\n"
        );
        assert_reported(&text, &group, &["the server is a sentinel", remedy], &[remedy]);
    }
}

#[test]
fn too_few_ports_are_reported() {
    let group = group();
    let first = free_port();
    let line = format!("master_name = \"{MASTER_NAME}\"\nports = \"{first}-{}\"", first + 1);
    let text = with(&right(&group), "master_name", &line);
    let parts = ["sentinel.ports"];
    assert_reported(
        &text,
        &group,
        &["sentinel.ports", "the group has 3 servers, and needs one more"],
        &parts,
    );
}

#[test]
fn one_sentinel_that_is_down_is_a_warning() {
    let mut group = group();
    let text = right(&group);
    group.sentinels[0].kill();
    let named = format!("localhost:{}", group.sentinels[0].client_port());
    let directory = tempfile::tempdir().unwrap();
    let (works, printed) = check(&text, directory.path());
    assert!(works && printed.contains(" tcp warn ") && printed.contains(&named), "{printed}");
    let pontoon: Pontoon = bridge_with(&text, &group, directory.path()).ready();
    pontoon.allows("");
    let record = pontoon.wait_for_log("some sentinels gave no answer, the others decide");
    assert!(record["error"].as_str().unwrap().contains(&named), "{record}");
}

#[test]
fn a_wrong_password_for_the_sentinels_is_reported() {
    let group = SentinelGroup::start(SentinelSettings {
        sentinel_password: Some("of-the-sentinels"),
        ..SentinelSettings::tls()
    });
    let directory = tempfile::tempdir().unwrap();
    let text = configuration(&group, directory.path());
    std::fs::write(directory.path().join("password"), "wrong").unwrap();
    let named = format!("localhost:{}", group.sentinels[0].client_port());
    assert_reported(&text, &group, &[&named, "sentinel.password_file"], &["sentinel.password_file"]);
    let without = text.lines().filter(|line| !line.starts_with("password_file"));
    let without = without.collect::<Vec<_>>().join("\n") + "\n";
    assert_reported(&without, &group, &[&named, "sentinel.password_file"], &["sentinel.password_file"]);
}

#[test]
fn a_certificate_of_another_authority_is_reported() {
    let group = group();
    let ca = Authority::new();
    let text = with(&right(&group), "tls.ca_files", &format!("tls.ca_files = [\"{}\"]", ca.file()));
    let named = format!("localhost:{}", group.sentinels[0].client_port());
    assert_reported(&text, &group, &[&named, "tls.ca_files"], &["tls.ca_files"]);
}
