//! What the README shows works as shown.

use crate::harness::pontoon as run;

/// Blocks of the README in this language.
fn blocks(language: &str) -> Vec<String> {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let start = format!("```{language}\n");
    readme.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn its_commands_are_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let ca = crate::harness::Authority::new();
    let config = directory.path().join("pontoon.toml");
    std::fs::write(&config, &blocks("toml")[0]).unwrap();
    let mut checked = 0;
    for line in blocks("sh").iter().flat_map(|block| block.lines()) {
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
    let all = blocks("toml");
    assert!(!all.is_empty());
    for block in all {
        let config = directory.path().join("pontoon.toml");
        std::fs::write(&config, &block).unwrap();
        let output = run(&["check", "--offline", "--config", config.to_str().unwrap()]);
        assert!(output.status.success(), "{block}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
