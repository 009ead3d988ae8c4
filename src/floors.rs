//! Tests the structure of the crate. A module imports only from floors below its own and from its own children. A `mod.rs` holds no code. A
//! type's name is unique in the crate.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each module's floor, as in `lib.rs` and CONTRIBUTING.md.
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
    ("plan", 2),
    ("tls", 1),
    ("resolve", 1),
    ("credentials", 1),
    ("telemetry", 1),
    ("clients", 1),
    ("notify", 1),
    ("resp", 0),
    ("endpoint", 0),
    ("drain", 0),
    ("metrics", 0),
    ("counted", 0),
    ("moment", 0),
    ("workers", 0),
    ("printable", 0),
];

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The directory of the sources.
fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Each source's path below [`src`], and its text.
fn all_sources() -> impl Iterator<Item = (PathBuf, String)> {
    let mut files = Vec::new();
    sources(&src(), &mut files);
    files.into_iter().map(|file| {
        let source = fs::read_to_string(&file).unwrap();
        (file.strip_prefix(src()).unwrap().to_owned(), source)
    })
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
    let mut breaches = Vec::new();
    for (relative, source) in all_sources() {
        let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if matches!(module.as_str(), "lib" | "floors") {
            continue;
        }
        let Some(own) = floor(&module) else {
            breaches.push(format!("{module} has no floor: add it here, in lib.rs and in CONTRIBUTING.md"));
            continue;
        };
        for import in imports(&source) {
            // On the top floor, the command line may call the commands.
            let allowed = import == module || own == 7 || floor(&import).is_some_and(|other| other < own);
            if !allowed {
                breaches.push(format!("{}: imports {import}", relative.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "{breaches:#?}");
}

/// Whether a `mod.rs` holds only documentation, `mod` and `pub use`.
fn is_door(source: &str) -> bool {
    let is_code =
        |line: &&str| !line.starts_with("//") && !line.starts_with("#[") && !line.starts_with("#![doc");
    let code: Vec<&str> = source.lines().filter(is_code).collect();
    code.concat().split(';').filter(|item| !item.is_empty()).all(|item| {
        let visible = item.strip_prefix("pub").and_then(|rest| Some(rest.split_once(' ')?.1));
        let names_module = |item: &str| item.starts_with("mod ") && !item.contains('{');
        names_module(item) || visible.is_some_and(|item| names_module(item) || item.starts_with("use "))
    })
}

#[test]
fn a_mod_rs_holds_no_code() {
    let mut breaches = Vec::new();
    for (relative, source) in all_sources() {
        if src().join(&relative).with_extension("").is_dir() {
            breaches.push(format!("{}: move it to mod.rs in its children's folder", relative.display()));
        }
        if relative.ends_with("mod.rs") && !is_door(&source) {
            breaches.push(format!("{}: move its code to a named file", relative.display()));
        }
    }
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn a_mod_rs_with_code_is_recognised() {
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

/// Type names that may occur more than once, each with the reason.
const SHARED_NAMES: [(&str, &str); 2] = [
    ("Settings", "belong to the module that uses them, and are qualified elsewhere: `tls::Settings`"),
    ("Tokens", "two builds of one type: with the feature \"iam\" and without"),
];

/// Names of the types that a source defines. An indented `type` is an associated one, whose trait gives the name.
fn types(source: &str) -> impl Iterator<Item = &str> {
    source.lines().filter_map(|line| {
        let item = line.trim_start();
        let item = match item.strip_prefix("pub(") {
            Some(rest) => rest.split_once(") ")?.1,
            None => item.strip_prefix("pub ").unwrap_or(item),
        };
        let (keyword, rest) = item.split_once(' ')?;
        let defines = match keyword {
            "struct" | "enum" | "union" | "trait" => true,
            "type" => !line.starts_with(' '),
            _ => false,
        };
        let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
        (defines && name.starts_with(|c: char| c.is_uppercase())).then_some(name)
    })
}

#[test]
fn a_type_name_occurs_once_in_the_crate() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (relative, source) in all_sources() {
        for name in types(&source) {
            places.entry(name.to_owned()).or_default().push(relative.display().to_string());
        }
    }
    places.retain(|_, files| files.len() > 1);
    let shared: Vec<&str> = SHARED_NAMES.iter().map(|(name, _)| *name).collect();
    let unique: Vec<_> = shared.iter().filter(|name| !places.contains_key(**name)).collect();
    assert!(unique.is_empty(), "remove from SHARED_NAMES, unique by now: {unique:?}");
    places.retain(|name, _| !shared.contains(&name.as_str()));
    assert!(places.is_empty(), "names of more than one type: {places:#?}");
}

/// Names of a source's top-level constants. Those of a type or a function are qualified by it.
fn constants(source: &str) -> impl Iterator<Item = &str> {
    source.lines().filter_map(|line| {
        let item = match line.strip_prefix("pub(") {
            Some(rest) => rest.split_once(") ")?.1,
            None => line.strip_prefix("pub ").unwrap_or(line),
        };
        let item = item.strip_prefix("const ").or_else(|| item.strip_prefix("static "))?;
        let name = item.split(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_').next()?;
        (name.len() > 1).then_some(name)
    })
}

#[test]
fn a_constant_name_occurs_once_in_the_crate() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (relative, source) in all_sources() {
        for name in constants(&source) {
            places.entry(name.to_owned()).or_default().push(relative.display().to_string());
        }
    }
    assert!(places.len() > 100, "constants are found: {}", places.len());
    places.retain(|_, files| files.len() > 1);
    assert!(places.is_empty(), "names of more than one constant: {places:#?}");
}

#[test]
fn settings_are_qualified_by_their_module_elsewhere() {
    let mut breaches = Vec::new();
    for (relative, source) in all_sources() {
        for import in source.split("use crate::").skip(1).filter_map(|rest| rest.split(';').next()) {
            if import.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "Settings") {
                breaches.push(format!("{}: {import}", relative.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn types_are_found_with_any_visibility() {
    let source = "pub struct A<'a> {\nenum B {\npub(in crate::x) trait C: D {\npub(super) type E = F;\n    type Err = G;\n    struct H(I);\n/// struct J\nstructure K";
    assert_eq!(types(source).collect::<Vec<_>>(), ["A", "B", "C", "E", "H"]);
}
