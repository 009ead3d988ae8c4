//! The files that users start from.

use std::path::{Path, PathBuf};

use super::keys::{GLOBAL, ROUTE};
use super::*;

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
fn the_reference_says_what_the_defaults_are() {
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
fn what_the_reference_comments_out_would_be_accepted() {
    let uncommented: Vec<String> = reference()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest.split(" = ").next().is_some_and(|key| !key.contains(' ')) && rest.contains(" = ") =>
            {
                rest.to_owned()
            }
            _ => line.to_owned(),
        })
        .collect();
    // Some keys are for clusters alone.
    let text = uncommented.join("\n").replace("topology = \"standalone\"", "topology = \"cluster\"");
    let config = Config::from_toml("pontoon.toml", &text).unwrap();
    let route = &config.routes[0];
    assert_eq!(route.name, "sessions");
    assert_eq!(route.upstream.client_name.as_deref(), Some("bridge"));
    assert_eq!(route.session.idle_timeout, Some(Duration::from_secs(3600)));
    assert!(route.upstream.tls.client_auth.is_some());
    assert_eq!(config.workers.get(), 2);
}

#[test]
fn what_would_be_ignored_is_refused() {
    let text = "[[route]]\nupstream = \"rediss://x\"\ntls.mode = \"disabled\"\ntls.pins = [\"x\"]\n";
    let problems = Config::from_toml("f", text).unwrap_err().to_string();
    assert!(
        problems.contains("f:4:13: tls.pins: means nothing where tls.mode is \"disabled\""),
        "{problems}"
    );
    assert!(problems.contains("\"rediss://x\" asks for TLS, and tls.mode is \"disabled\""), "{problems}");
}
