//! The Dockerfile, followed without Docker.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{must, strings};
use crate::harness::programs::python;

/// The image of this architecture, as the Dockerfile's steps make it.
fn image(architecture: &str) -> Value {
    let mut follow = Command::new("python3");
    let text = must(follow.args(["tests/deploy/dockerfile.py", "--architecture", architecture]));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn its_steps_leave_a_program_where_the_image_looks_for_it() {
    let image = image("amd64");
    let program = "/usr/local/bin/pontoon";
    assert_eq!(strings(&image["files"]), [program], "nothing else is added to the base");
    let entry = strings(&image["ENTRYPOINT"]);
    assert_eq!(entry, [program]);
    let command = [entry, strings(&image["CMD"])].concat();
    assert_eq!(command[1..], ["run"]);
    let health = strings(&image["HEALTHCHECK"]);
    assert_eq!(health[0], program);
    pontoon::cli::command().try_get_matches_from(&health).unwrap();
    for volume in ["/var/lib/pontoon", "/run/pontoon"] {
        assert!(strings(&image["VOLUME"]).contains(&volume.into()), "{volume}");
        assert_eq!(image["owners"][volume], image["USER"], "pontoon can write to a volume of the platform");
    }
    assert_eq!(image["USER"], "65532:65532", "numeric, because Kubernetes' runAsNonRoot cannot check a name");
}

#[test]
fn each_architecture_is_built_without_emulation() {
    let own = must(Command::new("dpkg").arg("--print-architecture"));
    for (architecture, cpu) in [("amd64", "x86_64"), ("arm64", "aarch64")] {
        let image = image(architecture);
        assert_eq!(image["builder"]["platform"], "$BUILDPLATFORM");
        let target = format!("{cpu}-unknown-linux-gnu");
        let mut built = vec![target.clone()];
        if own.trim() != architecture {
            built.push(format!("{cpu}-linux-gnu-gcc"));
            assert!(strings(&image["installed"]).contains(&format!("rustup target add {target}")), "{image}");
        }
        assert_eq!(strings(&image["program"]), built);
    }
}

/// The text between these two in a file.
fn between(file: &str, start: &str, end: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("{file}: {start}"));
    rest.split_once(end).unwrap().0.to_owned()
}

#[test]
fn the_image_is_built_with_the_lowest_version_of_rust_that_cargo_allows() {
    let lowest = between("Cargo.toml", "rust-version = \"", "\"");
    assert_eq!(between("README.md", "with Rust ", " or later"), lowest);
    for workflow in [".github/workflows/checks.yml", ".github/workflows/release.yml"] {
        assert_eq!(between(workflow, "RUSTUP_TOOLCHAIN: ", " "), lowest, "{workflow}");
    }
    assert_eq!(between("rust-toolchain.toml", "channel = \"", "\""), "stable", "which every machine has");
    let builder = format!("rust:{lowest}-trixie");
    assert_eq!(image("amd64")["builder"]["from"], builder.as_str());
    for file in ["config/compose/compose.yaml", ".github/workflows/checks.yml"] {
        assert_eq!(between(file, "image: ", "\n"), builder, "{file}");
    }
}

#[test]
fn what_the_program_embeds_is_copied() {
    let mut grep = Command::new("grep");
    // grep also succeeds if it finds nothing.
    let found = grep.args(["-roE", r#"include_(str|bytes)!\("[^"]+""#, "src"]).output().unwrap();
    let copied = Path::new("src").canonicalize().unwrap();
    for line in String::from_utf8(found.stdout).unwrap().lines() {
        let (file, what) = line.split_once(':').unwrap();
        let name = what.split('"').nth(1).unwrap();
        let path = Path::new(file).parent().unwrap().join(name).canonicalize().unwrap();
        assert!(path.starts_with(&copied), "{line}");
    }
}

#[test]
fn hadolint_accepts_it() {
    must(Command::new(Path::new(python().get_program()).with_file_name("hadolint")).arg("Dockerfile"));
}
