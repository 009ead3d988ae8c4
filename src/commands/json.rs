//! Prints JSON for programs. docs/json.md describes every field.

use std::io::{Write as _, stdout};

use serde::Serialize;

use crate::printable::printable_json;

/// Version of the JSON that commands write. It rises when a field changes its meaning or is removed, but not when a field is added.
const JSON_SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Versioned<'a, T> {
    schema: u32,
    #[serde(flatten)]
    report: &'a T,
}

/// Writes an object as one line, with the schema version.
pub(super) fn print_json(report: &impl Serialize) {
    let versioned = Versioned { schema: JSON_SCHEMA, report };
    let text = serde_json::to_string(&versioned).expect("plain data has a form in JSON");
    // A reader may close the pipe early (`| head`): that is no failure.
    let _ = writeln!(stdout(), "{}", printable_json(&text));
}
