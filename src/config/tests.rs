//! Tests of the example files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::keys::{GLOBAL, ROUTE};
use super::*;
#[cfg(feature = "iam")]
use crate::credentials::SecretSource;

fn examples() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect()
}

fn load(path: &Path) -> Config {
    Config::from_toml(&path.display().to_string(), &std::fs::read_to_string(path).unwrap())
        .unwrap_or_else(|problems| panic!("{problems}"))
}

fn reference() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/pontoon.toml")).unwrap()
}

#[test]
fn every_example_is_accepted() {
    let all = examples();
    assert!(all.len() >= 4);
    for path in all {
        load(&path);
    }
}

#[test]
fn the_reference_shows_the_defaults() {
    let told = Config::from_toml("pontoon.toml", &reference()).unwrap();
    let minimal = "[[route]]\nupstream = \"master.sessions.abc123.apne1.cache.amazonaws.com:6379\"\n";
    let mut default = Config::from_toml("minimal", minimal).unwrap();
    assert_eq!(default.log.level, None);
    default.log.level = Some("info".parse().unwrap());
    assert_eq!(told, default);
}

#[test]
fn the_reference_has_every_key_and_each_with_its_flag() {
    let text = reference();
    for key in ROUTE.iter().chain(GLOBAL) {
        let name = key.path.rsplit('.').next().unwrap();
        let assigned = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{name} = "));
        assert!(text.lines().any(assigned), "{} is missing", key.path);
        assert!(text.contains(&format!("--{}", key.flag)), "--{} is missing", key.flag);
    }
}

#[test]
fn keys_that_the_reference_comments_out_are_valid() {
    let config = uncommented("password_file");
    let route = &config.routes[0];
    assert_eq!(route.name, "sessions");
    assert_eq!(route.upstream.client_name.as_deref(), Some("bridge"));
    assert_eq!(route.session.idle_timeout, Some(Duration::from_secs(3600)));
    assert!(route.upstream.tls.client_auth.is_some());
    assert_eq!(config.workers.get(), 2);
}

/// Only one source of the password can be active at a time.
#[test]
fn every_password_source_in_the_reference_is_valid() {
    for source in ["password_env", "password_command", "password"] {
        let auth = uncommented(source).routes[0].upstream.auth.clone().unwrap();
        assert_eq!(auth.username.as_deref(), Some("app"));
    }
    #[cfg(feature = "iam")]
    {
        let SecretSource::Iam(iam) =
            uncommented("cache_name").routes[0].upstream.auth.clone().unwrap().source
        else {
            panic!("expected IAM")
        };
        assert_eq!((iam.cache_name.as_str(), iam.region.as_str()), ("sessions", "ap-northeast-1"));
    }
}

#[test]
fn the_keys_of_a_sentinel_group_in_the_reference_are_valid() {
    let config = uncommented_for("sentinel", "password_file");
    let route = &config.routes[0];
    let group = route.sentinel().unwrap();
    assert_eq!(&*group.master_name, "mymaster");
    assert_eq!(route.upstream.auth.as_ref().unwrap().username.as_deref(), Some("bridge"));
    assert_eq!(group.servers.auth.as_ref().unwrap().username.as_deref(), Some("app"));
}

/// The reference with everything uncommented, for a cluster. Of the sources of a password, only this one is.
fn uncommented(source: &str) -> Config {
    uncommented_for("cluster", source)
}

fn uncommented_for(topology: &str, source: &str) -> Config {
    let of_others = |key: &str| {
        // Belongs to auth.client = "verify".
        if key == "local_password_file" {
            return true;
        }
        let iam = ["cache_name", "service", "serverless", "region"].contains(&key);
        (iam && source != "cache_name") || (key.starts_with("password") && key != source)
    };
    let text: Vec<String> = reference()
        .lines()
        .map(|line| match line.strip_prefix("# ").and_then(|rest| Some((rest, rest.split_once(" = ")?.0))) {
            Some((rest, key)) if !key.contains(' ') && !of_others(key) => rest.to_owned(),
            _ => line.to_owned(),
        })
        .collect();
    // Some keys need a cluster, some need sentinels, and some need shared connections.
    let other = if topology == "cluster" { "\n[route.sentinel]\n" } else { "\n[route.cluster]\n" };
    let text = text.join("\n").replace("topology = \"standalone\"", &format!("topology = \"{topology}\""));
    let (before, rest) = text.split_once(other).unwrap();
    let text = format!("{before}{}", &rest[rest.find("\n[").unwrap()..]);
    let text = text.replace("sharing = \"dedicated\"", "sharing = \"shared\"");
    Config::from_toml("pontoon.toml", &text).unwrap()
}

#[test]
fn the_way_back_to_plaintext_needs_no_other_key() {
    let text = |mode: &str| {
        format!(
            "[[route]]\nupstream = \"x\"\ntls.mode = \"{mode}\"\ntls.ca_files = [\"x\"]\nevidence.interval = \"1m\"\n"
        )
    };
    assert_eq!(Config::from_toml("f", &text("preferred")).unwrap().warnings, [""; 0]);
    let back = Config::from_toml("f", &text("disabled")).unwrap();
    assert_eq!(
        back.warnings,
        ["no effect while tls.mode is \"disabled\": f:5:10: evidence.interval, f:4:17: tls.ca_files"]
    );
    assert!(back.routes[0].evidence.is_none());
    let contradiction = text("disabled").replace("\"x\"\ntls.mode", "\"rediss://x\"\ntls.mode");
    let problems = Config::from_toml("f", &contradiction).unwrap_err().to_string();
    assert!(problems.contains("x:6379 asks for TLS (rediss), but tls.mode is \"disabled\""), "{problems}");
}

#[test]
fn a_path_that_a_successor_could_not_lengthen_is_refused() {
    let check = |length: usize, handover: bool| {
        let path = format!("/{}", "x".repeat(length - 1));
        let text =
            format!("[[route]]\nupstream = \"x\"\nlisten = [\"unix:{path}\"]\nhandover = {handover}\n");
        Config::from_toml("f", &text).map_err(|problems| problems.to_string())
    };
    check(107, false).unwrap();
    check(102, true).unwrap();
    let problems = check(103, true).unwrap_err();
    assert!(problems.contains("with handover a path may have at most 102 bytes"), "{problems}");
}
