//! What the README shows works as shown.

use std::path::Path;

use crate::harness::pontoon as run;

/// Blocks of the README in this language. `root`: where the directories that they name are.
fn blocks(language: &str, root: &Path) -> Vec<String> {
    for directory in ["run/pontoon", "run/secrets", "var/lib/pontoon"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::write(root.join("run/secrets/redis"), "secret").unwrap();
    let mut readme = std::fs::read_to_string("README.md").unwrap();
    for directory in ["/run/", "/var/lib/"] {
        readme = readme.replace(directory, &format!("{}{directory}", root.display()));
    }
    let start = format!("```{language}\n");
    readme.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn its_commands_are_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let ca = crate::harness::Authority::new();
    let config = directory.path().join("pontoon.toml");
    std::fs::write(&config, &blocks("toml", directory.path())[0]).unwrap();
    let mut checked = 0;
    for line in blocks("sh", directory.path()).iter().flat_map(|block| block.lines()) {
        let words: Vec<String> = line
            .split_whitespace()
            .map(|word| match word {
                "pontoon.toml" => config.display().to_string(),
                "ca.pem" => ca.file(),
                other => other.to_owned(),
            })
            .collect();
        let [program, command, arguments @ ..] = &words[..] else { continue };
        if program == "pontoon" {
            pontoon::cli::command()
                .try_get_matches_from(&words)
                .unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        if program == "pontoon" && (command == "run" || command == "check") {
            let mut all = vec!["check", "--offline"];
            all.extend(arguments.iter().map(String::as_str));
            let output = run(&all);
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
            checked += 1;
        }
    }
    assert!(checked >= 5, "{checked} commands");
}

#[test]
fn its_configurations_are_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let all = blocks("toml", directory.path());
    assert!(!all.is_empty());
    for block in all {
        let config = directory.path().join("pontoon.toml");
        std::fs::write(&config, &block).unwrap();
        let output = run(&["check", "--offline", "--config", config.to_str().unwrap()]);
        assert!(output.status.success(), "{block}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
