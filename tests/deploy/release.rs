//! The workflows, and the scripts of a release. The tests run the scripts with stand-ins for Docker and for cargo-deb.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{checked, must, said};

fn workflow(name: &str) -> Value {
    checked("workflow", &std::fs::read_to_string(format!(".github/workflows/{name}.yml")).unwrap())
}

fn jobs(workflow: &Value) -> Vec<(&String, &Value)> {
    workflow["jobs"].as_object().unwrap().iter().collect()
}

/// All steps of a workflow.
fn steps(workflow: &Value) -> Vec<&Value> {
    jobs(workflow).into_iter().filter_map(|(_, job)| job["steps"].as_array()).flatten().collect()
}

#[test]
fn each_job_has_only_the_permissions_that_it_needs() {
    for name in ["checks", "release"] {
        let workflow = workflow(name);
        assert_eq!(workflow["permissions"], json!({ "contents": "read" }), "{name}");
        for (name, job) in jobs(&workflow) {
            let wanted = match name.as_str() {
                "image" => json!({ "contents": "read", "packages": "write" }),
                "publish" => json!({ "contents": "write" }),
                _ => Value::Null,
            };
            assert_eq!(job["permissions"], wanted, "{name}");
        }
    }
}

#[test]
fn each_action_is_pinned_and_leaves_no_credentials_behind() {
    for name in ["checks", "release"] {
        let workflow = workflow(name);
        for step in steps(&workflow).into_iter().filter(|step| step["uses"].is_string()) {
            let (action, commit) = step["uses"].as_str().unwrap().split_once('@').unwrap();
            assert!(commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit()), "{step}");
            if action == "actions/checkout" {
                assert_eq!(step["with"]["persist-credentials"], false, "{step}");
            }
        }
    }
}

#[test]
fn nothing_is_published_before_all_checks_passed() {
    let release = workflow("release");
    let jobs = &release["jobs"];
    assert_eq!(jobs["checks"]["uses"], "./.github/workflows/checks.yml");
    assert_eq!(jobs["image"]["needs"], json!(["checks", "packages"]));
    assert_eq!(jobs["image"]["if"], "github.event_name == 'push'");
    assert_eq!(jobs["publish"]["needs"], json!(["image"]));
}

#[test]
fn the_scripts_that_the_workflows_call_exist() {
    let mut called = 0;
    for name in ["checks", "release"] {
        for step in steps(&workflow(name)).into_iter().filter_map(|step| step["run"].as_str()) {
            let script = step.split(' ').find(|word| word.starts_with("config/") || word.starts_with(".ci/"));
            called += script.map_or(0, |script| {
                assert!(Path::new(script).is_file(), "{step}");
                1
            });
        }
    }
    assert_eq!(called, 5);
}

/// A folder with the project's files and stand-ins for programs, each of which notes its arguments.
struct Checkout(tempfile::TempDir);

impl Checkout {
    fn with(stand_ins: &[(&str, &str)]) -> Self {
        let copy = Self(tempfile::tempdir().unwrap());
        for name in ["Cargo.toml", "README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE", "config"] {
            symlink(std::fs::canonicalize(name).unwrap(), copy.path(name)).unwrap();
        }
        std::fs::create_dir(copy.path("bin")).unwrap();
        for (name, script) in stand_ins {
            let (path, called) = (copy.path("bin").join(name), copy.path("called"));
            let text = format!("#!/bin/sh\necho {name} \"$@\" >>'{}'\n{script}\n", called.display());
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        copy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn script(&self, name: &str) -> Command {
        let mut bash = Command::new("bash");
        bash.arg(format!("config/release/{name}.sh")).current_dir(&self.0);
        bash.env("PATH", format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap()));
        bash.env_remove("GITHUB_REF_TYPE");
        bash
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[test]
fn a_tag_of_another_version_is_refused() {
    let copy = Checkout::with(&[]);
    let tag = |name: &str| {
        let variables = [("GITHUB_REF_TYPE", "tag"), ("GITHUB_REF_NAME", name)];
        copy.script("version").envs(variables).output().unwrap()
    };
    assert_eq!(said(&tag(&format!("v{VERSION}"))), format!("{VERSION}\n"));
    let other = tag("v99.0.0");
    assert!(!other.status.success());
    assert!(said(&other).contains("the tag is v99.0.0"), "{}", said(&other));
}

#[test]
fn a_release_has_archives_packages_and_checksums_for_both_architectures() {
    let deb = r#"while [ "$1" != --target ]; do shift; done; touch "$4/pontoon_${2%%-*}.deb""#;
    let copy = Checkout::with(&[("cargo", deb)]);
    for (architecture, program) in [("amd64", env!("CARGO_BIN_EXE_pontoon")), ("arm64", "Cargo.toml")] {
        let place = copy.path("dist").join(architecture);
        std::fs::create_dir_all(&place).unwrap();
        symlink(std::fs::canonicalize(program).unwrap(), place.join("pontoon")).unwrap();
    }
    must(&mut copy.script("package"));
    let release = copy.path("dist/release");
    let sums = must(Command::new("sha256sum").args(["--check", "SHA256SUMS"]).current_dir(&release));
    let names: Vec<&str> = sums.lines().map(|line| line.strip_suffix(": OK").unwrap()).collect();
    let archive = |architecture| format!("pontoon-{VERSION}-linux-{architecture}.tar.gz");
    let (amd64, arm64) = (archive("amd64"), archive("arm64"));
    assert_eq!(names, [&amd64, &arm64, "pontoon_aarch64.deb", "pontoon_x86_64.deb"]);
    let list = must(Command::new("tar").arg("-tzf").arg(release.join(&arm64)));
    for file in
        ["pontoon", "pontoon.toml", "LICENSE-MIT", "LICENSE-APACHE", "man/pontoon.1", "man/pontoon-run.1"]
    {
        let path = format!("pontoon-{VERSION}-linux-arm64/{file}");
        assert!(list.lines().any(|line| line == path), "{path}: {list}");
    }
}

#[test]
fn the_image_is_pushed_for_both_architectures_under_its_version() {
    let copy = Checkout::with(&[("docker", "cat >/dev/null"), ("git", "echo 0123456789ab")]);
    let variables =
        [("IMAGE", "ghcr.io/shop/pontoon"), ("REGISTRY_USER", "shop"), ("REGISTRY_PASSWORD", "hunter2")];
    must(copy.script("image").envs(variables));
    let called = std::fs::read_to_string(copy.path("called")).unwrap();
    assert!(called.contains("docker login --username shop --password-stdin ghcr.io\n"), "{called}");
    assert!(
        called.contains("--platform linux/amd64,linux/arm64 --build-arg SOURCE_COMMIT=0123456789ab "),
        "{called}"
    );
    assert!(called.contains(&format!("--tag ghcr.io/shop/pontoon:{VERSION} --push .")), "{called}");
    assert!(!called.contains("hunter2"), "other programs of the machine can read arguments: {called}");
}
