//! The Dockerfile, followed without Docker.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{must, said, strings};
use crate::harness::programs::python;

#[test]
fn its_steps_leave_a_program_where_the_image_looks_for_it() {
    let output = Command::new("python3").arg("tests/deploy/dockerfile.py").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let image: Value = serde_json::from_slice(&output.stdout).unwrap();
    let program = "/usr/local/bin/pontoon";
    assert_eq!(strings(&image["files"]), [program], "nothing else is added to the base");
    let entry = strings(&image["ENTRYPOINT"]);
    assert_eq!(entry, [program]);
    let command = [entry, strings(&image["CMD"])].concat();
    assert_eq!(command[1..], ["run"]);
    let health = strings(&image["HEALTHCHECK"]);
    assert_eq!(health[0], program);
    pontoon::cli::command().try_get_matches_from(&health).unwrap();
    assert_eq!(image["USER"], "65532:65532", "numeric, because Kubernetes' runAsNonRoot cannot check a name");
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
