//! Which bridges have answered before, in a file: one that is missing later is a no.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::sources::BridgeSource;
use crate::moment::Moment;
use crate::state::replace;

/// Of the file's form.
const FLEET_VERSION: u32 = 1;

/// The file's contents.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FleetMemory {
    version: u32,
    /// By admin address: when it answered last.
    bridges: BTreeMap<String, Moment>,
}

impl FleetMemory {
    /// Reads the file. One that does not exist yet is an empty one; one that is damaged is not.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Self { version: FLEET_VERSION, bridges: BTreeMap::new() });
            }
            text => text.with_context(|| format!("{} cannot be read", path.display()))?,
        };
        let memory: Self = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no state file of `pontoon fleet`", path.display()))?;
        ensure!(
            memory.version == FLEET_VERSION,
            "{} is of version {}, and {FLEET_VERSION} is the one that is known",
            path.display(),
            memory.version
        );
        Ok(memory)
    }

    /// The bridges that have answered before.
    pub(super) fn bridges(&self) -> anyhow::Result<Vec<BridgeSource>> {
        let parse = |text: &String| text.parse().with_context(|| format!("the state file names {text}"));
        self.bridges.keys().map(parse).collect()
    }

    /// No longer expects a bridge. Whether it did.
    pub(super) fn forget(&mut self, bridge: &str) -> bool {
        self.bridges.remove(bridge).is_some()
    }

    /// Remembers that a bridge answered.
    pub(super) fn note(&mut self, bridge: String, now: Moment) {
        self.bridges.insert(bridge, now);
    }

    /// Replaces the file as a whole.
    pub(super) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        replace(path, &text).with_context(|| format!("{} cannot be written", path.display()))
    }
}
