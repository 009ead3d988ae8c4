//! What README.md and docs/ show works as shown.

use std::path::{Path, PathBuf};

use crate::harness::{Authority, Pontoon, Redis, pontoon as run};

/// Each document for users, with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> =
        ["README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "config/README.md"]
            .map(PathBuf::from)
            .to_vec();
    paths.extend(std::fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path()));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// Blocks of this language in all documents, with absolute paths moved below `root`, where the files that they name exist.
fn blocks(language: &str, root: &Path) -> Vec<(PathBuf, String)> {
    for directory in ["run/pontoon", "run/secrets", "var/lib/pontoon"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::write(root.join("run/secrets/redis"), "secret").unwrap();
    let start = format!("```{language}\n");
    let in_document = |(path, text): (PathBuf, String)| {
        let text = ["/run/", "/var/lib/"]
            .iter()
            .fold(text, |text, directory| text.replace(directory, &format!("{}{directory}", root.display())));
        let blocks = text.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
        blocks.map(|block| (path.clone(), block)).collect::<Vec<_>>()
    };
    documents().into_iter().flat_map(in_document).collect()
}

/// Lines of shell. A line that ends with a backslash is joined to the next.
fn shell_lines(root: &Path) -> Vec<(PathBuf, String)> {
    let of_block = |(path, block): (PathBuf, String)| {
        let joined = block.replace("\\\n", " ");
        joined.lines().map(|line| (path.clone(), line.to_owned())).collect::<Vec<_>>()
    };
    blocks("sh", root).into_iter().flat_map(of_block).collect()
}

#[test]
fn every_pontoon_command_in_the_documents_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let ca = Authority::new();
    let config = directory.path().join("pontoon.toml");
    std::fs::write(&config, &blocks("toml", directory.path())[0].1).unwrap();
    let mut checked = 0;
    for (path, line) in shell_lines(directory.path()) {
        let words: Vec<String> = line
            .split_whitespace()
            .map(|word| match word {
                "pontoon.toml" => config.display().to_string(),
                "ca.pem" => ca.file(),
                other => other.to_owned(),
            })
            .collect();
        let [program, command, arguments @ ..] = &words[..] else { continue };
        if program != "pontoon" {
            continue;
        }
        pontoon::cli::command()
            .try_get_matches_from(&words)
            .unwrap_or_else(|error| panic!("{}: {line}: {error}", path.display()));
        if command == "run" || command == "check" {
            let mut all = vec!["check", "--offline"];
            all.extend(arguments.iter().map(String::as_str));
            let output = run(&all);
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {line}: {error}", path.display());
            checked += 1;
        }
    }
    assert!(checked >= 5, "{checked} commands");
}

#[test]
fn every_configuration_in_the_documents_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let all = blocks("toml", directory.path());
    assert!(all.len() >= 4, "{} configurations", all.len());
    for (path, block) in all {
        let config = directory.path().join("pontoon.toml");
        std::fs::write(&config, &block).unwrap();
        let output = run(&["check", "--offline", "--config", config.to_str().unwrap()]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {block}: {error}", path.display());
    }
}

#[test]
fn every_admin_request_in_the_documents_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let mut posted = 0;
    for (path, line) in shell_lines(directory.path()) {
        let Some(arguments) = line.trim().strip_prefix("curl ") else { continue };
        let Some(path_of_url) = arguments.strip_prefix("-X POST http://127.0.0.1:9900") else {
            panic!("{}: no test runs {line}", path.display());
        };
        // Here flags configure pontoon instead of the file that the document assumes.
        let pontoon = Pontoon::to(&redis.endpoint(), &authority).ready();
        let (status, body) = pontoon.post(path_of_url);
        assert!(status == 200 || status == 202, "{line}: {status} {body}");
        posted += 1;
    }
    assert!(posted >= 2, "{posted} requests");
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_between_the_documents_leads_to_a_file_and_a_heading() {
    for (path, text) in documents() {
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.contains("://") || link.starts_with("mailto:") || link.contains(char::is_whitespace) {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link} does not exist", path.display());
            if !heading.is_empty() {
                let text = std::fs::read_to_string(&target).unwrap();
                let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
                let anchors: Vec<_> =
                    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect();
                assert!(
                    anchors.iter().any(|known| known == heading),
                    "{}: {link}: {anchors:?}",
                    path.display()
                );
            }
        }
    }
}
