//! Reads a TOML file into [`Values`]: checks tables, keys and types, and notes places. `validate` checks the values.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{GLOBAL, Kind, ROUTE, SettingKey};
use super::nearest::nearest;
use super::problems::Problems;
use super::values::{Given, Values};

/// The values from a file.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) global: Values,
    /// The place and the values of each route.
    pub(super) routes: Vec<(String, Values)>,
}

/// Reads `path`. Adds problems to `problems`, and returns what is valid.
pub(super) fn read(path: &Path, problems: &mut Problems) -> File {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&name, &text, problems),
        Err(error) => {
            problems.add(name, format!("cannot read the config file: {error}"));
            File::default()
        }
    }
}

pub(super) fn parse(name: &str, text: &str, problems: &mut Problems) -> File {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut walk = Walk { name, text, problems };
    if !errors.is_empty() {
        // What follows a syntax error may be misread, so only the errors themselves are reported.
        for error in &errors {
            let place = walk.place(error.span().map_or(0, |span| span.start));
            walk.problems.add(place, error.message());
        }
        return File::default();
    }
    walk.file(table.get_ref())
}

struct Walk<'a> {
    name: &'a str,
    text: &'a str,
    problems: &'a mut Problems,
}

impl Walk<'_> {
    fn file(&mut self, table: &DeTable<'_>) -> File {
        let mut file = File::default();
        for (key, value) in table {
            let place = self.place(key.span().start);
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("route", DeValue::Array(routes)) => {
                    for route in routes {
                        let place = self.place(route.span().start);
                        match route.get_ref() {
                            DeValue::Table(route) => {
                                let mut values = Values::new();
                                self.table("", route, ROUTE, &mut values);
                                file.routes.push((place, values));
                            }
                            other => self.wrong(&place, "route", "a table", other),
                        }
                    }
                }
                ("route", DeValue::Table(_)) => {
                    self.problems.add(
                        place,
                        "route: write [[route]] with double brackets, because a file may have several",
                    );
                }
                ("route", other) => self.wrong(&place, "route", "[[route]]", other),
                (section, DeValue::Table(values)) if is_section(GLOBAL, section) => {
                    self.table(&format!("{section}."), values, GLOBAL, &mut file.global);
                }
                (section, other) if is_section(GLOBAL, section) => {
                    self.wrong(&place, section, &format!("a table: [{section}]"), other);
                }
                (unknown, _) => {
                    let known =
                        GLOBAL.iter().filter_map(|key| key.path.split_once('.')).map(|(name, _)| name);
                    self.unknown(&place, "table", unknown, known.chain(["route"]));
                }
            }
        }
        file
    }

    /// Reads the keys below `prefix`, including those in its tables.
    fn table(&mut self, prefix: &str, table: &DeTable<'_>, keys: &'static [SettingKey], values: &mut Values) {
        for (name, value) in table {
            let path = format!("{prefix}{}", name.get_ref());
            let place = self.place(name.span().start);
            if let Some(key) = keys.iter().find(|key| key.path == path) {
                if let Some(given) = self.values(key, &place, value) {
                    values.insert(key.path, given);
                }
            } else if is_section(keys, &path) {
                match value.get_ref() {
                    DeValue::Table(inner) => self.table(&format!("{path}."), inner, keys, values),
                    other => self.wrong(&place, &path, "a table", other),
                }
            } else {
                // A key from another table is more likely misplaced than misspelt, so the hint stays within this table.
                let here = keys.iter().filter_map(|key| key.path.strip_prefix(prefix));
                let here = here.map(|rest| rest.split('.').next().unwrap_or(rest));
                self.unknown(&place, "key", &path, here.map(|name| format!("{prefix}{name}")));
            }
        }
    }

    fn values(&mut self, key: &SettingKey, place: &str, value: &Spanned<DeValue<'_>>) -> Option<Vec<Given>> {
        let given = |place: &str, text: &str| Given {
            place: format!("{place}: {}", key.path),
            text: text.to_owned(),
        };
        match (key.kind, value.get_ref()) {
            (Kind::Text | Kind::List | Kind::Words | Kind::Secret, DeValue::String(text)) => {
                Some(vec![given(place, text)])
            }
            (Kind::Integer, DeValue::Integer(number)) if number.radix() == 10 => {
                Some(vec![given(place, number.as_str())])
            }
            (Kind::Switch, DeValue::Boolean(switch)) => Some(vec![given(place, &switch.to_string())]),
            (Kind::List | Kind::Words, DeValue::Array(items)) => {
                let mut all = Vec::new();
                for item in items {
                    let place = self.place(item.span().start);
                    match item.get_ref() {
                        DeValue::String(text) => all.push(given(&place, text)),
                        other => self.wrong(&place, key.path, "strings", other),
                    }
                }
                Some(all)
            }
            (kind, other) => {
                let expected = match kind {
                    Kind::Text | Kind::Secret => "a string",
                    Kind::List | Kind::Words => "a string or an array of strings",
                    Kind::Integer => "an integer",
                    Kind::Switch => "true or false",
                };
                self.wrong(place, key.path, expected, other);
                None
            }
        }
    }

    fn wrong(&mut self, place: &str, path: &str, expected: &str, found: &DeValue<'_>) {
        self.problems.add(place, format!("{path}: expected {expected}, found {}", found.type_str()));
    }

    fn unknown<S: AsRef<str>>(
        &mut self,
        place: &str,
        what: &str,
        name: &str,
        known: impl Iterator<Item = S>,
    ) {
        let hint = nearest(name, known).map_or_else(
            || "see config/pontoon.toml for all keys".to_owned(),
            |known| format!("did you mean \"{}\"?", known.as_ref()),
        );
        self.problems.add(place, format!("{name}: unknown {what}; {hint}"));
    }

    /// `file:line:column`, both counted from 1, columns in characters.
    fn place(&self, offset: usize) -> String {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        format!("{}:{line}:{column}", self.name)
    }
}

fn is_section(keys: &[SettingKey], name: &str) -> bool {
    keys.iter().any(|key| key.path.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}
