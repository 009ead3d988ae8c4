//! The house has floors: a module imports only from floors below its own, and from its own children. A `mod.rs` is a
//! module's door: it holds no code.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Each module's floor, as `lib.rs` and CONTRIBUTING.md tell it.
const FLOORS: &[(&str, u8)] = &[
    ("main", 7),
    ("cli", 7),
    ("commands", 7),
    ("app", 6),
    ("config", 5),
    ("admin", 5),
    ("session", 4),
    ("cluster", 3),
    ("group", 3),
    ("listener", 3),
    ("upstream", 2),
    ("downstream", 2),
    ("state", 2),
    ("tls", 1),
    ("resolve", 1),
    ("credentials", 1),
    ("telemetry", 1),
    ("clients", 1),
    ("resp", 0),
    ("endpoint", 0),
    ("drain", 0),
    ("metrics", 0),
    ("moment", 0),
    ("workers", 0),
    ("notify", 0),
];

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

fn sources(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Modules that a source names as `crate::module`, alone or in braces.
fn imports(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in source.match_indices("crate::") {
        let rest = &source[at + "crate::".len()..];
        let names = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or("").split(',').collect(),
            None => vec![rest],
        };
        for name in names {
            let word: String =
                name.trim_start().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if !word.is_empty() {
                found.insert(word);
            }
        }
    }
    found
}

#[test]
fn modules_import_only_from_floors_below_their_own() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut breaches = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&src).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if matches!(module.as_str(), "lib" | "floors") {
            continue;
        }
        let Some(own) = floor(&module) else {
            breaches
                .push(format!("{module} has no floor: give it one here, in lib.rs and in CONTRIBUTING.md"));
            continue;
        };
        for import in imports(&fs::read_to_string(&file).unwrap()) {
            // The top floor is one flat: the command line calls the commands.
            let allowed = import == module || own == 7 || floor(&import).is_some_and(|other| other < own);
            if !allowed {
                breaches.push(format!("{}: imports {import}", relative.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "{breaches:#?}");
}

/// Modules whose doors still hold code.
const OPEN: [&str; 2] = ["resp", "session"];

/// Whether a `mod.rs` holds documentation, `mod` and `pub use`, and nothing else.
fn is_door(source: &str) -> bool {
    let is_code = |line: &&str| !line.starts_with("//") && !line.starts_with("#[");
    let code: Vec<&str> = source.lines().filter(is_code).collect();
    code.concat().split(';').filter(|item| !item.is_empty()).all(|item| {
        let visible = item.strip_prefix("pub").and_then(|rest| Some(rest.split_once(' ')?.1));
        let names_module = |item: &str| item.starts_with("mod ") && !item.contains('{');
        names_module(item) || visible.is_some_and(|item| names_module(item) || item.starts_with("use "))
    })
}

#[test]
fn a_module_with_children_has_a_door_and_no_code_in_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut breaches = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&src).unwrap();
        if OPEN.iter().any(|module| relative.starts_with(module)) {
            continue;
        }
        if file.with_extension("").is_dir() {
            breaches.push(format!("{}: its children's folder needs a mod.rs", relative.display()));
        }
        if file.ends_with("mod.rs") && !is_door(&fs::read_to_string(&file).unwrap()) {
            breaches.push(format!("{}: move its code to a named file", relative.display()));
        }
    }
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn a_door_is_told_from_a_body() {
    let door = "//! Doc.\n\nmod a;\npub mod b;\n#[cfg(test)]\nmod tests;\npub(crate) use self::a::A;\npub use self::b::{\n    B,\n    C,\n};\n";
    assert!(is_door(door));
    for body in ["use std::fmt;", "fn f() {}", "pub struct S;", "mod tests {\n}", "pub const N: u8 = 1;"] {
        assert!(!is_door(&format!("{door}{body}\n")), "{body}");
    }
}

#[test]
fn imports_are_found_alone_and_in_braces() {
    let source =
        "use crate::tls::Tls;\nuse crate::{listener, session::End};\nlet x = crate::resp::replies::encode;";
    let found: Vec<String> = imports(source).into_iter().collect();
    assert_eq!(found, ["listener", "resp", "session", "tls"]);
}
