//! Records the commit that a release is built from, for `pontoon --version`.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SOURCE_COMMIT");
    // Other builds omit the commit, so that a new commit does not cause a rebuild.
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    // A container build has no repository: its Dockerfile passes the commit.
    let given = std::env::var("SOURCE_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| {
        if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
            println!("cargo:rerun-if-changed={log}");
        }
        git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
    });
    if let Some(commit) = commit {
        println!("cargo:rustc-env=PONTOON_COMMIT={commit}");
    }
}

/// Returns git's output, or `None` without git or a repository.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}
