//! The settings of `cargo deb` in Cargo.toml. Building the package itself takes a release build: CONTRIBUTING.md says how it was tried.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use super::{accepted, must, strings};

fn package() -> Value {
    let text =
        must(Command::new("cargo").args(["metadata", "--offline", "--no-deps", "--format-version", "1"]));
    let metadata: Value = serde_json::from_str(&text).unwrap();
    metadata["packages"][0]["metadata"]["deb"].clone()
}

/// Installed paths, and where they come from.
fn files() -> BTreeMap<String, String> {
    let place = |asset: &Value| {
        let [source, target, _] = &strings(asset)[..] else { panic!("{asset}") };
        let name = if target.ends_with('/') { source.rsplit('/').next().unwrap() } else { "" };
        (format!("/{target}{name}"), source.clone())
    };
    package()["assets"].as_array().unwrap().iter().map(place).collect()
}

#[test]
fn the_package_holds_what_the_unit_starts_and_reads() {
    let files = files();
    assert_eq!(files["/usr/bin/pontoon"], "target/release/pontoon");
    for source in files.values().filter(|source| !source.starts_with("target/")) {
        // A pattern stands for all files of its folder with that extension.
        let exists = match source.split_once("/*.") {
            Some((folder, ending)) => std::fs::read_dir(folder)
                .unwrap()
                .any(|entry| entry.unwrap().path().extension().is_some_and(|extension| extension == ending)),
            None => std::path::Path::new(source).is_file(),
        };
        assert!(exists, "{source}");
    }
    let unit = std::fs::read_to_string("config/systemd/pontoon.service").unwrap();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let words: Vec<&str> = start.split(' ').collect();
    assert!(files.contains_key(words[0]), "{start}");
    assert!(files.contains_key(*words.last().unwrap()), "{start}");
    let documentation = unit.lines().find_map(|line| line.strip_prefix("Documentation=file://")).unwrap();
    assert!(files.contains_key(documentation), "{documentation}");
}

#[test]
fn an_upgrade_keeps_the_configuration_and_the_first_one_is_valid() {
    let configuration = "/etc/pontoon/pontoon.toml".to_owned();
    assert!(strings(&package()["conf-files"]).contains(&configuration));
    accepted(&["run".into(), "--config".into(), files()[&configuration].clone()], &[]);
}

#[test]
fn the_service_starts_only_when_the_operator_enables_it() {
    let units = &package()["systemd-units"];
    assert_eq!((&units["enable"], &units["start"]), (&false.into(), &false.into()));
}
